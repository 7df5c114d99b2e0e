//! How the other side's certificate is checked.

use super::data::{self, Data};
use super::secrets;
use crate::pb::envoy::extensions::transport_sockets::tls::v3 as pb;
use crate::pb::envoy::extensions::transport_sockets::tls::v3::certificate_validation_context::{
    SystemRootCerts, TrustChainVerification,
};
use crate::pb::envoy::extensions::transport_sockets::tls::v3::subject_alt_name_matcher::SanType;
use crate::read::Given;
use crate::wire::{At, base64, boolean, each, enumeration, pass_over, refuse, required, text};
use mesh_core::Invalid;
use mesh_core::model::{Secret, SecretName, SecretRef, StringMatch, Validation};
use std::net::IpAddr;

/// A context that stands alone, or beside a secret.
#[expect(deprecated, reason = "Istio writes the older list of names")]
pub(super) fn context(
    value: &pb::CertificateValidationContext,
    given: &mut Given,
) -> Result<Validation, Invalid> {
    let pb::CertificateValidationContext {
        trusted_ca,
        ca_certificate_provider_instance,
        system_root_certs,
        watched_directory,
        verify_certificate_spki,
        verify_certificate_hash,
        match_typed_subject_alt_names,
        match_subject_alt_names,
        require_signed_certificate_timestamp,
        crl,
        allow_expired_certificate,
        trust_chain_verification,
        custom_validator_config,
        only_verify_leaf_cert_crl,
        max_verify_depth,
        suppress_client_ca_list,
    } = value;
    refuse!(
        ca_certificate_provider_instance,
        allow_expired_certificate,
        custom_validator_config,
        max_verify_depth,
        suppress_client_ca_list,
    );
    pass_over!("envoy.extensions.transport_sockets.tls.v3.CertificateValidationContext":
        watched_directory);
    if boolean(require_signed_certificate_timestamp.as_ref(), false) {
        refuse!(require_signed_certificate_timestamp);
    }
    let mut validation = Validation::default();
    validation.roots = roots(trusted_ca.as_ref(), system_root_certs.as_ref(), given)?;
    validation.revoked = match crl {
        None => None,
        Some(source) => Some(match data::source(source).at("crl")? {
            Data::File(file) => SecretRef::local(SecretName::RevokedFile(file).to_name()),
            Data::Bytes(pem) => secrets::revoked(pem, given),
        }),
    };
    validation.subject_alt_names = each(
        "match_typed_subject_alt_names",
        match_typed_subject_alt_names,
        typed_name,
    )?;
    validation.subject_alt_names.extend(each(
        "match_subject_alt_names",
        match_subject_alt_names,
        text::string_match,
    )?);
    validation.hashes = each("verify_certificate_hash", verify_certificate_hash, |hash| {
        digest(hex(hash))
    })?;
    validation.spki = each("verify_certificate_spki", verify_certificate_spki, |pin| {
        digest(base64::decode(pin))
    })?;
    let field = "trust_chain_verification";
    validation.accept_untrusted =
        enumeration::<TrustChainVerification>(field, *trust_chain_verification)?
            == TrustChainVerification::AcceptUntrusted;
    validation.only_leaf_revocation = *only_verify_leaf_cert_crl;
    Ok(validation)
}

/// What Envoy demands of what belongs together.
pub(super) fn checked(validation: Validation) -> Result<Validation, Invalid> {
    if validation.roots.is_none() && !validation.subject_alt_names.is_empty() {
        let message = "names are not safe to go by without trusted_ca";
        return Err(Invalid::new("match_subject_alt_names", message));
    }
    if validation.roots.is_none() && validation.revoked.is_some() {
        return Err(Invalid::new("crl", "has no effect without trusted_ca"));
    }
    Ok(validation)
}

/// A context whose roots are a secret. Envoy lets the secret's win over the context's own.
pub(super) fn combined(
    default: Option<&pb::CertificateValidationContext>,
    secret: Option<&pb::SdsSecretConfig>,
    given: &mut Given,
) -> Result<Validation, Invalid> {
    let secret = secret.ok_or_else(|| {
        let field = "validation_context_sds_secret_config";
        Invalid::new(field, "required, but missing")
    })?;
    let roots = secrets::reference(secret).at("validation_context_sds_secret_config")?;
    let mut validation = match default {
        None => Validation::default(),
        Some(default) => context(default, given)
            .and_then(|validation| match validation.roots {
                None => Ok(validation),
                Some(_) => Err(Invalid::new(
                    "trusted_ca",
                    "has no effect beside validation_context_sds_secret_config",
                )),
            })
            .at("default_validation_context")?,
    };
    validation.roots = Some(roots);
    Ok(validation)
}

