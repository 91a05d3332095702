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

/// Memory must hold two of the largest batches: one is sent while the next is filled.
pub(crate) fn memory(map: &Map<'_>, memory: Option<(Mark, u64)>, sections: &[Section]) {
    let Some((at, memory)) = memory else { return };
    if memory < LEAST_MEMORY {
        map.report(
            at,
            format!("memory of {memory} bytes is less than 4MiB ({LEAST_MEMORY} bytes)"),
            "write at least 4MiB; 64MiB is the default",
        );
    }
    let Some(largest) = sections.iter().max_by_key(|section| section.batch.bytes) else { return };
    let bytes = largest.batch.bytes;
    let needed = bytes.saturating_mul(2);
    if memory < needed {
        map.report(
            at,
            format!(
                "memory is {memory} bytes, less than two batches of section \"{}\": 2 × {bytes} = {needed} bytes",
                largest.name
            ),
            format!("write `memory: {}MiB` or more, or a smaller batch.bytes there", needed.div_ceil(1 << 20)),
        );
    }
}
