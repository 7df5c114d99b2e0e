//! Tokens that requests have to bring, from Envoy's `JwtAuthentication`.

mod jwks;

use super::route;
use crate::pb::envoy::config::core::v3::http_uri::HttpUpstreamType;
use crate::pb::envoy::config::core::v3::{DataSource, HttpUri, RetryPolicy, data_source};
use crate::pb::envoy::extensions::filters::http::jwt_authn::v3 as pb;
use crate::pb::envoy::extensions::filters::http::jwt_authn::v3::jwt_provider::{
    JwksSourceSpecifier, NormalizePayload,
};
use crate::pb::envoy::extensions::filters::http::jwt_authn::v3::jwt_requirement::RequiresType;
use crate::pb::envoy::extensions::filters::http::jwt_authn::v3::requirement_rule::RequirementType;
use crate::pb::google::protobuf::Empty;
use crate::wire::names::JWT_PAYLOAD;
use crate::wire::text::header_name;
use crate::wire::{At, duration, each, number, refuse, required, unsupported};
use http::{HeaderName, Uri};
use mesh_core::model::{
    Authn, AuthnRule, ClaimHeader, Condition, Jwks, JwtProvider, PathMatch, RemoteJwks,
    TokenRequirement,
};
use mesh_core::{Invalid, Name};
use std::collections::HashMap;
use std::time::Duration;

/// How deep requirements may be in each other.
const MAX_DEPTH: usize = 32;

type Named = HashMap<String, pb::JwtRequirement>;

/// The HTTP filter.
pub(super) fn read(value: &pb::JwtAuthentication) -> Result<Authn, Invalid> {
    let pb::JwtAuthentication {
        providers,
        rules,
        filter_state_rules,
        bypass_cors_preflight,
        requirement_map,
        strip_failure_response,
        stat_prefix,
    } = value;
    refuse!(filter_state_rules, stat_prefix);
    let mut authn = Authn::default();
    // In an order of their own, since a map has none.
    let mut providers_by_name: Vec<_> = providers.iter().collect();
    providers_by_name.sort_by_key(|(name, _)| *name);
    for (name, value) in providers_by_name {
        let provider = provider(name, value).at(format!("providers[{name}]"))?;
        authn.providers.push(provider);
    }
    let known = |name: &str| providers.contains_key(name);
    let read = |value: &pb::RequirementRule| rule(value, requirement_map, &known);
    authn.rules = each("rules", rules, read)?;
    let mut names: Vec<_> = requirement_map.iter().collect();
    names.sort_by_key(|(name, _)| *name);
    for (name, value) in names {
        let value = requirement(value, &known, 0).at(format!("requirement_map[{name}]"))?;
        authn.named.push((name.into(), value));
    }
    authn.bypass_preflight = *bypass_cors_preflight;
    authn.silent = *strip_failure_response;
    Ok(authn)
}

