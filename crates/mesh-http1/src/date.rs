//! The `date` of responses, formatted once a second.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Bytes of a date: `Sun, 06 Nov 1994 08:49:37 GMT`.
const LENGTH: usize = 29;

/// The date of the last second that was asked for.
#[derive(Debug)]
pub(crate) struct Dates {
    second: u64,
    text: [u8; LENGTH],
}

// === impl Dates ===

impl Dates {
    pub(crate) fn now(&mut self) -> &[u8; LENGTH] {
        // `httpdate` ends with the year 9999; a clock before 1970 is of no use to anybody.
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let second = now.map_or(0, |now| now.as_secs()).min(253_402_300_799);
        if second != self.second {
            *self = Self::at(second);
        }
        &self.text
    }

    fn at(second: u64) -> Self {
        let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second));
        let mut text = [b' '; LENGTH];
        let bytes = date.as_bytes();
        let len = bytes.len().min(LENGTH);
        text[..len].copy_from_slice(&bytes[..len]);
        Self { second, text }
    }
}

impl Default for Dates {
    fn default() -> Self {
        Self::at(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_written_as_rfc_9110_writes_it() {
        assert_eq!(
            &Dates::at(784_111_777).text,
            b"Sun, 06 Nov 1994 08:49:37 GMT"
        );
        let mut dates = Dates::default();
        let now = httpdate::parse_http_date(std::str::from_utf8(dates.now()).unwrap()).unwrap();
        assert!(now.elapsed().unwrap() < Duration::from_secs(60));
    }
}
