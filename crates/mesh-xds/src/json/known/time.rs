//! `google.protobuf.Duration` and `google.protobuf.Timestamp` as text.

use envoy_types::pb::google::protobuf::{Duration, Timestamp};

/// 10,000 years, the most that protobuf allows.
const MAX_SECONDS: i64 = 315_576_000_000;

const DAY: i64 = 86_400;

/// Reads e.g. `1.5s`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let number = text.strip_suffix('s')?;
    let (sign, number) = match number.strip_prefix('-') {
        Some(number) => (-1, number),
        None => (1, number),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || number.ends_with('.') {
        return None;
    }
    let seconds = i64::try_from(digits(whole)?).ok()?;
    (seconds <= MAX_SECONDS).then_some(())?;
    Some(Duration {
        seconds: sign * seconds,
        nanos: sign as i32 * nanos(fraction)?,
    })
}

/// Writes it with no, three, six or nine places after the point.
pub(super) fn print_duration(duration: &Duration) -> String {
    let Duration { seconds, nanos } = duration;
    let sign = if *seconds < 0 || *nanos < 0 { "-" } else { "" };
    let fraction = print_nanos(nanos.unsigned_abs());
    format!("{sign}{}{fraction}s", seconds.unsigned_abs())
}

/// Reads RFC 3339, e.g. `2006-01-02T15:04:05.5Z` or with an offset such as `+01:00`.
pub(super) fn timestamp(text: &str) -> Option<Timestamp> {
    let (date, rest) = text.split_at_checked(10)?;
    let [year, month, day] = parts(date, '-', [4, 2, 2])?;
    let rest = rest.strip_prefix(['T', 't'])?;
    let (time, rest) = rest.split_at_checked(8)?;
    let [hour, minute, second] = parts(time, ':', [2, 2, 2])?;
    let zone = rest.find(['Z', 'z', '+', '-'])?;
    let (fraction, zone) = rest.split_at(zone);
    let fraction = match fraction.strip_prefix('.') {
        Some("") => return None,
        Some(fraction) => fraction,
        None if fraction.is_empty() => "",
        None => return None,
    };
    let offset = match zone {
        "Z" | "z" => 0,
        zone => {
            let sign = if zone.starts_with('-') { -1 } else { 1 };
            let [hours, minutes] = parts(&zone[1..], ':', [2, 2])?;
            (hours < 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))?
        }
    };
    let is_real = (1..=12).contains(&month)
        && (1..=days_in(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60
        && year >= 1;
    let seconds = days(year, month, day) * DAY + hour * 3600 + minute * 60 + second - offset;
    is_real.then_some(Timestamp {
        seconds,
        nanos: nanos(fraction)?,
    })
}

/// Writes it in UTC, with no, three, six or nine places after the point.
pub(super) fn print_timestamp(timestamp: &Timestamp) -> String {
    let Timestamp { seconds, nanos } = timestamp;
    let (year, month, day) = date(seconds.div_euclid(DAY));
    let second = seconds.rem_euclid(DAY);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let fraction = print_nanos(nanos.unsigned_abs());
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

fn digits(text: &str) -> Option<u64> {
    let all = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    all.then(|| text.parse().ok()).flatten()
}

/// Digits after the point, of which there may be nine.
fn nanos(fraction: &str) -> Option<i32> {
    if fraction.is_empty() {
        return Some(0);
    }
    let missing = 9_u32.checked_sub(u32::try_from(fraction.len()).ok()?)?;
    i32::try_from(digits(fraction)? * 10_u64.pow(missing)).ok()
}

fn print_nanos(nanos: u32) -> String {
    match nanos {
        0 => String::new(),
        nanos if nanos % 1_000_000 == 0 => format!(".{:03}", nanos / 1_000_000),
        nanos if nanos % 1_000 == 0 => format!(".{:06}", nanos / 1_000),
        nanos => format!(".{nanos:09}"),
    }
}

fn parts<const N: usize>(text: &str, between: char, widths: [usize; N]) -> Option<[i64; N]> {
    let mut found = text.split(between);
    let mut parts = [0; N];
    for (part, width) in parts.iter_mut().zip(widths) {
        let text = found.next().filter(|text| text.len() == width)?;
        *part = i64::try_from(digits(text)?).ok()?;
    }
    found.next().is_none().then_some(parts)
}

fn days_in(year: i64, month: i64) -> i64 {
    let next = match month {
        12 => days(year + 1, 1, 1),
        month => days(year, month + 1, 1),
    };
    next - days(year, month, 1)
}

/// Days since 1970-01-01. Years are counted from March, so that a leap day is a year's last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let from_march = (month + 9) % 12;
    let in_year = (153 * from_march + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + in_year
        - 719_468
}

/// The day that many days after 1970-01-01.
fn date(days: i64) -> (i64, i64, i64) {
    let days = days.saturating_add(719_468);
    let cycle = days.div_euclid(146_097);
    let day = days.rem_euclid(146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let from_march = (5 * day + 2) / 153;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = cycle * 400 + year + i64::from(month <= 2);
    (year, month, day - (153 * from_march + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_read_and_written() {
        for (text, seconds, nanos, printed) in [
            ("0s", 0, 0, "0s"),
            ("10s", 10, 0, "10s"),
            ("0.25s", 0, 250_000_000, "0.250s"),
            ("1.000001s", 1, 1_000, "1.000001s"),
            ("-0.5s", 0, -500_000_000, "-0.500s"),
            ("-3.000000001s", -3, -1, "-3.000000001s"),
            ("315576000000s", MAX_SECONDS, 0, "315576000000s"),
        ] {
            let read = Duration { seconds, nanos };
            assert_eq!(duration(text), Some(read), "{text}");
            assert_eq!(print_duration(&read), printed);
        }
        for text in [
            "",
            "s",
            "1",
            "1m",
            ".5s",
            "1.s",
            "+1s",
            "--1s",
            "1e3s",
            "0.1234567890s",
        ] {
            assert_eq!(duration(text), None, "{text}");
        }
        assert_eq!(duration("315576000001s"), None);
    }

    #[test]
    fn times_are_read_and_written() {
        for (text, seconds, nanos, printed) in [
            ("1970-01-01T00:00:00Z", 0, 0, "1970-01-01T00:00:00Z"),
            (
                "2024-02-29T12:00:00.5Z",
                1_709_208_000,
                500_000_000,
                "2024-02-29T12:00:00.500Z",
            ),
            (
                "2000-01-01T00:00:00+01:30",
                946_679_400,
                0,
                "1999-12-31T22:30:00Z",
            ),
            (
                "0001-01-01T00:00:00Z",
                -62_135_596_800,
                0,
                "0001-01-01T00:00:00Z",
            ),
            (
                "9999-12-31T23:59:59Z",
                253_402_300_799,
                0,
                "9999-12-31T23:59:59Z",
            ),
        ] {
            let read = Timestamp { seconds, nanos };
            assert_eq!(timestamp(text), Some(read), "{text}");
            assert_eq!(print_timestamp(&read), printed);
        }
        for text in [
            "2023-02-29T00:00:00Z",
            "2024-13-01T00:00:00Z",
            "2024-01-01T24:00:00Z",
            "2024-01-01T00:00:00",
            "2024-01-01 00:00:00Z",
            "2024-01-01T00:00:00.Z",
            "2024-01-01T00:00:00+1:00",
            "2024-01-01T00:00:00+é",
            "",
        ] {
            assert_eq!(timestamp(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_time_survives(
            seconds in -62_135_596_800_i64..253_402_300_800,
            nanos in 0..1_000_000_000_i32,
        ) {
            let time = Timestamp { seconds, nanos };
            prop_assert_eq!(timestamp(&print_timestamp(&time)), Some(time));
        }

        #[test]
        fn no_text_and_no_value_panics(
            text in "\\PC{0,24}",
            seconds in any::<i64>(),
            nanos in any::<i32>(),
        ) {
            duration(&text);
            timestamp(&text);
            print_duration(&Duration { seconds, nanos });
            print_timestamp(&Timestamp { seconds, nanos });
        }
    }
}
