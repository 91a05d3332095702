//! What must hold between keys of different rooms of the file.
//!
//! * In: decoded parts.
//! * Out: reports.
//! * Never: a value changed to fit.

use crate::config::Section;
use crate::config::config_error::Mark;
use crate::config::decoder::Map;

/// The least memory that is of any use.
const LEAST_MEMORY: u64 = 4 << 20;

/// Memory must hold what a section has under way, and one batch more, which is filled meanwhile.
pub(crate) fn memory(map: &Map<'_>, memory: Option<(Mark, u64)>, sections: &[Section]) {
    let Some((at, memory)) = memory else { return };
    if memory < LEAST_MEMORY {
        map.report(
            at,
            format!("memory of {memory} bytes is less than 4MiB ({LEAST_MEMORY} bytes)"),
            "write at least 4MiB; 64MiB is the default",
        );
    }
    let batches = |section: &Section| u64::from(section.batch.in_flight) + 1;
    let held = |section: &&Section| section.batch.bytes.saturating_mul(batches(section));
    let Some(largest) = sections.iter().max_by_key(held) else { return };
    let (bytes, batches, needed) = (largest.batch.bytes, batches(largest), held(&largest));
    if memory < needed {
        map.report(
            at,
            format!(
                "memory is {memory} bytes, less than {} of section \"{}\": {batches} × {bytes} = {needed} bytes",
                if batches == 2 {
                    "two batches".to_owned()
                } else {
                    format!("the {batches} batches (batch.in_flight + 1)")
                },
                largest.name
            ),
            format!("write `memory: {}MiB` or more, or a smaller batch.bytes there", needed.div_ceil(1 << 20)),
        );
    }
}
