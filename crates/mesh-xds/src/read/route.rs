//! Route tables, from `RouteConfiguration`.
//!
//! What Envoy's defaults are is written out: a route without a `timeout` has 15 s. Policies of a
//! virtual host that the model has on rules only (faults, rate limits, copies) are given to the
//! rules; a rate limit stays one bucket for all of them.
//!
//! Not expressible, and so refused by name: hashing by filter state, rate-limit descriptors, matching
//! on filter state, and whatever else the model has no word for. [`ignored`](super::ignored) lists
//! what is read over.

use crate::pb::envoy::config::route::v3 as pb;
use crate::pb::envoy::config::route::v3::virtual_host::TlsRequirementType;
use crate::wire::{
    At, boolean, each, enumeration, number, on_demand, pass_over, refuse, unsupported,
};
use filters::{Defaults, Filters};
use mesh_core::model::{Action, RouteTable, VirtualHost};
use mesh_core::{Invalid, Name};
use std::collections::HashSet;
use std::sync::Arc;

mod answer;
mod condition;
mod cors;
pub(super) mod edits;
mod fault;
mod filters;
mod follow;
mod forward;
mod hash;
mod hedge;
mod limit;
mod policies;
mod retry;
mod rule;
pub(in crate::read) mod template;

pub(super) use condition::header as header_match;
pub(super) use condition::read as route_match;
pub(super) use policies::unpoliced;

/// The largest body of a direct response where a table does not say
/// (`max_direct_response_body_size_bytes`).
const MAX_BODY: u32 = 4096;

/// Reads a route table.
///
/// `validate_clusters` is false where it is not set, as for tables that come by RDS; Envoy has it
/// true for those that stand in a listener.
///
/// # Errors
/// If a field has a value that cannot be used or that the model cannot express, with the path of
/// the field; if a domain is in the table twice; if the body of a direct response is longer than
/// `max_direct_response_body_size_bytes` (default 4096).
pub fn table(proto: &pb::RouteConfiguration) -> Result<RouteTable, Invalid> {
    table_with(proto, proto.virtual_hosts.iter().map(|_| None))
}

/// The field of [`pb::RouteConfiguration`] that has the virtual hosts.
pub(super) const HOSTS: u32 = 2;

/// Reads a route table some of whose virtual hosts are there already. The others are those of
/// `proto`, in their order.
pub(super) fn table_with(
    proto: &pb::RouteConfiguration,
    hosts: impl Iterator<Item = Option<Arc<VirtualHost>>>,
) -> Result<RouteTable, Invalid> {
    let pb::RouteConfiguration {
        name,
        virtual_hosts,
        vhds,
        internal_only_headers,
        response_headers_to_add,
        response_headers_to_remove,
        request_headers_to_add,
        request_headers_to_remove,
        most_specific_header_mutations_wins,
        validate_clusters,
        max_direct_response_body_size_bytes,
        cluster_specifier_plugins,
        request_mirror_policies,
        ignore_port_in_host_matching,
        vhost_header,
        ignore_path_parameters_in_path_matching,
        typed_per_filter_config,
        metadata,
        route_specifiers,
    } = proto;
    pass_over!("envoy.config.route.v3.RouteConfiguration": metadata);
    refuse!(
        internal_only_headers,
        cluster_specifier_plugins,
        request_mirror_policies,
        vhost_header,
        ignore_path_parameters_in_path_matching,
        typed_per_filter_config,
        route_specifiers,
    );
    let mut table = RouteTable::new(name);
    table.ignore_port = *ignore_port_in_host_matching;
    table.on_demand = on_demand::hosts(name, vhds.as_ref()).at("vhds")?;
    table.validate_clusters = boolean(validate_clusters.as_ref(), false);
    table.most_specific_edits_win = *most_specific_header_mutations_wins;
    table.request_edits = edits::request(request_headers_to_add, request_headers_to_remove)?;
    table.response_edits = edits::response(response_headers_to_add, response_headers_to_remove)?;

    let max_body = number(max_direct_response_body_size_bytes.as_ref()).unwrap_or(MAX_BODY);
    let mut domains = HashSet::new();
    let mut protos = virtual_hosts.iter();
    for known in hosts {
        let host = match (known, protos.as_slice()) {
            (Some(host), _) => host,
            (None, [proto, ..]) => {
                protos.next();
                Arc::new(virtual_host(proto).at(place(&proto.name))?)
            }
            (None, []) => break,
        };
        check_domains(&host, &mut domains).at(place(&host.name))?;
        check_bodies(&host, max_body).at(place(&host.name))?;
        table.virtual_hosts.push(host);
    }
    Ok(table)
}

