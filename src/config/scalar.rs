//! The text of one scalar → its meaning. Pure.
//!
//! * In: text as written.
//! * Out: a value, or a complaint that says how to write it.
//! * Never: an overflow; a number whose digits were changed.

use std::time::Duration;

use crate::config::config_error::{Complaint, shown};
use crate::model::nearest::did_you_mean;

type ScalarResult<T> = Result<T, Complaint>;

/// The longest duration: far beyond use, and safe to add to any clock.
const LONGEST: Duration = Duration::from_secs(3650 * 86_400);

/// `250ms`, `5s`, `10m`, `1h`, `30d`; `0s` is allowed.
pub(crate) fn duration(text: &str) -> ScalarResult<Duration> {
    let complain = || {
        Complaint::new(
            format!("{} is not a duration", shown(text)),
            "write a whole number and its unit: 250ms, 5s, 10m, 1h, 30d",
        )
    };
    let (number, unit) = split_unit(text).ok_or_else(complain)?;
    let millis: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(complain()),
    };
    let duration = number.checked_mul(millis).map_or(Duration::MAX, Duration::from_millis);
    if duration > LONGEST {
        return Err(Complaint::new(format!("the duration {} is too long", shown(text)), "the longest is 3650d"));
    }
    Ok(duration)
}

/// A duration that is not zero.
pub(crate) fn positive_duration(text: &str) -> ScalarResult<Duration> {
    match duration(text)? {
        Duration::ZERO => Err(Complaint::new("a duration of zero", "write at least 1ms")),
        some => Ok(some),
    }
}

/// The least time for which anything is kept.
const LEAST_KEPT: Duration = Duration::from_secs(3600);

/// For how long something is kept: what is older is removed for good, so that zero would keep nothing.
pub(crate) fn kept_for(text: &str) -> ScalarResult<Duration> {
    match duration(text)? {
        kept if kept < LEAST_KEPT => Err(Complaint::new(
            format!("{} is too short: what is older is removed for good", shown(text)),
            "write at least 1h; 3650d keeps it for ten years",
        )),
        kept => Ok(kept),
    }
}

/// `64KiB`, `8MiB`, `1GiB`, `64kB`, `8MB`, `1GB`, plain bytes.
pub(crate) fn size(text: &str) -> ScalarResult<u64> {
    let complain = || {
        Complaint::new(
            format!("{} is not a size", shown(text)),
            "write a whole number of bytes, or with a unit: 64KiB, 8MiB, 1GiB, 64kB, 8MB, 1GB",
        )
    };
    let (number, unit) = split_unit(text).ok_or_else(complain)?;
    let unit: u64 = match unit {
        "" | "B" => 1,
        "kB" | "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(complain()),
    };
    number
        .checked_mul(unit)
        .filter(|bytes| i64::try_from(*bytes).is_ok())
        .ok_or_else(|| Complaint::new(format!("the size {} is too large", shown(text)), "write a smaller size"))
}

/// Digits, then a unit, with at most spaces between them.
fn split_unit(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    Some((digits.parse().ok()?, unit.trim_start_matches(' ')))
}

/// `true`, `false`; also YAML 1.1's words for them.
pub(crate) fn boolean(text: &str) -> ScalarResult<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" => Ok(true),
        "false" | "no" | "off" => Ok(false),
        _ => Err(Complaint::new(format!("{} is neither true nor false", shown(text)), "write true or false")),
    }
}

pub(crate) fn port(text: &str) -> ScalarResult<u16> {
    text.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(|| {
        Complaint::new(format!("{} is not a TCP port", shown(text)), "write a number from 1 to 65535, such as 5432")
    })
}

/// A whole number of at least 1.
pub(crate) fn count(text: &str) -> ScalarResult<u32> {
    text.parse::<u32>().ok().filter(|count| *count > 0).ok_or_else(|| {
        Complaint::new(
            format!("{} is not a whole number of at least 1", shown(text)),
            format!("write a number from 1 to {}, such as 10000", u32::MAX),
        )
    })
}

/// A time zone by its IANA name.
pub(crate) fn zone(text: &str) -> ScalarResult<jiff::tz::TimeZone> {
    jiff::tz::TimeZone::get(text).map_err(|_| {
        let names: Vec<String> = jiff::tz::db().available().map(|name| name.to_string()).collect();
        let remedy = match crate::model::nearest::nearest(text, names.iter().map(String::as_str)) {
            Some(near) => format!("did you mean {near:?}?"),
            None => "write an IANA name, such as Europe/Stockholm or UTC".to_owned(),
        };
        Complaint::new(format!("{} is not a time zone", shown(text)), remedy)
    })
}

/// A wall-clock time, `HH:MM` or `HH:MM:SS`.
pub(crate) fn time_of_day(text: &str) -> ScalarResult<jiff::civil::Time> {
    let two = |part: &str| match part.len() {
        2 if part.bytes().all(|b| b.is_ascii_digit()) => part.parse::<i8>().ok(),
        _ => None,
    };
    let mut parts = text.split(':');
    let (hour, minute, second) = (parts.next(), parts.next(), parts.next().unwrap_or("00"));
    let time = match (hour.and_then(two), minute.and_then(two), two(second), parts.next()) {
        (Some(hour), Some(minute), Some(second), None) => jiff::civil::Time::new(hour, minute, second, 0).ok(),
        _ => None,
    };
    time.ok_or_else(|| {
        Complaint::new(
            format!("{} is not a time of day", shown(text)),
            "write it as \"HH:MM\", from \"00:00\" to \"23:59\"",
        )
    })
}

