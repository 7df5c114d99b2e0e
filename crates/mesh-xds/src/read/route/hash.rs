//! What consistent hashing goes by, from `HashPolicy`.

use crate::pb::envoy::config::route::v3::route_action as pb;
use crate::wire::text::{header_name, substitution};
use crate::wire::{At, each, maybe_duration, required};
use mesh_core::model::{HashCookie, HashPolicy, HashSource};
use mesh_core::{Invalid, Name};
use pb::hash_policy::{
    ConnectionProperties, Cookie, CookieAttribute, FilterState, Header, PolicySpecifier,
    QueryParameter,
};

/// Reads the policies of a route.
pub(super) fn read(policies: &[pb::HashPolicy]) -> Result<Vec<HashPolicy>, Invalid> {
    let read = each("hash_policy", policies, policy)?;
    Ok(read.into_iter().flatten().collect())
}

/// A policy; nothing where it says that the caller's address does not count, as in Envoy.
fn policy(value: &pb::HashPolicy) -> Result<Option<HashPolicy>, Invalid> {
    let pb::HashPolicy {
        terminal,
        policy_specifier,
    } = value;
    let source = match required("policy_specifier", policy_specifier)? {
        PolicySpecifier::Header(value) => header(value).at("header")?,
        PolicySpecifier::Cookie(value) => HashSource::Cookie(cookie(value).at("cookie")?),
        PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip }) => {
            if !source_ip {
                return Ok(None);
            }
            HashSource::SourceIp
        }
        PolicySpecifier::QueryParameter(QueryParameter { name }) => {
            HashSource::Query(named(name).at("query_parameter")?)
        }
        PolicySpecifier::FilterState(FilterState { key }) => {
            if key.is_empty() {
                return Err(Invalid::new("filter_state.key", "is empty"));
            }
            HashSource::FilterState(key.into())
        }
    };
    let mut policy = HashPolicy::new(source);
    policy.terminal = *terminal;
    Ok(Some(policy))
}

fn header(value: &Header) -> Result<HashSource, Invalid> {
    let Header {
        header_name: name,
        regex_rewrite,
    } = value;
    let name = header_name("header_name", name)?;
    let rewrite = regex_rewrite.as_ref().map(substitution).transpose();
    Ok(HashSource::Header(name, rewrite.at("regex_rewrite")?))
}

fn cookie(value: &Cookie) -> Result<HashCookie, Invalid> {
    let Cookie {
        name,
        ttl,
        path,
        attributes,
    } = value;
    let mut cookie = HashCookie::default();
    cookie.name = named(name)?;
    cookie.ttl = maybe_duration("ttl", ttl.as_ref())?;
    cookie.path = path.into();
    cookie.attributes = each("attributes", attributes, |value| {
        let CookieAttribute { name, value } = value;
        Ok((named(name)?, value.into()))
    })?;
    Ok(cookie)
}

fn named(name: &str) -> Result<Name, Invalid> {
    match name {
        "" => Err(Invalid::new("name", "required, but missing")),
        name => Ok(name.into()),
    }
}
