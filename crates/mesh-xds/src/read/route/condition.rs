//! What a request has to look like, from `RouteMatch`.

use crate::pb::envoy::config::route::v3 as pb;
use crate::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use crate::pb::envoy::config::route::v3::query_parameter_matcher::QueryParameterMatchSpecifier;
use crate::pb::envoy::config::route::v3::route_match::PathSpecifier;
use crate::pb::envoy::r#type::matcher::v3::MetadataMatcher;
use crate::pb::envoy::r#type::v3::Int64Range;
use crate::read::{authz, filter_state};
use crate::wire::share::runtime_fraction;
use crate::wire::text::{header_name, pattern, string_match};
use crate::wire::{At, boolean, each, required, template};
use mesh_core::model::{
    ClaimCondition, Condition, CookieMatch, HeaderKey, HeaderMatch, PathMatch, QueryMatch,
    StringMatch, TlsCondition, ValueMatch,
};
use mesh_core::{Invalid, Name};

/// Reads a condition.
pub(in crate::read) fn read(proto: &pb::RouteMatch) -> Result<Condition, Invalid> {
    let pb::RouteMatch {
        case_sensitive,
        runtime_fraction: share,
        headers,
        query_parameters,
        cookies,
        grpc,
        tls_context,
        dynamic_metadata,
        filter_state,
        path_specifier,
    } = proto;
    let any_case = !boolean(case_sensitive.as_ref(), true);
    let mut condition = Condition::default();
    condition.path = path(required("path_specifier", path_specifier)?, any_case)?;
    condition.headers = each("headers", headers, header)?;
    condition.query = each("query_parameters", query_parameters, query)?;
    condition.cookies = each("cookies", cookies, cookie)?;
    condition.tls = tls_context.as_ref().map(tls);
    condition.claims = each("dynamic_metadata", dynamic_metadata, claim)?;
    condition.filter_state = each("filter_state", filter_state, filter_state::condition)?;
    condition.grpc = grpc.is_some();
    condition.share = share
        .as_ref()
        .map(runtime_fraction)
        .transpose()
        .at("runtime_fraction")?;
    Ok(condition)
}

fn cookie(proto: &pb::CookieMatcher) -> Result<CookieMatch, Invalid> {
    let pb::CookieMatcher {
        name,
        string_match: value,
        invert_match,
    } = proto;
    if name.is_empty() {
        return Err(Invalid::new("name", "is empty"));
    }
    let value = required("string_match", value)?;
    Ok(CookieMatch {
        name: Name::from(name),
        value: string_match(value).at("string_match")?,
        invert: *invert_match,
    })
}

fn tls(proto: &pb::route_match::TlsContextMatchOptions) -> TlsCondition {
    let pb::route_match::TlsContextMatchOptions {
        presented,
        validated,
    } = proto;
    TlsCondition {
        presented: presented.map(|it| it.value),
        validated: validated.map(|it| it.value),
    }
}

fn claim(matcher: &MetadataMatcher) -> Result<ClaimCondition, Invalid> {
    let (claim, invert) = authz::claim(matcher)?;
    Ok(ClaimCondition { claim, invert })
}

/// `case_sensitive` is for prefixes and paths; expressions and CONNECT do not know it.
fn path(specifier: &PathSpecifier, any_case: bool) -> Result<PathMatch, Invalid> {
    Ok(match (specifier, any_case) {
        (PathSpecifier::Prefix(text), false) => PathMatch::Prefix(text.clone()),
        (PathSpecifier::Prefix(text), true) => PathMatch::PrefixIgnoreCase(text.clone()),
        (PathSpecifier::Path(text), false) => PathMatch::Exact(text.clone()),
        (PathSpecifier::Path(text), true) => PathMatch::ExactIgnoreCase(text.clone()),
        (PathSpecifier::PathSeparatedPrefix(text), any_case) => {
            separated(text, any_case).at("path_separated_prefix")?
        }
        (PathSpecifier::SafeRegex(regex), _) => PathMatch::Regex(pattern(regex).at("safe_regex")?),
        (PathSpecifier::ConnectMatcher(pb::route_match::ConnectMatcher {}), _) => {
            PathMatch::Connect
        }
        (PathSpecifier::PathMatchPolicy(policy), _) => {
            PathMatch::Template(template::read(policy).at("path_match_policy")?)
        }
    })
}

