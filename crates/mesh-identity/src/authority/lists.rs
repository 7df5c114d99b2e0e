//! Certificates that are no longer to be trusted.

use super::time;
use crate::pem;
use mesh_core::Invalid;
use rcgen::{CertificateRevocationListParams, KeyIdMethod, RevokedCertParams, SerialNumber};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;
use x509_parser::prelude::{CertificateRevocationList, FromDer};

/// How many certificates can be revoked at the same time.
pub const MAX_REVOKED_SERIALS: usize = 100_000;

/// For how long a list is good. It is written anew long before, and peers refuse everybody once it
/// is over.
pub(super) const LIST_LIFETIME: Duration = Duration::from_secs(30 * 86_400);

/// The serial number of a certificate, as its issuer wrote it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Serial(Vec<u8>);

/// The serial numbers of revoked certificates, and when that was, in seconds since 1970.
pub(super) type Revoked = BTreeMap<Serial, i64>;

/// What a list is to say.
pub(super) struct List<'a> {
    pub(super) revoked: &'a Revoked,
    pub(super) now: i64,
}

// === impl Serial ===

impl Serial {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        Self(bytes[zeros..].to_vec())
    }
}

impl FromStr for Serial {
    type Err = Invalid;

    /// Reads hexadecimal digits, with or without colons between bytes (as `openssl x509 -serial`
    /// and `-text` show them).
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let wrong = || {
            let message = "not a serial number: 1 to 40 hexadecimal digits are expected";
            Invalid::new("", message)
        };
        let plain: Vec<u8> = text.bytes().filter(|byte| *byte != b':').collect();
        if plain.is_empty() || plain.len() > 40 || text.len() > 64 {
            return Err(wrong());
        }
        let digit = |byte: &u8| char::from(*byte).to_digit(16).map(|digit| digit as u8);
        let digits: Option<Vec<u8>> = plain.iter().map(digit).collect();
        let mut digits = digits.ok_or_else(wrong)?;
        if !digits.len().is_multiple_of(2) {
            digits.insert(0, 0);
        }
        let bytes: Vec<u8> = digits
            .chunks(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect();
        Ok(Self::of(&bytes))
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("00");
        }
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// === impl List ===

impl List<'_> {
    pub(super) fn params(
        &self,
        key: KeyIdMethod,
    ) -> Result<CertificateRevocationListParams, Invalid> {
        let each = self.revoked.iter().map(|(serial, when)| {
            Ok(RevokedCertParams {
                serial_number: SerialNumber::from_slice(&serial.0),
                revocation_time: time::asn1(*when)?.to_datetime(),
                reason_code: None,
                invalidity_date: None,
            })
        });
        let lifetime = i64::try_from(LIST_LIFETIME.as_secs()).unwrap_or(i64::MAX);
        Ok(CertificateRevocationListParams {
            this_update: time::asn1(self.now)?.to_datetime(),
            next_update: time::asn1(self.now.saturating_add(lifetime))?.to_datetime(),
            // Grows from one list to the next (RFC 5280 §5.2.3).
            crl_number: SerialNumber::from_slice(&self.now.to_be_bytes()),
            issuing_distribution_point: None,
            revoked_certs: each.collect::<Result<_, Invalid>>()?,
            key_identifier_method: key,
        })
    }
}

/// What lists that were written before say, and those of issuers that are not among `own` (the
/// bytes of their names), as PEM.
pub(super) fn read(text: &[u8], own: &[Vec<u8>]) -> Result<(Revoked, Vec<u8>), Invalid> {
    let (mut revoked, mut foreign) = (Revoked::new(), Vec::new());
    for der in pem::revoked(text)? {
        let Ok((_, list)) = CertificateRevocationList::from_der(&der) else {
            return Err(Invalid::new("", "not a list of revoked certificates"));
        };
        if !own.iter().any(|name| name == list.issuer().as_raw()) {
            pem::section(&mut foreign, "X509 CRL", &der);
            continue;
        }
        for one in list.iter_revoked_certificates() {
            let when = one.revocation_date.timestamp();
            revoked.insert(Serial::of(one.raw_serial()), when);
            if revoked.len() > MAX_REVOKED_SERIALS {
                return Err(Invalid::new("", "more than 100,000 revoked certificates"));
            }
        }
    }
    Ok((revoked, foreign))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_serial_number_is_read_as_openssl_shows_it() {
        for (text, shown) in [
            ("0AFF01", "0aff01"),
            ("0a:ff:01", "0aff01"),
            ("000aff01", "0aff01"),
            ("aff01", "0aff01"),
            ("0", "00"),
        ] {
            assert_eq!(text.parse::<Serial>().unwrap().to_string(), shown, "{text}");
        }
        for wrong in ["", ":", "0x1", "g1", "-1", &"1".repeat(41)] {
            assert!(wrong.parse::<Serial>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn a_serial_number_is_read_as_it_was_shown(bytes in prop::collection::vec(any::<u8>(), 1..20)) {
            let serial = Serial::of(&bytes);
            prop_assert_eq!(serial.to_string().parse::<Serial>().unwrap(), serial);
        }

        #[test]
        fn any_text_is_a_serial_number_or_is_not(text in ".{0,50}") {
            let _ = text.parse::<Serial>();
        }
    }
}
