//! Planhat's URLs, and texts with the tenant removed. Pure.
//!
//! * In: the configured base URL, a section's kind; the tenant only at the moment of sending.
//! * Out: an [`Endpoint`], which holds no tenant and so cannot show it; [`redact`] for what others may echo.
//! * Never: the tenant in a `Debug`, a `Display` or an error.

use std::fmt;

use reqwest::Url;

use crate::config::{Kind, Planhat};
use crate::model::Fault;

/// The placeholder for a secret.
const REDACTED: &str = "…";

/// The address for the items of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    base: Url,
    /// The path before the tenant (docs/planhat.md, "Endpoints").
    path: &'static [&'static str],
}

impl Endpoint {
    /// The endpoint for items of `kind` under the configured base URL.
    ///
    /// # Errors
    /// A usage fault where `planhat.url` is no plain http or https URL.
    pub fn new(planhat: &Planhat, kind: Kind) -> Result<Endpoint, Fault> {
        let path: &'static [&'static str] = match kind {
            Kind::UserActivity => &["analytics", "bulk"],
            Kind::CustomMetric(_) => &["dimensiondata"],
        };
        Ok(Endpoint { base: base(&planhat.url)?, path })
    }

    /// The whole URL, with the tenant. Only the client may call this, and the result must never be printed.
    pub(crate) fn url(&self, tenant: &str) -> Result<Url, Fault> {
        check_tenant(tenant)?;
        Ok(self.with_last_segment(tenant))
    }

    fn with_last_segment(&self, segment: &str) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(self.path).push(segment);
        }
        url
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "POST {}/{}/{REDACTED}", self.base.as_str().trim_end_matches('/'), self.path.join("/"))
    }
}

/// Refuses what cannot be one segment of a path: a tenant with a slash or a question mark would be another path.
pub(crate) fn check_tenant(tenant: &str) -> Result<(), Fault> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if tenant.chars().all(|c| c == '.') || !tenant.chars().all(plain) {
        return Err(Fault::usage(
            "planhat.tenant is not a tenant UUID",
            "set planhat.tenant to the UUID that Planhat shows under Settings, Tenant information",
        ));
    }
    Ok(())
}

/// Reads the base URL. User, password, query and fragment are refused: they would be sent, or shown, or neither.
pub(crate) fn base(text: &str) -> Result<Url, Fault> {
    let remedy = "set planhat.url to a URL like https://analytics.planhat.com";
    let url = Url::parse(text).map_err(|error| Fault::usage(format!("planhat.url is not a URL: {error}"), remedy))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(Fault::usage("planhat.url is not an http or https URL", remedy));
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err(Fault::usage("planhat.url has a user, a password, a query or a fragment", remedy));
    }
    Ok(url)
}

/// `text` with every secret in it blotted out, in whatever case an answer echoes it.
pub(crate) fn redact(text: &str, secrets: &[&str]) -> String {
    let mut text = text.to_owned();
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        // ASCII lowering keeps every byte where it was, so the ranges fit the original.
        let (haystack, needle) = (text.to_ascii_lowercase(), secret.to_ascii_lowercase());
        let mut clean = String::with_capacity(text.len());
        let mut rest = 0;
        for (at, found) in haystack.match_indices(&needle) {
            clean.push_str(&text[rest..at]);
            clean.push_str(REDACTED);
            rest = at + found.len();
        }
        clean.push_str(&text[rest..]);
        text = clean;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ActivityNames, Model, Secret};
    use proptest::prelude::*;
    use std::time::Duration;

    const TENANT: &str = "7f2c8e0a-1b1d-4c57-9a3e-0d7c5b1f2a33";

    fn planhat(url: &str) -> Planhat {
        Planhat {
            tenant: Secret::Inline(TENANT.into()),
            url: url.into(),
            bulk_activity_names: ActivityNames::Current,
            timeout: Duration::from_secs(30),
            halt_probe: Duration::from_secs(60),
        }
    }

    #[test]
    fn endpoints_are_planhats() {
        let activities = Endpoint::new(&planhat("https://analytics.planhat.com"), Kind::UserActivity).unwrap();
        let metrics =
            Endpoint::new(&planhat("http://gw.internal:8080/ph/"), Kind::CustomMetric(Model::Company)).unwrap();
        assert_eq!(
            activities.url(TENANT).unwrap().as_str(),
            format!("https://analytics.planhat.com/analytics/bulk/{TENANT}")
        );
        assert_eq!(metrics.url(TENANT).unwrap().as_str(), format!("http://gw.internal:8080/ph/dimensiondata/{TENANT}"));
        assert_eq!(activities.to_string(), "POST https://analytics.planhat.com/analytics/bulk/…");
        assert_eq!(metrics.to_string(), "POST http://gw.internal:8080/ph/dimensiondata/…");
        assert!(!format!("{activities:?}").contains(TENANT));
    }

    #[test]
    fn a_tenant_that_would_change_the_path_is_refused_without_being_shown() {
        let endpoint = Endpoint::new(&planhat("https://x.test"), Kind::UserActivity).unwrap();
        for tenant in ["", "..", "a/b", "a?b", "a b", "ä", "%2e"] {
            let fault = endpoint.url(tenant).unwrap_err().to_string();
            assert!(tenant.len() < 3 || !fault.contains(tenant), "{fault}");
        }
    }

    #[test]
    fn other_urls_are_refused() {
        for url in ["", "analytics.planhat.com", "ftp://x", "https://u:p@x", "https://x?q", "https://x#f", "unix:/x"] {
            let fault = Endpoint::new(&planhat(url), Kind::UserActivity).unwrap_err();
            assert!(fault.remedy.contains("planhat.url"), "{url}");
        }
    }

    proptest! {
        #[test]
        fn redaction_leaves_no_secret(before in "\\PC{0,20}", after in "\\PC{0,20}", upper: bool) {
            let echo = if upper { TENANT.to_uppercase() } else { TENANT.to_owned() };
            let clean = redact(&format!("{before}{echo}{after}{echo}"), &[TENANT, ""]);
            prop_assert_eq!(clean, format!("{before}…{after}…"));
        }
    }
}