fn roots(
    trusted: Option<&crate::pb::envoy::config::core::v3::DataSource>,
    system: Option<&SystemRootCerts>,
    given: &mut Given,
) -> Result<Option<SecretRef>, Invalid> {
    match (trusted, system) {
        (None, None) => Ok(None),
        (None, Some(SystemRootCerts {})) => {
            Ok(Some(SecretRef::local(SecretName::SystemRoots.to_name())))
        }
        // Envoy: these are used only where there is no trusted_ca.
        (Some(_), Some(_)) => {
            let message = "has no effect beside trusted_ca";
            Err(Invalid::new("system_root_certs", message))
        }
        (Some(source), None) => Ok(Some(match data::source(source).at("trusted_ca")? {
            // The name that it would have stands for all that the machine trusts.
            Data::File("system") => {
                let message = "a file of this name is not supported; use ./system";
                return Err(Invalid::new("trusted_ca.filename", message));
            }
            Data::File(file) => SecretRef::local(SecretName::RootFile(file).to_name()),
            Data::Bytes(pem) => given.add(Secret::roots(pem)),
        })),
    }
}

/// A condition on names of one kind. The model's hold for all kinds alike, so it is taken only if
/// no name of another kind could meet it.
fn typed_name(value: &pb::SubjectAltNameMatcher) -> Result<StringMatch, Invalid> {
    let pb::SubjectAltNameMatcher {
        san_type,
        matcher,
        oid,
    } = value;
    refuse!(oid);
    let kind: SanType = enumeration("san_type", *san_type)?;
    let condition = text::string_match(required("matcher", matcher)?).at("matcher")?;
    let (StringMatch::Exact(text)
    | StringMatch::ExactIgnoreCase(text)
    | StringMatch::Prefix(text)
    | StringMatch::PrefixIgnoreCase(text)) = &condition
    else {
        return Err(ambiguous(kind));
    };
    let exact = matches!(
        condition,
        StringMatch::Exact(_) | StringMatch::ExactIgnoreCase(_)
    );
    let uri = text.contains("://");
    let only = match kind {
        SanType::Uri => uri,
        SanType::Dns => exact && !uri && !text.contains('@') && text.parse::<IpAddr>().is_err(),
        SanType::Email => exact && !uri && text.contains('@'),
        SanType::IpAddress => exact && text.parse::<IpAddr>().is_ok(),
        SanType::Unspecified | SanType::OtherName => false,
    };
    if only {
        Ok(condition)
    } else {
        Err(ambiguous(kind))
    }
}

fn ambiguous(kind: SanType) -> Invalid {
    let message = format!(
        "not supported: names of other kinds than {} could meet it, too",
        kind.as_str_name()
    );
    Invalid::new("matcher", message)
}

fn digest(bytes: Option<Vec<u8>>) -> Result<[u8; 32], Invalid> {
    let digest = bytes.and_then(|bytes| bytes.try_into().ok());
    digest.ok_or_else(|| Invalid::new("", "is not a SHA-256 digest"))
}

/// Two digits for each byte, with or without colons between.
fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = match text.contains(':') {
        true => {
            let parts = text.split(':');
            parts
                .clone()
                .all(|part| part.len() == 2)
                .then(|| parts.collect::<String>().into())?
        }
        false => text.into(),
    };
    let value = |digit: u8| char::from(digit).to_digit(16);
    let pair = |pair: &[u8]| match *pair {
        [high, low] => u8::try_from(value(high)? << 4 | value(low)?).ok(),
        _ => None,
    };
    digits.chunks(2).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_written_with_or_without_colons() {
        assert_eq!(hex("0aFf"), Some(vec![0x0a, 0xff]));
        assert_eq!(hex("0A:ff"), Some(vec![0x0a, 0xff]));
        for bad in ["0", "0a:f", "0:af", "0g", "+a", "0a:"] {
            assert_eq!(hex(bad), None, "{bad}");
        }
    }
}
