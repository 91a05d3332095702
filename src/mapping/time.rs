//! Times: PostgreSQL's ISO text, free text and commit times, all to UTC RFC 3339 in quotes.
//!
//! * In: `2024-01-02 03:04:05.12+00`, `2024-01-02`, a text column's ISO 8601, microseconds since 2000.
//! * Out: `"2024-01-02T03:04:05.12Z"`, or with exactly three fraction digits (cut, not rounded).
//! * Never: a year outside 0001 to 9999; a time whose zone was guessed; a clock.

use jiff::SignedDuration;
use jiff::civil::DateTime;
use jiff::fmt::temporal::Pieces;
use jiff::tz::{AmbiguousOffset, TimeZone};

use crate::mapping::Reason;

/// How many fraction digits are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fraction {
    /// As many as PostgreSQL printed.
    AsPrinted,
    Millis,
}

/// A civil time in RFC 3339's form, less its fraction: `2024-01-02T03:04:05`.
type Seconds = [u8; 19];

const MIDNIGHT: &[u8] = b"T00:00:00.000Z\"";

/// Appends the date `2024-01-02` as the beginning of that day.
pub(crate) fn date(text: &[u8], out: &mut Vec<u8>) -> Result<(), Reason> {
    if !has_shape(text, b"0000-00-00") || text.starts_with(b"0000") {
        return Err(unfit(text));
    }
    out.push(b'"');
    out.extend_from_slice(text);
    out.extend_from_slice(MIDNIGHT);
    Ok(())
}

/// Appends a `timestamp with time zone`. The session is pinned to UTC, so its text ends with `+00`; another offset
/// is refused, for it would mean that the session is not what this program takes it for.
pub(crate) fn instant(text: &[u8], fraction: Fraction, out: &mut Vec<u8>) -> Result<(), Reason> {
    let (seconds, digits) = split(text.strip_suffix(b"+00").ok_or_else(|| unfit(text))?)?;
    write(seconds, digits, fraction, out);
    Ok(())
}

/// Appends a `timestamp without time zone`, read in `zone`.
pub(crate) fn naive(text: &[u8], zone: Option<&TimeZone>, fraction: Fraction, out: &mut Vec<u8>) -> Result<(), Reason> {
    let (mut seconds, digits) = split(text)?;
    if let Some(zone) = zone {
        // Offsets are whole seconds: the fraction stays as it is.
        let civil = std::str::from_utf8(&seconds).ok().and_then(|text| text.parse::<DateTime>().ok());
        seconds = seconds_of(in_utc(civil.ok_or(Reason::NotATime)?, zone)?)?;
    }
    write(seconds, digits, fraction, out);
    Ok(())
}

/// Appends a text column's ISO date (its day in UTC) or time (RFC 3339; without an offset: read in `zone`), with
/// milliseconds.
pub(crate) fn free_text(text: &[u8], zone: Option<&TimeZone>, out: &mut Vec<u8>) -> Result<(), Reason> {
    let text = text.trim_ascii();
    if text.is_empty() {
        return Err(Reason::Empty);
    }
    // jiff reads more of ISO 8601 than people mean: `20240102` may well be a number.
    if !text.get(..5).is_some_and(|start| has_shape(start, b"0000-")) {
        return Err(unfit(text));
    }
    let pieces = Pieces::parse(text).map_err(|_| unfit(text))?;
    if pieces.time_zone_annotation().is_some() {
        return Err(Reason::NotATime);
    }
    let civil = match (pieces.time(), pieces.to_numeric_offset(), zone) {
        (None, _, _) => pieces.date().at(0, 0, 0, 0),
        (Some(time), Some(offset), _) => less_offset(pieces.date().to_datetime(time), offset)?,
        (Some(time), None, Some(zone)) => in_utc(pieces.date().to_datetime(time), zone)?,
        (Some(time), None, None) => pieces.date().to_datetime(time),
    };
    let millis = u32::try_from(civil.subsec_nanosecond() / 1_000_000).map_err(|_| Reason::NotATime)?;
    let mut digits = [0; 3];
    put(&mut digits, millis);
    write(seconds_of(civil)?, &digits, Fraction::Millis, out);
    Ok(())
}

