//! What handshakes agreed on: Envoy's `ssl.versions.*`, `ssl.ciphers.*` and `ssl.curves.*`, in its
//! names. The list is closed: whatever peers offer, they can make no statistic of their own.
//!
//! Envoy also counts the algorithms of peers' signatures (`ssl.sigalgs.*`), which rustls does not tell.

use super::{Block, Shard, Stat};
use crate::exchange::TlsInfo;
use crate::model::TlsVersion;

crate::stats! {
    /// What is counted for each handshake that succeeded, beside that it did (Envoy's
    /// `listener.<address>.*` and `cluster.<name>.*`). As there, none is listed before it counts.
    pub enum TlsStat {
        /// TLS 1.2.
        Tls12 = Counter "ssl.versions.TLSv1.2",
        /// TLS 1.3.
        Tls13 = Counter "ssl.versions.TLSv1.3",
        /// TLS 1.3 with AES-128.
        Aes128 = Counter "ssl.ciphers.TLS_AES_128_GCM_SHA256",
        /// TLS 1.3 with AES-256.
        Aes256 = Counter "ssl.ciphers.TLS_AES_256_GCM_SHA384",
        /// TLS 1.3 with ChaCha20.
        ChaCha20 = Counter "ssl.ciphers.TLS_CHACHA20_POLY1305_SHA256",
        /// TLS 1.2 with ECDSA and AES-128.
        EcdsaAes128 = Counter "ssl.ciphers.ECDHE-ECDSA-AES128-GCM-SHA256",
        /// TLS 1.2 with ECDSA and AES-256.
        EcdsaAes256 = Counter "ssl.ciphers.ECDHE-ECDSA-AES256-GCM-SHA384",
        /// TLS 1.2 with ECDSA and ChaCha20.
        EcdsaChaCha20 = Counter "ssl.ciphers.ECDHE-ECDSA-CHACHA20-POLY1305",
        /// TLS 1.2 with RSA and AES-128.
        RsaAes128 = Counter "ssl.ciphers.ECDHE-RSA-AES128-GCM-SHA256",
        /// TLS 1.2 with RSA and AES-256.
        RsaAes256 = Counter "ssl.ciphers.ECDHE-RSA-AES256-GCM-SHA384",
        /// TLS 1.2 with RSA and ChaCha20.
        RsaChaCha20 = Counter "ssl.ciphers.ECDHE-RSA-CHACHA20-POLY1305",
        /// Keys from X25519 and ML-KEM together.
        X25519MlKem768 = Counter "ssl.curves.X25519MLKEM768",
        /// Keys from X25519.
        X25519 = Counter "ssl.curves.X25519",
        /// Keys from the curve P-256.
        P256 = Counter "ssl.curves.P-256",
        /// Keys from the curve P-384.
        P384 = Counter "ssl.curves.P-384",
    }
}

impl TlsStat {
    /// Counts what a handshake agreed on.
    pub fn count(block: &Block<Self>, shard: Shard, agreed: &TlsInfo) {
        let version = match agreed.version {
            Some(TlsVersion::V1_2) => "TLSv1.2",
            Some(TlsVersion::V1_3) => "TLSv1.3",
            None => "",
        };
        for (stat, name, _) in Self::ALL {
            let mut parts = name.splitn(3, '.').skip(1);
            let value = match parts.next() {
                Some("versions") => version,
                Some("ciphers") => &agreed.cipher,
                Some("curves") => &agreed.group,
                _ => continue,
            };
            if parts.next() == Some(value) {
                block.inc(shard, *stat);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_counts_in_its_version_cipher_and_group_and_nowhere_else() {
        let block = Block::default();
        let mut agreed = TlsInfo {
            version: Some(TlsVersion::V1_2),
            cipher: "ECDHE-RSA-AES128-GCM-SHA256".into(),
            group: "P-256".into(),
            ..TlsInfo::default()
        };
        TlsStat::count(&block, Shard::default(), &agreed);
        agreed.group = "a group that nobody knows".into();
        TlsStat::count(&block, Shard::default(), &agreed);
        TlsStat::count(&block, Shard::default(), &TlsInfo::default());
        let mut counted: Vec<_> = block.iter().filter(|(_, _, value)| *value > 0).collect();
        counted.sort_by_key(|(name, ..)| *name);
        let counted: Vec<_> = counted
            .iter()
            .map(|(name, _, value)| (*name, *value))
            .collect();
        assert_eq!(
            counted,
            [
                ("ssl.ciphers.ECDHE-RSA-AES128-GCM-SHA256", 2),
                ("ssl.curves.P-256", 1),
                ("ssl.versions.TLSv1.2", 2),
            ]
        );
    }
}
