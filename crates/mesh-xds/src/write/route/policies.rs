//! What routes say of the filters that judge, as `RBACPerRoute`, `PerRouteConfig` of `jwt_authn`,
//! and `ExtAuthzPerRoute`.

use crate::pb::envoy::config::route::v3::FilterConfig;
use crate::pb::envoy::extensions::filters::http::ext_authz::v3 as external;
use crate::pb::envoy::extensions::filters::http::jwt_authn::v3 as authn;
use crate::pb::envoy::extensions::filters::http::rbac::v3::RbacPerRoute;
use crate::pb::google::protobuf::Any;
use crate::wire::pack;
use crate::write;
use authn::per_route_config::RequirementSpecifier;
use external::ext_authz_per_route::Override;
use mesh_core::Name;
use mesh_core::model::{Authz, RoutePolicies};
use std::collections::HashMap;

/// Adds what is said of each filter. Of one that requests go round nothing else is said.
pub(super) fn write(policies: &RoutePolicies, filters: &mut HashMap<String, Any>) {
    for (name, rules) in &policies.authz {
        filters.insert(name.to_string(), pack(&of_rules(rules)));
    }
    for (name, asked) in &policies.tokens {
        let asked = match asked {
            None => RequirementSpecifier::Disabled(true),
            Some(asked) => RequirementSpecifier::RequirementName(asked.to_string()),
        };
        let config = authn::PerRouteConfig {
            requirement_specifier: Some(asked),
        };
        filters.insert(name.to_string(), pack(&config));
    }
    for name in policies.context.keys().chain(policies.bodies.keys()) {
        asks(
            filters,
            name,
            Override::CheckSettings(settings(policies, name)),
        );
    }
    for name in &policies.unasked {
        asks(filters, name, Override::Disabled(true));
    }
    for name in &policies.off {
        let off = FilterConfig {
            disabled: true,
            ..FilterConfig::default()
        };
        filters.insert(name.to_string(), pack(&off));
    }
}

fn of_rules(rules: &Authz) -> RbacPerRoute {
    // Without anything it says the same as an empty one.
    let rbac = (*rules != Authz::default()).then(|| write::authz::of_requests(rules));
    RbacPerRoute { rbac }
}

fn asks(filters: &mut HashMap<String, Any>, name: &Name, value: Override) {
    let config = external::ExtAuthzPerRoute {
        r#override: Some(value),
    };
    filters.insert(name.to_string(), pack(&config));
}

fn settings(policies: &RoutePolicies, name: &Name) -> external::CheckSettings {
    let context = policies.context.get(name).into_iter().flatten();
    let body = policies.bodies.get(name);
    external::CheckSettings {
        context_extensions: context
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect(),
        disable_request_body_buffering: body == Some(&None),
        with_request_body: body.copied().flatten().map(write::external::body),
        ..external::CheckSettings::default()
    }
}