/// Appends a commit time, given in microseconds since 2000-01-01 00:00 UTC, with milliseconds.
pub(crate) fn commit(micros: i64, out: &mut Vec<u8>) -> Result<(), Reason> {
    const DAY: i64 = 86_400_000_000;
    let (year, month, day) = civil_from_days(micros.div_euclid(DAY) + 10_957);
    let year = u32::try_from(year).ok().filter(|year| (1..=9999).contains(year)).ok_or(Reason::OutsideYears)?;
    let millis = u32::try_from(micros.rem_euclid(DAY) / 1000).map_err(|_| Reason::OutsideYears)?;
    let (minutes, millis) = (millis / 60_000, millis % 60_000);
    let seconds = seconds_from([year, month, day, minutes / 60, minutes % 60, millis / 1000]);
    let mut digits = [0; 3];
    put(&mut digits, millis % 1000);
    write(seconds, &digits, Fraction::Millis, out);
    Ok(())
}

/// Year, month and day of the day so many days after 1970-01-01, in the proleptic Gregorian calendar (Howard Hinnant,
/// "chrono-Compatible Low-Level Date Algorithms").
fn civil_from_days(days: i64) -> (i64, u32, u32) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let small = |n: i64| u32::try_from(n).unwrap_or_default();
    let day = small(day_of_year - (153 * shifted + 2) / 5 + 1);
    let month = small(if shifted < 10 { shifted + 3 } else { shifted - 9 });
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Splits `2024-01-02 03:04:05.12` into its seconds and its fraction's digits.
fn split(text: &[u8]) -> Result<(Seconds, &[u8]), Reason> {
    let (seconds, rest) = text.split_first_chunk::<19>().ok_or_else(|| unfit(text))?;
    let digits = match rest {
        [] => rest,
        [b'.', digits @ ..] if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => digits,
        [..] => return Err(unfit(text)),
    };
    if !has_shape(seconds, b"0000-00-00 00:00:00") || seconds.starts_with(b"0000") {
        return Err(unfit(text));
    }
    let mut seconds = *seconds;
    seconds[10] = b'T';
    Ok((seconds, digits))
}

fn write(seconds: Seconds, digits: &[u8], fraction: Fraction, out: &mut Vec<u8>) {
    match fraction {
        Fraction::Millis => {
            let mut text = *b"\"0000-00-00T00:00:00.000Z\"";
            text[1..20].copy_from_slice(&seconds);
            for (to, from) in text[21..24].iter_mut().zip(digits) {
                *to = *from;
            }
            out.extend_from_slice(&text);
        }
        Fraction::AsPrinted => {
            out.push(b'"');
            out.extend_from_slice(&seconds);
            if !digits.is_empty() {
                out.push(b'.');
                out.extend_from_slice(digits);
            }
            out.extend_from_slice(b"Z\"");
        }
    }
}

/// A civil time of `zone` in UTC. A time that the zone skips (spring) moves forward by the gap's length; one that it
/// has twice (autumn) is the earlier one: jiff's "compatible" rule, which is also RFC 5545's. Done in civil time,
/// because the last day of year 9999, dear to people as "for ever", is outside jiff's instants.
pub(crate) fn in_utc(civil: DateTime, zone: &TimeZone) -> Result<DateTime, Reason> {
    let offset = match zone.to_ambiguous_timestamp(civil).offset() {
        AmbiguousOffset::Unambiguous { offset } => offset,
        AmbiguousOffset::Gap { before, .. } | AmbiguousOffset::Fold { before, .. } => before,
    };
    less_offset(civil, offset)
}

pub(crate) fn less_offset(civil: DateTime, offset: jiff::tz::Offset) -> Result<DateTime, Reason> {
    let offset = SignedDuration::from_secs(offset.seconds().into());
    civil.checked_sub(offset).map_err(|_| Reason::OutsideYears)
}

fn seconds_of(civil: DateTime) -> Result<Seconds, Reason> {
    let year = u32::try_from(civil.year()).ok().filter(|year| *year > 0).ok_or(Reason::OutsideYears)?;
    let rest = [civil.month(), civil.day(), civil.hour(), civil.minute(), civil.second()];
    let [month, day, hour, minute, second] = rest.map(|part| u32::from(part.unsigned_abs()));
    Ok(seconds_from([year, month, day, hour, minute, second]))
}

fn seconds_from([year, month, day, hour, minute, second]: [u32; 6]) -> Seconds {
    let mut text = *b"0000-00-00T00:00:00";
    put(&mut text[0..4], year);
    put(&mut text[5..7], month);
    put(&mut text[8..10], day);
    put(&mut text[11..13], hour);
    put(&mut text[14..16], minute);
    put(&mut text[17..19], second);
    text
}

/// Fills `place` with `number`, with leading zeros.
fn put(place: &mut [u8], mut number: u32) {
    for digit in place.iter_mut().rev() {
        *digit = b"0123456789"[(number % 10) as usize];
        number /= 10;
    }
}

