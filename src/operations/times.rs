//! Times as people write them: RFC 3339, or an age.

use jiff::{SignedDuration, SpanRelativeTo, Timestamp};

/// How a person writes a time.
pub(crate) const TIMES: &str = "write 2026-01-31T14:00:00Z, or an age such as 30m, 2h, 7d";

/// Reads a time, or an age.
pub(crate) fn time(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let wrong = |_| TIMES.to_owned();
    let age: jiff::Span = text.parse().map_err(wrong)?;
    let age: SignedDuration = age.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(wrong)?;
    Timestamp::now().checked_sub(age.abs()).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_ages_are_read() {
        assert_eq!(time("2026-01-31T14:00:00Z").unwrap().to_string(), "2026-01-31T14:00:00Z");
        for (age, seconds) in [("30m", 1800), ("2h", 7200), ("7d", 604_800)] {
            let past = Timestamp::now().duration_since(time(age).unwrap()).as_secs();
            assert!((seconds - 5..seconds + 5).contains(&past), "{age}: {past}");
        }
        assert!(time("yesterday").unwrap_err().contains("2h"));
    }
}
