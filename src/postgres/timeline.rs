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
    let history = wire.simple_query(&format!("TIMELINE_HISTORY {now}")).await.map_err(|error| wire.fault(&error))?;
    wire.close().await;
    let content = history.into_iter().next().and_then(|row| row.into_iter().nth(1).flatten());
    Ok(content.and_then(|content| left_in(&content, before)))
}

/// Lines of a history file: parent timeline, switch point, reason; separated by blanks.
fn left_in(content: &str, before: i64) -> Option<Lsn> {
    content.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let parent: i64 = words.next()?.parse().ok()?;
        (parent == before).then(|| words.next()?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_switch_point_is_found() {
        let content = "1\t0/3000148\tno recovery target specified\n\n# a comment\n2\t0/50000A0\tno reason\n";
        assert_eq!(left_in(content, 1), Some(Lsn(0x300_0148)));
        assert_eq!(left_in(content, 2), Some(Lsn(0x500_00A0)));
        assert_eq!(left_in(content, 3), None);
    }
}
