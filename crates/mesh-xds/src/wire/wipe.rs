//! Keys that were decoded, or are written, do not stay in memory: messages with secrets are wiped
//! when they are dropped.
//!
//! What this covers is the bytes and messages that are in our own hands, from a response that was
//! decoded to the model. Not covered are the buffers of connections (tonic, hyper, TLS), the text
//! that a bootstrap is written as with what is made of it on the way to its bytes, and keys that stand in a listener or cluster instead of in a
//! secret of its own.

use crate::pb::envoy::config::core::v3::DataSource;
use crate::pb::envoy::config::core::v3::data_source::Specifier;
use crate::pb::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use crate::pb::envoy::extensions::transport_sockets::tls::v3::{
    GenericSecret, Secret, TlsCertificate, TlsSessionTicketKeys,
};
use bytes::Bytes;
use mesh_core::Invalid;
use prost::Message;
use prost::encoding::{DecodeContext, decode_key, skip_field};
use zeroize::Zeroize;

/// A message, wiped when it is dropped.
#[derive(Debug)]
pub(crate) struct Wiped<M: Wipe>(pub(crate) M);

/// What dumps do not show of a message can be wiped from memory.
pub(crate) trait Wipe {
    /// Wipes it.
    fn wipe(&mut self);
}

/// Decodes a secret; wiped also if that fails half-way. Of the bytes no copy is made but into what
/// is returned.
pub(crate) fn decode_secret(bytes: Bytes) -> Result<Wiped<Secret>, Invalid> {
    // What prost has read of a choice when it fails it drops, unless the choice was there before.
    let mut secret = Wiped(Secret {
        r#type: kind_of(&bytes),
        ..Secret::default()
    });
    let decoded = secret.0.merge(bytes);
    decoded.map_err(|error| Invalid::new("", format!("cannot be decoded: {error}")))?;
    Ok(secret)
}

/// Which kind of secret it is going to be, as far as that can be read.
fn kind_of(mut bytes: &[u8]) -> Option<Type> {
    let mut kind = None;
    while let Ok((number, wire)) = decode_key(&mut bytes) {
        kind = match number {
            2 => Some(Type::TlsCertificate(TlsCertificate::default())),
            3 => Some(Type::SessionTicketKeys(TlsSessionTicketKeys::default())),
            5 => Some(Type::GenericSecret(GenericSecret::default())),
            _ => kind,
        };
        if skip_field(wire, number, &mut bytes, DecodeContext::default()).is_err() {
            break;
        }
    }
    kind
}

// === impl Wiped ===

impl<M: Wipe> Drop for Wiped<M> {
    fn drop(&mut self) {
        self.0.wipe();
    }
}

// === impl Secret ===

impl Wipe for Secret {
    fn wipe(&mut self) {
        match &mut self.r#type {
            Some(Type::TlsCertificate(certificate)) => {
                let TlsCertificate {
                    private_key,
                    pkcs12,
                    password,
                    ..
                } = certificate;
                let parts = [private_key, pkcs12, password];
                parts.into_iter().flatten().for_each(source);
            }
            Some(Type::SessionTicketKeys(keys)) => keys.keys.iter_mut().for_each(source),
            Some(Type::GenericSecret(secret)) => {
                let all = secret.secret.iter_mut().chain(secret.secrets.values_mut());
                all.for_each(source);
            }
            Some(Type::ValidationContext(_)) | None => {}
        }
    }
}

fn source(source: &mut DataSource) {
    match &mut source.specifier {
        Some(Specifier::InlineBytes(bytes)) => bytes.zeroize(),
        Some(Specifier::InlineString(text)) => text.zeroize(),
        Some(Specifier::Filename(_) | Specifier::EnvironmentVariable(_)) | None => {}
    }
}

// === impl Bootstrap ===

#[cfg(feature = "json")]
impl Wipe for crate::pb::envoy::config::bootstrap::v3::Bootstrap {
    fn wipe(&mut self) {
        let resources = self.static_resources.iter_mut();
        let secrets = resources.flat_map(|resources| &mut resources.secrets);
        secrets.for_each(Wipe::wipe);
    }
}
