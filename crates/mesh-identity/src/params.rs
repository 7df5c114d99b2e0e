//! Versions, ciphers and groups: from the names in a configuration to what rustls has.

use mesh_core::model::{ClientTls, ServerTls, TlsParams, TlsVersion, Validation};
use mesh_core::{Invalid, Name};
use rustls::crypto::aws_lc_rs::{self, cipher_suite as suite, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::{CipherSuite, NamedGroup, SupportedCipherSuite, SupportedProtocolVersion, version};
use std::sync::Arc;

/// What is asked for in a handshake.
#[derive(Clone, Debug)]
pub(crate) struct Params {
    pub(crate) provider: Arc<CryptoProvider>,
    pub(crate) versions: Vec<TlsVersion>,
    pub(crate) alpn: Vec<Vec<u8>>,
}

/// Checks what can be said about a server's side without its secrets.
///
/// # Errors
/// What cannot be done is refused by name: ciphers in CBC mode or without forward secrecy, groups
/// that are not at hand, and settings that contradict each other.
pub fn check_server(tls: &ServerTls) -> Result<(), Invalid> {
    Params::new(&tls.params, &tls.alpn)?;
    if tls.certificates.is_empty() {
        let message = "a server needs a certificate: name at least one";
        return Err(Invalid::new("certificates", message));
    }
    let validation = tls.validation.as_ref();
    // Envoy takes this and asks nobody for a certificate.
    let checked = validation.is_some_and(|given| {
        given.roots.is_some()
            || !given.hashes.is_empty()
            || !given.spki.is_empty()
            || given.accept_untrusted
    });
    if tls.require_client_certificate && !checked {
        let message = "needs a validation with roots, hashes or keys to check certificates by";
        return Err(Invalid::new("require_client_certificate", message));
    }
    check_validation(validation)
}

/// Checks what can be said about a client's side without its secrets.
///
/// # Errors
/// As [`check_server`]; further a server name that is none, and a check of the name without a
/// check of the certificate, which Envoy refuses, too.
pub fn check_client(tls: &ClientTls) -> Result<(), Invalid> {
    Params::new(&tls.params, &tls.alpn)?;
    if tls.certificates.len() > 1 {
        let message = "a client shows one certificate at most";
        return Err(Invalid::new("certificates", message));
    }
    if !tls.sni.is_empty() && rustls_pki_types::ServerName::try_from(&*tls.sni).is_err() {
        let message = format!("{:?} is no DNS name", tls.sni);
        return Err(Invalid::new("sni", message));
    }
    if tls.auto_san && tls.validation.is_none() {
        let message = "needs a validation: without, certificates are not checked at all";
        return Err(Invalid::new("auto_san", message));
    }
    check_validation(tls.validation.as_ref())
}

// The same combinations as in Envoy (`DefaultCertValidator::initializeSslContexts`).
fn check_validation(validation: Option<&Validation>) -> Result<(), Invalid> {
    let Some(validation) = validation else {
        return Ok(());
    };
    let refuse = |field: &str, message| Err(Invalid::new(field, message).within("validation"));
    if validation.roots.is_none() && !validation.subject_alt_names.is_empty() {
        let message = "a name proves nothing without roots that vouch for it: give roots";
        return refuse("subject_alt_names", message);
    }
    if validation.roots.is_none() && validation.revoked.is_some() {
        return refuse("revoked", "lists of revoked certificates need roots");
    }
    Ok(())
}

/// A cipher suite by OpenSSL's name.
pub(crate) fn openssl_name(suite: CipherSuite) -> Name {
    let known = TLS12.iter().find(|(_, known)| known.suite() == suite);
    match (known, suite) {
        (Some((name, _)), _) => Name::from(*name),
        (None, CipherSuite::TLS13_AES_128_GCM_SHA256) => Name::from("TLS_AES_128_GCM_SHA256"),
        (None, CipherSuite::TLS13_AES_256_GCM_SHA384) => Name::from("TLS_AES_256_GCM_SHA384"),
        (None, CipherSuite::TLS13_CHACHA20_POLY1305_SHA256) => {
            Name::from("TLS_CHACHA20_POLY1305_SHA256")
        }
        (None, other) => Name::from(format!("{other:?}")),
    }
}

/// A group by BoringSSL's name.
pub(crate) fn group_name(group: NamedGroup) -> Name {
    let known = GROUPS.iter().find(|(_, known)| known.name() == group);
    match known {
        Some((name, _)) => Name::from(*name),
        None => Name::from(format!("{group:?}")),
    }
}

/// Ciphers of TLS 1.2 without forward secrecy that stand beside others in lists that are common.
const STATIC_RSA: [&str; 2] = ["AES256-GCM-SHA384", "AES128-GCM-SHA256"];

static TLS12: [(&str, SupportedCipherSuite); 6] = [
    (
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "ECDHE-RSA-AES128-GCM-SHA256",
        suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "ECDHE-RSA-AES256-GCM-SHA384",
        suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "ECDHE-RSA-CHACHA20-POLY1305",
        suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
];

/// BoringSSL's names for the groups; the first of those for one group is the one we would write.
static GROUPS: [(&str, &dyn SupportedKxGroup); 7] = [
    ("X25519MLKEM768", kx_group::X25519MLKEM768),
    ("X25519", kx_group::X25519),
    ("P-256", kx_group::SECP256R1),
    ("prime256v1", kx_group::SECP256R1),
    ("P-384", kx_group::SECP384R1),
    ("secp384r1", kx_group::SECP384R1),
    ("x25519", kx_group::X25519),
];

/// Without a choice: one hybrid that a quantum computer does not break, then the usual ones.
static DEFAULT_GROUPS: [&dyn SupportedKxGroup; 4] = [
    kx_group::X25519MLKEM768,
    kx_group::X25519,
    kx_group::SECP256R1,
    kx_group::SECP384R1,
];

// === impl Params ===

impl Params {
    pub(crate) fn new(params: &TlsParams, alpn: &[Name]) -> Result<Self, Invalid> {
        let mut provider = aws_lc_rs::default_provider();
        if !params.ciphers.is_empty() {
            provider
                .cipher_suites
                .retain(|suite| suite.tls13().is_some());
            let chosen = ciphers(&params.ciphers).map_err(|error| error.within("params"))?;
            provider.cipher_suites.extend(chosen);
        }
        provider.kx_groups = if params.groups.is_empty() {
            DEFAULT_GROUPS.to_vec()
        } else {
            groups(&params.groups).map_err(|error| error.within("params"))?
        };
        Ok(Self {
            provider: Arc::new(provider),
            versions: versions(params)?,
            alpn: protocols(alpn)?,
        })
    }

    /// The versions as the library has them.
    pub(crate) fn protocols(&self) -> Vec<&'static SupportedProtocolVersion> {
        let of = |version: &TlsVersion| match version {
            TlsVersion::V1_2 => &version::TLS12,
            TlsVersion::V1_3 => &version::TLS13,
        };
        self.versions.iter().map(of).collect()
    }
}

fn versions(params: &TlsParams) -> Result<Vec<TlsVersion>, Invalid> {
    let min = params.min.unwrap_or(TlsVersion::V1_2);
    let max = params.max.unwrap_or(TlsVersion::V1_3);
    if min > max {
        let message = format!("{} is above the highest, {}", min.as_str(), max.as_str());
        return Err(Invalid::new("params.min", message));
    }
    let all = [TlsVersion::V1_3, TlsVersion::V1_2];
    Ok(all
        .into_iter()
        .filter(|known| (min..=max).contains(known))
        .collect())
}

// Envoy accepts `[A|B]` for ciphers that are as good as each other; here they come in that order.
fn ciphers(names: &[Name]) -> Result<Vec<SupportedCipherSuite>, Invalid> {
    let mut chosen = Vec::new();
    for (at, group) in names.iter().enumerate() {
        let inner = group
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        for name in inner.unwrap_or(group).split('|') {
            // Istio's list has them; without forward secrecy they are not spoken here.
            if STATIC_RSA.contains(&name) {
                continue;
            }
            let Some((_, suite)) = TLS12.iter().find(|(known, _)| *known == name) else {
                let known: Vec<_> = TLS12.iter().map(|(name, _)| *name).collect();
                let message = format!(
                    "{name:?} is not supported; there are {} (those of TLS 1.3 cannot be chosen)",
                    known.join(", ")
                );
                return Err(Invalid::new(format!("ciphers[{at}]"), message));
            };
            if !chosen.contains(suite) {
                chosen.push(*suite);
            }
        }
    }
    if chosen.is_empty() && !names.is_empty() {
        let message = "none of them has forward secrecy".to_owned();
        return Err(Invalid::new("ciphers", message));
    }
    Ok(chosen)
}

fn groups(names: &[Name]) -> Result<Vec<&'static dyn SupportedKxGroup>, Invalid> {
    let mut chosen: Vec<&'static dyn SupportedKxGroup> = Vec::new();
    for (at, name) in names.iter().enumerate() {
        let Some((_, group)) = GROUPS.iter().find(|(known, _)| name == known) else {
            let message = format!(
                "{name:?} is not supported; there are X25519MLKEM768, X25519, P-256, P-384"
            );
            return Err(Invalid::new(format!("groups[{at}]"), message));
        };
        if chosen.iter().all(|known| known.name() != group.name()) {
            chosen.push(*group);
        }
    }
    Ok(chosen)
}

