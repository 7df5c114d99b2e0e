//! Transport security: the two contexts and what they have in common.

mod data;
mod secrets;
mod validation;

use super::Given;
use crate::pb::envoy::extensions::transport_sockets::tls::v3 as pb;
use crate::pb::envoy::extensions::transport_sockets::tls::v3::common_tls_context::ValidationContextType;
use crate::pb::envoy::extensions::transport_sockets::tls::v3::downstream_tls_context::{
    OcspStaplePolicy, SessionTicketKeysType,
};
use crate::wire::{At, boolean, each, enumeration, refuse, tls, unsupported};
use mesh_core::model::{ClientTls, SecretRef, ServerTls, TlsParams, Validation};
use mesh_core::{Invalid, Name};

pub(super) use secrets::secret;

/// What both sides have.
struct Common {
    params: TlsParams,
    alpn: Vec<Name>,
    certificates: Vec<SecretRef>,
    validation: Option<Validation>,
}

/// How connections from callers are secured. Secrets that come with it are added to `given`.
pub(super) fn server(
    value: &pb::DownstreamTlsContext,
    given: &mut Given,
) -> Result<ServerTls, Invalid> {
    let pb::DownstreamTlsContext {
        common_tls_context,
        require_client_certificate,
        require_sni,
        disable_stateful_session_resumption,
        session_timeout,
        ocsp_staple_policy,
        full_scan_certs_on_sni_mismatch,
        prefer_client_ciphers,
        session_ticket_keys_type,
    } = value;
    refuse!(
        disable_stateful_session_resumption,
        session_timeout,
        prefer_client_ciphers,
    );
    if boolean(require_sni.as_ref(), false) {
        refuse!(require_sni);
    }
    if boolean(full_scan_certs_on_sni_mismatch.as_ref(), false) {
        refuse!(full_scan_certs_on_sni_mismatch);
    }
    let field = "ocsp_staple_policy";
    let policy: OcspStaplePolicy = enumeration(field, *ocsp_staple_policy)?;
    if policy != OcspStaplePolicy::LenientStapling {
        let message = format!("{} is not supported", policy.as_str_name());
        return Err(Invalid::new(field, message));
    }
    match session_ticket_keys_type {
        None | Some(SessionTicketKeysType::DisableStatelessSessionResumption(false)) => {}
        Some(SessionTicketKeysType::DisableStatelessSessionResumption(true)) => {
            return Err(unsupported("disable_stateless_session_resumption"));
        }
        Some(SessionTicketKeysType::SessionTicketKeys(_)) => {
            return Err(unsupported("session_ticket_keys"));
        }
        Some(SessionTicketKeysType::SessionTicketKeysSdsSecretConfig(_)) => {
            return Err(unsupported("session_ticket_keys_sds_secret_config"));
        }
    }
    let default = pb::CommonTlsContext::default();
    let common = common_tls_context.as_ref().unwrap_or(&default);
    let common = common_of(common, given).and_then(|common| {
        if common.certificates.is_empty() {
            let message = "required, but missing: a server has to show a certificate";
            return Err(Invalid::new("tls_certificates", message));
        }
        Ok(common)
    });
    let common = common.at("common_tls_context")?;
    let mut tls = ServerTls::default();
    tls.params = common.params;
    tls.alpn = common.alpn;
    tls.certificates = common.certificates;
    tls.validation = common.validation;
    tls.require_client_certificate = boolean(require_client_certificate.as_ref(), false);
    Ok(tls)
}

/// How connections to endpoints are secured. Secrets that come with it are added to `given`.
#[expect(deprecated, reason = "Envoy still knows the older settings")]
pub(super) fn client(
    value: &pb::UpstreamTlsContext,
    given: &mut Given,
) -> Result<ClientTls, Invalid> {
    let pb::UpstreamTlsContext {
        common_tls_context,
        sni,
        auto_host_sni,
        auto_sni_san_validation,
        allow_renegotiation,
        max_session_keys,
        enforce_rsa_key_usage,
    } = value;
    refuse!(
        auto_host_sni,
        allow_renegotiation,
        max_session_keys,
        enforce_rsa_key_usage,
    );
    let default = pb::CommonTlsContext::default();
    let common = common_tls_context.as_ref().unwrap_or(&default);
    let common = common_of(common, given).and_then(|common| {
        if common.certificates.len() > 1 {
            let message = "a client has one certificate at most";
            return Err(Invalid::new("tls_certificates", message));
        }
        Ok(common)
    });
    let common = common.at("common_tls_context")?;
    let mut tls = ClientTls::default();
    tls.params = common.params;
    tls.alpn = common.alpn;
    tls.certificates = common.certificates;
    tls.validation = common.validation;
    tls.sni = sni.into();
    tls.auto_san = *auto_sni_san_validation;
    Ok(tls)
}

