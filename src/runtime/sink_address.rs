//! Where the rows of an instance were delivered to.
//!
//! * In: `planhat.url` and the tenant.
//! * Out: a warning where either is another one than when this instance last ran: what was delivered there is not at the new one.
//! * Never: the tenant kept anywhere, for it is the credential; a digest of it is.

use sha2::{Digest, Sha256};

use crate::config::Planhat;
use crate::state::{SINK_ADDRESS, StateError, Store};

/// Notes where rows go from now on, and warns where that is elsewhere.
pub(crate) async fn note(store: &Store, planhat: &Planhat) -> Result<(), StateError> {
    let Ok(tenant) = planhat.tenant.reveal() else { return Ok(()) };
    let digest = Sha256::digest(tenant.trim().to_ascii_lowercase());
    let tenant: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let url = planhat.url.trim_end_matches('/');
    let now = format!("{url} {tenant}");
    let before = store.noted_address(SINK_ADDRESS).await?;
    if before.as_deref() == Some(&now) {
        return Ok(());
    }
    let moved = before.map(|before| {
        let before = before.split(' ').next().unwrap_or_default().to_owned();
        let what = match before == url {
            true => format!("rows go to another tenant of {url} from now on"),
            false => format!("rows were delivered to {before}, and go to {url} from now on"),
        };
        format!("{what}; those of before count as delivered, and are not there")
    });
    if let Some(what) = &moved {
        let remedy = "to send them there, too: pg2planhat resync SECTION --all; nothing, where it is the same Planhat by another name";
        tracing::warn!(what, remedy, "the sink is another one");
    }
    store.note_address(SINK_ADDRESS, &now, &moved.unwrap_or_else(|| "first seen".to_owned())).await
}
