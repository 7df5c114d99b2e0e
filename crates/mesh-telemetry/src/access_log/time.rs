//! The time of day as text, for `%START_TIME(…)%`.
//!
//! Always UTC. The conversions are those of `strftime` that make sense without a locale, with
//! Envoy's additions for fractions of a second: `%f` and `%3f` (digits only), `%E3S` (seconds and
//! fraction).

use mesh_core::Invalid;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A compiled time format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TimeFormat(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// `%Y-%m-%dT%H:%M:%E3SZ`, which nearly all formats have: in one piece.
    Iso,
    Year,
    ShortYear,
    Month,
    Day,
    /// Day of the month padded with a space.
    SpacedDay,
    DayOfYear,
    Hour,
    Hour12,
    HalfDay,
    Minute,
    Second,
    /// Seconds since 1970.
    Epoch,
    /// This many digits of the fraction.
    Fraction(usize),
    Weekday(bool),
    MonthName(bool),
}

/// A moment taken apart.
struct Civil {
    year: i64,
    month: usize,
    day: u64,
    day_of_year: u64,
    weekday: usize,
    second_of_day: u64,
    epoch: u64,
    nanos: u32,
}

/// Envoy's default.
const ISO: &str = "%Y-%m-%dT%H:%M:%E3SZ";

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];

// === impl TimeFormat ===

impl TimeFormat {
    /// Compiles a format; an empty one is Envoy's default, `2026-01-31T08:00:00.000Z`.
    pub(super) fn parse(source: &str) -> Result<Self, Invalid> {
        if source.is_empty() || source == ISO {
            return Ok(Self(vec![Piece::Iso]));
        }
        let mut pieces = Vec::new();
        let mut chars = source.chars();
        while let Some(c) = chars.next() {
            if c == '%' {
                conversion(&mut chars, &mut pieces)?;
            } else {
                text(&mut pieces, c.encode_utf8(&mut [0; 4]));
            }
        }
        Ok(Self(pieces))
    }

    /// Writes a moment; what is before 1970 counts as 1970.
    pub(super) fn write(&self, at: SystemTime, out: &mut Vec<u8>) {
        let civil = Civil::of(at.duration_since(UNIX_EPOCH).unwrap_or_default());
        for piece in &self.0 {
            civil.write(piece, out);
        }
    }
}

fn text(pieces: &mut Vec<Piece>, more: &str) {
    if let Some(Piece::Text(last)) = pieces.last_mut() {
        last.push_str(more);
    } else {
        pieces.push(Piece::Text(more.to_owned()));
    }
}

fn conversion(chars: &mut std::str::Chars<'_>, pieces: &mut Vec<Piece>) -> Result<(), Invalid> {
    use Piece::*;
    let unknown = |what: String| {
        let message = format!("time conversion %{what} is not known");
        Err(Invalid::new("", message))
    };
    let Some(c) = chars.next() else {
        return Err(Invalid::new("", "a time format cannot end with a single %"));
    };
    match c {
        'Y' => pieces.push(Year),
        'y' => pieces.push(ShortYear),
        'm' => pieces.push(Month),
        'd' => pieces.push(Day),
        'e' => pieces.push(SpacedDay),
        'j' => pieces.push(DayOfYear),
        'H' => pieces.push(Hour),
        'I' => pieces.push(Hour12),
        'p' => pieces.push(HalfDay),
        'M' => pieces.push(Minute),
        'S' => pieces.push(Second),
        's' => pieces.push(Epoch),
        'a' => pieces.push(Weekday(false)),
        'A' => pieces.push(Weekday(true)),
        'b' | 'h' => pieces.push(MonthName(false)),
        'B' => pieces.push(MonthName(true)),
        'z' => text(pieces, "+0000"),
        'Z' => text(pieces, "UTC"),
        'n' => text(pieces, "\n"),
        't' => text(pieces, "\t"),
        '%' => text(pieces, "%"),
        'f' => pieces.push(Fraction(9)),
        '1'..='9' => match chars.next() {
            Some('f') => pieces.push(Fraction(digit(c))),
            other => {
                return unknown(format!(
                    "{c}{}",
                    other.map_or_else(String::new, String::from)
                ));
            }
        },
        'E' => match (chars.next(), chars.next()) {
            (Some(digits @ '1'..='9'), Some('S')) => {
                pieces.push(Second);
                text(pieces, ".");
                pieces.push(Fraction(digit(digits)));
            }
            _ => return unknown("E (only %E1S to %E9S are)".to_owned()),
        },
        'F' | 'T' | 'D' | 'R' => {
            let long = match c {
                'F' => "%Y-%m-%d",
                'T' => "%H:%M:%S",
                'D' => "%m/%d/%y",
                _ => "%H:%M",
            };
            pieces.extend(TimeFormat::parse(long)?.0);
        }
        other => return unknown(other.to_string()),
    }
    Ok(())
}

