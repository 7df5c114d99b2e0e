//! Route tables, as `RouteConfiguration`.
//!
//! What is written can be read back as the same table by [`read::route`](crate::read::route).
//! Some values of the model mean the same as others and come back as those: a timeout of zero as
//! none, a redirect without a code as 301, `not_found` 503 as none, adjacent texts of a header
//! template as one. Origins do not travel.
//!
//! Protobuf has no form for, and what is written instead:
//! * timeouts, retries and copies of rules that do not forward: nothing; they have no effect;
//! * a rewrite of a prefix to nothing: no rewrite;
//! * a `not_found` other than 404, 500 and 503: 503;
//! * an edit of `host`, except a fixed text that replaces it for a weighted destination (this is
//!   `host_rewrite_literal`): written as it stands, and refused by Envoy as by ours;
//! * a range as the value of a query parameter: an expression that nothing matches.

use crate::pb::envoy::config::route::v3 as pb;
use crate::pb::envoy::config::route::v3::virtual_host::TlsRequirementType;
use crate::wire::names::{CORS, ON_DEMAND};
use crate::wire::{on_demand, pack, to_boolean, to_number};
use mesh_core::model::{Action, RouteTable, VirtualHost};
use std::collections::HashMap;

mod answer;
mod condition;
pub(super) mod edits;
mod filters;
mod follow;
mod forward;
mod hash;
mod hedge;
mod policies;
mod retry;
mod rule;

pub(super) use condition::header as header_match;
pub(super) use condition::write as route_match;

/// The largest body of a direct response that a table allows, unless it has a larger one; istiod
/// sends the same.
const MAX_BODY: usize = 1 << 20;

/// Writes a route table.
pub fn table(table: &RouteTable) -> pb::RouteConfiguration {
    let (request_headers_to_add, request_headers_to_remove) = edits::write(&table.request_edits);
    let (response_headers_to_add, response_headers_to_remove) = edits::write(&table.response_edits);
    let max_body = table
        .virtual_hosts
        .iter()
        .flat_map(|host| &host.rules)
        .filter_map(|rule| match &rule.action {
            Action::Respond(answer) => Some(answer.body.len()),
            _ => None,
        })
        .fold(MAX_BODY, usize::max);
    pb::RouteConfiguration {
        name: table.name.to_string(),
        virtual_hosts: table
            .virtual_hosts
            .iter()
            .map(|host| virtual_host(host))
            .collect(),
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        most_specific_header_mutations_wins: table.most_specific_edits_win,
        validate_clusters: to_boolean(table.validate_clusters),
        max_direct_response_body_size_bytes: to_number(u32::try_from(max_body).unwrap_or(u32::MAX)),
        ignore_port_in_host_matching: table.ignore_port,
        vhds: table.on_demand.as_ref().map(on_demand::to_hosts),
        ..Default::default()
    }
}

/// Writes a virtual host.
pub fn virtual_host(host: &VirtualHost) -> pb::VirtualHost {
    let (request_headers_to_add, request_headers_to_remove) = edits::write(&host.request_edits);
    let (response_headers_to_add, response_headers_to_remove) = edits::write(&host.response_edits);
    let require_tls = if host.require_tls {
        TlsRequirementType::All
    } else {
        TlsRequirementType::None
    };
    let mut filters = HashMap::new();
    if let Some(cors) = &host.cors {
        filters.insert(CORS.to_owned(), pack(&filters::cors(cors)));
    }
    if let Some(clusters) = host.on_demand {
        filters.insert(ON_DEMAND.to_owned(), pack(&filters::on_demand(clusters)));
    }
    if let Some(policies) = &host.policies {
        policies::write(policies, &mut filters);
    }
    pb::VirtualHost {
        name: host.name.to_string(),
        domains: host.domains.iter().map(ToString::to_string).collect(),
        routes: host.rules.iter().map(|rule| rule::write(rule)).collect(),
        require_tls: require_tls.into(),
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        typed_per_filter_config: filters,
        include_request_attempt_count: host.count_attempts,
        include_attempt_count_in_response: host.count_attempts_in_response,
        retry_policy: host.retry.as_deref().map(retry::write),
        hedge_policy: host.hedge.map(hedge::write),
        ..Default::default()
    }
}
