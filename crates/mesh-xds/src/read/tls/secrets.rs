//! Secrets: where they are, those that come with something else, and those that are resources.

use super::data::{self, Data};
use super::validation;
use crate::pb::envoy::config::core::v3::{
    ApiConfigSource, ConfigSource, GrpcService, PathConfigSource,
    api_config_source::ApiType,
    config_source::ConfigSourceSpecifier,
    grpc_service::{EnvoyGrpc, TargetSpecifier},
};
use crate::pb::envoy::extensions::transport_sockets::tls::v3 as pb;
use crate::pb::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use crate::read::{Given, SecretResource, SecretValue, opening, source};
use crate::wire::{At, each, enumeration, pass_over, refuse, required, unsupported};
use mesh_core::model::{Secret, SecretName, SecretRef, SecretSource, StreamOpening, Validation};
use mesh_core::{Invalid, Name};
use std::sync::Arc;

/// A certificate that stands in a context: two files, or both in place.
pub(super) fn certificate(
    value: &pb::TlsCertificate,
    given: &mut Given,
) -> Result<SecretRef, Invalid> {
    Ok(match certificate_of(value)? {
        SecretValue::Given(secret) => given.put(secret),
        SecretValue::At(name) => SecretRef::local(name),
    })
}

/// Lists of revoked certificates that stand in a context.
pub(super) fn revoked(pem: &[u8], given: &mut Given) -> SecretRef {
    let mut secret = Secret::roots("");
    if let Secret::Trust { revoked, .. } = &mut secret {
        *revoked = pem.to_vec();
    }
    given.add(secret)
}