fn digit(c: char) -> usize {
    c.to_digit(10).map_or(0, |digit| digit as usize)
}

// === impl Civil ===

impl Civil {
    /// Days to dates in the proleptic Gregorian calendar, counted in eras of 400 years that begin
    /// on 1 March, so that the leap day comes last.
    fn of(since_epoch: Duration) -> Self {
        let epoch = since_epoch.as_secs();
        let days = epoch / 86_400;
        let shifted = days + 719_468;
        let era = shifted / 146_097;
        let day_of_era = shifted % 146_097;
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_march_year =
            day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * day_of_march_year + 2) / 153;
        let day = day_of_march_year - (153 * march_month + 2) / 5 + 1;
        let month = if march_month < 10 {
            march_month + 3
        } else {
            march_month - 9
        };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        let leap =
            year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        // 1 March is day 60 of a common year; January and February are days 306.. of the year
        // that began the March before.
        let day_of_year = if month > 2 {
            day_of_march_year + 60 + u64::from(leap)
        } else {
            day_of_march_year - 305
        };
        Self {
            year: year as i64,
            month: month as usize,
            day,
            day_of_year,
            weekday: ((days + 4) % 7) as usize,
            second_of_day: epoch % 86_400,
            epoch,
            nanos: since_epoch.subsec_nanos(),
        }
    }

    fn iso(&self, out: &mut Vec<u8>) {
        padded(self.year.unsigned_abs(), 4, b'0', out);
        let millis = u64::from(self.nanos / 1_000_000);
        let (minute, second) = (self.second_of_day / 60 % 60, self.second_of_day % 60);
        let mut text = *b"-MM-DDThh:mm:ss.fffZ";
        for (at, two) in [
            (1, self.month as u64),
            (4, self.day),
            (7, self.second_of_day / 3600),
            (10, minute),
            (13, second),
            (16, millis / 10),
        ] {
            text[at] = b'0' + (two / 10) as u8;
            text[at + 1] = b'0' + (two % 10) as u8;
        }
        text[18] = b'0' + (millis % 10) as u8;
        out.extend_from_slice(&text);
    }

    fn write(&self, piece: &Piece, out: &mut Vec<u8>) {
        let hour = self.second_of_day / 3600;
        match piece {
            Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
            Piece::Iso => self.iso(out),
            Piece::Year => padded(self.year.unsigned_abs(), 4, b'0', out),
            Piece::ShortYear => padded(self.year.unsigned_abs() % 100, 2, b'0', out),
            Piece::Month => padded(self.month as u64, 2, b'0', out),
            Piece::Day => padded(self.day, 2, b'0', out),
            Piece::SpacedDay => padded(self.day, 2, b' ', out),
            Piece::DayOfYear => padded(self.day_of_year, 3, b'0', out),
            Piece::Hour => padded(hour, 2, b'0', out),
            Piece::Hour12 => padded((hour + 11) % 12 + 1, 2, b'0', out),
            Piece::HalfDay => out.extend_from_slice(if hour < 12 { b"AM" } else { b"PM" }),
            Piece::Minute => padded(self.second_of_day / 60 % 60, 2, b'0', out),
            Piece::Second => padded(self.second_of_day % 60, 2, b'0', out),
            Piece::Epoch => padded(self.epoch, 1, b'0', out),
            Piece::Fraction(digits) => {
                let cut = 10_u32.pow(9_u32.saturating_sub(*digits as u32));
                padded(u64::from(self.nanos / cut), *digits, b'0', out);
            }
            Piece::Weekday(long) => name(WEEKDAYS[self.weekday], *long, out),
            Piece::MonthName(long) => name(MONTHS[self.month - 1], *long, out),
        }
    }
}

