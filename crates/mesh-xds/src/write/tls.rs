//! Transport security.

mod secrets;

use crate::pb::envoy::config::cluster::v3::cluster::TransportSocketMatch;
use crate::pb::envoy::config::core::v3::data_source::Specifier;
use crate::pb::envoy::config::core::v3::proxy_protocol_config::Version;
use crate::pb::envoy::config::core::v3::transport_socket::ConfigType;
use crate::pb::envoy::config::core::v3::{DataSource, ProxyProtocolConfig, TransportSocket};
use crate::pb::envoy::extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport;
use crate::pb::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use crate::pb::envoy::extensions::transport_sockets::tls::v3 as pb;
use crate::pb::envoy::extensions::transport_sockets::tls::v3::certificate_validation_context::{
    SystemRootCerts, TrustChainVerification,
};
use crate::pb::envoy::extensions::transport_sockets::tls::v3::common_tls_context::{
    CombinedCertificateValidationContext, ValidationContextType,
};
use crate::wire::text::to_string_match;
use crate::wire::{base64, pack, tls, to_boolean};
use mesh_core::model::{
    ClientTls, Cluster, ProxyProtocol, SecretName, SecretRef, SecretSource, ServerTls, TlsMatch,
    TlsParams, Validation,
};
use prost::Name;

pub(super) use secrets::{secret, secret_in_files};

/// How connections from callers are secured.
pub(super) fn server(tls: &ServerTls) -> TransportSocket {
    let context = pb::DownstreamTlsContext {
        common_tls_context: Some(common(
            &tls.params,
            &tls.alpn,
            &tls.certificates,
            tls.validation.as_ref(),
        )),
        require_client_certificate: to_boolean(tls.require_client_certificate),
        ..pb::DownstreamTlsContext::default()
    };
    socket("envoy.transport_sockets.tls", &context)
}

/// How connections to endpoints start; nothing where they are plain.
pub(super) fn client(cluster: &Cluster) -> Option<TransportSocket> {
    let secured = cluster.tls.as_ref().map(|tls| context(tls));
    let Some(version) = cluster.proxy_protocol else {
        return secured;
    };
    Some(announced(version, secured.unwrap_or_else(plain)))
}

/// How connections to some of its endpoints start.
pub(super) fn matched(cluster: &Cluster, one: &TlsMatch) -> TransportSocketMatch {
    let secured = one.tls.as_ref().map_or_else(plain, |tls| context(tls));
    TransportSocketMatch {
        name: one.name.to_string(),
        r#match: Some(super::metadata::values(&one.labels)),
        transport_socket: Some(match cluster.proxy_protocol {
            Some(version) => announced(version, secured),
            None => secured,
        }),
    }
}

fn plain() -> TransportSocket {
    socket("envoy.transport_sockets.raw_buffer", &RawBuffer::default())
}

/// The PROXY protocol's header first.
fn announced(version: ProxyProtocol, then: TransportSocket) -> TransportSocket {
    let announced = ProxyProtocolUpstreamTransport {
        config: Some(ProxyProtocolConfig {
            version: match version {
                ProxyProtocol::V1 => Version::V1,
                ProxyProtocol::V2 => Version::V2,
            }
            .into(),
            ..ProxyProtocolConfig::default()
        }),
        transport_socket: Some(then),
        ..ProxyProtocolUpstreamTransport::default()
    };
    let name = "envoy.transport_sockets.upstream_proxy_protocol";
    socket(name, &announced)
}

fn context(tls: &ClientTls) -> TransportSocket {
    let context = pb::UpstreamTlsContext {
        common_tls_context: Some(common(
            &tls.params,
            &tls.alpn,
            &tls.certificates,
            tls.validation.as_ref(),
        )),
        sni: tls.sni.to_string(),
        // With a name for each request, the options of HTTP ask for it.
        auto_sni_san_validation: tls.auto_san && !tls.auto_sni,
        ..pb::UpstreamTlsContext::default()
    };
    socket("envoy.transport_sockets.tls", &context)
}

