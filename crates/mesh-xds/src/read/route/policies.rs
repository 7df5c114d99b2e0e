//! What routes say of the filters that judge, from `RBACPerRoute`, `PerRouteConfig` of `jwt_authn`,
//! and `ExtAuthzPerRoute`.

use crate::pb::envoy::extensions::filters::http::ext_authz::v3 as external;
use crate::pb::envoy::extensions::filters::http::jwt_authn::v3 as authn;
use crate::pb::envoy::extensions::filters::http::rbac::v3 as authz;
use crate::pb::google::protobuf::Any;
use crate::read;
use crate::wire::{At, names, refuse, required, type_name, unpack};
use authn::per_route_config::RequirementSpecifier;
use external::ext_authz_per_route::Override;
use mesh_core::model::{RoutePolicies, VirtualHost};
use mesh_core::{Invalid, Name};
use prost::Name as _;
use std::sync::Arc;

/// Reads what is said of a filter that judges. False: it is of none.
pub(super) fn set(policies: &mut RoutePolicies, name: &str, any: &Any) -> Result<bool, Invalid> {
    let message = type_name(any);
    let of = |filter: &str, full: String| {
        // Under the name of another filter it would have no effect there.
        let others = [names::AUTHZ, names::JWT, names::EXTERNAL];
        message == full && (name == filter || !others.contains(&name))
    };
    if of(names::AUTHZ, authz::RbacPerRoute::full_name()) {
        rules(policies, name, &unpack(any)?)?;
    } else if of(names::JWT, authn::PerRouteConfig::full_name()) {
        tokens(policies, name, &unpack(any)?)?;
    } else if of(names::EXTERNAL, external::ExtAuthzPerRoute::full_name()) {
        asking(policies, name, &unpack(any)?)?;
    } else {
        return Ok(false);
    }
    Ok(true)
}

fn rules(
    policies: &mut RoutePolicies,
    name: &str,
    value: &authz::RbacPerRoute,
) -> Result<(), Invalid> {
    let authz::RbacPerRoute { rbac } = value;
    let rules = rbac.as_ref().map(read::authz::of_requests).transpose();
    let rules = rules.at("rbac")?.unwrap_or_default();
    policies.authz.insert(name.into(), Arc::new(rules));
    Ok(())
}

fn tokens(
    policies: &mut RoutePolicies,
    name: &str,
    value: &authn::PerRouteConfig,
) -> Result<(), Invalid> {
    let authn::PerRouteConfig {
        requirement_specifier,
    } = value;
    let asked = match required("requirement_specifier", requirement_specifier)? {
        RequirementSpecifier::Disabled(true) => None,
        RequirementSpecifier::Disabled(false) => {
            return Err(Invalid::new("disabled", "must be true"));
        }
        RequirementSpecifier::RequirementName(asked) if asked.is_empty() => {
            return Err(Invalid::new("requirement_name", "must not be empty"));
        }
        RequirementSpecifier::RequirementName(asked) => Some(Name::from(asked)),
    };
    policies.tokens.insert(name.into(), asked);
    Ok(())
}

fn asking(
    policies: &mut RoutePolicies,
    name: &str,
    value: &external::ExtAuthzPerRoute,
) -> Result<(), Invalid> {
    let external::ExtAuthzPerRoute { r#override } = value;
    match required("override", r#override)? {
        Override::Disabled(true) => {
            policies.unasked.insert(name.into());
        }
        Override::Disabled(false) => {
            policies.context.insert(name.into(), Default::default());
        }
        Override::CheckSettings(settings) => {
            settings_of(policies, name, settings).at("check_settings")?;
        }
    }
    Ok(())
}

fn settings_of(
    policies: &mut RoutePolicies,
    name: &str,
    value: &external::CheckSettings,
) -> Result<(), Invalid> {
    let external::CheckSettings {
        context_extensions,
        disable_request_body_buffering,
        with_request_body,
        service_override,
        emit_client_span,
    } = value;
    refuse!(service_override, emit_client_span);
    if *disable_request_body_buffering && with_request_body.is_some() {
        let message = "not possible together with disable_request_body_buffering";
        return Err(Invalid::new("with_request_body", message));
    }
    let context = context_extensions.iter();
    let context = context.map(|(name, value)| (Name::from(name), Name::from(value)));
    policies.context.insert(name.into(), context.collect());
    if *disable_request_body_buffering {
        policies.bodies.insert(name.into(), None);
    }
    if let Some(body) = with_request_body {
        let body = read::external::body(body)?;
        policies.bodies.insert(name.into(), Some(body));
    }
    Ok(())
}

/// A virtual host on demand says nothing of the filters that judge: they did before it was asked
/// for.
pub(in crate::read) fn unpoliced(host: &VirtualHost) -> Result<(), Invalid> {
    const FIELD: &str = "typed_per_filter_config";
    let rule = || host.rules.iter().position(|rule| rule.policies.is_some());
    let field = match host.policies.is_some() {
        true => FIELD.to_owned(),
        false => match rule() {
            Some(rule) => format!("routes[{rule}].{FIELD}"),
            None => return Ok(()),
        },
    };
    let message = "settings of filters that judge are not supported in a virtual host on demand: \
                   requests are judged before it is asked for";
    Err(Invalid::new(field, message))
}