// RFC 7301 §3.1: a protocol is 1 to 255 bytes, all of them together at most 65535.
fn protocols(alpn: &[Name]) -> Result<Vec<Vec<u8>>, Invalid> {
    for (at, name) in alpn.iter().enumerate() {
        if !(1..=255).contains(&name.len()) {
            let message = "a protocol is 1 to 255 bytes long";
            return Err(Invalid::new(format!("alpn[{at}]"), message));
        }
    }
    if alpn.iter().map(|name| name.len() + 1).sum::<usize>() > 65_535 {
        return Err(Invalid::new("alpn", "too many protocols for one handshake"));
    }
    Ok(alpn.iter().map(|name| name.as_bytes().to_vec()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_core::model::{SecretRef, StringMatch};

    fn names(names: &[&str]) -> Vec<Name> {
        names.iter().map(|name| Name::from(*name)).collect()
    }

    #[test]
    fn the_hybrid_group_comes_first_unless_others_are_chosen() {
        let params = Params::new(&TlsParams::default(), &[]).unwrap();
        assert_eq!(
            params.provider.kx_groups[0].name(),
            NamedGroup::X25519MLKEM768
        );
        let mut chosen = TlsParams::default();
        chosen.groups = names(&["P-256", "prime256v1", "X25519"]);
        let params = Params::new(&chosen, &[]).unwrap();
        let got: Vec<_> = params
            .provider
            .kx_groups
            .iter()
            .map(|group| group.name())
            .collect();
        assert_eq!(got, [NamedGroup::secp256r1, NamedGroup::X25519]);
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name_and_place() {
        let with = |change: fn(&mut ServerTls)| {
            let mut tls = ServerTls::default();
            tls.certificates = vec![SecretRef::local("c")];
            change(&mut tls);
            check_server(&tls).map_err(|error| error.to_string())
        };
        assert_eq!(with(|_| {}), Ok(()));
        for (change, path, named) in [
            (
                (|tls| tls.params.ciphers = names(&["ECDHE-RSA-AES128-GCM-SHA256", "AES128-SHA"]))
                    as fn(&mut ServerTls),
                "params.ciphers[1]: ",
                "AES128-SHA",
            ),
            (
                |tls| tls.params.ciphers = names(&["TLS_AES_128_GCM_SHA256"]),
                "params.ciphers[0]: ",
                "TLS_AES_128_GCM_SHA256",
            ),
            (
                |tls| tls.params.groups = names(&["P-521"]),
                "params.groups[0]: ",
                "P-521",
            ),
            (
                |tls| {
                    tls.params.min = Some(TlsVersion::V1_3);
                    tls.params.max = Some(TlsVersion::V1_2);
                },
                "params.min: ",
                "TLSv1.3",
            ),
            (|tls| tls.alpn = names(&["h2", ""]), "alpn[1]: ", "1 to 255"),
            (
                |tls| tls.certificates.clear(),
                "certificates: ",
                "name at least one",
            ),
            (
                |tls| {
                    let validation = tls.validation.get_or_insert_default();
                    validation.subject_alt_names = vec![StringMatch::Exact("a".into())];
                },
                "validation.subject_alt_names: ",
                "roots",
            ),
            (
                |tls| {
                    let validation = tls.validation.get_or_insert_default();
                    validation.revoked = Some(SecretRef::local("r"));
                },
                "validation.revoked: ",
                "roots",
            ),
        ] {
            let error = with(change).unwrap_err();
            assert!(error.starts_with(path) && error.contains(named), "{error}");
        }
    }

    #[test]
    fn a_client_is_refused_what_would_look_checked_and_is_not() {
        let mut tls = ClientTls::default();
        tls.auto_san = true;
        assert_eq!(check_client(&tls).unwrap_err().path(), "auto_san");
        tls.validation = Some(Validation::default());
        assert_eq!(check_client(&tls), Ok(()));
        tls.sni = "outbound_.9080_._.reviews.default.svc.cluster.local".into();
        assert_eq!(check_client(&tls), Ok(()));
        tls.sni = "a b".into();
        assert_eq!(check_client(&tls).unwrap_err().path(), "sni");
    }

    #[test]
    fn ciphers_of_one_group_come_in_their_order() {
        let chosen = ciphers(&names(&[
            "[ECDHE-RSA-CHACHA20-POLY1305|ECDHE-RSA-AES128-GCM-SHA256]",
            "ECDHE-RSA-AES128-GCM-SHA256",
        ]));
        let got: Vec<_> = chosen
            .unwrap()
            .iter()
            .map(|suite| openssl_name(suite.suite()))
            .collect();
        assert_eq!(
            got,
            ["ECDHE-RSA-CHACHA20-POLY1305", "ECDHE-RSA-AES128-GCM-SHA256"]
        );
    }
}
