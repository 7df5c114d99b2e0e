//! What routes say of the filters that judge.

use super::build::{filter, host, packed, plain};
use mesh_core::model::{
    AskedBody, Authz, AuthzAction, AuthzPolicy, AuthzRules, Predicate, RoutePolicies, RouteTable,
    Rule, VirtualHost,
};
use mesh_xds::pb::envoy::config::route::v3 as pb;
use mesh_xds::pb::envoy::extensions::filters::http::ext_authz::v3 as external;
use mesh_xds::pb::envoy::extensions::filters::http::jwt_authn::v3 as authn;
use mesh_xds::pb::envoy::extensions::filters::http::rbac::v3 as rbac;
use mesh_xds::pb::google::protobuf::Any;
use mesh_xds::{read, write};
use std::collections::HashMap;
use std::sync::Arc;

fn said(configs: HashMap<String, Any>) -> Result<RoutePolicies, String> {
    let mut host = host(vec![plain()]);
    host.routes[0].typed_per_filter_config = configs;
    let host = read::route::virtual_host(&host).map_err(|error| error.path().to_owned())?;
    let policies = host.rules[0].policies.as_deref();
    Ok(policies.cloned().unwrap_or_default())
}

fn asking(settings: external::CheckSettings) -> external::ExtAuthzPerRoute {
    external::ExtAuthzPerRoute {
        r#override: Some(external::ext_authz_per_route::Override::CheckSettings(
            settings,
        )),
    }
}

fn tokens(asked: authn::per_route_config::RequirementSpecifier) -> authn::PerRouteConfig {
    authn::PerRouteConfig {
        requirement_specifier: Some(asked),
    }
}

#[test]
fn what_is_said_of_each_filter_comes_back_as_it_was_written() {
    let policy = AuthzPolicy::new("all", Predicate::Always, Predicate::Always);
    let mut authz = Authz::default();
    authz.rules = Some(AuthzRules::new(AuthzAction::Deny, [policy]));
    authz.trial_prefix = "asked_".into();
    let mut all = RoutePolicies::default();
    all.off.insert("envoy.filters.http.jwt_authn".into());
    all.off.insert("mine".into());
    all.authz
        .insert("envoy.filters.http.rbac".into(), Arc::new(authz));
    all.authz.insert("second".into(), Arc::default());
    all.tokens.insert("third".into(), None);
    let asks = "envoy.filters.http.ext_authz";
    let pair = ("a".into(), "b".into());
    all.context.insert(asks.into(), [pair].into());
    let body = AskedBody {
        limit: 7,
        partial: true,
        raw: true,
    };
    all.bodies.insert(asks.into(), Some(body));
    let mut host = RoutePolicies::default();
    let name = Some("first".into());
    host.tokens
        .insert("envoy.filters.http.jwt_authn".into(), name);
    host.unasked.insert(asks.into());
    host.context.insert("fourth".into(), Default::default());
    host.bodies.insert("fourth".into(), None);

    let mut rule = Rule::prefix_to("/", "c");
    rule.policies = Some(Arc::new(all));
    let mut virtual_host = VirtualHost::new("h", ["*"]).rule(rule);
    virtual_host.policies = Some(Arc::new(host));
    let table = RouteTable::new("t").host(virtual_host);
    let back = read::route::table(&write::route::table(&table)).unwrap();
    assert_eq!(
        back.virtual_hosts[0].policies,
        table.virtual_hosts[0].policies
    );
    let [back, rule] = [&back, &table].map(|it| it.virtual_hosts[0].rules[0].policies.clone());
    assert_eq!(back, rule);
}

#[test]
fn rules_that_are_absent_are_rules_that_allow() {
    let absent = said(filter("rbac", &rbac::RbacPerRoute::default())).unwrap();
    let wrapped = pb::FilterConfig {
        config: Some(packed(&rbac::RbacPerRoute {
            rbac: Some(rbac::Rbac::default()),
        })),
        is_optional: true,
        ..Default::default()
    };
    let empty = said(filter("rbac", &wrapped)).unwrap();
    assert_eq!(absent, empty);
    assert_eq!(*absent.authz["envoy.filters.http.rbac"], Authz::default());
    let asked = asking(external::CheckSettings::default());
    let said = said(filter("ext_authz", &asked)).unwrap();
    assert!(said.context["envoy.filters.http.ext_authz"].is_empty());
    assert!(said.bodies.is_empty());
}

#[test]
fn what_cannot_be_meant_is_refused_by_path() {
    use authn::per_route_config::RequirementSpecifier::{Disabled, RequirementName};
    use external::check_settings::ServiceOverride;
    let path = |name: &str, rest: &str| {
        format!("routes[0].typed_per_filter_config[envoy.filters.http.{name}]{rest}")
    };
    let refused = |name: &str, config, rest: &str| {
        assert_eq!(said(config), Err(path(name, rest)));
    };
    let jwt = |asked| filter("jwt_authn", &tokens(asked));
    refused("jwt_authn", jwt(Disabled(false)), ".disabled");
    let nobody = RequirementName(String::new());
    refused("jwt_authn", jwt(nobody), ".requirement_name");
    let nothing = filter("jwt_authn", &authn::PerRouteConfig::default());
    refused("jwt_authn", nothing, ".requirement_specifier");
    let nothing = filter("ext_authz", &external::ExtAuthzPerRoute::default());
    refused("ext_authz", nothing, ".override");
    // By the name of another filter.
    let other = filter("rbac", &tokens(Disabled(true)));
    refused("rbac", other, "");
    let asks = |settings| filter("ext_authz", &asking(settings));
    let both = asks(external::CheckSettings {
        disable_request_body_buffering: true,
        with_request_body: Some(external::BufferSettings::default()),
        ..Default::default()
    });
    refused("ext_authz", both, ".check_settings.with_request_body");
    let elsewhere = asks(external::CheckSettings {
        service_override: Some(ServiceOverride::HttpService(Default::default())),
        ..Default::default()
    });
    refused("ext_authz", elsewhere, ".check_settings.service_override");
    let matcher = rbac::RbacPerRoute {
        rbac: Some(rbac::Rbac {
            track_per_rule_stats: true,
            ..Default::default()
        }),
    };
    refused(
        "rbac",
        filter("rbac", &matcher),
        ".rbac.track_per_rule_stats",
    );
}

#[test]
fn a_virtual_host_on_demand_says_nothing_of_filters_that_judged_before() {
    use mesh_xds::TypeUrl;
    use prost::Message;
    let off = pb::FilterConfig {
        disabled: true,
        ..Default::default()
    };
    let read = |change: &dyn Fn(&mut pb::VirtualHost)| {
        let mut host = host(vec![plain()]);
        host.name = "t/h".into();
        change(&mut host);
        let read = read::resource(TypeUrl::VirtualHost, &host.encode_to_vec());
        read.map(|_| ()).map_err(|error| error.path().to_owned())
    };
    assert_eq!(read(&|_| {}), Ok(()));
    let of_host = read(&|it| it.typed_per_filter_config = filter("rbac", &off));
    assert_eq!(of_host, Err("typed_per_filter_config".to_owned()));
    let of_rule = read(&|it| it.routes[0].typed_per_filter_config = filter("rbac", &off));
    assert_eq!(of_rule, Err("routes[0].typed_per_filter_config".to_owned()));
}
