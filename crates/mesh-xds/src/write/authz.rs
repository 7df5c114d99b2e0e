//! Rules that judge requests and connections, as Envoy's `RBAC`.
//!
//! Protobuf has no form for lists of conditions without any, and some conditions belong to one of
//! its two halves only: what is done, or who does it. Such a condition is written without anything
//! in it, which Envoy refuses.

mod claim;

pub(super) use claim::write as claim;

use super::{listener, route};
use crate::pb::envoy::config::rbac::v3 as pb;
use crate::pb::envoy::config::rbac::v3::rbac::Action;
use crate::pb::envoy::config::rbac::v3::{permission::Rule, principal::Identifier};
use crate::pb::envoy::extensions::filters::http::rbac::v3 as http;
use crate::pb::envoy::extensions::filters::network::rbac::v3 as network;
use crate::pb::envoy::r#type::matcher::v3::{PathMatcher, path_matcher};
use crate::pb::envoy::r#type::v3::Int32Range;
use crate::wire::template;
use crate::wire::text::to_string_match;
use mesh_core::model::{
    Authz, AuthzAction, AuthzPolicy, AuthzRules, Fact, PortRange, Predicate, StringMatch,
};

/// What istiod calls the extension.
const TEMPLATE: &str = "uri-template";

/// The HTTP filter.
pub(super) fn of_requests(authz: &Authz) -> http::Rbac {
    http::Rbac {
        rules: authz.rules.as_ref().map(rules),
        rules_stat_prefix: authz.stat_prefix.to_string(),
        shadow_rules: authz.trial.as_ref().map(rules),
        shadow_rules_stat_prefix: authz.trial_prefix.to_string(),
        ..http::Rbac::default()
    }
}

/// The network filter.
pub(super) fn of_connections(authz: &Authz) -> network::Rbac {
    network::Rbac {
        rules: authz.rules.as_ref().map(rules),
        stat_prefix: authz.stat_prefix.to_string(),
        shadow_rules: authz.trial.as_ref().map(rules),
        shadow_rules_stat_prefix: authz.trial_prefix.to_string(),
        ..network::Rbac::default()
    }
}

fn rules(rules: &AuthzRules) -> pb::Rbac {
    let action = match rules.action {
        AuthzAction::Allow => Action::Allow,
        AuthzAction::Log => Action::Log,
        // Of what is not known here, the one that denies.
        _ => Action::Deny,
    };
    let named = |one: &std::sync::Arc<AuthzPolicy>| (one.name.to_string(), policy(one));
    pb::Rbac {
        action: action.into(),
        policies: rules.policies.iter().map(named).collect(),
        audit_logging_options: None,
    }
}

fn policy(policy: &AuthzPolicy) -> pb::Policy {
    pb::Policy {
        permissions: either(&policy.permission).iter().map(permission).collect(),
        principals: either(&policy.principal).iter().map(principal).collect(),
        ..pb::Policy::default()
    }
}

/// The list of which one has to hold.
fn either(predicate: &Predicate) -> &[Predicate] {
    match predicate {
        // A list of one would come back as what is in it.
        Predicate::Any(list) if list.len() > 1 => list,
        other => std::slice::from_ref(other),
    }
}

#[expect(deprecated, reason = "istiod writes `metadata`")]
fn permission(predicate: &Predicate) -> pb::Permission {
    let set = |list: &[Predicate]| pb::permission::Set {
        rules: list.iter().map(permission).collect(),
    };
    let rule = match predicate {
        Predicate::Always => Some(Rule::Any(true)),
        Predicate::All(list) => Some(Rule::AndRules(set(list))),
        Predicate::Any(list) => Some(Rule::OrRules(set(list))),
        Predicate::Not(other) => Some(Rule::NotRule(Box::new(permission(other)))),
        Predicate::Fact(fact) => match fact {
            Fact::Header(header) => Some(Rule::Header(route::header_match(header))),
            Fact::Path(path) => Some(Rule::UrlPath(url_path(path))),
            Fact::PathTemplate(text) => Some(Rule::UriTemplate(template::write(TEMPLATE, text))),
            Fact::Destination(block) => Some(Rule::DestinationIp(listener::block(block))),
            Fact::DestinationPort(ports) => Some(port(*ports)),
            Fact::ServerName(name) => Some(Rule::RequestedServerName(to_string_match(name))),
            Fact::Claim(claim) => Some(Rule::Metadata(claim::write(claim))),
            _ => None,
        },
        _ => None,
    };
    pb::Permission { rule }
}

#[expect(
    deprecated,
    reason = "Envoy reads `source_ip`, and istiod writes `metadata`"
)]
fn principal(predicate: &Predicate) -> pb::Principal {
    let set = |list: &[Predicate]| pb::principal::Set {
        ids: list.iter().map(principal).collect(),
    };
    let identifier = match predicate {
        Predicate::Always => Some(Identifier::Any(true)),
        Predicate::All(list) => Some(Identifier::AndIds(set(list))),
        Predicate::Any(list) => Some(Identifier::OrIds(set(list))),
        Predicate::Not(other) => Some(Identifier::NotId(Box::new(principal(other)))),
        Predicate::Fact(fact) => match fact {
            Fact::Peer(name) => Some(Identifier::Authenticated(pb::principal::Authenticated {
                principal_name: name.as_ref().map(to_string_match),
            })),
            Fact::Direct(block) => Some(Identifier::DirectRemoteIp(listener::block(block))),
            Fact::Source(block) => Some(Identifier::SourceIp(listener::block(block))),
            Fact::Remote(block) => Some(Identifier::RemoteIp(listener::block(block))),
            Fact::Header(header) => Some(Identifier::Header(route::header_match(header))),
            Fact::Path(path) => Some(Identifier::UrlPath(url_path(path))),
            Fact::Claim(claim) => Some(Identifier::Metadata(claim::write(claim))),
            _ => None,
        },
        _ => None,
    };
    pb::Principal { identifier }
}

fn url_path(path: &StringMatch) -> PathMatcher {
    PathMatcher {
        rule: Some(path_matcher::Rule::Path(to_string_match(path))),
    }
}

fn port(range: PortRange) -> Rule {
    match range.end.checked_sub(1) {
        Some(last) if last == range.start => Rule::DestinationPort(range.start),
        _ => {
            let bound = |bound: u32| i32::try_from(bound).unwrap_or(i32::MAX);
            Rule::DestinationPortRange(Int32Range {
                start: bound(range.start),
                end: bound(range.end),
            })
        }
    }
}
