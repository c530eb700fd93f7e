//! Dates of a version's life: read in ISO 8601 from the document, said and read as headers have them. Seconds since
//! the Unix epoch everywhere else. Knows no clock.

use time::{Date, Month, OffsetDateTime};

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// A day (`2026-06-01`, its first second in UTC) or an instant (`2026-06-01T10:00:00Z`).
pub(crate) fn from_iso(text: &str) -> Option<u64> {
    let (day, time) = match text.split_once('T') {
        Some((day, time)) => (day, time.strip_suffix('Z')?),
        None => (text, "00:00:00"),
    };
    let mut parts = day.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    (parts.next().is_none() && year.len() == 4).then_some(())?;
    at(year, Month::try_from(two(month)?).ok()?, day, time)
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 §5.6.7).
pub(crate) fn to_imf(at_s: u64) -> Option<String> {
    let at = OffsetDateTime::from_unix_timestamp(i64::try_from(at_s).ok()?).ok()?;
    let weekday = DAYS.get(usize::from(at.weekday().number_days_from_monday()))?;
    let month = MONTHS.get(usize::from(u8::from(at.month())).checked_sub(1)?)?;
    let (day, year) = (at.day(), at.year());
    let (hour, minute, second) = at.to_hms();
    Some(format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT"))
}

/// What [`to_imf`] writes. The weekday is not compared: a wrong one makes the date no less clear.
pub(crate) fn from_imf(text: &str) -> Option<u64> {
    let (weekday, rest) = text.split_once(", ")?;
    DAYS.contains(&weekday).then_some(())?;
    let mut parts = rest.split(' ');
    let (day, month, year) = (parts.next()?, parts.next()?, parts.next()?);
    let (time, zone) = (parts.next()?, parts.next()?);
    (zone == "GMT" && parts.next().is_none() && year.len() == 4).then_some(())?;
    let month = MONTHS.iter().position(|known| *known == month)?;
    at(year, Month::try_from(u8::try_from(month).ok()?.checked_add(1)?).ok()?, day, time)
}

fn at(year: &str, month: Month, day: &str, time: &str) -> Option<u64> {
    let year = digits(year)?;
    let date = Date::from_calendar_date(i32::from(year), month, two(day)?).ok()?;
    let mut parts = time.split(':');
    let (hour, minute, second) = (parts.next()?, parts.next()?, parts.next()?);
    parts.next().is_none().then_some(())?;
    let at = date.with_hms(two(hour)?, two(minute)?, two(second)?).ok()?;
    u64::try_from(at.assume_utc().unix_timestamp()).ok()
}

fn two(text: &str) -> Option<u8> {
    (text.len() == 2).then_some(())?;
    u8::try_from(digits(text)?).ok()
}

/// `parse` alone would take a sign.
fn digits(text: &str) -> Option<u16> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v7_weekdays_are_computed() {
        for (iso, imf) in [
            ("2027-01-01", "Fri, 01 Jan 2027 00:00:00 GMT"),
            ("2027-06-01", "Tue, 01 Jun 2027 00:00:00 GMT"),
            ("1994-11-06T08:49:37Z", "Sun, 06 Nov 1994 08:49:37 GMT"),
            ("2028-02-29T23:59:59Z", "Tue, 29 Feb 2028 23:59:59 GMT"),
            ("1970-01-01", "Thu, 01 Jan 1970 00:00:00 GMT"),
            ("9999-12-31T23:59:59Z", "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            let at_s = from_iso(iso).unwrap();
            assert_eq!(to_imf(at_s).as_deref(), Some(imf), "{iso}");
            assert_eq!(from_imf(imf), Some(at_s), "{imf}");
        }
        // The specification's own sample: a Friday that says Saturday still names one second.
        assert_eq!(from_imf("Sat, 01 Jan 2027 00:00:00 GMT"), from_iso("2027-01-01"));
        assert_eq!(from_iso("2026-06-01"), Some(1_780_272_000));
    }

    #[test]
    fn what_is_no_date_is_none() {
        for bad in [
            "",
            "2026",
            "2026-6-1",
            "2026-02-29",
            "2026-13-01",
            "2026-00-01",
            "2026-06-01Z",
            "2026-06-01T10:00:00",
            "2026-06-01T10:00Z",
            "2026-06-01T24:00:00Z",
            "2026-06-01T10:00:60Z",
            "2026-06-01T10:00:00+01:00",
            "+026-06-01",
            "2026-+6-01",
            "1969-12-31",
            "02026-06-01",
            "2026-06-01-01",
            "2026-06-01 10:00:00Z",
        ] {
            assert_eq!(from_iso(bad), None, "{bad}");
        }
        for bad in [
            "",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "Sun, 31 Nov 1994 08:49:37 GMT",
            "Sun, 06 nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 GMT x",
            "Sun, 06 Nov 99994 08:49:37 GMT",
        ] {
            assert_eq!(from_imf(bad), None, "{bad}");
        }
        assert_eq!(to_imf(u64::MAX), None);
    }
}
