//! SPIFFE identities: who a workload is.
//!
//! The text is that of the SPIFFE ID standard (§2): `spiffe://TRUST-DOMAIN/PATH`, and the path that
//! Istio gives its workloads is `/ns/NAMESPACE/sa/SERVICE-ACCOUNT`. Reading is strict: one identity
//! has one text, so that identities may be compared as texts.

use mesh_core::exchange::PeerCertificate;
use mesh_core::model::StringMatch;
use mesh_core::{Invalid, Name};
use std::fmt;
use std::str::FromStr;

/// The longest identity, in bytes (SPIFFE ID §2.3).
pub const MAX_SPIFFE_ID: usize = 2048;

/// The longest trust domain, in bytes (SPIFFE ID §2.3).
pub const MAX_TRUST_DOMAIN: usize = 255;

/// A SPIFFE identity.
///
/// ```
/// use mesh_identity::SpiffeId;
///
/// let id: SpiffeId = "spiffe://cluster.local/ns/shop/sa/reviews".parse()?;
/// assert_eq!(id.trust_domain(), "cluster.local");
/// assert_eq!(id.workload(), Some(("shop", "reviews")));
/// assert_eq!(id, SpiffeId::of_workload("cluster.local", "shop", "reviews")?);
/// # Ok::<(), mesh_core::Invalid>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    text: Name,
    /// Where the path begins: at its `/`, or at the end.
    path: usize,
}

const SCHEME: &str = "spiffe://";

// === impl SpiffeId ===

impl SpiffeId {
    /// The identity of an Istio workload: `spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT`.
    ///
    /// # Errors
    /// One of the parts cannot be part of an identity.
    pub fn of_workload(
        trust_domain: &str,
        namespace: &str,
        service_account: &str,
    ) -> Result<Self, Invalid> {
        for (field, part) in [
            ("trust_domain", trust_domain),
            ("namespace", namespace),
            ("service_account", service_account),
        ] {
            // Else the parts of one could become those of another.
            if part.contains('/') {
                return Err(Invalid::new(field, "a / is not allowed"));
            }
        }
        format!("{SCHEME}{trust_domain}/ns/{namespace}/sa/{service_account}").parse()
    }

    /// The identity that a peer has shown: the only URI among the names of a certificate that was
    /// validated (X509-SVID §2, §5.2).
    ///
    /// # Errors
    /// The certificate was not validated, has no URI or more than one, or that is no identity.
    pub fn of_peer(peer: &PeerCertificate) -> Result<Self, Invalid> {
        if !peer.validated {
            return Err(Invalid::new("", "the certificate was not validated"));
        }
        match &peer.uris[..] {
            [] => Err(Invalid::new(
                "",
                "the certificate has no URI among its names; one SPIFFE identity is expected",
            )),
            [one] => one.parse(),
            more => Err(Invalid::new(
                "",
                format!(
                    "the certificate has {} URIs among its names; one SPIFFE identity is expected",
                    more.len()
                ),
            )),
        }
    }

    /// All of it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The trust domain: whose roots vouch for it.
    pub fn trust_domain(&self) -> &str {
        &self.text[SCHEME.len()..self.path]
    }

    /// The path with its leading `/`; empty if there is none.
    pub fn path(&self) -> &str {
        &self.text[self.path..]
    }

    /// Namespace and service account, if it is the identity of an Istio workload.
    pub fn workload(&self) -> Option<(&str, &str)> {
        let mut parts = self.path().split('/');
        match (
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
        ) {
            (Some(""), Some("ns"), Some(namespace), Some("sa"), Some(account), None) => {
                Some((namespace, account))
            }
            _ => None,
        }
    }
}

impl FromStr for SpiffeId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let wrong = |message: &str| {
            Err(Invalid::new(
                "",
                format!("not a SPIFFE identity: {message}"),
            ))
        };
        if text.len() > MAX_SPIFFE_ID {
            return wrong("longer than 2048 bytes");
        }
        let Some(rest) = text.strip_prefix(SCHEME) else {
            return wrong("it has to begin with spiffe://, in lower case");
        };
        let end = rest.find('/').unwrap_or(rest.len());
        let (domain, path) = rest.split_at(end);
        check_trust_domain(domain)?;
        for segment in path.split('/').skip(1) {
            match segment {
                "" => return wrong("its path has an empty segment"),
                "." | ".." => return wrong("its path has a segment . or .."),
                _ => {}
            }
            let known =
                |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
            if !segment.bytes().all(known) {
                return wrong("its path may have letters, digits, '.', '-' and '_' only");
            }
        }
        Ok(Self {
            path: SCHEME.len() + end,
            text: text.into(),
        })
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whether a text can be a trust domain (SPIFFE ID §2.1): lower-case letters, digits, `.`, `-` and
/// `_`, 1 to 255 of them.
///
/// # Errors
/// It cannot.
pub fn check_trust_domain(text: &str) -> Result<(), Invalid> {
    let known = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_')
    };
    if text.is_empty() || text.len() > MAX_TRUST_DOMAIN || !text.bytes().all(known) {
        return Err(Invalid::new(
            "",
            "not a trust domain: 1 to 255 lower-case letters, digits, '.', '-' and '_' are expected",
        ));
    }
    Ok(())
}

