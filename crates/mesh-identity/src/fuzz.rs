//! Entry points for fuzzing: bytes that are not trusted, through everything that reads them.

use crate::secret::{Certificate, Trust};
use crate::{names, pem};
use mesh_core::Invalid;

/// Reads a certificate chain and a private key, both PEM, as from a file.
///
/// # Errors
/// As [`check_secret`](crate::check_secret).
pub fn read_certificate(chain: &[u8], key: &[u8]) -> Result<(), Invalid> {
    Certificate::read(chain, key).map(|_| ())
}

/// Reads a private key alone, PEM.
///
/// # Errors
/// It is none, or of a kind that is not known.
pub fn read_key(text: &[u8]) -> Result<(), Invalid> {
    pem::key(text).map(|_| ())
}

/// Reads a bundle of roots and lists of revoked certificates, both PEM; either may be empty.
///
/// # Errors
/// As [`check_secret`](crate::check_secret).
pub fn read_trust(roots: &[u8], revoked: &[u8]) -> Result<(), Invalid> {
    Trust::read(roots, revoked).map(|_| ())
}

/// Reads a request for a certificate, PEM, as an authority does.
///
/// # Errors
/// As [`Authority::sign`](crate::authority::Authority::sign).
#[cfg(feature = "authority")]
pub fn read_request(text: &[u8]) -> Result<(), Invalid> {
    crate::authority::read_request(text)
}

/// Reads a certificate as a peer shows it, DER, and returns its names.
pub fn read_peer(der: &[u8]) -> mesh_core::exchange::PeerCertificate {
    names::peer(der, false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair};

    proptest! {
        #[test]
        fn files_that_were_damaged_never_panic(
            at in any::<prop::sample::Index>(),
            byte: u8,
            cut in any::<prop::sample::Index>(),
        ) {
            let key = KeyPair::generate().unwrap();
            let leaf = CertificateParams::new(["a.test".to_owned()]).unwrap();
            let leaf = leaf.self_signed(&key).unwrap();
            let damage = |bytes: &[u8]| {
                let mut bytes = bytes.to_vec();
                let at = at.index(bytes.len());
                bytes[at] = byte;
                bytes.truncate(bytes.len() - cut.index(40));
                bytes
            };
            let (chain, pem) = (leaf.pem().into_bytes(), key.serialize_pem().into_bytes());
            prop_assert_eq!(read_certificate(&chain, &pem), Ok(()));
            let _ = read_certificate(&damage(&chain), &pem);
            let _ = read_certificate(&chain, &damage(&pem));
            let _ = (read_key(&damage(&pem)), read_trust(&damage(&chain), &[]));
            let _ = read_peer(&damage(leaf.der()));
        }
    }
}
