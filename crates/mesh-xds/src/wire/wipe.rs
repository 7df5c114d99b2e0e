//! Keys that were decoded, or are written, do not stay in memory.

use crate::pb::envoy::config::core::v3::DataSource;
use crate::pb::envoy::config::core::v3::data_source::Specifier;
use crate::pb::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use crate::pb::envoy::extensions::transport_sockets::tls::v3::{Secret, TlsCertificate};
use zeroize::Zeroize;

/// Wipes what dumps do not show of a secret, once it was read or encoded.
pub(crate) fn wipe(secret: &mut Secret) {
    match &mut secret.r#type {
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

fn source(source: &mut DataSource) {
    match &mut source.specifier {
        Some(Specifier::InlineBytes(bytes)) => bytes.zeroize(),
        Some(Specifier::InlineString(text)) => text.zeroize(),
        Some(Specifier::Filename(_) | Specifier::EnvironmentVariable(_)) | None => {}
    }
}
