//! Tokens that requests have to bring, as Envoy's `JwtAuthentication`.

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
use crate::wire::{to_duration, to_number};
use mesh_core::Name;
use mesh_core::model::{
    Authn, AuthnRule, Condition, Jwks, JwtProvider, RemoteJwks, TokenRequirement,
};
use std::time::Duration;

const SKEW: Duration = Duration::from_secs(60);

/// The HTTP filter.
pub(super) fn write(authn: &Authn) -> pb::JwtAuthentication {
    let named = |one: &JwtProvider| (one.name.to_string(), provider(one));
    pb::JwtAuthentication {
        providers: authn.providers.iter().map(named).collect(),
        rules: authn.rules.iter().map(rule).collect(),
        requirement_map: authn.named.iter().map(named_requirement).collect(),
        bypass_cors_preflight: authn.bypass_preflight,
        strip_failure_response: authn.silent,
        ..pb::JwtAuthentication::default()
    }
}

fn texts(names: &[Name]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

fn provider(provider: &JwtProvider) -> pb::JwtProvider {
    let words = NormalizePayload {
        space_delimited_claims: texts(&provider.word_claims),
    };
    let payload_header = provider.payload_header.as_ref();
    let skew = u32::try_from(provider.clock_skew.as_secs()).unwrap_or(u32::MAX);
    pb::JwtProvider {
        issuer: provider.issuer.to_string(),
        audiences: texts(&provider.audiences),
        forward: provider.forward,
        from_headers: provider
            .from_headers
            .iter()
            .map(|(name, prefix)| pb::JwtHeader {
                name: name.to_string(),
                value_prefix: prefix.clone(),
            })
            .collect(),
        from_params: provider.from_params.clone(),
        from_cookies: provider.from_cookies.clone(),
        forward_payload_header: payload_header.map(ToString::to_string).unwrap_or_default(),
        pad_forward_payload_header: provider.pad_payload,
        payload_in_metadata: match provider.keep_claims {
            true => JWT_PAYLOAD.to_owned(),
            false => String::new(),
        },
        normalize_payload_in_metadata: (!provider.word_claims.is_empty()).then_some(words),
        clock_skew_seconds: if provider.clock_skew == SKEW { 0 } else { skew },
        claim_to_headers: provider
            .claim_headers
            .iter()
            .map(|one| pb::JwtClaimToHeader {
                header_name: one.header.to_string(),
                claim_name: one.claim.to_string(),
                ..pb::JwtClaimToHeader::default()
            })
            .collect(),
        clear_route_cache: provider.clear_route,
        jwks_source_specifier: keys(&provider.keys),
        ..pb::JwtProvider::default()
    }
}

fn keys(keys: &Jwks) -> Option<JwksSourceSpecifier> {
    match keys {
        Jwks::Inline(text) => Some(JwksSourceSpecifier::LocalJwks(DataSource {
            specifier: Some(data_source::Specifier::InlineString(text.to_string())),
            ..DataSource::default()
        })),
        Jwks::Remote(remote) => Some(JwksSourceSpecifier::RemoteJwks(fetched(remote))),
        // Whoever reads it refuses a provider without keys.
        _ => None,
    }
}

fn fetched(remote: &RemoteJwks) -> pb::RemoteJwks {
    let retries = (remote.retries > 0).then(|| RetryPolicy {
        num_retries: to_number(remote.retries),
        ..RetryPolicy::default()
    });
    pb::RemoteJwks {
        http_uri: Some(HttpUri {
            uri: remote.uri.to_string(),
            timeout: Some(to_duration(remote.timeout)),
            http_upstream_type: Some(HttpUpstreamType::Cluster(remote.cluster.to_string())),
        }),
        cache_duration: Some(to_duration(remote.cache_for)),
        retry_policy: retries,
        ..pb::RemoteJwks::default()
    }
}

fn rule(rule: &AuthnRule) -> pb::RequirementRule {
    let mut condition = Condition::default();
    condition.path = rule.path.clone();
    let requires = match &rule.requires {
        TokenRequirement::Nothing => None,
        other => Some(RequirementType::Requires(requirement(other))),
    };
    pb::RequirementRule {
        r#match: Some(route::route_match(&condition)),
        requirement_type: requires,
    }
}

fn named_requirement((name, requires): &(Name, TokenRequirement)) -> (String, pb::JwtRequirement) {
    (name.to_string(), requirement(requires))
}

fn requirement(requires: &TokenRequirement) -> pb::JwtRequirement {
    let all = |list: &[TokenRequirement]| list.iter().map(requirement).collect();
    let requires_type = match requires {
        TokenRequirement::Provider(name, audiences) if audiences.is_empty() => {
            Some(RequiresType::ProviderName(name.to_string()))
        }
        TokenRequirement::Provider(name, audiences) => Some(RequiresType::ProviderAndAudiences(
            pb::ProviderWithAudiences {
                provider_name: name.to_string(),
                audiences: texts(audiences),
            },
        )),
        TokenRequirement::Any(list) => Some(RequiresType::RequiresAny(pb::JwtRequirementOrList {
            requirements: all(list),
        })),
        TokenRequirement::All(list) => Some(RequiresType::RequiresAll(pb::JwtRequirementAndList {
            requirements: all(list),
        })),
        TokenRequirement::AllowMissing => Some(RequiresType::AllowMissing(Empty {})),
        TokenRequirement::AllowMissingOrFailed => {
            Some(RequiresType::AllowMissingOrFailed(Empty {}))
        }
        _ => None,
    };
    pb::JwtRequirement { requires_type }
}
