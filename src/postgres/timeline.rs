//! Timelines: where the server's history left the one that is known.

use super::wire::Wire;
use crate::config::Source;
use crate::fault::Fault;
use crate::row::Lsn;

/// Where the history of timeline `now` left timeline `before`: up to there both servers wrote the same WAL. `None` where
/// `before` is not in its history.
///
/// # Errors
/// As every connection.
pub async fn left(source: &Source, now: i64, before: i64) -> Result<Option<Lsn>, Fault> {
    let mut wire = Wire::connect(source, "pg2planhat timeline").await?;
    let now = u32::try_from(now).unwrap_or_default();
    let history = wire.timeline_history(now).await.map_err(|error| wire.fault(&error))?;
    wire.close().await;
    Ok(history.into_iter().find(|(ended, _)| i64::from(*ended) == before).map(|(_, at)| at))
}

/// The lines of a history file: parent timeline, switch point, reason; separated by blanks.
pub(super) fn parse(content: &str) -> Vec<(u32, Lsn)> {
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