fn socket(name: &str, config: &impl Name) -> TransportSocket {
    TransportSocket {
        name: name.to_owned(),
        config_type: Some(ConfigType::TypedConfig(pack(config))),
    }
}

fn common(
    params: &TlsParams,
    alpn: &[mesh_core::Name],
    certificates: &[SecretRef],
    validation: Option<&Validation>,
) -> pb::CommonTlsContext {
    let mut out = pb::CommonTlsContext {
        tls_params: params_of(params),
        alpn_protocols: alpn.iter().map(ToString::to_string).collect(),
        validation_context_type: validation.map(validation_of),
        ..pb::CommonTlsContext::default()
    };
    // Envoy takes either files or secrets, and not both.
    let files: Option<Vec<_>> = certificates.iter().map(secrets::files).collect();
    match files {
        Some(files) => out.tls_certificates = files,
        None => {
            let named = certificates.iter().map(secrets::reference);
            out.tls_certificate_sds_secret_configs = named.collect();
        }
    }
    out
}

fn params_of(params: &TlsParams) -> Option<pb::TlsParameters> {
    if *params == TlsParams::default() {
        return None;
    }
    Some(pb::TlsParameters {
        tls_minimum_protocol_version: tls::to_version(params.min).into(),
        tls_maximum_protocol_version: tls::to_version(params.max).into(),
        cipher_suites: params.ciphers.iter().map(ToString::to_string).collect(),
        ecdh_curves: params.groups.iter().map(ToString::to_string).collect(),
        ..pb::TlsParameters::default()
    })
}

/// Roots in a file, or the machine's, stand in the context; others are a secret beside it.
#[expect(
    deprecated,
    reason = "Istio writes the older list of names, which has no kinds either"
)]
fn validation_of(validation: &Validation) -> ValidationContextType {
    let mut context = pb::CertificateValidationContext {
        match_subject_alt_names: validation
            .subject_alt_names
            .iter()
            .map(to_string_match)
            .collect(),
        verify_certificate_hash: validation.hashes.iter().map(hex).collect(),
        verify_certificate_spki: validation
            .spki
            .iter()
            .map(|pin| base64::encode(pin))
            .collect(),
        trust_chain_verification: match validation.accept_untrusted {
            false => TrustChainVerification::VerifyTrustChain,
            true => TrustChainVerification::AcceptUntrusted,
        }
        .into(),
        only_verify_leaf_cert_crl: validation.only_leaf_revocation,
        // A list that is not in a file has no form of its own: Envoy refuses what is then written,
        // for there is no such file. Without it, revoked certificates would be accepted.
        crl: validation.revoked.as_ref().map(|named| {
            file(match SecretName::of(&named.name) {
                SecretName::RevokedFile(path) => path,
                _ => &named.name,
            })
        }),
        ..pb::CertificateValidationContext::default()
    };
    let Some(roots) = &validation.roots else {
        return ValidationContextType::ValidationContext(context);
    };
    match (SecretName::of(&roots.name), &roots.source) {
        (SecretName::RootFile(path), SecretSource::Local) if !path.is_empty() => {
            context.trusted_ca = Some(file(path));
            ValidationContextType::ValidationContext(context)
        }
        (SecretName::SystemRoots, SecretSource::Local) => {
            context.system_root_certs = Some(SystemRootCerts::default());
            ValidationContextType::ValidationContext(context)
        }
        _ => {
            let combined = CombinedCertificateValidationContext {
                default_validation_context: Some(context),
                validation_context_sds_secret_config: Some(secrets::reference(roots)),
                ..CombinedCertificateValidationContext::default()
            };
            ValidationContextType::CombinedValidationContext(combined)
        }
    }
}

fn hex(digest: &[u8; 32]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn file(path: &str) -> DataSource {
    DataSource {
        specifier: Some(Specifier::Filename(path.to_owned())),
        ..DataSource::default()
    }
}