fn padded(value: u64, width: usize, pad: u8, out: &mut Vec<u8>) {
    if width == 2 && value < 100 {
        // Nearly all parts of a time are like that.
        let [tens, ones] = [value / 10, value % 10].map(|digit| b'0' + digit as u8);
        return out.extend_from_slice(&[if value < 10 { pad } else { tens }, ones]);
    }
    let mut buffer = itoa::Buffer::new();
    let text = buffer.format(value);
    out.extend(std::iter::repeat_n(pad, width.saturating_sub(text.len())));
    out.extend_from_slice(text.as_bytes());
}

fn name(full: &str, long: bool, out: &mut Vec<u8>) {
    let end = if long { full.len() } else { 3 };
    out.extend_from_slice(&full.as_bytes()[..end]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(format: &str, since_epoch: Duration) -> String {
        let mut out = Vec::new();
        TimeFormat::parse(format)
            .unwrap()
            .write(UNIX_EPOCH + since_epoch, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_default_is_iso_8601_with_milliseconds() {
        let at = Duration::from_millis(1_709_210_096_007);
        assert_eq!(written("", at), "2024-02-29T12:34:56.007Z");
        assert_eq!(written("", Duration::ZERO), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn conversions_agree_with_a_known_moment() {
        // date -u -d @1709210096
        let at = Duration::new(1_709_210_096, 123_456_789);
        for (format, expected) in [
            (
                "%a %A %b %B %e %j %y",
                "Thu Thursday Feb February 29 060 24",
            ),
            ("%I:%M:%S %p %R %T", "12:34:56 PM 12:34 12:34:56"),
            ("%s.%3f %f %E6S", "1709210096.123 123456789 56.123456"),
            ("%F %D %z %Z %%", "2024-02-29 02/29/24 +0000 UTC %"),
        ] {
            assert_eq!(written(format, at), expected);
        }
        assert_eq!(written("%I %p", Duration::ZERO), "12 AM");
        // 31 December of a leap year and of a common one.
        assert_eq!(
            written("%F %j", Duration::from_secs(1_735_646_400)),
            "2024-12-31 366"
        );
        assert_eq!(
            written("%F %j", Duration::from_secs(1_767_139_200)),
            "2025-12-31 365"
        );
        assert_eq!(
            written("%F %j", Duration::from_secs(1_735_689_600)),
            "2025-01-01 001"
        );
    }

    #[test]
    fn an_unknown_conversion_is_refused_by_name() {
        assert!(
            TimeFormat::parse("%Q")
                .unwrap_err()
                .to_string()
                .contains("%Q")
        );
        assert!(TimeFormat::parse("%").is_err());
        assert!(TimeFormat::parse("%E3").is_err());
        assert!(TimeFormat::parse("%3x").is_err());
    }

    proptest! {
        #[test]
        fn successive_days_are_successive_dates(day in 0_u64..80_000) {
            let date = |day: u64| written("%Y%m%d", Duration::from_secs(day * 86_400));
            let next = written("%d", Duration::from_secs((day + 1) * 86_400));
            let this = written("%d", Duration::from_secs(day * 86_400));
            prop_assert!(date(day) < date(day + 1));
            prop_assert!(next == "01" || next.parse::<u32>() == this.parse::<u32>().map(|d| d + 1));
        }

        #[test]
        fn the_default_is_what_its_parts_say(seconds in 0_u64..400_000_000_000, nanos in 0_u32..1_000_000_000) {
            let at = Duration::new(seconds, nanos);
            prop_assert_eq!(written(ISO, at), written("%Y-%m-%dT%H:%M:%S.%3fZ", at));
        }

        #[test]
        fn parsing_never_panics(source in "[%a-zA-Z0-9é ]{0,20}") {
            let _ = TimeFormat::parse(&source);
        }
    }
}
