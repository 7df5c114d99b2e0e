//! Secrets: where they are, and as resources.

use super::file;
use crate::pb::envoy::config::core::v3 as core;
use crate::pb::envoy::config::core::v3::api_config_source::ApiType;
use crate::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use crate::pb::envoy::config::core::v3::data_source::Specifier;
use crate::pb::envoy::config::core::v3::grpc_service::{EnvoyGrpc, TargetSpecifier};
use crate::pb::envoy::extensions::transport_sockets::tls::v3 as pb;
use crate::pb::envoy::extensions::transport_sockets::tls::v3::certificate_validation_context::SystemRootCerts;
use crate::pb::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use crate::wire::to_duration;
use http::{HeaderName, HeaderValue};
use mesh_core::model::{Secret, SecretName, SecretRef, SecretSource, StreamOpening};
use std::time::Duration;

/// How long Envoy waits where nothing is said.
const INITIAL_FETCH: Duration = Duration::from_secs(15);

/// A certificate in files, if it is in files.
pub(super) fn files(named: &SecretRef) -> Option<pb::TlsCertificate> {
    match (SecretName::of(&named.name), &named.source) {
        (SecretName::CertificateFiles { certificate, key }, SecretSource::Local)
            // Which of several `~` is the one between would be lost.
            if !key.contains('~') && !certificate.is_empty() && !key.is_empty() =>
        {
            Some(pb::TlsCertificate {
                certificate_chain: Some(file(certificate)),
                private_key: Some(file(key)),
                ..pb::TlsCertificate::default()
            })
        }
        _ => None,
    }
}

/// A secret by its name; one that nobody else provides has to be in the bootstrap.
pub(super) fn reference(named: &SecretRef) -> pb::SdsSecretConfig {
    pb::SdsSecretConfig {
        name: named.name.to_string(),
        sds_config: source(&named.source),
    }
}

fn source(source: &SecretSource) -> Option<core::ConfigSource> {
    let (specifier, wait) = match source {
        SecretSource::ControlPlane {
            initial_fetch_timeout,
        } => {
            let ads = ConfigSourceSpecifier::Ads(core::AggregatedConfigSource::default());
            (ads, *initial_fetch_timeout)
        }
        SecretSource::Service {
            cluster,
            delta,
            opening,
            initial_fetch_timeout,
        } => {
            let service = service(cluster, *delta, opening);
            let service = ConfigSourceSpecifier::ApiConfigSource(service);
            (service, *initial_fetch_timeout)
        }
        SecretSource::File { path, watched } => {
            let path = core::PathConfigSource {
                path: path.to_string(),
                watched_directory: (!watched.is_empty()).then(|| core::WatchedDirectory {
                    path: watched.to_string(),
                    ..core::WatchedDirectory::default()
                }),
                ..core::PathConfigSource::default()
            };
            (ConfigSourceSpecifier::PathConfigSource(path), INITIAL_FETCH)
        }
        _ => return None,
    };
    Some(core::ConfigSource {
        initial_fetch_timeout: (wait != INITIAL_FETCH).then(|| to_duration(wait)),
        resource_api_version: core::ApiVersion::V3.into(),
        config_source_specifier: Some(specifier),
        ..core::ConfigSource::default()
    })
}

/// A service of its own, as istiod has it.
fn service(cluster: &str, delta: bool, opening: &StreamOpening) -> core::ApiConfigSource {
    let kind = match delta {
        true => ApiType::DeltaGrpc,
        false => ApiType::Grpc,
    };
    core::ApiConfigSource {
        api_type: kind.into(),
        transport_api_version: core::ApiVersion::V3.into(),
        set_node_on_first_message_only: true,
        grpc_services: vec![core::GrpcService {
            target_specifier: Some(TargetSpecifier::EnvoyGrpc(EnvoyGrpc {
                cluster_name: cluster.to_owned(),
                authority: opening.authority.to_string(),
                ..EnvoyGrpc::default()
            })),
            initial_metadata: opening.metadata.iter().map(metadata).collect(),
            ..core::GrpcService::default()
        }],
        ..core::ApiConfigSource::default()
    }
}

/// Metadata as a format that says nothing but it.
fn metadata((name, value): &(HeaderName, HeaderValue)) -> core::HeaderValue {
    let mut plain = Vec::with_capacity(value.len());
    for &byte in value.as_bytes() {
        plain.push(byte);
        if byte == b'%' {
            plain.push(byte);
        }
    }
    let (value, raw_value) = match String::from_utf8(plain) {
        Ok(text) => (text, Vec::new()),
        Err(other) => (String::new(), other.into_bytes()),
    };
    core::HeaderValue {
        key: name.to_string(),
        value,
        raw_value,
    }
}

/// A secret as a resource, with all that it holds.
pub(in crate::write) fn secret(name: &str, secret: &Secret) -> pb::Secret {
    let kind = match secret {
        Secret::Certificate { chain, key } => Some(Type::TlsCertificate(pb::TlsCertificate {
            certificate_chain: Some(bytes(chain)),
            private_key: Some(bytes(key.expose())),
            ..pb::TlsCertificate::default()
        })),
        Secret::Trust { roots, revoked } => {
            Some(Type::ValidationContext(pb::CertificateValidationContext {
                trusted_ca: Some(bytes(roots)),
                crl: (!revoked.is_empty()).then(|| bytes(revoked)),
                ..pb::CertificateValidationContext::default()
            }))
        }
        // A kind that is not known here: Envoy refuses a secret that is none.
        _ => None,
    };
    pb::Secret {
        name: name.to_owned(),
        r#type: kind,
    }
}

/// A secret as a resource that says where its parts lie.
pub(in crate::write) fn secret_in_files(name: &str, at: SecretName<'_>) -> pb::Secret {
    let mut context = pb::CertificateValidationContext::default();
    let kind = match at {
        SecretName::CertificateFiles { certificate, key } => {
            Some(Type::TlsCertificate(pb::TlsCertificate {
                certificate_chain: Some(file(certificate)),
                private_key: Some(file(key)),
                ..pb::TlsCertificate::default()
            }))
        }
        SecretName::RootFile(path) => {
            context.trusted_ca = Some(file(path));
            Some(Type::ValidationContext(context))
        }
        SecretName::SystemRoots => {
            context.system_root_certs = Some(SystemRootCerts::default());
            Some(Type::ValidationContext(context))
        }
        _ => None,
    };
    pb::Secret {
        name: name.to_owned(),
        r#type: kind,
    }
}

fn bytes(bytes: &[u8]) -> core::DataSource {
    core::DataSource {
        specifier: Some(Specifier::InlineBytes(bytes.to_vec())),
        ..core::DataSource::default()
    }
}
