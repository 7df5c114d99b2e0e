//! What a request has to look like, as `RouteMatch`.

use crate::pb::envoy::config::route::v3 as pb;
use crate::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use crate::pb::envoy::config::route::v3::query_parameter_matcher::QueryParameterMatchSpecifier;
use crate::pb::envoy::config::route::v3::route_match::{
    ConnectMatcher, GrpcRouteMatchOptions, PathSpecifier, TlsContextMatchOptions,
};
use crate::pb::envoy::r#type::matcher::v3::MetadataMatcher;
use crate::pb::envoy::r#type::v3::Int64Range;
use crate::pb::google::protobuf::BoolValue;
use crate::wire::names::TEMPLATE;
use crate::wire::share::to_runtime_fraction;
use crate::wire::text::{to_nothing, to_pattern, to_string_match};
use crate::wire::{template, to_boolean};
use crate::write::{authz, filter_state};
use mesh_core::model::{
    ClaimCondition, Condition, CookieMatch, HeaderKey, HeaderMatch, PathMatch, QueryMatch,
    TlsCondition, ValueMatch,
};

pub(in crate::write) fn write(condition: &Condition) -> pb::RouteMatch {
    let (path_specifier, any_case) = path(&condition.path);
    pb::RouteMatch {
        case_sensitive: any_case.then(|| to_boolean(false)).flatten(),
        runtime_fraction: condition.share.map(to_runtime_fraction),
        headers: condition.headers.iter().map(header).collect(),
        query_parameters: condition.query.iter().map(query).collect(),
        cookies: condition.cookies.iter().map(cookie).collect(),
        tls_context: condition.tls.map(tls),
        dynamic_metadata: condition.claims.iter().map(claim).collect(),
        filter_state: (condition.filter_state.iter())
            .map(filter_state::condition)
            .collect(),
        grpc: condition.grpc.then_some(GrpcRouteMatchOptions {}),
        path_specifier,
    }
}

fn cookie(cookie: &CookieMatch) -> pb::CookieMatcher {
    pb::CookieMatcher {
        name: cookie.name.to_string(),
        string_match: Some(to_string_match(&cookie.value)),
        invert_match: cookie.invert,
    }
}

fn tls(condition: TlsCondition) -> TlsContextMatchOptions {
    let flag = |value| BoolValue { value };
    TlsContextMatchOptions {
        presented: condition.presented.map(flag),
        validated: condition.validated.map(flag),
    }
}

fn claim(condition: &ClaimCondition) -> MetadataMatcher {
    let mut matcher = authz::claim(&condition.claim);
    matcher.invert = condition.invert;
    matcher
}

/// The path, and whether its case is ignored.
fn path(path: &PathMatch) -> (Option<PathSpecifier>, bool) {
    let (specifier, any_case) = match path {
        PathMatch::Prefix(text) => (PathSpecifier::Prefix(text.clone()), false),
        PathMatch::PrefixIgnoreCase(text) => (PathSpecifier::Prefix(text.clone()), true),
        PathMatch::Exact(text) => (PathSpecifier::Path(text.clone()), false),
        PathMatch::ExactIgnoreCase(text) => (PathSpecifier::Path(text.clone()), true),
        PathMatch::SeparatedPrefix(text) => {
            (PathSpecifier::PathSeparatedPrefix(text.clone()), false)
        }
        PathMatch::SeparatedPrefixIgnoreCase(text) => {
            (PathSpecifier::PathSeparatedPrefix(text.clone()), true)
        }
        PathMatch::Regex(pattern) => (PathSpecifier::SafeRegex(to_pattern(pattern)), false),
        PathMatch::Connect => (PathSpecifier::ConnectMatcher(ConnectMatcher {}), false),
        PathMatch::Template(text) => (
            PathSpecifier::PathMatchPolicy(template::write(TEMPLATE, text)),
            false,
        ),
        // A condition that is not known here; a route without one is refused by whoever reads it.
        _ => return (None, false),
    };
    (Some(specifier), any_case)
}

pub(in crate::write) fn header(header: &HeaderMatch) -> pb::HeaderMatcher {
    let name = match &header.key {
        HeaderKey::Method => ":method",
        HeaderKey::Authority => ":authority",
        HeaderKey::Scheme => ":scheme",
        HeaderKey::Path => ":path",
        HeaderKey::Header(name) => name.as_str(),
    };
    pb::HeaderMatcher {
        name: name.to_owned(),
        invert_match: header.invert,
        treat_missing_header_as_empty: header.missing_is_empty,
        header_match_specifier: Some(match &header.value {
            ValueMatch::Text(text) => HeaderMatchSpecifier::StringMatch(to_string_match(text)),
            ValueMatch::Present(present) => HeaderMatchSpecifier::PresentMatch(*present),
            ValueMatch::Range(start, end) => HeaderMatchSpecifier::RangeMatch(Int64Range {
                start: *start,
                end: *end,
            }),
        }),
    }
}

fn query(query: &QueryMatch) -> pb::QueryParameterMatcher {
    pb::QueryParameterMatcher {
        name: query.name.clone(),
        query_parameter_match_specifier: Some(match &query.value {
            ValueMatch::Text(text) => {
                QueryParameterMatchSpecifier::StringMatch(to_string_match(text))
            }
            ValueMatch::Present(present) => QueryParameterMatchSpecifier::PresentMatch(*present),
            // Left out, the rule would take requests that it must not take.
            ValueMatch::Range(..) => QueryParameterMatchSpecifier::StringMatch(to_nothing()),
        }),
    }
}