#[expect(deprecated, reason = "Envoy still knows the older spellings")]
fn common_of(value: &pb::CommonTlsContext, given: &mut Given) -> Result<Common, Invalid> {
    let pb::CommonTlsContext {
        tls_params,
        tls_certificates,
        tls_certificate_sds_secret_configs,
        tls_certificate_provider_instance,
        custom_tls_certificate_selector,
        tls_certificate_certificate_provider,
        tls_certificate_certificate_provider_instance,
        alpn_protocols,
        custom_handshaker,
        key_log,
        validation_context_type,
    } = value;
    refuse!(
        tls_certificate_provider_instance,
        custom_tls_certificate_selector,
        tls_certificate_certificate_provider,
        tls_certificate_certificate_provider_instance,
        custom_handshaker,
        key_log,
    );
    if !tls_certificates.is_empty() && !tls_certificate_sds_secret_configs.is_empty() {
        let message = "has no effect beside tls_certificates";
        return Err(Invalid::new("tls_certificate_sds_secret_configs", message));
    }
    let mut certificates = each("tls_certificates", tls_certificates, |one| {
        secrets::certificate(one, given)
    })?;
    certificates.extend(each(
        "tls_certificate_sds_secret_configs",
        tls_certificate_sds_secret_configs,
        secrets::reference,
    )?);
    let params = tls_params.as_ref().map(params).transpose();
    Ok(Common {
        params: params.at("tls_params")?.unwrap_or_default(),
        alpn: alpn_protocols.iter().map(Name::from).collect(),
        certificates,
        validation: match validation_context_type {
            None => None,
            Some(kind) => Some(validation_of(kind, given)?),
        },
    })
}

/// Envoy's clients speak TLS 1.2 at most where nothing is said; ours speak 1.3, too.
fn params(value: &pb::TlsParameters) -> Result<TlsParams, Invalid> {
    let pb::TlsParameters {
        tls_minimum_protocol_version: min,
        tls_maximum_protocol_version: max,
        cipher_suites,
        ecdh_curves,
        signature_algorithms,
        compliance_policies,
    } = value;
    refuse!(signature_algorithms, compliance_policies);
    let version = |field: &str, value: i32| tls::version(enumeration(field, value)?).at(field);
    let mut params = TlsParams::default();
    params.min = version("tls_minimum_protocol_version", *min)?;
    params.max = version("tls_maximum_protocol_version", *max)?;
    if params.max.is_some_and(|max| params.min > Some(max)) {
        let message = "is below the minimum";
        return Err(Invalid::new("tls_maximum_protocol_version", message));
    }
    params.ciphers = tls::ciphers(cipher_suites)?
        .into_iter()
        .map(Name::from)
        .collect();
    params.groups = each("ecdh_curves", ecdh_curves, |name| {
        tls::group(name).map(Name::from)
    })?;
    Ok(params)
}

#[expect(deprecated, reason = "Envoy still knows the older spellings")]
fn validation_of(value: &ValidationContextType, given: &mut Given) -> Result<Validation, Invalid> {
    let provider = "validation_context_certificate_provider";
    let instance = "validation_context_certificate_provider_instance";
    match value {
        ValidationContextType::ValidationContext(context) => validation::context(context, given)
            .and_then(validation::checked)
            .at("validation_context"),
        ValidationContextType::ValidationContextSdsSecretConfig(config) => {
            let mut validation = Validation::default();
            let roots = secrets::reference(config);
            validation.roots = Some(roots.at("validation_context_sds_secret_config")?);
            Ok(validation)
        }
        ValidationContextType::CombinedValidationContext(combined) => {
            let pb::common_tls_context::CombinedCertificateValidationContext {
                default_validation_context,
                validation_context_sds_secret_config,
                validation_context_certificate_provider,
                validation_context_certificate_provider_instance,
            } = combined;
            let mut read = || {
                refuse!(
                    validation_context_certificate_provider,
                    validation_context_certificate_provider_instance,
                );
                validation::combined(
                    default_validation_context.as_ref(),
                    validation_context_sds_secret_config.as_ref(),
                    given,
                )
            };
            read().at("combined_validation_context")
        }
        ValidationContextType::ValidationContextCertificateProvider(_) => {
            Err(unsupported(provider))
        }
        ValidationContextType::ValidationContextCertificateProviderInstance(_) => {
            Err(unsupported(instance))
        }
    }
}