/// A secret as a resource.
pub(in crate::read) fn secret(value: &pb::Secret) -> Result<SecretResource, Invalid> {
    let pb::Secret { name, r#type } = value;
    if name.is_empty() {
        return Err(Invalid::new("name", "required, but missing"));
    }
    let value = match required("type", r#type)? {
        Type::TlsCertificate(certificate) => certificate_of(certificate).at("tls_certificate")?,
        Type::ValidationContext(context) => trust_of(context).at("validation_context")?,
        Type::SessionTicketKeys(_) => return Err(unsupported("session_ticket_keys")),
        Type::GenericSecret(_) => return Err(unsupported("generic_secret")),
    };
    Ok(SecretResource {
        name: name.into(),
        value,
    })
}

fn certificate_of(value: &pb::TlsCertificate) -> Result<SecretValue, Invalid> {
    let pb::TlsCertificate {
        certificate_chain,
        private_key,
        pkcs12,
        watched_directory,
        private_key_provider,
        password,
        ocsp_staple,
        signed_certificate_timestamp,
        tls_params,
    } = value;
    refuse!(
        pkcs12,
        private_key_provider,
        password,
        ocsp_staple,
        signed_certificate_timestamp,
        tls_params,
    );
    pass_over!("envoy.extensions.transport_sockets.tls.v3.TlsCertificate": watched_directory);
    let chain = required("certificate_chain", certificate_chain)?;
    let key = required("private_key", private_key)?;
    let chain = data::source(chain).at("certificate_chain")?;
    match (chain, data::source(key).at("private_key")?) {
        (Data::File(certificate), Data::File(key)) => {
            // The name that stands for the two has a `~` between them.
            if certificate.contains('~') || key.contains('~') {
                let message = "a name with `~` is not supported";
                return Err(Invalid::new("certificate_chain.filename", message));
            }
            let name = SecretName::CertificateFiles { certificate, key };
            Ok(SecretValue::At(name.to_name()))
        }
        (Data::Bytes(chain), Data::Bytes(key)) => Ok(SecretValue::Given(Arc::new(
            Secret::certificate(chain, key),
        ))),
        _ => Err(Invalid::new(
            "private_key",
            "a file for one of chain and key, and not for the other, is not supported",
        )),
    }
}

/// Roots of trust. What else a certificate is checked for belongs into the context that refers to
/// them.
fn trust_of(value: &pb::CertificateValidationContext) -> Result<SecretValue, Invalid> {
    let mut given = Given::default();
    let mut validation = validation::context(value, &mut given)?;
    let (roots, revoked) = (validation.roots.take(), validation.revoked.take());
    if validation != Validation::default() {
        let message = "only trusted_ca, system_root_certs and crl are supported in a secret";
        return Err(Invalid::new("", message));
    }
    let of = |named: &SecretRef| given.get(named);
    let roots = roots.ok_or_else(|| Invalid::new("trusted_ca", "required, but missing"))?;
    match (of(&roots), &revoked) {
        (None, None) => Ok(SecretValue::At(roots.name)),
        (Some(secret), None) => Ok(SecretValue::Given(secret)),
        (Some(secret), Some(lists)) => match (&*secret, of(lists).as_deref()) {
            (Secret::Trust { roots, .. }, Some(Secret::Trust { revoked, .. })) => {
                let mut both = Secret::roots(roots.clone());
                if let Secret::Trust { revoked: lists, .. } = &mut both {
                    lists.clone_from(revoked);
                }
                Ok(SecretValue::Given(Arc::new(both)))
            }
            _ => Err(one_kind()),
        },
        (None, Some(_)) => Err(one_kind()),
    }
}

fn one_kind() -> Invalid {
    Invalid::new(
        "crl",
        "in a secret, supported only if it and trusted_ca are in place",
    )
}

/// A secret that is provided by somebody else, or by the bootstrap.
pub(super) fn reference(value: &pb::SdsSecretConfig) -> Result<SecretRef, Invalid> {
    let pb::SdsSecretConfig { name, sds_config } = value;
    if name.is_empty() {
        return Err(Invalid::new("name", "required, but missing"));
    }
    let source = match sds_config {
        None => SecretSource::Local,
        Some(config) => source_of(config).at("sds_config")?,
    };
    Ok(SecretRef {
        name: name.into(),
        source,
    })
}

fn source_of(value: &ConfigSource) -> Result<SecretSource, Invalid> {
    let initial_fetch_timeout = source::initial_fetch(value)?;
    let specifier = &value.config_source_specifier;
    #[expect(deprecated, reason = "Envoy still reads `path`")]
    match required("config_source_specifier", specifier)? {
        ConfigSourceSpecifier::Ads(_) | ConfigSourceSpecifier::Self_(_) => {
            Ok(SecretSource::ControlPlane {
                initial_fetch_timeout,
            })
        }
        ConfigSourceSpecifier::Path(path) => Ok(SecretSource::File {
            path: path.into(),
            watched: Name::default(),
        }),
        ConfigSourceSpecifier::PathConfigSource(source) => {
            let PathConfigSource {
                path,
                watched_directory,
                poll_interval,
            } = source;
            let read = || {
                refuse!(poll_interval);
                Ok(SecretSource::File {
                    path: path.into(),
                    watched: watched_directory
                        .as_ref()
                        .map_or_else(Name::default, |watched| watched.path.as_str().into()),
                })
            };
            read().at("path_config_source")
        }
        ConfigSourceSpecifier::ApiConfigSource(api) => {
            let (cluster, opening, delta) = service(api).at("api_config_source")?;
            Ok(SecretSource::Service {
                cluster,
                delta,
                opening,
                initial_fetch_timeout,
            })
        }
    }
}

/// The cluster of a secret discovery service of its own, what its streams begin with, and whether
/// it is spoken to in delta.
fn service(value: &ApiConfigSource) -> Result<(Name, StreamOpening, bool), Invalid> {
    let ApiConfigSource {
        api_type,
        transport_api_version,
        cluster_names,
        grpc_services,
        refresh_delay,
        request_timeout,
        rate_limit_settings,
        set_node_on_first_message_only,
        config_validators,
    } = value;
    refuse!(
        cluster_names,
        refresh_delay,
        request_timeout,
        rate_limit_settings,
        config_validators,
    );
    pass_over!("envoy.config.core.v3.ApiConfigSource": set_node_on_first_message_only);
    source::version("transport_api_version", *transport_api_version)?;
    let kind: ApiType = enumeration("api_type", *api_type)?;
    if !matches!(kind, ApiType::Grpc | ApiType::DeltaGrpc) {
        let message = format!(
            "{} is not supported; use GRPC or DELTA_GRPC",
            kind.as_str_name()
        );
        return Err(Invalid::new("api_type", message));
    }
    let mut clusters = each("grpc_services", grpc_services, grpc)?;
    match (clusters.pop(), clusters.is_empty()) {
        (Some((cluster, opening)), true) => Ok((cluster, opening, kind == ApiType::DeltaGrpc)),
        _ => Err(Invalid::new("grpc_services", "has to be one")),
    }
}

fn grpc(value: &GrpcService) -> Result<(Name, StreamOpening), Invalid> {
    let GrpcService {
        timeout,
        initial_metadata,
        retry_policy,
        target_specifier,
    } = value;
    refuse!(timeout, retry_policy);
    let mut opening = StreamOpening::default();
    opening.metadata = each("initial_metadata", initial_metadata, opening::metadata)?.into();
    match required("target_specifier", target_specifier)? {
        TargetSpecifier::EnvoyGrpc(target) => {
            let EnvoyGrpc {
                cluster_name,
                authority,
                retry_policy,
                max_receive_message_length,
                skip_envoy_headers,
            } = target;
            let read = || {
                refuse!(retry_policy, max_receive_message_length);
                pass_over!("envoy.config.core.v3.GrpcService.EnvoyGrpc": skip_envoy_headers);
                if cluster_name.is_empty() {
                    return Err(Invalid::new("cluster_name", "required, but missing"));
                }
                opening.authority = opening::authority(authority)?;
                Ok((cluster_name.into(), opening))
            };
            read().at("envoy_grpc")
        }
        TargetSpecifier::GoogleGrpc(_) => Err(Invalid::new(
            "google_grpc",
            "not supported; use envoy_grpc with a cluster",
        )),
    }
}
