//! A rule, as `Route`.

use super::{answer, condition, edits, filters, forward, policies};
use crate::pb::envoy::config::route::v3 as pb;
use crate::wire::names::{CORS, FAULT, ON_DEMAND, RATE_LIMIT, SESSION};
use crate::wire::{limit, pack};
use crate::write::session;
use mesh_core::model::{Action, Rule};
use std::collections::HashMap;

pub(super) fn write(rule: &Rule) -> pb::Route {
    let (request_headers_to_add, request_headers_to_remove) = edits::write(&rule.request_edits);
    let (response_headers_to_add, response_headers_to_remove) = edits::write(&rule.response_edits);
    let mut filters = HashMap::new();
    if let Some(cors) = &rule.cors {
        filters.insert(CORS.to_owned(), pack(&filters::cors(cors)));
    }
    if let Some(fault) = &rule.fault {
        filters.insert(FAULT.to_owned(), pack(&filters::fault(fault)));
    }
    if let Some(limit) = &rule.rate_limit {
        filters.insert(RATE_LIMIT.to_owned(), pack(&limit::write(Some(limit))));
    }
    if let Some(said) = rule.session.as_ref().and_then(session::on_route) {
        filters.insert(SESSION.to_owned(), pack(&said));
    }
    if let Some(clusters) = rule.on_demand {
        filters.insert(ON_DEMAND.to_owned(), pack(&filters::on_demand(clusters)));
    }
    if let Some(policies) = &rule.policies {
        policies::write(policies, &mut filters);
    }
    pb::Route {
        name: rule.name.to_string(),
        r#match: Some(condition::write(&rule.condition)),
        decorator: (!rule.operation.is_empty()).then(|| pb::Decorator {
            operation: rule.operation.to_string(),
            propagate: None,
        }),
        typed_per_filter_config: filters,
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        stat_prefix: rule.stat_prefix.to_string(),
        action: action(rule),
        ..Default::default()
    }
}

fn action(rule: &Rule) -> Option<pb::route::Action> {
    match &rule.action {
        Action::Forward(to) => Some(pb::route::Action::Route(forward::write(rule, to))),
        Action::Redirect(to) => Some(pb::route::Action::Redirect(answer::redirect(to))),
        Action::Respond(with) => Some(pb::route::Action::DirectResponse(answer::direct_response(
            with,
        ))),
        // An action that is not known here; a route without one is refused by whoever reads it.
        _ => None,
    }
}
