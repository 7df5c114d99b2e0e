//! Subject alternative names and how they are matched.

use mesh_core::model::StringMatch;
use std::fmt;
use std::net::IpAddr;
use x509_parser::prelude::{GeneralName, ParsedExtension, X509Certificate};

/// One subject alternative name of a certificate (RFC 5280 §4.2.1.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum San {
    Dns(String),
    Uri(String),
    Ip(IpAddr),
    Mail(String),
}

/// The names of a certificate, in its order. Kinds that nobody can ask for are left out.
pub(crate) fn of(certificate: &X509Certificate<'_>) -> Vec<San> {
    let mut names = Vec::new();
    for extension in certificate.extensions() {
        if let ParsedExtension::SubjectAlternativeName(found) = extension.parsed_extension() {
            names.extend(found.general_names.iter().filter_map(San::read));
        }
    }
    names
}

/// Whether a certificate for the DNS name `pattern` is one for `name` (Envoy
/// `Utility::dnsNameMatch`): case is ignored, and the first label of the pattern may hold one `*`,
/// which stands for a part of a single label. A label of an international name is taken as it is.
pub(crate) fn dns_matches(name: &str, pattern: &str) -> bool {
    if name.eq_ignore_ascii_case(pattern) {
        return true;
    }
    let (Some((name, name_rest)), Some((pattern, rest))) =
        (name.split_once('.'), pattern.split_once('.'))
    else {
        return false;
    };
    let Some((before, after)) = pattern.split_once('*') else {
        return false;
    };
    let international = pattern
        .get(..4)
        .is_some_and(|head| head.eq_ignore_ascii_case("xn--"));
    if international || after.contains('*') || rest.contains('*') {
        return false;
    }
    let (name, before, after) = (name.as_bytes(), before.as_bytes(), after.as_bytes());
    rest.eq_ignore_ascii_case(name_rest)
        && !name.is_empty()
        && name.len() >= before.len() + after.len()
        && name[..before.len()].eq_ignore_ascii_case(before)
        && name[name.len() - after.len()..].eq_ignore_ascii_case(after)
}

// === impl San ===

impl San {
    fn read(name: &GeneralName<'_>) -> Option<Self> {
        Some(match name {
            GeneralName::DNSName(name) => Self::Dns((*name).to_owned()),
            GeneralName::URI(uri) => Self::Uri((*uri).to_owned()),
            GeneralName::RFC822Name(mail) => Self::Mail((*mail).to_owned()),
            GeneralName::IPAddress(bytes) => match bytes.len() {
                4 => Self::Ip(<[u8; 4]>::try_from(*bytes).ok()?.into()),
                16 => Self::Ip(<[u8; 16]>::try_from(*bytes).ok()?.into()),
                _ => return None,
            },
            _ => return None,
        })
    }

    /// Whether this is what is asked for. An exact DNS name is also matched by a wildcard of the
    /// certificate (Envoy `StringSanMatcher`).
    pub(crate) fn matches(&self, want: &StringMatch) -> bool {
        match (self, want) {
            (Self::Dns(name), StringMatch::Exact(want)) => dns_matches(want, name),
            _ => want.matches(self.to_string().as_bytes()),
        }
    }

    /// Whether a certificate with this name is one for a host.
    pub(crate) fn is_for(&self, host: &str) -> bool {
        match self {
            Self::Dns(name) => dns_matches(host, name),
            Self::Ip(address) => host.parse() == Ok(*address),
            Self::Uri(_) | Self::Mail(_) => false,
        }
    }
}

impl fmt::Display for San {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(text) | Self::Uri(text) | Self::Mail(text) => f.write_str(text),
            Self::Ip(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_wildcard_stands_for_a_part_of_the_first_label() {
        for (name, pattern, matches) in [
            ("a.example.com", "a.example.com", true),
            ("A.example.com", "a.EXAMPLE.com", true),
            ("a.example.com", "*.example.com", true),
            ("a.b.example.com", "*.example.com", false),
            ("example.com", "*.example.com", false),
            (".example.com", "*.example.com", false),
            ("foobar.example.com", "foo*.example.com", true),
            ("foobar.example.com", "f*r.Example.com", true),
            ("fr.example.com", "fr*r.example.com", false),
            ("a.example.com", "**.example.com", false),
            ("a.example.com", "*.*.com", false),
            ("a.example.com", "a.*.com", false),
            ("xn--a.example.com", "xn--*.example.com", false),
            ("com", "*", false),
        ] {
            assert_eq!(dns_matches(name, pattern), matches, "{name} {pattern}");
        }
    }

    #[test]
    fn only_an_exact_dns_name_is_matched_by_a_wildcard() {
        let wild = San::Dns("*.example.com".into());
        assert!(wild.matches(&StringMatch::Exact("a.example.com".into())));
        assert!(!wild.matches(&StringMatch::ExactIgnoreCase("a.example.com".into())));
        assert!(wild.matches(&StringMatch::Suffix(".example.com".into())));
        let uri = San::Uri("*.example.com".into());
        assert!(!uri.matches(&StringMatch::Exact("a.example.com".into())));
        let address = San::Ip("2001:db8::1".parse().unwrap());
        assert!(address.matches(&StringMatch::Exact("2001:db8::1".into())));
        assert!(address.is_for("2001:DB8:0::1") && !address.is_for("2001:db8::2"));
    }

    proptest! {
        #[test]
        fn a_wildcard_matches_exactly_the_names_of_one_label_more(
            label in "[a-z0-9-]{1,9}",
            rest in "[a-z]{1,5}(\\.[a-z]{1,5}){0,2}",
            other in "[a-z.]{0,12}",
        ) {
            let pattern = format!("*.{rest}");
            let name = format!("{label}.{rest}");
            prop_assert!(dns_matches(&name, &pattern));
            prop_assert!(dns_matches(&name.to_uppercase(), &pattern));
            let deeper = format!("{label}.{label}.{rest}");
            prop_assert!(!dns_matches(&deeper, &pattern));
            let matched = dns_matches(&other, &pattern);
            let by_hand = other
                .strip_suffix(&format!(".{rest}"))
                .is_some_and(|label| !label.is_empty() && !label.contains('.'));
            prop_assert_eq!(matched, by_hand);
        }

        #[test]
        fn matching_never_panics(name in ".{0,20}", pattern in "[*.a-zé-]{0,20}") {
            let _ = dns_matches(&name, &pattern);
            let _ = San::Dns(pattern).is_for(&name);
        }
    }
}
