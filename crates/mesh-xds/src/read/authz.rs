//! Rules that judge requests and connections, from Envoy's `RBAC`.

mod claim;

pub(super) use claim::inverted as claim;

use super::{listener, route};
use crate::pb::envoy::config::core::v3::CidrRange;
use crate::pb::envoy::config::rbac::v3 as pb;
use crate::pb::envoy::config::rbac::v3::rbac::Action;
use crate::pb::envoy::config::rbac::v3::{permission::Rule, principal::Identifier};
use crate::pb::envoy::extensions::filters::http::rbac::v3 as http;
use crate::pb::envoy::extensions::filters::network::rbac::v3 as network;
use crate::pb::envoy::r#type::matcher::v3::{PathMatcher, path_matcher};
use crate::pb::envoy::r#type::v3::Int32Range;
use crate::wire::text::string_match;
use crate::wire::{At, each, enumeration, refuse, required, template, unsupported};
use mesh_core::Invalid;
use mesh_core::model::{
    Authz, AuthzAction, AuthzPolicy, AuthzRules, Cidr, Fact, PortRange, Predicate, StringMatch,
};

/// The HTTP filter.
pub(super) fn of_requests(value: &http::Rbac) -> Result<Authz, Invalid> {
    let http::Rbac {
        rules,
        rules_stat_prefix,
        matcher,
        shadow_rules,
        shadow_matcher,
        shadow_rules_stat_prefix,
        track_per_rule_stats,
    } = value;
    refuse!(matcher, shadow_matcher, track_per_rule_stats);
    let mut authz = Authz::default();
    authz.rules = some(rules.as_ref()).at("rules")?;
    authz.trial = some(shadow_rules.as_ref()).at("shadow_rules")?;
    authz.stat_prefix = rules_stat_prefix.into();
    authz.trial_prefix = shadow_rules_stat_prefix.into();
    Ok(authz)
}

/// The network filter.
pub(super) fn of_connections(value: &network::Rbac) -> Result<Authz, Invalid> {
    let network::Rbac {
        rules,
        matcher,
        shadow_rules,
        shadow_matcher,
        shadow_rules_stat_prefix,
        stat_prefix,
        enforcement_type,
        delay_deny,
    } = value;
    refuse!(matcher, shadow_matcher, enforcement_type, delay_deny);
    if stat_prefix.is_empty() {
        return Err(Invalid::new("stat_prefix", "required, but missing"));
    }
    let mut authz = Authz::default();
    authz.rules = some(rules.as_ref()).at("rules")?;
    authz.trial = some(shadow_rules.as_ref()).at("shadow_rules")?;
    authz.stat_prefix = stat_prefix.into();
    authz.trial_prefix = shadow_rules_stat_prefix.into();
    Ok(authz)
}

fn some(value: Option<&pb::Rbac>) -> Result<Option<AuthzRules>, Invalid> {
    value.map(rules).transpose()
}

fn rules(value: &pb::Rbac) -> Result<AuthzRules, Invalid> {
    let pb::Rbac {
        action,
        policies,
        audit_logging_options,
    } = value;
    refuse!(audit_logging_options);
    let action = match enumeration("action", *action)? {
        Action::Allow => AuthzAction::Allow,
        Action::Deny => AuthzAction::Deny,
        Action::Log => AuthzAction::Log,
    };
    let mut names: Vec<&String> = policies.keys().collect();
    names.sort_unstable();
    let mut read = Vec::with_capacity(names.len());
    for name in names {
        read.push(policy(name, &policies[name]).at(format!("policies[{name:?}]"))?);
    }
    Ok(AuthzRules::new(action, read))
}

fn policy(name: &str, value: &pb::Policy) -> Result<AuthzPolicy, Invalid> {
    let pb::Policy {
        permissions,
        principals,
        condition,
        checked_condition,
        cel_config,
    } = value;
    refuse!(condition, checked_condition, cel_config);
    let permission = either("permissions", each("permissions", permissions, permission)?)?;
    let principal = either("principals", each("principals", principals, principal)?)?;
    Ok(AuthzPolicy::new(name, permission, principal))
}

/// One of a list, which must not be empty.
fn either(field: &str, mut list: Vec<Predicate>) -> Result<Predicate, Invalid> {
    match list.len() {
        0 => Err(Invalid::new(field, "required, but missing")),
        1 => Ok(list.remove(0)),
        _ => Ok(Predicate::Any(list)),
    }
}

fn not_empty(list: Vec<Predicate>) -> Result<Vec<Predicate>, Invalid> {
    match list.is_empty() {
        true => Err(Invalid::new("", "required, but missing")),
        false => Ok(list),
    }
}

