//! What upstreams are told of the caller's certificate: `x-forwarded-client-cert`.
//!
//! As Envoy's `ConnectionManagerUtility::mutateXfccRequestHeader` has it, byte for byte.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use mesh_core::exchange::{PeerCertificate, TlsInfo};
use mesh_core::model::{ClientCertificate, ForwardedCertificate};
use std::fmt::Write as _;
use std::sync::Arc;

pub(super) const X_FORWARDED_CLIENT_CERT: HeaderName =
    HeaderName::from_static("x-forwarded-client-cert");

/// What was told of a connection's certificate: all of its requests are told the same.
#[derive(Debug)]
pub(super) struct Told {
    how: ClientCertificate,
    tls: Arc<TlsInfo>,
    /// Nothing if a name has control characters: nobody is told of such a certificate.
    element: Option<HeaderValue>,
}

/// Settles the header for a request that came over a connection with this TLS. What it was the last
/// time is `known`. Says whether the header changed.
pub(super) fn settle(
    headers: &mut HeaderMap,
    how: ClientCertificate,
    tls: Option<&Arc<TlsInfo>>,
    known: &mut Option<Arc<Told>>,
) -> bool {
    let shown = tls.and_then(|tls| Some((tls, tls.peer.as_ref()?)));
    let (tls, peer) = match (how.mode, shown) {
        (ForwardedCertificate::AlwaysForwardOnly, _) => return false,
        // Who shows no certificate cannot vouch for one.
        (ForwardedCertificate::Sanitize, _) | (_, None) => {
            return headers.remove(X_FORWARDED_CLIENT_CERT).is_some();
        }
        (ForwardedCertificate::ForwardOnly, Some(_)) => return false,
        (_, Some(shown)) => shown,
    };
    let told = match known {
        Some(told) if told.how == how && Arc::ptr_eq(&told.tls, tls) => told,
        _ => known.insert(Arc::new(Told {
            how,
            tls: Arc::clone(tls),
            element: HeaderValue::try_from(element(how, tls, peer)).ok(),
        })),
    };
    let value = told.element.as_ref().and_then(|own| match how.mode {
        ForwardedCertificate::AppendForward => appended(headers, own),
        _ => Some(own.clone()),
    });
    match value {
        Some(value) => headers.insert(X_FORWARDED_CLIENT_CERT, value),
        None => headers.remove(X_FORWARDED_CLIENT_CERT),
    };
    true
}

/// An element behind those that are there.
fn appended(headers: &HeaderMap, own: &HeaderValue) -> Option<HeaderValue> {
    let mut all = headers.get_all(X_FORWARDED_CLIENT_CERT).iter().peekable();
    if all.peek().is_none() {
        return Some(own.clone());
    }
    let mut value = Vec::with_capacity(2 * own.len());
    for before in all {
        value.extend_from_slice(before.as_bytes());
        value.push(b',');
    }
    value.extend_from_slice(own.as_bytes());
    HeaderValue::from_bytes(&value).ok()
}

/// `By=…;Hash=…;…` for one certificate. What it has several of is said several times.
fn element(told: ClientCertificate, tls: &TlsInfo, peer: &PeerCertificate) -> String {
    let mut out = String::with_capacity(256);
    let mut part = |key: &str, value: &str, quoted: bool| {
        let separator = if out.is_empty() { "" } else { ";" };
        let quote = if quoted { "\"" } else { "" };
        // Writing to a string never fails.
        let _ = write!(out, "{separator}{key}={quote}{value}{quote}");
    };
    // URIs come first; what has no scheme is a DNS name.
    let own = tls.local_names.iter();
    for uri in own.take_while(|name| name.contains(':')) {
        part("By", uri, false);
    }
    if !peer.fingerprint.is_empty() {
        part("Hash", &peer.fingerprint, false);
    }
    if told.cert {
        part("Cert", &encoded(std::iter::once(&*peer.der)), true);
    }
    if told.chain {
        let issuers = peer.issuers.iter().map(|one| &**one);
        part(
            "Chain",
            &encoded(std::iter::once(&*peer.der).chain(issuers)),
            true,
        );
    }
    if told.subject {
        part("Subject", &peer.subject, true);
    }
    if told.uri {
        match peer.uris.as_slice() {
            // The key is there in any case.
            [] => part("URI", "", false),
            uris => uris.iter().for_each(|uri| part("URI", uri, false)),
        }
    }
    if told.dns {
        peer.dns_names
            .iter()
            .for_each(|name| part("DNS", name, false));
    }
    out
}

