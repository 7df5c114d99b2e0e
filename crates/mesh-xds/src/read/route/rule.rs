//! A rule, from `Route`.

use super::filters::{Defaults, Filters, Setting};
use super::{answer, condition, edits, forward};
use crate::pb::envoy::config::route::v3 as pb;
use crate::wire::{At, pass_over, refuse, required, unsupported};
use mesh_core::model::{Action, Condition, Rule};
use mesh_core::{Invalid, Name};

/// Reads a rule of a virtual host that has these policies for its rules.
#[expect(deprecated, reason = "deprecated fields are looked at to refuse them")]
pub(super) fn read(proto: &pb::Route, host: &Defaults) -> Result<Rule, Invalid> {
    let pb::Route {
        name,
        r#match,
        metadata,
        decorator,
        typed_per_filter_config,
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        tracing,
        per_request_buffer_limit_bytes,
        stat_prefix,
        request_body_buffer_limit,
        route_specifiers,
        action,
    } = proto;
    pass_over!("envoy.config.route.v3.Route": metadata);
    refuse!(
        tracing,
        per_request_buffer_limit_bytes,
        request_body_buffer_limit,
        route_specifiers,
    );
    let condition = condition::read(required("match", r#match)?).at("match")?;
    let mut rule = with_action(condition, required("action", action)?, host)?;
    rule.name = Name::from(name);
    rule.stat_prefix = Name::from(stat_prefix);
    if let Some(decorator) = decorator {
        let pb::Decorator {
            operation,
            propagate,
        } = decorator;
        pass_over!("envoy.config.route.v3.Decorator": propagate);
        rule.operation = Name::from(operation);
    }
    rule.request_edits = edits::request(request_headers_to_add, request_headers_to_remove)?;
    rule.response_edits = edits::response(response_headers_to_add, response_headers_to_remove)?;

    let mut filters = Filters::read(typed_per_filter_config)?;
    rule.policies = filters.take_policies();
    rule.fault = filters.fault.or_inherit(host.fault.as_ref());
    rule.rate_limit = filters.rate_limit.or_inherit(host.rate_limit.as_ref());
    rule.session = filters.session.or_else(|| host.session.clone());
    rule.on_demand = filters.on_demand;
    match filters.cors {
        // What the action itself says, in the old spelling, stays.
        Setting::Unset => {}
        Setting::On(cors) => rule.cors = Some(cors),
        Setting::Off if host.cors => {
            let path = format!("typed_per_filter_config[{}]", crate::wire::names::CORS);
            let message = "cannot be switched off for a route whose virtual host has it";
            return Err(Invalid::new(path, message));
        }
        Setting::Off => rule.cors = None,
    }
    Ok(rule)
}

fn with_action(
    condition: Condition,
    action: &pb::route::Action,
    host: &Defaults,
) -> Result<Rule, Invalid> {
    match action {
        pb::route::Action::Route(action) => {
            let mut rule = Rule::new(condition, Action::default());
            forward::read(action, &mut rule, host).at("route")?;
            Ok(rule)
        }
        pb::route::Action::Redirect(action) => {
            let redirect = answer::redirect(action).at("redirect")?;
            Ok(Rule::new(condition, Action::Redirect(redirect)))
        }
        pb::route::Action::DirectResponse(action) => {
            let answer = answer::direct_response(action).at("direct_response")?;
            Ok(Rule::new(condition, Action::Respond(answer)))
        }
        pb::route::Action::FilterAction(_) => Err(unsupported("filter_action")),
        pb::route::Action::NonForwardingAction(_) => Err(unsupported("non_forwarding_action")),
    }
}
