//! What consistent hashing goes by, as `HashPolicy`.

use crate::pb::envoy::config::route::v3::route_action as pb;
use crate::wire::text::to_substitution;
use crate::wire::to_duration;
use mesh_core::model::{HashPolicy, HashSource};
use pb::hash_policy::{
    ConnectionProperties, Cookie, CookieAttribute, FilterState, Header, PolicySpecifier,
    QueryParameter,
};

/// A policy; nothing for a source that is not known here.
pub(super) fn write(policy: &HashPolicy) -> Option<pb::HashPolicy> {
    let source = match &policy.source {
        HashSource::Header(name, rewrite) => {
            let rewrite = rewrite.as_ref();
            PolicySpecifier::Header(Header {
                header_name: name.to_string(),
                regex_rewrite: rewrite.map(|(pattern, with)| to_substitution(pattern, with)),
            })
        }
        HashSource::Cookie(cookie) => {
            let attributes = cookie.attributes.iter();
            let attributes = attributes.map(|(name, value)| CookieAttribute {
                name: name.to_string(),
                value: value.to_string(),
            });
            PolicySpecifier::Cookie(Cookie {
                name: cookie.name.to_string(),
                ttl: cookie.ttl.map(to_duration),
                path: cookie.path.to_string(),
                attributes: attributes.collect(),
            })
        }
        HashSource::SourceIp => {
            PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: true })
        }
        HashSource::Query(name) => PolicySpecifier::QueryParameter(QueryParameter {
            name: name.to_string(),
        }),
        HashSource::FilterState(key) => PolicySpecifier::FilterState(FilterState {
            key: key.to_string(),
        }),
        _ => return None,
    };
    Some(pb::HashPolicy {
        terminal: policy.terminal,
        policy_specifier: Some(source),
    })
}