fn always(value: bool) -> Result<Predicate, Invalid> {
    match value {
        true => Ok(Predicate::Always),
        false => Err(Invalid::new("any", "has to be true")),
    }
}

#[expect(deprecated, reason = "istiod writes `metadata`")]
fn permission(value: &pb::Permission) -> Result<Predicate, Invalid> {
    let all = |set: &pb::permission::Set| not_empty(each("rules", &set.rules, permission)?);
    let fact = match required("rule", &value.rule)? {
        Rule::AndRules(set) => return all(set).map(Predicate::All).at("and_rules"),
        Rule::OrRules(set) => return all(set).map(Predicate::Any).at("or_rules"),
        Rule::NotRule(other) => return permission(other).map(not).at("not_rule"),
        Rule::Any(any) => return always(*any),
        Rule::Header(header) => Fact::Header(route::header_match(header).at("header")?),
        Rule::UrlPath(path) => Fact::Path(url_path(path).at("url_path")?),
        Rule::UriTemplate(value) => Fact::PathTemplate(template::read(value).at("uri_template")?),
        Rule::DestinationIp(block) => Fact::Destination(cidr(block).at("destination_ip")?),
        Rule::DestinationPort(port) => {
            let port = u16::try_from(*port)
                .map_err(|_| Invalid::new("destination_port", format!("{port} is not a port")))?;
            Fact::DestinationPort(PortRange::single(port))
        }
        Rule::DestinationPortRange(range) => {
            Fact::DestinationPort(ports(range).at("destination_port_range")?)
        }
        Rule::RequestedServerName(name) => {
            Fact::ServerName(string_match(name).at("requested_server_name")?)
        }
        Rule::Metadata(value) => Fact::Claim(claim::read(value).at("metadata")?),
        Rule::Matcher(_) => return Err(unsupported("matcher")),
        Rule::SourcedMetadata(_) => return Err(unsupported("sourced_metadata")),
    };
    Ok(Predicate::Fact(fact))
}

#[expect(
    deprecated,
    reason = "Envoy reads `source_ip`, and istiod writes `metadata`"
)]
fn principal(value: &pb::Principal) -> Result<Predicate, Invalid> {
    let all = |set: &pb::principal::Set| not_empty(each("ids", &set.ids, principal)?);
    let fact = match required("identifier", &value.identifier)? {
        Identifier::AndIds(set) => return all(set).map(Predicate::All).at("and_ids"),
        Identifier::OrIds(set) => return all(set).map(Predicate::Any).at("or_ids"),
        Identifier::NotId(other) => return principal(other).map(not).at("not_id"),
        Identifier::Any(any) => return always(*any),
        Identifier::Authenticated(pb::principal::Authenticated { principal_name }) => {
            let name = principal_name.as_ref().map(string_match).transpose();
            Fact::Peer(name.at("authenticated.principal_name")?)
        }
        Identifier::SourceIp(block) => Fact::Source(cidr(block).at("source_ip")?),
        Identifier::DirectRemoteIp(block) => Fact::Direct(cidr(block).at("direct_remote_ip")?),
        Identifier::RemoteIp(block) => Fact::Remote(cidr(block).at("remote_ip")?),
        Identifier::Header(header) => Fact::Header(route::header_match(header).at("header")?),
        Identifier::UrlPath(path) => Fact::Path(url_path(path).at("url_path")?),
        Identifier::Metadata(value) => Fact::Claim(claim::read(value).at("metadata")?),
        Identifier::FilterState(_) => return Err(unsupported("filter_state")),
        Identifier::SourcedMetadata(_) => return Err(unsupported("sourced_metadata")),
        Identifier::Custom(_) => return Err(unsupported("custom")),
    };
    Ok(Predicate::Fact(fact))
}

fn not(other: Predicate) -> Predicate {
    Predicate::Not(Box::new(other))
}

fn cidr(value: &CidrRange) -> Result<Cidr, Invalid> {
    listener::block(value)
}

fn url_path(value: &PathMatcher) -> Result<StringMatch, Invalid> {
    let path_matcher::Rule::Path(path) = required("rule", &value.rule)?;
    string_match(path).at("path")
}

fn ports(value: &Int32Range) -> Result<PortRange, Invalid> {
    let Int32Range { start, end } = value;
    let bound = |bound: i32| u32::try_from(bound).ok().filter(|bound| *bound <= 65536);
    match (bound(*start), bound(*end)) {
        (Some(start), Some(end)) if start < end => Ok(PortRange { start, end }),
        _ => {
            let message = format!("from {start} to before {end} is no range of ports");
            Err(Invalid::new("", message))
        }
    }
}
