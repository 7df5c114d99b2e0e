//! Certificates, keys and lists of revoked certificates: files, and what peers show.

use crate::{Input, Target};
use mesh_core::Invalid;
use mesh_identity::fuzz::{read_certificate, read_key, read_peer, read_trust};
use rustls_pki_types::pem::{PemObject, SectionKind};

/// `secret_files`: a chain of certificates, its key, roots, and lists of revoked certificates, with
/// a line `%%` between one and the next.
pub(crate) const FILES: Target = Target {
    name: "secret_files",
    run: files,
    input: Input::Text,
};

/// `certificate`: one section of such a file.
pub(crate) const DER: Target = Target {
    name: "certificate",
    run: section,
    input: Input::Der,
};

/// What sections are called.
pub(crate) const LABELS: [&str; 5] = [
    "CERTIFICATE",
    "X509 CRL",
    "PRIVATE KEY",
    "EC PRIVATE KEY",
    "RSA PRIVATE KEY",
];

const KINDS: [SectionKind; 5] = [
    SectionKind::Certificate,
    SectionKind::Crl,
    SectionKind::PrivateKey,
    SectionKind::EcPrivateKey,
    SectionKind::RsaPrivateKey,
];

/// Those of the seeds, which belong together: what comes is tried with them.
const LEAF: &[u8] = include_bytes!("../seeds/certificate/leaf.pem");
const KEY: &[u8] = include_bytes!("../seeds/certificate/key.pem");
const ROOT: &[u8] = include_bytes!("../seeds/certificate/root.pem");

/// Between one file and the next.
const NEXT: &[u8] = b"%%\n";

fn files(data: &[u8]) {
    let mut rest = Some(data);
    let mut next = || {
        let all = rest.take().unwrap_or_default();
        let at = all.windows(NEXT.len()).position(|part| part == NEXT);
        let Some(at) = at else { return all };
        rest = Some(&all[at + NEXT.len()..]);
        &all[..at]
    };
    let (chain, key, roots, revoked) = (next(), next(), next(), next());
    if read_certificate(chain, key).is_ok() {
        read_key(key).expect("it is the key of a certificate");
        read_trust(chain, &[]).expect("they are certificates");
    }
    if read_trust(roots, revoked).is_ok() {
        // Each by itself, unless it is all that there is.
        assert!(roots.is_empty() || read_trust(roots, &[]).is_ok());
        assert!(revoked.is_empty() || read_trust(&[], revoked).is_ok());
    }
    let _ = (read_key(chain), read_trust(key, chain));
}

fn section(data: &[u8]) {
    let Some((which, der)) = data.split_first() else {
        return;
    };
    let label = LABELS[usize::from(*which) % LABELS.len()];
    let text = wrap(label, der, "\n");
    let files = [text.as_bytes(), wrap(label, der, "\r\n").as_bytes()].map(<[u8]>::to_vec);
    let [text, dos] = &files;
    match label {
        "CERTIFICATE" => {
            let peer = read_peer(der);
            assert_eq!(*peer.der, *der);
            assert!(!peer.validated);
            let own = same(text, dos, |text| read_certificate(text, KEY));
            let trust = same(text, dos, |text| read_trust(text, &[]));
            assert!(own.is_err() || trust.is_ok(), "{own:?}, but {trust:?}");
            // Behind another in a chain.
            let _ = read_certificate(&[LEAF, text].concat(), KEY);
        }
        "X509 CRL" => {
            let alone = same(text, dos, |text| read_trust(&[], text));
            let with = read_trust(ROOT, text);
            assert_eq!(alone, with, "a root changes what is read");
        }
        _ => {
            // What is in it shows when it is used.
            assert_eq!(same(text, dos, read_key), Ok(()));
            let _ = read_certificate(LEAF, text);
        }
    }
}

/// Ends of lines do not matter.
fn same(
    text: &[u8],
    dos: &[u8],
    read: impl Fn(&[u8]) -> Result<(), Invalid>,
) -> Result<(), Invalid> {
    let (one, other) = (read(text), read(dos));
    assert_eq!(one, other, "with other ends of lines");
    one
}

/// DER as a section of a file.
pub(crate) fn wrap(label: &str, der: &[u8], end: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = format!("-----BEGIN {label}-----{end}");
    for line in der.chunks(48) {
        for group in line.chunks(3) {
            let mut word = [0; 4];
            word[1..=group.len()].copy_from_slice(group);
            let word = u32::from_be_bytes(word);
            for at in 0..4 {
                let digit = DIGITS[(word >> (18 - 6 * at)) as usize & 63];
                text.push(if at > group.len() { '=' } else { digit.into() });
            }
        }
        text.push_str(end);
    }
    text + &format!("-----END {label}-----{end}")
}

/// The first section of a file as an input.
pub(crate) fn unwrap(text: &str) -> Result<Vec<u8>, String> {
    let first = <(SectionKind, Vec<u8>)>::from_pem_slice(text.as_bytes());
    let (kind, der) = first.map_err(|error| error.to_string())?;
    let known = KINDS.iter().position(|known| *known == kind);
    let which = known.ok_or_else(|| format!("{kind:?} is not one of {LABELS:?}"))?;
    Ok([&[which as u8][..], &der].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrapped_is_unwrapped() {
        for (which, label) in LABELS.into_iter().enumerate() {
            for length in [1, 2, 3, 47, 48, 49, 200] {
                let input: Vec<u8> = (0..=length).map(|at: u8| at.wrapping_mul(7)).collect();
                let text = wrap(label, &input[1..], "\n");
                let back = unwrap(&text).unwrap();
                assert_eq!((usize::from(back[0]), &back[1..]), (which, &input[1..]));
            }
        }
    }

    #[test]
    fn the_seeds_belong_together() {
        assert_eq!(read_certificate(LEAF, KEY), Ok(()));
        assert_eq!(read_trust(ROOT, &[]), Ok(()));
    }
}
