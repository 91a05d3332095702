//! The text of a timeline history file. Pure.
//!
//! * In: the content that `TIMELINE_HISTORY` answers with.
//! * Out: each timeline that ended, and where.
//! * Never: I/O.

use crate::model::Lsn;

/// The lines of a history file: parent timeline, switch point, reason; separated by blanks.
pub(crate) fn parse(content: &str) -> Vec<(u32, Lsn)> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
    };
    content.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_switch_point_is_found() {
        let content = "1\t0/3000148\tno recovery target specified\n\n# a comment\n2\t0/50000A0\tno reason\n";
        assert_eq!(parse(content), [(1, Lsn(0x300_0148)), (2, Lsn(0x500_00A0))]);
    }
}
