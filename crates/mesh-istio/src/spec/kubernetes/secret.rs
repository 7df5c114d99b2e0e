//! `Secret`: certificates, keys and roots of trust.
//!
//! Nothing of what it holds is ever quoted: not in findings, not in `Debug`.

use std::sync::Arc;

use mesh_core::model;

use crate::cursor::{Cursor, Fields};

/// What of a `Secret` matters here. `Debug` shows what there is and never what it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Secret {
    /// `tls.crt` and `tls.key`, or `cert` and `key`.
    pub certificate: Option<Arc<model::Secret>>,
    /// `ca.crt` with `ca.crl`, or `cacert` with `crl`.
    pub trust: Option<Arc<model::Secret>>,
}

/// The entries that matter, each by the two names it may have: that of Opaque secrets, which
/// wins, and that of TLS secrets.
const CERTIFICATE: [&str; 2] = ["cert", "tls.crt"];
const KEY: [&str; 2] = ["key", "tls.key"];
const ROOTS: [&str; 2] = ["cacert", "ca.crt"];
const REVOKED: [&str; 2] = ["crl", "ca.crl"];

/// The entries of `data` and `stringData`; the latter wins, as in Kubernetes.
struct Entries(Vec<(&'static str, Vec<u8>)>);

impl Secret {
    /// Reads `data` and `stringData` from the whole object.
    pub(in crate::spec) fn read(cursor: &Cursor<'_>) -> Option<Self> {
        let mut fields = cursor.fields()?;
        let mut entries = Entries(Vec::new());
        entries.take(&mut fields, "stringData", |text| {
            Some(text.as_bytes().to_vec())
        });
        entries.take(&mut fields, "data", |text| {
            // Long lines may be folded.
            let packed: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
            crate::cursor::decode_base64(&packed)
        });
        let pair =
            |of: &usize| entries.get(CERTIFICATE[*of]).is_some() && entries.get(KEY[*of]).is_some();
        let found = [0, 1].into_iter().find(pair);
        let found =
            found.and_then(|of| Some((entries.remove(CERTIFICATE[of])?, entries.remove(KEY[of])?)));
        let certificate = found.map(|(chain, key)| {
            if !has(&chain, "CERTIFICATE") {
                cursor.error("the certificate is not PEM: no \"-----BEGIN CERTIFICATE-----\"");
            }
            if !has(&key, "PRIVATE KEY") {
                cursor.error("the key is not PEM: no \"-----BEGIN PRIVATE KEY-----\" or like it");
            }
            Arc::new(model::Secret::certificate(chain, key))
        });
        let list = |of: usize| {
            entries
                .get(ROOTS[of])
                .map(|roots| (roots, entries.get(REVOKED[of])))
        };
        let trust = list(0).or_else(|| list(1)).map(|(roots, revoked)| {
            if !has(roots, "CERTIFICATE") {
                cursor.error("the roots are not PEM: no \"-----BEGIN CERTIFICATE-----\"");
            }
            if revoked.is_some_and(|list| !list.is_empty() && !has(list, "X509 CRL")) {
                cursor
                    .error("the revoked certificates are not PEM: no \"-----BEGIN X509 CRL-----\"");
            }
            let mut secret = model::Secret::roots(roots);
            if let (model::Secret::Trust { revoked: list, .. }, Some(given)) =
                (&mut secret, revoked)
            {
                list.extend_from_slice(given);
            }
            Arc::new(secret)
        });
        Some(Self { certificate, trust })
    }
}

impl Entries {
    fn take(
        &mut self,
        fields: &mut Fields<'_>,
        name: &'static str,
        decode: impl Fn(&str) -> Option<Vec<u8>>,
    ) {
        fields.entries(name, |key, value| {
            let known = [CERTIFICATE, KEY, ROOTS, REVOKED];
            let key = known.iter().flatten().find(|known| **known == key)?;
            // Not the usual reader, which quotes what it cannot take.
            let Some(text) = value.node().text() else {
                return value.expected("text");
            };
            match decode(text) {
                Some(bytes) if self.get(key).is_none() => self.0.push((*key, bytes)),
                Some(_) => {}
                None => value.error("not base64"),
            }
            Some(())
        });
    }

    /// Takes an entry out: a key is not to be copied.
    fn remove(&mut self, key: &str) -> Option<Vec<u8>> {
        let place = self.0.iter().position(|(name, _)| *name == key)?;
        Some(self.0.swap_remove(place).1)
    }

    fn get(&self, key: &str) -> Option<&[u8]> {
        let found = self.0.iter().find(|(name, _)| *name == key);
        found
            .map(|(_, bytes)| bytes.as_slice())
            .filter(|bytes| !bytes.is_empty())
    }
}

/// Whether there is a PEM block of such a kind.
fn has(text: &[u8], kind: &str) -> bool {
    let text = String::from_utf8_lossy(text);
    text.lines().any(|line| {
        line.trim()
            .strip_prefix("-----BEGIN ")
            .is_some_and(|rest| rest.contains(kind) && rest.ends_with("-----"))
    })
}