fn provider(name: &str, value: &pb::JwtProvider) -> Result<JwtProvider, Invalid> {
    let pb::JwtProvider {
        issuer,
        audiences,
        subjects,
        require_expiration,
        max_lifetime,
        forward,
        from_headers,
        from_params,
        from_cookies,
        forward_payload_header,
        pad_forward_payload_header,
        payload_in_metadata,
        normalize_payload_in_metadata,
        header_in_metadata,
        failed_status_in_metadata,
        clock_skew_seconds,
        // A cache of what was verified, which decides nothing.
        jwt_cache_config: _,
        claim_to_headers,
        clear_route_cache,
        jwks_source_specifier,
    } = value;
    refuse!(
        subjects,
        require_expiration,
        max_lifetime,
        header_in_metadata,
        failed_status_in_metadata,
    );
    let keys = match required("jwks_source_specifier", jwks_source_specifier)? {
        JwksSourceSpecifier::LocalJwks(source) => {
            let text = inline(source).at("local_jwks")?;
            jwks::check(&text).at("local_jwks")?;
            Jwks::Inline(text)
        }
        JwksSourceSpecifier::RemoteJwks(remote) => Jwks::Remote(fetched(remote).at("remote_jwks")?),
    };
    let mut provider = JwtProvider::new(name, issuer, keys);
    provider.audiences = audiences.iter().map(Name::from).collect();
    provider.from_headers = each("from_headers", from_headers, header)?;
    provider.from_params.clone_from(from_params);
    provider.from_cookies.clone_from(from_cookies);
    provider.forward = *forward;
    provider.payload_header = maybe_header("forward_payload_header", forward_payload_header)?;
    provider.pad_payload = *pad_forward_payload_header;
    provider.claim_headers = each("claim_to_headers", claim_to_headers, claim)?;
    provider.keep_claims = match payload_in_metadata.as_str() {
        "" => false,
        JWT_PAYLOAD => true,
        other => {
            let message = format!("{other:?} is not supported: only {JWT_PAYLOAD:?} is");
            return Err(Invalid::new("payload_in_metadata", message));
        }
    };
    if let Some(NormalizePayload {
        space_delimited_claims,
    }) = normalize_payload_in_metadata
    {
        provider.word_claims = space_delimited_claims.iter().map(Name::from).collect();
    }
    if *clock_skew_seconds > 0 {
        provider.clock_skew = Duration::from_secs((*clock_skew_seconds).into());
    }
    provider.clear_route = *clear_route_cache;
    Ok(provider)
}

fn maybe_header(field: &str, name: &str) -> Result<Option<HeaderName>, Invalid> {
    match name {
        "" => Ok(None),
        name => header_name(field, name).map(Some),
    }
}

fn header(value: &pb::JwtHeader) -> Result<(HeaderName, String), Invalid> {
    let pb::JwtHeader { name, value_prefix } = value;
    Ok((header_name("name", name)?, value_prefix.clone()))
}

fn claim(value: &pb::JwtClaimToHeader) -> Result<ClaimHeader, Invalid> {
    let pb::JwtClaimToHeader {
        header_name: header,
        claim_name,
        claim_path,
    } = value;
    refuse!(claim_path);
    if claim_name.is_empty() {
        return Err(Invalid::new("claim_name", "required, but missing"));
    }
    Ok(ClaimHeader {
        header: header_name("header_name", header)?,
        claim: claim_name.into(),
    })
}

fn inline(source: &DataSource) -> Result<Name, Invalid> {
    let DataSource {
        watched_directory,
        specifier,
    } = source;
    refuse!(watched_directory);
    match required("specifier", specifier)? {
        data_source::Specifier::InlineString(text) => Ok(text.into()),
        data_source::Specifier::InlineBytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.into()),
            Err(_) => Err(Invalid::new("inline_bytes", "is not UTF-8")),
        },
        data_source::Specifier::Filename(_) => Err(unsupported("filename")),
        data_source::Specifier::EnvironmentVariable(_) => Err(unsupported("environment_variable")),
    }
}

fn fetched(value: &pb::RemoteJwks) -> Result<RemoteJwks, Invalid> {
    let pb::RemoteJwks {
        http_uri,
        cache_duration,
        async_fetch,
        retry_policy,
    } = value;
    refuse!(async_fetch);
    let HttpUri {
        uri,
        timeout,
        http_upstream_type,
    } = required("http_uri", http_uri)?;
    let HttpUpstreamType::Cluster(cluster) =
        required("http_upstream_type", http_upstream_type).at("http_uri")?;
    let parsed = uri.parse::<Uri>().ok().filter(|uri| uri.host().is_some());
    let parsed = parsed
        .ok_or_else(|| Invalid::new("http_uri.uri", format!("{uri:?} is not a URI with a host")))?;
    let mut remote = RemoteJwks::new(parsed, cluster);
    remote.timeout =
        duration("timeout", required("timeout", timeout).at("http_uri")?).at("http_uri")?;
    if let Some(value) = cache_duration {
        remote.cache_for = duration("cache_duration", value)?;
    }
    if let Some(policy) = retry_policy {
        remote.retries = retries(policy).at("retry_policy")?;
    }
    Ok(remote)
}

