//! What certificates say of themselves, for whoever shows them to an operator.

use crate::san::{self, San};
use crate::{MAX_ROOTS, MAX_TRUST_BYTES, pem};
use mesh_core::Invalid;
use rustls_pki_types::CertificateDer;
use std::net::IpAddr;
use x509_parser::prelude::{FromDer, X509Certificate};

/// What a certificate says of itself. Nothing of it was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CertificateFacts {
    /// The serial number in lower-case hexadecimal digits, two for each byte, without leading
    /// zero bytes.
    pub serial: String,
    /// The names that it is for, as far as Envoy shows them: first DNS names, then URIs, then
    /// addresses.
    pub names: Vec<CertificateName>,
    /// Since when it is valid, in seconds since 1970.
    pub not_before: i64,
    /// Until when it is valid, in seconds since 1970.
    pub not_after: i64,
    /// Whether it may vouch for others (basic constraints, RFC 5280 §4.2.1.9).
    pub is_authority: bool,
}

/// A subject alternative name.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CertificateName {
    /// A DNS name, maybe with a wildcard.
    Dns(String),
    /// A URI, such as a SPIFFE identity.
    Uri(String),
    /// An address.
    Ip(IpAddr),
}

/// The facts of every certificate in a PEM text, in its order.
///
/// # Errors
/// If there is none, too many or too much, or one cannot be read.
pub fn certificate_facts(text: &[u8]) -> Result<Vec<CertificateFacts>, Invalid> {
    let found = pem::certificates(text, MAX_TRUST_BYTES, MAX_ROOTS)?;
    let each = found.iter().enumerate().map(|(at, der)| {
        let wrong = || Invalid::new(format!("[{at}]"), "not an X.509 certificate");
        CertificateFacts::of(der).ok_or_else(wrong)
    });
    each.collect()
}

// === impl CertificateFacts ===

impl CertificateFacts {
    /// The days for which it is still valid at `now` (seconds since 1970); none is left of one that
    /// has expired.
    pub fn days_left(&self, now: i64) -> u64 {
        let left = self.not_after.saturating_sub(now);
        u64::try_from(left / 86_400).unwrap_or_default()
    }

    /// Whether it is valid at `now` (seconds since 1970).
    pub fn is_valid(&self, now: i64) -> bool {
        (self.not_before..self.not_after).contains(&now)
    }

    fn of(der: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let all = san::of(&certificate);
        let mut names = Vec::with_capacity(all.len());
        let kinds: [fn(&San) -> Option<CertificateName>; 3] = [
            |san| match san {
                San::Dns(name) => Some(CertificateName::Dns(name.clone())),
                _ => None,
            },
            |san| match san {
                San::Uri(uri) => Some(CertificateName::Uri(uri.clone())),
                _ => None,
            },
            |san| match san {
                San::Ip(address) => Some(CertificateName::Ip(*address)),
                _ => None,
            },
        ];
        for kind in kinds {
            names.extend(all.iter().filter_map(kind));
        }
        let serial = certificate
            .raw_serial()
            .iter()
            .skip_while(|byte| **byte == 0);
        let validity = certificate.validity();
        Some(Self {
            serial: serial.map(|byte| format!("{byte:02x}")).collect(),
            names,
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
            is_authority: matches!(
                certificate.basic_constraints(),
                Ok(Some(found)) if found.value.ca
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, SanType, SerialNumber};

    fn made(change: impl FnOnce(&mut CertificateParams)) -> String {
        let mut params = CertificateParams::default();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().pem()
    }

    #[test]
    fn a_certificate_says_what_was_put_into_it() {
        let text = made(|params| {
            params.serial_number = Some(SerialNumber::from(vec![0x0a, 0xff, 1]));
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(2020, 1, 11);
            params.subject_alt_names = vec![
                SanType::IpAddress([10, 0, 0, 1].into()),
                SanType::URI("spiffe://a/b".try_into().unwrap()),
                SanType::Rfc822Name("a@b.example".try_into().unwrap()),
                SanType::DnsName("*.example".try_into().unwrap()),
            ];
        });
        let facts = certificate_facts(text.as_bytes()).unwrap();
        let [facts] = &facts[..] else {
            panic!("{facts:?}")
        };
        assert_eq!(facts.serial, "0aff01");
        assert_eq!(
            facts.names,
            [
                CertificateName::Dns("*.example".into()),
                CertificateName::Uri("spiffe://a/b".into()),
                CertificateName::Ip([10, 0, 0, 1].into()),
            ]
        );
        let start = 1_577_836_800;
        assert_eq!(facts.not_before, start);
        assert!(!facts.is_authority);
        assert!(facts.is_valid(start) && !facts.is_valid(start - 1));
        assert!(!facts.is_valid(start + 10 * 86_400));
        assert_eq!(facts.days_left(start), 10);
        assert_eq!(facts.days_left(start + 1), 9);
        assert_eq!(facts.days_left(start + 11 * 86_400), 0);
    }

    #[test]
    fn all_certificates_of_a_bundle_are_told_apart() {
        let leaf = made(|_| {});
        let root = made(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
        let facts = certificate_facts((leaf + &root).as_bytes()).unwrap();
        let authority: Vec<_> = facts.iter().map(|facts| facts.is_authority).collect();
        assert_eq!(authority, [false, true]);
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        for text in [
            "",
            "-----BEGIN CERTIFICATE-----\nYQ==\n-----END CERTIFICATE-----\n",
        ] {
            assert!(certificate_facts(text.as_bytes()).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn days_never_panic(not_after: i64, now: i64) {
            let facts = CertificateFacts {
                serial: String::new(),
                names: Vec::new(),
                not_before: 0,
                not_after,
                is_authority: false,
            };
            prop_assert!(facts.days_left(now) <= i64::MAX as u64 / 86_400 + 1);
        }
    }
}
