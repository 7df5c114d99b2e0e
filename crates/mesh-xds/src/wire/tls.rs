//! What of TLS is spoken here: versions, cipher suites and groups by the names that Envoy uses.

use crate::pb::envoy::extensions::transport_sockets::tls::v3::tls_parameters::TlsProtocol;
use mesh_core::Invalid;
use mesh_core::model::TlsVersion;

/// The cipher suites of TLS 1.2 that are spoken, by OpenSSL's names.
const SPOKEN: [&str; 6] = [
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-RSA-CHACHA20-POLY1305",
];

/// Suites that Envoy speaks and that are left out here as long as another one remains: keys are
/// exchanged by RSA, without forward secrecy. Istio's own list has them behind better ones.
const LEFT_OUT: [&str; 2] = ["AES128-GCM-SHA256", "AES256-GCM-SHA384"];

/// Suites that Envoy speaks and that are refused: CBC, with SHA-1.
const REFUSED: [&str; 8] = [
    "AES128-SHA",
    "AES256-SHA",
    "DES-CBC3-SHA",
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-ECDSA-AES256-SHA",
    "ECDHE-PSK-AES128-CBC-SHA",
    "ECDHE-RSA-AES128-SHA",
    "ECDHE-RSA-AES256-SHA",
];

/// The groups for the exchange of keys that are spoken here and by Envoy, by BoringSSL's names.
const GROUPS: [&str; 4] = ["P-256", "P-384", "X25519", "X25519MLKEM768"];

/// Those of a list of cipher suites that are spoken here. Envoy's sets in brackets, of suites that
/// are equally good, are taken apart: `[A|B]` is A and B.
///
/// # Errors
/// If a suite is refused or not known, or if none that is spoken remains.
pub(crate) fn ciphers(list: &[String]) -> Result<Vec<&str>, Invalid> {
    let mut spoken = Vec::new();
    for (at, entry) in list.iter().enumerate() {
        let place = || format!("cipher_suites[{at}]");
        let set = entry
            .strip_prefix('[')
            .and_then(|set| set.strip_suffix(']'));
        for name in set.unwrap_or(entry).split('|') {
            if SPOKEN.contains(&name) {
                spoken.push(name);
            } else if REFUSED.contains(&name) {
                let message = format!("{name} is not supported: CBC is not safe");
                return Err(Invalid::new(place(), message));
            } else if !LEFT_OUT.contains(&name) {
                let message = format!("{name:?} is not supported; use some of {SPOKEN:?}");
                return Err(Invalid::new(place(), message));
            }
        }
    }
    if spoken.is_empty() && !list.is_empty() {
        let message = format!("none of them is supported; use some of {SPOKEN:?}");
        return Err(Invalid::new("cipher_suites", message));
    }
    Ok(spoken)
}

/// A group for the exchange of keys.
///
/// # Errors
/// If it is not one of those that are spoken.
pub(crate) fn group(name: &str) -> Result<&str, Invalid> {
    if GROUPS.contains(&name) {
        return Ok(name);
    }
    let message = format!("{name:?} is not supported; use some of {GROUPS:?}");
    Err(Invalid::new("", message))
}

/// A version. None is the default.
///
/// # Errors
/// If it is an old one.
pub(crate) fn version(protocol: TlsProtocol) -> Result<Option<TlsVersion>, Invalid> {
    match protocol {
        TlsProtocol::TlsAuto => Ok(None),
        TlsProtocol::TlSv12 => Ok(Some(TlsVersion::V1_2)),
        TlsProtocol::TlSv13 => Ok(Some(TlsVersion::V1_3)),
        old => {
            let message = format!("{} is not supported: it is not safe", old.as_str_name());
            Err(Invalid::new("", message))
        }
    }
}

/// A version for Envoy.
pub(crate) fn to_version(version: Option<TlsVersion>) -> TlsProtocol {
    match version {
        None => TlsProtocol::TlsAuto,
        Some(TlsVersion::V1_2) => TlsProtocol::TlSv12,
        Some(TlsVersion::V1_3) => TlsProtocol::TlSv13,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn istios_own_list_loses_the_suites_without_forward_secrecy() {
        let list = names(&[
            "ECDHE-ECDSA-AES256-GCM-SHA384",
            "ECDHE-RSA-AES256-GCM-SHA384",
            "AES256-GCM-SHA384",
            "AES128-GCM-SHA256",
        ]);
        let spoken = ciphers(&list).unwrap();
        assert_eq!(
            spoken,
            [
                "ECDHE-ECDSA-AES256-GCM-SHA384",
                "ECDHE-RSA-AES256-GCM-SHA384"
            ]
        );
        let error = ciphers(&list[2..]).unwrap_err();
        assert_eq!(error.path(), "cipher_suites");
    }

    #[test]
    fn a_set_in_brackets_is_taken_apart() {
        let set = "[ECDHE-ECDSA-AES128-GCM-SHA256|ECDHE-ECDSA-CHACHA20-POLY1305]";
        assert_eq!(ciphers(&names(&[set])).unwrap().len(), 2);
        assert!(ciphers(&names(&["[ECDHE-ECDSA-AES128-GCM-SHA256|x]"])).is_err());
    }

    #[test]
    fn what_is_not_safe_or_not_known_is_refused_by_its_place() {
        for bad in ["ECDHE-RSA-AES128-SHA", "TLS_AES_128_GCM_SHA256", "", "-ALL"] {
            let list = names(&["ECDHE-RSA-AES128-GCM-SHA256", bad]);
            assert_eq!(ciphers(&list).unwrap_err().path(), "cipher_suites[1]");
        }
        for old in [TlsProtocol::TlSv10, TlsProtocol::TlSv11] {
            assert!(version(old).is_err());
        }
        assert!(group("P-224").is_err());
    }

    #[test]
    fn versions_survive() {
        for one in [None, Some(TlsVersion::V1_2), Some(TlsVersion::V1_3)] {
            assert_eq!(version(to_version(one)).unwrap(), one);
        }
    }
}