fn separated(text: &str, any_case: bool) -> Result<PathMatch, Invalid> {
    if text.contains(['?', '#']) || text.ends_with('/') {
        let message = format!("{text:?} contains ? or #, or ends in /");
        return Err(Invalid::new("", message));
    }
    Ok(if any_case {
        PathMatch::SeparatedPrefixIgnoreCase(text.to_owned())
    } else {
        PathMatch::SeparatedPrefix(text.to_owned())
    })
}

/// Without a specifier, the header has to be there.
#[expect(deprecated, reason = "the old spellings are read too")]
pub(in crate::read) fn header(proto: &pb::HeaderMatcher) -> Result<HeaderMatch, Invalid> {
    let pb::HeaderMatcher {
        name,
        invert_match,
        treat_missing_header_as_empty,
        header_match_specifier,
    } = proto;
    let exactly = |kind: fn(String) -> StringMatch, text: &str| ValueMatch::Text(kind(text.into()));
    let value = match header_match_specifier {
        None => ValueMatch::Present(true),
        Some(HeaderMatchSpecifier::PresentMatch(present)) => ValueMatch::Present(*present),
        Some(HeaderMatchSpecifier::StringMatch(text)) => {
            ValueMatch::Text(string_match(text).at("string_match")?)
        }
        Some(HeaderMatchSpecifier::RangeMatch(Int64Range { start, end })) => {
            ValueMatch::Range(*start, *end)
        }
        Some(HeaderMatchSpecifier::SafeRegexMatch(regex)) => {
            ValueMatch::Text(StringMatch::Regex(pattern(regex).at("safe_regex_match")?))
        }
        Some(HeaderMatchSpecifier::ExactMatch(text)) => exactly(StringMatch::Exact, text),
        Some(HeaderMatchSpecifier::PrefixMatch(text)) => exactly(StringMatch::Prefix, text),
        Some(HeaderMatchSpecifier::SuffixMatch(text)) => exactly(StringMatch::Suffix, text),
        Some(HeaderMatchSpecifier::ContainsMatch(text)) => exactly(StringMatch::Contains, text),
    };
    Ok(HeaderMatch {
        key: key(name)?,
        value,
        invert: *invert_match,
        missing_is_empty: *treat_missing_header_as_empty,
    })
}

fn key(name: &str) -> Result<HeaderKey, Invalid> {
    Ok(match name {
        ":method" => HeaderKey::Method,
        ":authority" => HeaderKey::Authority,
        ":scheme" => HeaderKey::Scheme,
        ":path" => HeaderKey::Path,
        pseudo if pseudo.starts_with(':') => {
            let message = format!("matching on {pseudo} is not supported");
            return Err(Invalid::new("name", message));
        }
        name => HeaderKey::Header(header_name("name", name)?),
    })
}

/// Without a specifier, the parameter has to be there.
fn query(proto: &pb::QueryParameterMatcher) -> Result<QueryMatch, Invalid> {
    let pb::QueryParameterMatcher {
        name,
        query_parameter_match_specifier,
    } = proto;
    let value = match query_parameter_match_specifier {
        None => ValueMatch::Present(true),
        Some(QueryParameterMatchSpecifier::PresentMatch(present)) => ValueMatch::Present(*present),
        Some(QueryParameterMatchSpecifier::StringMatch(text)) => {
            ValueMatch::Text(string_match(text).at("string_match")?)
        }
    };
    Ok(QueryMatch {
        name: name.clone(),
        value,
    })
}
