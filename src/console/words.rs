//! Numbers, sizes and times in words. The CLI has functions of its own: a page has room for a time of two parts.
//!
//! * In: numbers.
//! * Out: text with thousands separators and units.
//! * Never: an unknown number shown as 0.

use jiff::Timestamp;

pub(crate) use crate::terminal::count;

/// Returns a measured number: with one digit below 10, without from there on.
pub(crate) fn measured(number: f64) -> String {
    if !number.is_finite() {
        return "–".to_owned();
    }
    if number > 0.0 && number < 9.95 { format!("{number:.1}") } else { count(whole(number)) }
}

/// Returns a number rounded to a whole one; 0 for a negative one.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates, which is what is meant"
)]
pub(crate) fn whole(number: f64) -> u64 {
    number.round() as u64
}

/// Returns a size, such as `84 KiB` or `2.1 MiB`.
pub(crate) fn bytes(number: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (number as f64, "bytes");
    for next in units {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, next);
    }
    if unit == "bytes" || value >= 99.95 { format!("{value:.0} {unit}") } else { format!("{value:.1} {unit}") }
}

/// Returns a time, such as `0.2 s`, `43 s`, `12 min`, `1 h 3 min` or `7 days`.
pub(crate) fn time(seconds: f64) -> String {
    match seconds {
        s if !s.is_finite() => "–".to_owned(),
        s if s < 9.95 => format!("{:.1} s", s.max(0.0)),
        s if s < 119.5 => format!("{s:.0} s"),
        s if s < 3570.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => match (whole(s / 60.0) / 60, whole(s / 60.0) % 60) {
            (hours, 0) => format!("{hours} h"),
            (hours, minutes) => format!("{hours} h {minutes} min"),
        },
        s => format!("{:.0} days", s / 86_400.0),
    }
}

/// Returns a time as [`time`] does, but with two digits below a second.
pub(crate) fn fine(seconds: f64) -> String {
    if seconds == 0.0 {
        "0".to_owned()
    } else if seconds < 0.995 {
        format!("{:.2} s", seconds.max(0.0))
    } else {
        time(seconds)
    }
}

/// Returns the duration of one answer, such as `84 ms`; from a second on as [`time`] does.
pub(crate) fn took(seconds: f64) -> String {
    if seconds < 0.995 { format!("{:.0} ms", seconds.max(0.0) * 1000.0) } else { time(seconds) }
}

/// Returns a number with its noun, such as `12 rows` or `1 row`.
pub(crate) fn plural(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// Returns the day and the time of day to the millisecond, such as `11-26 00:51:06.412`. It leaves out the year: the ledger
/// is pruned.
pub(crate) fn day_and_clock(rfc3339: &str) -> String {
    let text = rfc3339.get(5..).unwrap_or(rfc3339);
    text.get(..18).unwrap_or(text).trim_end_matches('Z').replace('T', " ")
}

/// Returns the date and the time to the second, such as `2026-11-26 00:49:03`.
pub(crate) fn moment(rfc3339: &str) -> String {
    rfc3339.get(..19).map_or_else(|| rfc3339.to_owned(), |text| text.replace('T', " "))
}

/// Returns the seconds from an RFC 3339 time to `now`; `None` where the text is no time.
pub(crate) fn since(rfc3339: &str, now: Timestamp) -> Option<f64> {
    let at: Timestamp = rfc3339.parse().ok()?;
    Some(now.duration_since(at).as_secs_f64().max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        for (number, shown) in [(0, "0"), (999, "999"), (1000, "1,000"), (12_420_000, "12,420,000")] {
            assert_eq!(count(number), shown);
        }
        assert_eq!(measured(f64::NAN), "–");
        assert_eq!([measured(0.0), measured(3.26), measured(641.6)], ["0", "3.3", "642"]);
        assert_eq!([bytes(0), bytes(84 << 10), bytes(10_952_166_604)], ["0 bytes", "84.0 KiB", "10.2 GiB"]);
        assert_eq!(whole(-3.0), 0);
    }

    #[test]
    fn case_253_the_time_of_a_batch_has_its_day() {
        assert_eq!(day_and_clock("2026-11-26T00:51:06.412Z"), "11-26 00:51:06.412");
        assert_eq!(day_and_clock("2026-11-26T00:51:06.412345Z"), "11-26 00:51:06.412");
        assert_eq!(day_and_clock("2026-11-26T00:51:06Z"), "11-26 00:51:06");
    }

    #[test]
    fn times_read_well() {
        let shown = [(0.17, "0.2 s"), (43.0, "43 s"), (720.0, "12 min"), (3780.0, "1 h 3 min"), (7200.0, "2 h")];
        for (seconds, text) in shown {
            assert_eq!(time(seconds), text);
        }
        assert_eq!(time(604_800.0), "7 days");
        assert_eq!(time(f64::NAN), "–");
        assert_eq!([took(0.0842), took(2.0)], ["84 ms", "2.0 s"]);
        assert_eq!(moment("2026-11-26T00:51:06.412Z"), "2026-11-26 00:51:06");
        assert_eq!(since("2026-11-26T00:51:06Z", "2026-11-26T00:52:06Z".parse().unwrap()), Some(60.0));
    }
}
