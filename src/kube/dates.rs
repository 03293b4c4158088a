//! The ways in which dates arrive: RFC 3339 in JSON, the date of HTTP headers, and the times of certificates. All of them only in
//! UTC or with an offset.
//!
//! Must not ask a clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `2026-11-24T00:00:00Z`, with or without a fraction, with `Z` or an offset.
pub(super) fn rfc3339(text: &str) -> Option<SystemTime> {
    let (date, time) = text.trim().split_once(['T', 't'])?;
    let mut date = date.splitn(3, '-');
    let (year, month, day) = (number(date.next()?, 4)?, number(date.next()?, 2)?, number(date.next()?, 2)?);
    let zone = time.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = time.split_at(zone);
    let seconds = seconds(year, month, day, clock.split('.').next()?)?;
    let offset = match zone {
        "Z" | "z" => 0,
        _ => {
            let (sign, zone) = zone.split_at(1);
            let (hours, minutes) = zone.split_once(':')?;
            let offset = number(hours, 2)? * 3600 + number(minutes, 2)? * 60;
            if sign == "-" { -offset } else { offset }
        }
    };
    at(seconds - offset)
}

/// `Wed, 21 Oct 2015 07:28:00 GMT`, the only form that a server of today may send.
pub(super) fn http(text: &str) -> Option<SystemTime> {
    let (_, rest) = text.trim().split_once(", ")?;
    let mut words = rest.split(' ');
    let day = number(words.next()?, 2)?;
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = words.next()?;
    let month = (1..).zip(months).find(|(_, name)| *name == month)?.0;
    let year = number(words.next()?, 4)?;
    let seconds = seconds(year, month, day, words.next()?)?;
    (words.next()? == "GMT" && words.next().is_none()).then_some(())?;
    at(seconds)
}

/// `261206100000Z` or `20261206100000Z`, as RFC 5280 wants a UTCTime (tag 0x17) or a GeneralizedTime (tag 0x18) to be.
pub(super) fn der(tag: u8, text: &[u8]) -> Option<SystemTime> {
    let text = str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (year, rest) = text.split_at_checked(match tag {
        0x17 => 2,
        0x18 => 4,
        _ => return None,
    })?;
    let year = match number(year, year.len())? {
        short @ 0..50 if tag == 0x17 => 2000 + short,
        short if tag == 0x17 => 1900 + short,
        year => year,
    };
    let pairs = [0, 2, 4, 6, 8].map(|from| rest.get(from..from + 2));
    let [month, day, hour, minute, second] = pairs.map(Option::unwrap_or_default);
    let clock = format!("{hour}:{minute}:{second}");
    (rest.len() == 10).then_some(())?;
    at(seconds(year, number(month, 2)?, number(day, 2)?, &clock)?)
}

fn at(seconds: i64) -> Option<SystemTime> {
    // Before 1970 nothing is of interest: it is all equally long ago.
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds.max(0).cast_unsigned()))
}

/// Exactly so many digits.
fn number(text: &str, digits: usize) -> Option<i64> {
    (text.len() == digits && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

/// Seconds since 1970 of a day and a `HH:MM:SS`.
fn seconds(year: i64, month: i64, day: i64, clock: &str) -> Option<i64> {
    let mut clock = clock.splitn(3, ':');
    let (hour, minute, second) = (number(clock.next()?, 2)?, number(clock.next()?, 2)?, number(clock.next()?, 2)?);
    let possible = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second <= 60;
    // Years begin in March here, so that the leap day is the last.
    let (shifted_year, shifted_month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = shifted_year.div_euclid(4) - shifted_year.div_euclid(100) + shifted_year.div_euclid(400);
    let days = shifted_year * 365 + leap_days + (153 * shifted_month + 2) / 5 + day - 1 - 719_468;
    possible.then_some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_json() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-02-29T00:00:00Z", Some(951_782_400)),
            ("2026-11-24T00:00:00.123456Z", Some(1_795_478_400)),
            ("2026-11-24T02:00:00+02:00", Some(1_795_478_400)),
            ("2026-11-23T19:00:00-05:00", Some(1_795_478_400)),
            ("1960-01-01T00:00:00Z", Some(0)),
            ("9999-12-31T23:59:59Z", Some(253_402_300_799)),
            ("2026-11-24", None),
            ("2026-11-24T00:00:00", None),
            ("2026-13-24T00:00:00Z", None),
            ("+026-11-24T00:00:00Z", None),
            ("é026-11-24T00:00:00Z", None),
            ("", None),
        ] {
            let want = seconds.map(|s| UNIX_EPOCH + Duration::from_secs(s));
            assert_eq!(rfc3339(text), want, "{text}");
        }
    }

    #[test]
    fn dates_of_certificates() {
        for (tag, text, seconds) in [
            (0x17, "261124000000Z", Some(1_795_478_400)),
            (0x18, "20261124000000Z", Some(1_795_478_400)),
            (0x17, "491231235959Z", Some(2_524_607_999)),
            (0x17, "500101000000Z", Some(0)),
            (0x18, "99991231235959Z", Some(253_402_300_799)),
            (0x17, "20261124000000Z", None),
            (0x18, "261124000000Z", None),
            (0x17, "261124000000", None),
            (0x17, "2611240000Z", None),
            (0x17, "261124000000+0100", None),
            (0x17, "26é240000000Z", None),
            (0x17, "261324000000Z", None),
            (0x02, "261124000000Z", None),
            (0x17, "Z", None),
        ] {
            let want = seconds.map(|s| UNIX_EPOCH + Duration::from_secs(s));
            assert_eq!(der(tag, text.as_bytes()), want, "{text}");
        }
    }

    #[test]
    fn dates_of_headers() {
        for (text, seconds) in [
            ("Wed, 21 Oct 2015 07:28:00 GMT", Some(1_445_412_480)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Wed, 21 Oct 2015 07:28:00 CET", None),
            ("Wednesday, 21-Oct-15 07:28:00 GMT", None),
            ("soon", None),
        ] {
            let want = seconds.map(|s| UNIX_EPOCH + Duration::from_secs(s));
            assert_eq!(http(text), want, "{text}");
        }
    }
}