/// Reads a virtual host.
///
/// # Errors
/// If a field has a value that cannot be used or that the model cannot express, with the path of
/// the field. What only the table can tell ([`table`]) is not checked.
#[expect(
    deprecated,
    reason = "the old spelling of cross-origin rules is read too"
)]
pub fn virtual_host(proto: &pb::VirtualHost) -> Result<VirtualHost, Invalid> {
    let pb::VirtualHost {
        name,
        domains,
        routes,
        matcher,
        require_tls,
        virtual_clusters,
        rate_limits,
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        cors,
        typed_per_filter_config,
        include_request_attempt_count,
        include_attempt_count_in_response,
        retry_policy,
        retry_policy_typed_config,
        hedge_policy,
        include_is_timeout_retry_header,
        per_request_buffer_limit_bytes,
        request_body_buffer_limit,
        request_mirror_policies,
        metadata,
        route_specifiers,
    } = proto;
    pass_over!("envoy.config.route.v3.VirtualHost": metadata);
    refuse!(
        matcher,
        virtual_clusters,
        rate_limits,
        retry_policy_typed_config,
        include_is_timeout_retry_header,
        per_request_buffer_limit_bytes,
        request_body_buffer_limit,
        route_specifiers,
    );
    let lower = domains.iter().map(|domain| domain.to_ascii_lowercase());
    let mut host = VirtualHost::new(name, lower);
    host.require_tls = match enumeration("require_tls", *require_tls)? {
        TlsRequirementType::None => false,
        TlsRequirementType::All => true,
        TlsRequirementType::ExternalOnly => return Err(unsupported("require_tls")),
    };
    host.count_attempts = *include_request_attempt_count;
    host.count_attempts_in_response = *include_attempt_count_in_response;
    host.request_edits = edits::request(request_headers_to_add, request_headers_to_remove)?;
    host.response_edits = edits::response(response_headers_to_add, response_headers_to_remove)?;
    let retry = retry_policy.as_ref().map(retry::read).transpose();
    host.retry = retry.at("retry_policy")?.map(Arc::new);
    host.hedge = hedge_policy.as_ref().map(hedge::read);

    let mut filters = Filters::read(typed_per_filter_config)?;
    host.on_demand = filters.on_demand;
    host.policies = filters.take_policies();
    let old = cors::deprecated(cors.as_ref()).at("cors")?;
    host.cors = filters.cors.or(old).on();
    let defaults = Defaults {
        cors: host.cors.is_some(),
        fault: filters.fault.on(),
        session: filters.session.clone(),
        rate_limit: filters.rate_limit.on(),
        mirrors: each(
            "request_mirror_policies",
            request_mirror_policies,
            forward::mirror,
        )?,
    };
    host.rules = each("routes", routes, |route| {
        rule::read(route, &defaults).map(Arc::new)
    })?;
    Ok(host)
}

fn place(host: &str) -> String {
    format!("virtual_hosts[{host}]")
}

/// Domains are unique over a whole table (Envoy refuses the table otherwise).
fn check_domains(host: &VirtualHost, seen: &mut HashSet<Name>) -> Result<(), Invalid> {
    for (at, domain) in host.domains.iter().enumerate() {
        if !seen.insert(domain.clone()) {
            let message = format!("{domain:?} is a domain of this table already");
            return Err(Invalid::new(format!("domains[{at}]"), message));
        }
    }
    Ok(())
}

fn check_bodies(host: &VirtualHost, max: u32) -> Result<(), Invalid> {
    for (at, rule) in host.rules.iter().enumerate() {
        let Action::Respond(answer) = &rule.action else {
            continue;
        };
        let length = answer.body.len();
        if u32::try_from(length).map_or(true, |length| length > max) {
            let path = format!("routes[{at}].direct_response.body");
            let message =
                format!("{length} bytes are more than max_direct_response_body_size_bytes, {max}");
            return Err(Invalid::new(path, message));
        }
    }
    Ok(())
}