/// Whether `text` is as long as `shape`, with a digit for each `0` of it and the same byte elsewhere.
pub(crate) fn has_shape(text: &[u8], shape: &[u8]) -> bool {
    text.len() == shape.len()
        && text
            .iter()
            .zip(shape)
            .all(|(byte, wanted)| if *wanted == b'0' { byte.is_ascii_digit() } else { byte == wanted })
}

/// Why a text is no time that can be sent: PostgreSQL's infinities, BC, and years of more than four digits are times.
fn unfit(text: &[u8]) -> Reason {
    let year = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let outside = matches!(text, b"infinity" | b"-infinity")
        || text.ends_with(b" BC")
        || (year > 4 && text.get(year) == Some(&b'-'))
        || text.starts_with(b"0000-");
    if outside { Reason::OutsideYears } else { Reason::NotATime }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(write: impl FnOnce(&mut Vec<u8>) -> Result<(), Reason>) -> Result<String, Reason> {
        let mut out = Vec::new();
        write(&mut out).map(|()| String::from_utf8(out).unwrap().trim_matches('"').to_owned())
    }

    fn stockholm() -> TimeZone {
        TimeZone::get("Europe/Stockholm").unwrap()
    }

    #[test]
    fn instants_keep_or_cut_their_fraction() {
        for (from, printed, millis) in [
            ("2024-01-02 03:04:05+00", "2024-01-02T03:04:05Z", "2024-01-02T03:04:05.000Z"),
            ("2024-01-02 03:04:05.12+00", "2024-01-02T03:04:05.12Z", "2024-01-02T03:04:05.120Z"),
            ("2024-01-02 03:04:05.999999+00", "2024-01-02T03:04:05.999999Z", "2024-01-02T03:04:05.999Z"),
            ("0001-01-01 00:00:00+00", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000Z"),
            ("9999-12-31 23:59:59.5+00", "9999-12-31T23:59:59.5Z", "9999-12-31T23:59:59.500Z"),
        ] {
            assert_eq!(text(|out| instant(from.as_bytes(), Fraction::AsPrinted, out)).unwrap(), printed);
            assert_eq!(text(|out| instant(from.as_bytes(), Fraction::Millis, out)).unwrap(), millis);
        }
    }

    #[test]
    fn what_rfc_3339_cannot_say_is_refused() {
        for from in [
            "infinity",
            "-infinity",
            "0044-03-15 12:00:00+00 BC",
            "10000-01-01 00:00:00+00",
            "294276-12-31 23:59:59+00",
        ] {
            assert_eq!(
                text(|out| instant(from.as_bytes(), Fraction::Millis, out)),
                Err(Reason::OutsideYears),
                "{from}"
            );
            let naive_text = from.replace("+00", "");
            assert_eq!(
                text(|out| naive(naive_text.as_bytes(), None, Fraction::Millis, out)),
                Err(Reason::OutsideYears)
            );
        }
        for from in ["infinity", "-infinity", "0044-03-15 BC", "10000-01-01", "5874897-12-31", "0000-01-01"] {
            assert_eq!(text(|out| date(from.as_bytes(), out)), Err(Reason::OutsideYears), "{from}");
        }
        for from in
            ["", "2024-01-02 03:04:05+02", "2024-01-02 03:04:05.+00", "02/01/2024 03:04:05+00", "2024-01-02 03:04:05"]
        {
            assert_eq!(text(|out| instant(from.as_bytes(), Fraction::Millis, out)), Err(Reason::NotATime), "{from}");
        }
    }

    #[test]
    fn dates_are_their_beginning() {
        assert_eq!(text(|out| date(b"2024-02-29", out)).unwrap(), "2024-02-29T00:00:00.000Z");
        assert_eq!(text(|out| date(b"2024-2-9", out)), Err(Reason::NotATime));
    }

    #[test]
    fn naive_times_are_utc_or_of_the_zone() {
        let read =
            |from: &str, zone: Option<&TimeZone>| text(|out| naive(from.as_bytes(), zone, Fraction::AsPrinted, out));
        let zone = stockholm();
        assert_eq!(read("2024-07-01 12:00:00.000001", None).unwrap(), "2024-07-01T12:00:00.000001Z");
        assert_eq!(read("2024-07-01 12:00:00.000001", Some(&zone)).unwrap(), "2024-07-01T10:00:00.000001Z");
        assert_eq!(read("2024-01-01 00:30:00", Some(&zone)).unwrap(), "2023-12-31T23:30:00Z");
        assert_eq!(read("2024-03-31 02:30:00", Some(&zone)).unwrap(), "2024-03-31T01:30:00Z", "skipped: read as 03:30");
        assert_eq!(read("2024-10-27 02:30:00", Some(&zone)).unwrap(), "2024-10-27T00:30:00Z", "twice: the first");
        assert_eq!(read("9999-12-31 23:59:59", Some(&zone)).unwrap(), "9999-12-31T22:59:59Z");
        assert_eq!(read("0001-01-01 00:00:00", Some(&zone)), Err(Reason::OutsideYears));
        let west = TimeZone::get("America/New_York").unwrap();
        assert_eq!(read("9999-12-31 23:59:59", Some(&west)), Err(Reason::OutsideYears));
    }

    #[test]
    fn free_text_is_read_where_it_is_iso() {
        let zone = stockholm();
        let read = |from: &str| text(|out| free_text(from.as_bytes(), Some(&zone), out));
        assert_eq!(read("2024-07-01").unwrap(), "2024-07-01T00:00:00.000Z");
        assert_eq!(read(" 2024-07-01T12:00:00Z ").unwrap(), "2024-07-01T12:00:00.000Z");
        assert_eq!(read("2024-07-01T12:00:00.12345+05:30").unwrap(), "2024-07-01T06:30:00.123Z");
        assert_eq!(read("2024-07-01 12:00:00+00").unwrap(), "2024-07-01T12:00:00.000Z");
        assert_eq!(read("2024-07-01 12:00").unwrap(), "2024-07-01T10:00:00.000Z");
        assert_eq!(read("9999-12-31T23:59:59Z").unwrap(), "9999-12-31T23:59:59.000Z");
        assert_eq!(text(|out| free_text(b"2024-07-01 12:00", None, out)).unwrap(), "2024-07-01T12:00:00.000Z");
        for bad in [
            "yesterday",
            "01/07/2024",
            "20240701",
            "1719835200",
            "2024-13-01",
            "2024-02-30",
            "2024-07-01T12:00[Asia/Tokyo]",
        ] {
            assert_eq!(read(bad), Err(Reason::NotATime), "{bad}");
        }
        assert_eq!(read("infinity"), Err(Reason::OutsideYears));
        assert_eq!(read("0000-01-01"), Err(Reason::OutsideYears));
        assert_eq!(read(" "), Err(Reason::Empty));
    }

    #[test]
    fn commit_times_beyond_four_digit_years_are_refused() {
        assert_eq!(text(|out| commit(0, out)).unwrap(), "2000-01-01T00:00:00.000Z");
        assert_eq!(text(|out| commit(-1, out)).unwrap(), "1999-12-31T23:59:59.999Z");
        for micros in [i64::MIN, i64::MAX, 300_000_000_000_000_000] {
            assert_eq!(text(|out| commit(micros, out)), Err(Reason::OutsideYears));
        }
    }

    #[test]
    fn every_day_of_four_digit_years_is_jiffs() {
        let mut date = jiff::civil::date(1, 1, 1);
        for days in -719_162.. {
            let (year, month, day) = civil_from_days(days);
            let found = (i64::from(date.year()), date.month().unsigned_abs().into(), date.day().unsigned_abs().into());
            assert_eq!((year, month, day), found);
            match date.tomorrow() {
                Ok(tomorrow) => date = tomorrow,
                Err(_) => break,
            }
        }
    }

    proptest! {
        #[test]
        fn commit_times_are_jiffs(micros in -60_000_000_000_000_000i64..250_000_000_000_000_000) {
            let since_1970 = jiff::Timestamp::from_microsecond(micros + 946_684_800_000_000).unwrap();
            let wanted = since_1970.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string();
            prop_assert_eq!(text(|out| commit(micros, out)).unwrap(), wanted);
        }

        #[test]
        fn naive_times_of_a_zone_are_jiffs_compatible_ones(
            zone in prop::sample::select(vec![
                "Europe/Stockholm", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "Africa/Monrovia",
            ]),
            from in -3_000_000_000i64..4_000_000_000,
            near in prop::option::of(-5_400i64..5_400),
        ) {
            let zone = TimeZone::get(zone).unwrap();
            let from = jiff::Timestamp::from_second(from).unwrap();
            // Half of the times are near a change of the zone's offset, where they may be skipped or come twice.
            let change = zone.following(from).next().map_or(from, |change| change.timestamp());
            let civil = near.map_or(zone.to_datetime(from), |near| {
                zone.to_datetime(change) + SignedDuration::from_secs(near)
            });
            let wanted = zone.to_timestamp(civil).unwrap().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
            let from = civil.strftime("%Y-%m-%d %H:%M:%S").to_string();
            let got = text(|out| naive(from.as_bytes(), Some(&zone), Fraction::AsPrinted, out)).unwrap();
            prop_assert_eq!(got, wanted);
        }
    }
}