/// What the names of a peer's certificate are asked for so that it belongs to one of several trust
/// domains, the own one and its aliases (Istio `MeshConfig.trustDomainAliases`): for
/// [`Validation::subject_alt_names`](mesh_core::model::Validation::subject_alt_names).
///
/// # Errors
/// One of them is no trust domain.
pub fn trust_domain_names<'a>(
    domains: impl IntoIterator<Item = &'a str>,
) -> Result<Vec<StringMatch>, Invalid> {
    let each = domains.into_iter().map(|domain| {
        check_trust_domain(domain)?;
        // With its end, so that `a.test` does not let `a.test.evil` in.
        Ok(StringMatch::Prefix(format!("{SCHEME}{domain}/")))
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_not_exactly_an_identity_is_refused() {
        let long = format!("spiffe://a/{}", "x".repeat(MAX_SPIFFE_ID - 11));
        assert_eq!(long.len(), MAX_SPIFFE_ID);
        assert!(long.parse::<SpiffeId>().is_ok());
        assert!(format!("{long}x").parse::<SpiffeId>().is_err());
        let domain = "d".repeat(MAX_TRUST_DOMAIN);
        assert!(format!("spiffe://{domain}/a").parse::<SpiffeId>().is_ok());
        assert!(format!("spiffe://{domain}d/a").parse::<SpiffeId>().is_err());
        for wrong in [
            "",
            "spiffe:",
            "spiffe://",
            "spiffe:///a",
            "SPIFFE://a/b",
            "spiffe://A/b",
            "https://a/b",
            " spiffe://a/b",
            "spiffe://a/",
            "spiffe://a//b",
            "spiffe://a/b/",
            "spiffe://a/./b",
            "spiffe://a/b/..",
            "spiffe://a:1/b",
            "spiffe://u@a/b",
            "spiffe://a/b?c",
            "spiffe://a/b#c",
            "spiffe://a/%62",
            "spiffe://a/b c",
            "spiffe://a/é",
            "spiffe://[::1]/b",
        ] {
            assert!(wrong.parse::<SpiffeId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn parts_cannot_smuggle_others_in() {
        for (domain, namespace, account) in [
            ("a", "b/sa/admin", "c"),
            ("a/ns/b", "b", "c"),
            ("a", "b", "c/d"),
            ("a", "", "c"),
            ("a", "b", ".."),
            ("", "b", "c"),
        ] {
            let id = SpiffeId::of_workload(domain, namespace, account);
            assert!(id.is_err(), "{id:?}");
        }
    }

    #[test]
    fn only_istios_paths_are_workloads() {
        for (text, workload) in [
            ("spiffe://a/ns/b/sa/c", Some(("b", "c"))),
            ("spiffe://a", None),
            ("spiffe://a/ns/b", None),
            ("spiffe://a/ns/b/sa/c/d", None),
            ("spiffe://a/sa/b/ns/c", None),
        ] {
            let id: SpiffeId = text.parse().unwrap();
            assert_eq!(id.workload(), workload, "{text}");
        }
    }

    #[test]
    fn a_peer_has_an_identity_if_its_only_uri_is_one() {
        let peer = |validated, uris: &[&str]| {
            let mut peer = PeerCertificate::default();
            peer.validated = validated;
            peer.uris = uris.iter().map(|uri| (*uri).into()).collect();
            SpiffeId::of_peer(&peer)
        };
        let one = "spiffe://a/ns/b/sa/c";
        assert_eq!(peer(true, &[one]).unwrap().as_str(), one);
        for (validated, uris, said) in [
            (false, &[one][..], "not validated"),
            (true, &[], "no URI"),
            (true, &[one, "spiffe://a/ns/b/sa/d"], "2 URIs"),
            (true, &[one, one], "2 URIs"),
            (true, &["https://a/b"], "spiffe://"),
        ] {
            let error = peer(validated, uris).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn trust_domains_do_not_match_those_that_begin_alike() {
        let names = trust_domain_names(["a.test", "old.test"]).unwrap();
        let matches = |id: &str| names.iter().any(|name| name.matches(id.as_bytes()));
        assert!(matches("spiffe://a.test/ns/b/sa/c") && matches("spiffe://old.test/x"));
        assert!(!matches("spiffe://a.test.evil/ns/b/sa/c") && !matches("spiffe://other/a.test/"));
        assert!(trust_domain_names(["a/b"]).is_err());
    }

    proptest! {
        #[test]
        fn an_identity_is_printed_as_it_was_read(
            domain in "[a-z0-9._-]{1,20}",
            segments in prop::collection::vec("[a-zA-Z0-9_-][a-zA-Z0-9._-]{0,8}", 0..6),
        ) {
            let path: String = segments.iter().map(|segment| format!("/{segment}")).collect();
            let text = format!("spiffe://{domain}{path}");
            let id: SpiffeId = text.parse().unwrap();
            prop_assert_eq!(id.to_string(), text);
            prop_assert_eq!((id.trust_domain(), id.path()), (&*domain, &*path));
        }

        #[test]
        fn workloads_keep_their_parts(
            domain in "[a-z0-9.-]{1,20}",
            namespace in "[a-z0-9-]{1,20}",
            account in "[a-z0-9-]{1,20}",
        ) {
            let id = SpiffeId::of_workload(&domain, &namespace, &account).unwrap();
            prop_assert_eq!(id.workload(), Some((&*namespace, &*account)));
            prop_assert_eq!(id.trust_domain(), domain);
        }

        #[test]
        fn any_text_is_an_identity_or_is_not(text in "(spiffe://)?[a-zA-Z0-9./:@%_-]{0,30}.{0,4}") {
            if let Ok(id) = text.parse::<SpiffeId>() {
                prop_assert_eq!(id.as_str(), &text);
                prop_assert_eq!(format!("spiffe://{}{}", id.trust_domain(), id.path()), text);
            }
        }
    }
}
