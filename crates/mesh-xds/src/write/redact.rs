//! Secrets as dumps show them.

use crate::pb::envoy::config::core::v3::DataSource;
use crate::pb::envoy::config::core::v3::data_source::Specifier;
use crate::pb::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use crate::pb::envoy::extensions::transport_sockets::tls::v3::{Secret, TlsCertificate};

/// What stands in place of what is not shown.
const REDACTED: &str = "[redacted]";

/// The fields that Envoy marks as sensitive are replaced.
pub(super) fn secret(secret: &Secret) -> Secret {
    let mut secret = secret.clone();
    match &mut secret.r#type {
        Some(Type::TlsCertificate(certificate)) => {
            let TlsCertificate {
                private_key,
                pkcs12,
                password,
                private_key_provider,
                ..
            } = certificate;
            for source in [private_key, pkcs12, password].into_iter().flatten() {
                hide(source);
            }
            if let Some(provider) = private_key_provider {
                provider.config_type = None;
            }
        }
        Some(Type::SessionTicketKeys(keys)) => keys.keys.iter_mut().for_each(hide),
        Some(Type::GenericSecret(secret)) => {
            let all = secret.secret.iter_mut().chain(secret.secrets.values_mut());
            all.for_each(hide);
        }
        Some(Type::ValidationContext(_)) | None => {}
    }
    secret
}

/// Where it is may be seen, what it is not.
fn hide(source: &mut DataSource) {
    match &mut source.specifier {
        Some(Specifier::InlineBytes(bytes)) => *bytes = REDACTED.into(),
        Some(Specifier::InlineString(text)) => *text = REDACTED.into(),
        Some(Specifier::Filename(_) | Specifier::EnvironmentVariable(_)) | None => {}
    }
}

#[cfg(test)]
mod tests {
    use mesh_core::model;
    use prost::Message as _;

    #[test]
    fn a_key_is_replaced_and_the_certificates_are_shown() {
        let certificate = model::Secret::certificate("chain", "hush-hush");
        let shown = super::secret(&crate::write::secret("n", &certificate)).encode_to_vec();
        let text = String::from_utf8_lossy(&shown);
        assert!(
            text.contains("chain") && text.contains("[redacted]"),
            "{text}"
        );
        assert!(!text.contains("hush"), "{text}");
        let roots = crate::write::secret("n", &model::Secret::roots("roots"));
        assert_eq!(super::secret(&roots), roots);
    }
}