/// One of `words`, exactly.
pub(crate) fn one_of(text: &str, words: &'static [&'static str]) -> ScalarResult<&'static str> {
    words.iter().copied().find(|word| *word == text).ok_or_else(|| {
        let message = format!("{} is not one of {}", shown(text), words.join(", "));
        let remedy = match crate::model::nearest::nearest(text, words.iter().copied()) {
            Some(_) => did_you_mean(text, words.iter().copied()),
            None => format!("write {}", words.join(" or ")),
        };
        Complaint::new(message, remedy)
    })
}

/// What a plain scalar is, by YAML's core schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plain {
    Bool(bool),
    /// A finite number that is valid JSON as it stands.
    Number,
    /// A number for YAML, but not one for JSON: `007`, `0x1F`, `+5`, `.5`, `.inf`.
    OddNumber,
    Text,
}

/// Tells what a plain scalar is.
pub(crate) fn plain(text: &str) -> Plain {
    match text {
        "true" | "True" | "TRUE" => return Plain::Bool(true),
        "false" | "False" | "FALSE" => return Plain::Bool(false),
        _ => {}
    }
    if is_json_number(text) {
        return match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Plain::Number,
            Ok(_) | Err(_) => Plain::OddNumber,
        };
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let radix = |prefix: &str, radix| {
        unsigned.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| c.is_digit(radix)))
    };
    let decimal = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') && unsigned.parse::<f64>().is_ok();
    let special = matches!(unsigned.to_ascii_lowercase().as_str(), ".inf" | ".nan");
    if decimal || special || radix("0x", 16) || radix("0o", 8) { Plain::OddNumber } else { Plain::Text }
}

/// JSON's grammar of numbers.
fn is_json_number(text: &str) -> bool {
    let text = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let (whole, fraction) = mantissa.split_once('.').map_or((mantissa, None), |(whole, f)| (whole, Some(f)));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(|exponent| digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations() {
        let ms = Duration::from_millis;
        for (text, expected) in [
            ("250ms", ms(250)),
            ("5s", ms(5000)),
            ("5 s", ms(5000)),
            ("10m", ms(600_000)),
            ("1h", ms(3_600_000)),
            ("30d", ms(2_592_000_000)),
            ("0s", ms(0)),
        ] {
            assert_eq!(duration(text), Ok(expected), "{text}");
        }
        for text in
            ["", "5", "s", "-1s", "1.5s", "5 sec", "5S", "99999999999999999999s", "4000d", "18446744073709551615d"]
        {
            assert!(duration(text).is_err(), "{text}");
        }
        assert!(positive_duration("0ms").is_err());
    }

    #[test]
    fn case_259_nothing_is_kept_for_less_than_an_hour() {
        assert_eq!(kept_for("1h"), Ok(Duration::from_secs(3600)));
        for text in ["0d", "0s", "1ms", "59m"] {
            assert!(
                kept_for(text).is_err_and(|complaint| format!("{complaint:?}").contains("removed for good")),
                "{text}"
            );
        }
    }

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("0", 0),
            ("123", 123),
            ("64KiB", 65_536),
            ("64 KiB", 65_536),
            ("8MiB", 8_388_608),
            ("1GiB", 1_073_741_824),
            ("64kB", 64_000),
            ("30MB", 30_000_000),
        ] {
            assert_eq!(size(text), Ok(expected), "{text}");
        }
        for text in ["", "MiB", "-1", "1.5MiB", "8mib", "8M", "8 TB", "99999999999GiB", "18446744073709551615"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_and_zones() {
        assert_eq!(time_of_day("02:00").unwrap(), jiff::civil::time(2, 0, 0, 0));
        assert_eq!(time_of_day("23:59:59").unwrap(), jiff::civil::time(23, 59, 59, 0));
        for text in ["", "2:00", "24:00", "02:60", "02", "02:00:00:00", "+2:00", "02:00:60", "noon"] {
            assert!(time_of_day(text).is_err(), "{text}");
        }
        assert_eq!(zone("Europe/Stockholm").unwrap().iana_name(), Some("Europe/Stockholm"));
        assert_eq!(zone("Europe/Stokholm").unwrap_err().remedy, "did you mean \"Europe/Stockholm\"?");
        assert!(zone("").is_err() && zone("../../etc/passwd").is_err() && zone("CEST+2").is_err());
    }

    #[test]
    fn plain_scalars() {
        for text in ["0", "-0", "12", "1.50", "1e5", "1E-5", "123456789012345678901234567890"] {
            assert_eq!(plain(text), Plain::Number, "{text}");
        }
        for text in ["007", "0x1F", "0o17", "+5", ".5", "5.", ".inf", "-.INF", ".nan", "1e999"] {
            assert_eq!(plain(text), Plain::OddNumber, "{text}");
        }
        for text in ["", "-", ".", "1_000", "2024-01-01", "1.2.3", "0x", "inf", "nan", "off", "e5", "1e"] {
            assert_eq!(plain(text), Plain::Text, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_called_a_number_is_one_for_json(text in "[-+]?[0-9.eE]{1,8}") {
            let is_json = serde_json::from_str::<serde_json::Number>(&text).is_ok();
            prop_assert_eq!(plain(&text) == Plain::Number, is_json, "{}", text);
        }

        #[test]
        fn whole_durations_and_sizes_read_back(n in 0u64..100_000) {
            prop_assert_eq!(duration(&format!("{n}s")).unwrap(), Duration::from_secs(n));
            prop_assert_eq!(size(&format!("{n}KiB")).unwrap(), n * 1024);
        }

        #[test]
        fn nothing_panics(text in "\\PC{0,20}") {
            let _ = (duration(&text).is_ok(), size(&text).is_ok(), time_of_day(&text).is_ok(), plain(&text), port(&text).is_ok());
        }
    }
}
