//! Which items Planhat would take, after docs/planhat.md, "Items" and "Answers". Pure.
//!
//! * In: the bytes of a body, and what kind of items it holds.
//! * Out: items accepted, and items refused with the reason in Planhat's words.
//! * Never: an opinion on what the contract leaves open: it is lenient there.

use bytes::Bytes;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::sim::received::SinkKind;

/// Which of the disputed names (docs/planhat.md, "Items") activities may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Names {
    /// Both sets.
    #[default]
    Any,
    /// `externalId`, `companyExternalId`, `weight` only.
    Current,
    /// `euExtId`, `cId`, `count` only.
    Legacy,
}

/// One item of a body: its bytes, and the object if it is one.
#[derive(Debug)]
pub(crate) struct JudgedItem {
    /// Its JSON text, a part of the body.
    pub(crate) raw: Bytes,
    pub(crate) fields: Option<Map<String, Value>>,
}

/// The items of a body that is an array, or one object.
pub(crate) fn items(body: &Bytes) -> Result<Vec<JudgedItem>, String> {
    let invalid = |error: serde_json::Error| format!("invalid JSON: {error}");
    let whole: &RawValue = serde_json::from_slice(body).map_err(invalid)?;
    let items: Vec<&RawValue> = match whole.get().as_bytes().first() {
        Some(b'[') => serde_json::from_str(whole.get()).map_err(invalid)?,
        Some(b'{') => vec![whole],
        Some(_) | None => return Err("the body must be an array or an object".to_owned()),
    };
    let item = |raw: &RawValue| JudgedItem {
        raw: body.slice_ref(raw.get().as_bytes()),
        fields: serde_json::from_str(raw.get()).ok(),
    };
    Ok(items.into_iter().map(item).collect())
}

/// Why an item is refused, if it is.
pub(crate) fn refusal(kind: SinkKind, names: Names, item: &JudgedItem) -> Option<String> {
    let Some(fields) = &item.fields else { return Some("item must be an object".to_owned()) };
    match kind {
        SinkKind::Activity => activity(names, fields),
        SinkKind::Metric => metric(fields),
    }
}

fn activity(names: Names, fields: &Map<String, Value>) -> Option<String> {
    let (current, legacy) = (["externalId", "companyExternalId", "weight"], ["euExtId", "cId", "count"]);
    let foreign: &[&str] = match names {
        Names::Any => &[],
        Names::Current => &legacy,
        Names::Legacy => &current,
    };
    if let Some(name) = foreign.iter().find(|name| fields.contains_key(**name)) {
        return Some(format!("{name} is not known"));
    }
    if fields.contains_key("weight") && fields.contains_key("count") {
        return Some("weight and count must not both be specified".to_owned());
    }
    if ["email", "externalId", "euExtId"].iter().any(|name| is_specified(fields, name)) {
        return ["weight", "count"].iter().find_map(|name| not_a_number(fields, name));
    }
    Some("email or externalId must be specified".to_owned())
}

fn metric(fields: &Map<String, Value>) -> Option<String> {
    if let Some(name) = ["dimensionId", "value", "externalId"].iter().find(|name| !is_specified(fields, name)) {
        return Some(format!("{name} must be specified"));
    }
    let model = fields.get("model").is_none_or(|model| {
        ["Company", "EndUser", "Asset", "Project"].iter().any(|known| model.as_str() == Some(known))
    });
    if !model {
        return Some("model must be Company, EndUser, Asset or Project".to_owned());
    }
    not_a_number(fields, "value")
}

fn is_specified(fields: &Map<String, Value>, name: &str) -> bool {
    !matches!(fields.get(name), None | Some(Value::Null)) && fields.get(name).and_then(Value::as_str) != Some("")
}

fn not_a_number(fields: &Map<String, Value>, name: &str) -> Option<String> {
    let value = fields.get(name)?;
    let finite = value.as_f64().is_some_and(f64::is_finite);
    (!finite).then(|| format!("{name} must be a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(kind: SinkKind, names: Names, item: &str) -> String {
        let items = items(&Bytes::copy_from_slice(item.as_bytes())).unwrap();
        refusal(kind, names, &items[0]).unwrap_or_default()
    }

    #[test]
    fn metrics_need_three_fields() {
        let refused = |item| refused(SinkKind::Metric, Names::Any, item);
        assert_eq!(refused(r#"{"value":1,"externalId":"my_id","model":"Company"}"#), "dimensionId must be specified");
        assert_eq!(refused(r#"{"dimensionId":"d","externalId":"e"}"#), "value must be specified");
        assert_eq!(refused(r#"{"dimensionId":"d","value":0,"externalId":""}"#), "externalId must be specified");
        assert_eq!(refused(r#"{"dimensionId":"d","value":"1","externalId":"e"}"#), "value must be a number");
        assert_eq!(
            refused(r#"{"dimensionId":"d","value":1,"externalId":"e","model":"Enduser"}"#),
            "model must be Company, EndUser, Asset or Project"
        );
        assert_eq!(refused(r#"{"dimensionId":"d","value":0,"externalId":"e","model":"EndUser"}"#), "");
        assert_eq!(refused("[1]"), "item must be an object");
    }

    #[test]
    fn activities_need_somebody() {
        let any = |item| refused(SinkKind::Activity, Names::Any, item);
        assert_eq!(any(r#"{"action":"a"}"#), "email or externalId must be specified");
        assert_eq!(any(r#"{"email":null,"externalId":"1"}"#), "");
        assert_eq!(any(r#"{"euExtId":"1","count":2}"#), "");
        assert_eq!(any(r#"{"email":"a@b","weight":1,"count":1}"#), "weight and count must not both be specified");
        assert_eq!(any(r#"{"email":"a@b","weight":"1"}"#), "weight must be a number");
        assert_eq!(refused(SinkKind::Activity, Names::Current, r#"{"email":"a@b","cId":"1"}"#), "cId is not known");
        assert_eq!(refused(SinkKind::Activity, Names::Legacy, r#"{"externalId":"1"}"#), "externalId is not known");
    }

    #[test]
    fn bodies_are_arrays_or_objects() {
        assert_eq!(items(&Bytes::from_static(b" [ {} , {\"a\":1} ] ")).unwrap()[1].raw, "{\"a\":1}");
        assert_eq!(items(&Bytes::from_static(b"{}")).unwrap().len(), 1);
        assert_eq!(items(&Bytes::from_static(b"[]")).unwrap().len(), 0);
        for body in ["", "1", "[{]", "{} {}"] {
            assert!(items(&Bytes::from_static(body.as_bytes())).is_err(), "{body}");
        }
    }
}
