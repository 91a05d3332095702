//! Dates and times as numbers, for comparisons: microseconds since 1970-01-01 00:00.
//!
//! * In: a column's text as PostgreSQL prints it; a time as a person writes it in the configuration.
//! * Out: one number for both, so that their order is the server's: years before 1 and after 9999, and infinity, too.
//! * Never: a time whose zone was guessed.

use jiff::fmt::temporal::Pieces;
use jiff::tz::TimeZone;

use crate::mapping::time::{has_shape, in_utc, less_offset};
use crate::model::Type;

const DAY: i128 = 86_400_000_000;

/// A value of a `date`, `timestamp` or `timestamptz` column; `None` where the text is none.
pub(crate) fn of_column(text: &[u8]) -> Option<i128> {
    let text = std::str::from_utf8(text).ok()?;
    match text {
        "infinity" => return Some(i128::MAX),
        "-infinity" => return Some(i128::MIN),
        _ => {}
    }
    let (text, before_christ) = text.strip_suffix(" BC").map_or((text, false), |text| (text, true));
    // The session is pinned to UTC.
    let text = text.strip_suffix("+00").unwrap_or(text);
    let (date, time) = text.split_once(' ').map_or((text, None), |(date, time)| (date, Some(time)));
    let mut parts = date.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let year: i128 = digits(year)?;
    let year = if before_christ { 1 - year } else { year };
    let days = days_from_civil(year, digits(month)?, digits(day)?);
    let micros = time.map_or(Some(0), of_day)?;
    days.checked_mul(DAY)?.checked_add(micros)
}

fn digits(text: &str) -> Option<i128> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

/// `HH:MM:SS`, with or without a fraction of up to six digits.
fn of_day(text: &str) -> Option<i128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let mut parts = whole.split(':');
    let (hour, minute, second) = (digits(parts.next()?)?, digits(parts.next()?)?, digits(parts.next()?)?);
    if parts.next().is_some() || fraction.len() > 6 {
        return None;
    }
    let micros = digits(&format!("{fraction:0<6}"))?;
    Some(((hour * 60 + minute) * 60 + second) * 1_000_000 + micros)
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn days_from_civil(year: i128, month: i128, day: i128) -> i128 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// A time of the configuration, to be held against a column of type `ty`; without an offset it is read in `zone`. `None`
/// where it is none, or where the two could be compared only by a guess: a date has no time, and a `timestamp` no offset.
pub(crate) fn of_constant(text: &str, ty: Type, zone: Option<&TimeZone>) -> Option<i128> {
    if matches!(text, "infinity" | "-infinity") {
        return of_column(text.as_bytes());
    }
    // What jiff reads of ISO 8601 beyond this (`20240102`, week dates) is more than people mean.
    let is_date = text.as_bytes().get(..10).is_some_and(|date| has_shape(date, b"0000-00-00"));
    let pieces = Pieces::parse(text).ok().filter(|pieces| is_date && pieces.time_zone_annotation().is_none())?;
    let date = pieces.date();
    let civil = match (ty, pieces.time(), pieces.to_numeric_offset()) {
        (Type::Date, None, None) => date.at(0, 0, 0, 0),
        (Type::Timestamp, time, None) => date.to_datetime(time.unwrap_or(jiff::civil::Time::midnight())),
        (Type::TimestampTz, Some(time), Some(offset)) => less_offset(date.to_datetime(time), offset).ok()?,
        (Type::TimestampTz, time, None) => {
            let civil = date.to_datetime(time.unwrap_or(jiff::civil::Time::midnight()));
            match zone {
                Some(zone) => in_utc(civil, zone).ok()?,
                None => civil,
            }
        }
        _ => return None,
    };
    let nanos = civil.subsec_nanosecond();
    if nanos % 1000 != 0 {
        return None;
    }
    let days = days_from_civil(civil.year().into(), civil.month().into(), civil.day().into());
    let seconds = (i128::from(civil.hour()) * 60 + i128::from(civil.minute())) * 60 + i128::from(civil.second());
    Some(days * DAY + seconds * 1_000_000 + i128::from(nanos / 1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_ordered_across_eras_and_fractions() {
        let ascending = [
            "-infinity",
            "4713-01-01 00:00:00+00 BC",
            "0045-03-15 12:00:00+00 BC",
            "0044-03-15 12:00:00+00 BC",
            "0001-12-31 23:59:59.999999+00 BC",
            "0001-01-01 00:00:00+00",
            "1969-12-31 23:59:59.999999+00",
            "1970-01-01",
            "2024-02-29 23:59:59.5",
            "2024-03-01",
            "2024-03-01 00:00:00.000001",
            "10000-01-01 00:00:00+00",
            "294276-12-31 23:59:59.999999+00",
            "5874897-12-31",
            "infinity",
        ];
        let micros: Vec<i128> = ascending.iter().map(|text| of_column(text.as_bytes()).unwrap()).collect();
        assert!(micros.windows(2).all(|pair| pair[0] < pair[1]), "{micros:?}");
        assert_eq!(micros[7], 0);
        for text in ["", "x", "2024-01", "2024-01-02 03:04", "2024-01-02 03:04:05.1234567", "2024-01-02T03:04:05"] {
            assert_eq!(of_column(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn constants_are_read_by_the_columns_type() {
        let stockholm = TimeZone::get("Europe/Stockholm").unwrap();
        let column = |text: &str| of_column(text.as_bytes());
        for (constant, ty, zone, same) in [
            ("2024-07-01", Type::Date, None, "2024-07-01"),
            ("2024-07-01", Type::Timestamp, Some(&stockholm), "2024-07-01 00:00:00"),
            ("2024-07-01 12:30", Type::Timestamp, None, "2024-07-01 12:30:00"),
            ("2024-07-01T12:00:00.000001Z", Type::TimestampTz, Some(&stockholm), "2024-07-01 12:00:00.000001+00"),
            ("2024-07-01 12:00:00+02:00", Type::TimestampTz, None, "2024-07-01 10:00:00+00"),
            ("2024-07-01 12:00:00", Type::TimestampTz, Some(&stockholm), "2024-07-01 10:00:00+00"),
            ("2024-07-01", Type::TimestampTz, Some(&stockholm), "2024-06-30 22:00:00+00"),
            ("2024-07-01", Type::TimestampTz, None, "2024-07-01 00:00:00+00"),
            ("infinity", Type::Date, None, "infinity"),
        ] {
            assert!(column(same).is_some());
            assert_eq!(of_constant(constant, ty, zone), column(same), "{constant}");
        }
        for (constant, ty) in [
            ("2024-07-01 12:00", Type::Date),
            ("2024-07-01T12:00:00Z", Type::Timestamp),
            ("20240701", Type::Date),
            ("yesterday", Type::TimestampTz),
            ("2024-07-01 12:00:00.0000001", Type::Timestamp),
            ("2024-07-01", Type::Text),
        ] {
            assert_eq!(of_constant(constant, ty, None), None, "{constant}");
        }
    }
}