/// Certificates as PEM, with what Envoy escapes in it.
fn encoded<'c>(all: impl Iterator<Item = &'c [u8]>) -> String {
    let mut out = String::new();
    for byte in mesh_identity::to_pem(all) {
        match byte {
            b'\n' => out.push_str("%0A"),
            b' ' => out.push_str("%20"),
            b'+' => out.push_str("%2B"),
            b'/' => out.push_str("%2F"),
            b'=' => out.push_str("%3D"),
            byte => out.push(char::from(byte)),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODES: [ForwardedCertificate; 5] = [
        ForwardedCertificate::Sanitize,
        ForwardedCertificate::ForwardOnly,
        ForwardedCertificate::AppendForward,
        ForwardedCertificate::SanitizeSet,
        ForwardedCertificate::AlwaysForwardOnly,
    ];

    fn told(mode: ForwardedCertificate) -> ClientCertificate {
        let mut told = ClientCertificate::default();
        told.mode = mode;
        (told.subject, told.uri, told.dns) = (true, true, true);
        told
    }

    fn shown() -> TlsInfo {
        let mut tls = TlsInfo::default();
        let mut peer = PeerCertificate::default();
        peer.fingerprint = "ab01".into();
        peer.subject = "CN=a".into();
        peer.uris = vec!["spiffe://td/ns/a/sa/b".into()];
        peer.dns_names = vec!["a.test".into(), "b.test".into()];
        tls.peer = Some(peer);
        tls.local_names = vec!["spiffe://td/ns/c/sa/d".into(), "c.test".into()];
        tls
    }

    /// What becomes of two lines.
    fn settled(told: ClientCertificate, tls: Option<&TlsInfo>) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for line in ["By=x", "By=y"] {
            headers.append(X_FORWARDED_CLIENT_CERT, HeaderValue::from_static(line));
        }
        let tls = tls.cloned().map(Arc::new);
        settle(&mut headers, told, tls.as_ref(), &mut None);
        let all = headers.get_all(X_FORWARDED_CLIENT_CERT).into_iter();
        all.map(|value| value.to_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn each_mode_does_as_in_envoy() {
        let own = "By=spiffe://td/ns/c/sa/d;Hash=ab01;Subject=\"CN=a\";\
                   URI=spiffe://td/ns/a/sa/b;DNS=a.test;DNS=b.test";
        let appended = format!("By=x,By=y,{own}");
        let kept = ["By=x", "By=y"];
        let with: [&[&str]; 5] = [&[], &kept, &[&appended], &[own], &kept];
        let without: [&[&str]; 5] = [&[], &[], &[], &[], &kept];
        let tls = shown();
        for (mode, (with, without)) in MODES.into_iter().zip(with.into_iter().zip(without)) {
            assert_eq!(settled(told(mode), Some(&tls)), with, "{mode:?}");
            let mut anonymous = shown();
            anonymous.peer = None;
            for tls in [None, Some(&anonymous)] {
                assert_eq!(settled(told(mode), tls), without, "{mode:?}");
            }
        }
    }

    #[test]
    fn what_is_known_is_told_again_and_something_else_of_another_certificate_or_otherwise() {
        let mut known = None;
        let mut say = |told: ClientCertificate, tls: &Arc<TlsInfo>| {
            let mut headers = HeaderMap::new();
            settle(&mut headers, told, Some(tls), &mut known);
            let value = headers[X_FORWARDED_CLIENT_CERT].to_str().unwrap();
            let keys = value.split(';').filter_map(|part| part.split('=').next());
            (keys.collect::<Vec<_>>().join(" "), value.contains("CN=b"))
        };
        let all = told(ForwardedCertificate::SanitizeSet);
        let one = Arc::new(shown());
        let every = ("By Hash Subject URI DNS DNS".to_owned(), false);
        assert_eq!(say(all, &one), every);
        assert_eq!(say(all, &one), every);
        let mut less = all;
        less.dns = false;
        assert_eq!(say(less, &one).0, "By Hash Subject URI");
        let mut other = shown();
        if let Some(peer) = &mut other.peer {
            peer.subject = "CN=b".into();
        }
        assert_eq!(say(all, &Arc::new(other)), (every.0.clone(), true));
        assert_eq!(say(all, &one), every);
    }

    #[test]
    fn a_certificate_without_names_is_told_by_its_hash_and_empty_keys() {
        let mut tls = TlsInfo::default();
        let mut peer = PeerCertificate::default();
        peer.fingerprint = "ab".into();
        tls.peer = Some(peer);
        let mode = ForwardedCertificate::SanitizeSet;
        assert_eq!(
            settled(told(mode), Some(&tls)),
            ["Hash=ab;Subject=\"\";URI="]
        );
    }

    #[test]
    fn a_name_that_cannot_stand_in_a_header_is_told_to_nobody() {
        let mut tls = shown();
        if let Some(peer) = &mut tls.peer {
            peer.uris = vec!["spiffe://td/\r\nx: y".into()];
        }
        for mode in [
            ForwardedCertificate::AppendForward,
            ForwardedCertificate::SanitizeSet,
        ] {
            assert!(settled(told(mode), Some(&tls)).is_empty());
        }
    }

    #[test]
    fn a_certificate_is_written_as_escaped_pem() {
        let der = [0xfb_u8; 50];
        let text = encoded(std::iter::once(&der[..]));
        assert!(
            text.starts_with("-----BEGIN%20CERTIFICATE-----%0A%2B%2Fv7"),
            "{text}"
        );
        assert!(
            text.ends_with("%3D%0A-----END%20CERTIFICATE-----%0A"),
            "{text}"
        );
        assert_eq!(
            text.matches("%0A").count(),
            4,
            "64 digits to a line: {text}"
        );
    }
}