fn retries(policy: &RetryPolicy) -> Result<u32, Invalid> {
    let RetryPolicy {
        retry_back_off,
        num_retries,
        retry_on,
        retry_priority,
        retry_host_predicate,
        host_selection_retry_max_attempts,
    } = policy;
    refuse!(
        retry_back_off,
        retry_on,
        retry_priority,
        retry_host_predicate,
        host_selection_retry_max_attempts,
    );
    Ok(number(num_retries.as_ref()).unwrap_or(1))
}

fn rule(
    value: &pb::RequirementRule,
    named: &Named,
    known: &dyn Fn(&str) -> bool,
) -> Result<AuthnRule, Invalid> {
    let pb::RequirementRule {
        r#match,
        requirement_type,
    } = value;
    let condition = route::route_match(required("match", r#match)?).at("match")?;
    if let PathMatch::Template(_) = condition.path {
        return Err(unsupported("path_match_policy")).at("match");
    }
    let mut plain = Condition::default();
    plain.path = condition.path.clone();
    if plain != condition {
        return Err(Invalid::new(
            "match",
            "only conditions on paths are supported",
        ));
    }
    let requires = match requirement_type {
        None => TokenRequirement::Nothing,
        Some(RequirementType::Requires(value)) => requirement(value, known, 0).at("requires")?,
        Some(RequirementType::RequirementName(name)) => {
            let value = named.get(name).ok_or_else(|| {
                let message = format!("{name:?} is not in requirement_map");
                Invalid::new("requirement_name", message)
            })?;
            requirement(value, known, 0).at(format!("requirement_map[{name}]"))?
        }
    };
    Ok(AuthnRule::at(plain.path, requires))
}

fn requirement(
    value: &pb::JwtRequirement,
    known: &dyn Fn(&str) -> bool,
    depth: usize,
) -> Result<TokenRequirement, Invalid> {
    if depth > MAX_DEPTH {
        let message = format!("requirements are more than {MAX_DEPTH} deep in each other");
        return Err(Invalid::new("", message));
    }
    let name = |name: &String| match known(name) {
        true => Ok(Name::from(name)),
        false => {
            let message = format!("there is no provider {name:?}");
            Err(Invalid::new("provider_name", message))
        }
    };
    let several = |list: &[pb::JwtRequirement]| {
        each("requirements", list, |one| {
            requirement(one, known, depth + 1)
        })
    };
    let pb::JwtRequirement { requires_type } = value;
    let Some(requires) = requires_type else {
        return Ok(TokenRequirement::Nothing);
    };
    Ok(match requires {
        RequiresType::ProviderName(one) => TokenRequirement::Provider(name(one)?, Vec::new()),
        RequiresType::ProviderAndAudiences(pb::ProviderWithAudiences {
            provider_name,
            audiences,
        }) => {
            let one = name(provider_name).at("provider_and_audiences")?;
            TokenRequirement::Provider(one, audiences.iter().map(Name::from).collect())
        }
        RequiresType::RequiresAny(pb::JwtRequirementOrList { requirements }) => {
            TokenRequirement::Any(several(requirements).at("requires_any")?)
        }
        RequiresType::RequiresAll(pb::JwtRequirementAndList { requirements }) => {
            TokenRequirement::All(several(requirements).at("requires_all")?)
        }
        RequiresType::AllowMissing(Empty {}) => TokenRequirement::AllowMissing,
        RequiresType::AllowMissingOrFailed(Empty {}) => TokenRequirement::AllowMissingOrFailed,
        RequiresType::ExtractOnlyWithoutValidation(_) => {
            return Err(unsupported("extract_only_without_validation"));
        }
    })
}
