//! Rules that judge, written and read back, and what is refused.

use crate::generate::block;
use crate::{back, name};
use mesh_core::Name;
use mesh_core::model::{
    Authz, AuthzAction, AuthzPolicy, AuthzRules, ClaimMatch, Fact, FilterChain, HeaderKey,
    HeaderMatch, HttpManager, Listener, PathTemplate, Pattern, PortRange, Predicate, StringMatch,
    TcpProxy, ValueMatch,
};
use mesh_xds::pb::envoy::config::core::v3 as core;
use mesh_xds::pb::envoy::config::listener::v3 as pb;
use mesh_xds::pb::envoy::config::rbac::v3 as rbac;
use mesh_xds::pb::envoy::extensions::filters::http::rbac::v3 as http;
use mesh_xds::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use mesh_xds::pb::envoy::extensions::filters::network::rbac::v3 as network;
use mesh_xds::pb::google::protobuf::Any;
use mesh_xds::read::{self, Resource};
use mesh_xds::{TypeUrl, write};
use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use prost::{Message as _, Name as _};
use std::sync::Arc;

pub(crate) fn text() -> BoxedStrategy<StringMatch> {
    prop_oneof![
        "[a-z/*]{1,6}".prop_map(StringMatch::Exact),
        "[a-z/*]{1,6}".prop_map(StringMatch::Prefix),
        "[a-z/*]{1,6}".prop_map(StringMatch::Suffix),
        "[a-z]{1,6}".prop_map(StringMatch::ExactIgnoreCase),
        "[a-z]{1,6}[+*]".prop_map(|text| StringMatch::Regex(Pattern::new(&text).unwrap())),
    ]
    .boxed()
}

fn header() -> BoxedStrategy<HeaderMatch> {
    let key = prop_oneof![
        Just(HeaderKey::Method),
        Just(HeaderKey::Authority),
        Just(HeaderKey::Path),
        "x-[a-z]{1,5}".prop_map(|name| HeaderKey::Header(name.parse().unwrap())),
    ];
    let value = prop_oneof![
        text().prop_map(ValueMatch::Text),
        any::<bool>().prop_map(ValueMatch::Present),
    ];
    (key, value, any::<bool>(), any::<bool>())
        .prop_map(|(key, value, invert, missing_is_empty)| HeaderMatch {
            key,
            value,
            invert,
            missing_is_empty,
        })
        .boxed()
}

fn claim() -> BoxedStrategy<ClaimMatch> {
    let path = vec("[a-z.]{1,5}".prop_map(Name::from), 1..3);
    (path, vec(text(), 1..4), any::<bool>())
        .prop_map(|(path, values, list)| {
            let mut claim = ClaimMatch::new(path, values);
            claim.list = list;
            claim
        })
        .boxed()
}

fn ports() -> BoxedStrategy<PortRange> {
    (0_u32..65_536, 1_u32..100)
        .prop_map(|(start, more)| PortRange {
            start,
            end: (start + more).min(65_536),
        })
        .boxed()
}

fn done() -> BoxedStrategy<Fact> {
    let template = select(vec!["/a/*", "/{x=**}/b", "/a/**"]);
    prop_oneof![
        header().prop_map(Fact::Header),
        text().prop_map(Fact::Path),
        template.prop_map(|text| Fact::PathTemplate(PathTemplate::new(text).unwrap())),
        block().prop_map(Fact::Destination),
        ports().prop_map(Fact::DestinationPort),
        text().prop_map(Fact::ServerName),
        claim().prop_map(Fact::Claim),
    ]
    .boxed()
}

fn doer() -> BoxedStrategy<Fact> {
    prop_oneof![
        header().prop_map(Fact::Header),
        text().prop_map(Fact::Path),
        option::of(text()).prop_map(Fact::Peer),
        block().prop_map(Fact::Direct),
        block().prop_map(Fact::Source),
        block().prop_map(Fact::Remote),
        claim().prop_map(Fact::Claim),
    ]
    .boxed()
}

fn predicate(fact: BoxedStrategy<Fact>) -> BoxedStrategy<Predicate> {
    let leaf = prop_oneof![4 => fact.prop_map(Predicate::Fact), 1 => Just(Predicate::Always)];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 1..3).prop_map(Predicate::All),
            vec(inner.clone(), 1..3).prop_map(Predicate::Any),
            inner.prop_map(|one| Predicate::Not(Box::new(one))),
        ]
    })
    .boxed()
}

pub(crate) fn rules() -> BoxedStrategy<AuthzRules> {
    let action = select(vec![
        AuthzAction::Allow,
        AuthzAction::Deny,
        AuthzAction::Log,
    ]);
    let names = btree_set("[a-z\\[\\] ]{1,6}", 0..4);
    let both = vec((predicate(done()), predicate(doer())), 4);
    (action, names, both)
        .prop_map(|(action, names, both)| {
            let policies = names.into_iter().zip(both);
            AuthzRules::new(
                action,
                policies.map(|(name, (permission, principal))| {
                    AuthzPolicy::new(name, permission, principal)
                }),
            )
        })
        .boxed()
}

fn authz() -> BoxedStrategy<Authz> {
    let prefixes = (name(), prop_oneof![Just(Name::default()), name()]);
    (option::of(rules()), option::of(rules()), prefixes)
        .prop_map(|(rules, trial, (stat_prefix, trial_prefix))| {
            let mut authz = Authz::default();
            authz.rules = rules;
            authz.trial = trial;
            authz.stat_prefix = stat_prefix;
            authz.trial_prefix = trial_prefix;
            authz
        })
        .boxed()
}

fn listener(chain: FilterChain) -> Listener {
    Listener::new("l", ([127, 0, 0, 1], 80).into()).chain(chain)
}

proptest! {
    #[test]
    fn rules_survive_their_protobuf(
        connections in vec(authz(), 0..3), requests in vec(authz(), 0..3)
    ) {
        let mut manager = HttpManager::new("p", "r");
        manager.authz = requests.into_iter().map(Arc::new).collect();
        let mut http = FilterChain::http(manager);
        http.authz = connections.into_iter().map(Arc::new).collect();
        let mut tcp = FilterChain::tcp(TcpProxy::to("p", "c"));
        tcp.authz.clone_from(&http.authz);
        for chain in [http, tcp] {
            let before = listener(chain);
            let read = back(&before, None);
            prop_assert_eq!(&read.listener.chains[0].authz, &before.chains[0].authz);
            let of = |listener: &Listener| listener.managers().next().map(|it| it.authz.clone());
            prop_assert_eq!(of(&read.listener), of(&before));
        }
    }
}

pub(crate) fn packed(message: &impl prost::Name, url: String) -> Any {
    Any {
        type_url: format!("type.googleapis.com/{url}"),
        value: message.encode_to_vec(),
    }
}

/// What is said of a listener with these filters before its connection manager and its router.
pub(crate) fn refusal(connections: Option<network::Rbac>, requests: &[(&str, Any)]) -> String {
    let plain = listener(FilterChain::http(HttpManager::new("p", "r")));
    let mut proto = write::listener(&plain, None);
    let filters = &mut proto.filter_chains[0].filters;
    let Some(pb::filter::ConfigType::TypedConfig(config)) = &mut filters[0].config_type else {
        panic!("a filter has a configuration");
    };
    let mut manager = hcm::HttpConnectionManager::decode(&config.value[..]).unwrap();
    let filter = |(name, config): &(&str, Any)| hcm::HttpFilter {
        name: (*name).to_owned(),
        config_type: Some(hcm::http_filter::ConfigType::TypedConfig(config.clone())),
        ..hcm::HttpFilter::default()
    };
    let router = manager.http_filters.pop().unwrap();
    manager.http_filters = requests.iter().map(filter).collect();
    manager.http_filters.push(router);
    config.value = manager.encode_to_vec();
    if let Some(rules) = connections {
        let config = packed(&rules, network::Rbac::full_name());
        let filter = pb::Filter {
            name: "rules".to_owned(),
            config_type: Some(pb::filter::ConfigType::TypedConfig(config)),
        };
        filters.insert(0, filter);
    }
    let encoded = write::encode("l", &proto);
    match read::resource(TypeUrl::Listener, &encoded.bytes) {
        Ok(Resource::Listener(_)) => String::new(),
        Ok(_) => panic!("it is a listener"),
        Err(error) => error.to_string(),
    }
}

fn of_requests(permission: rbac::permission::Rule) -> http::Rbac {
    let policy = rbac::Policy {
        permissions: vec![rbac::Permission {
            rule: Some(permission),
        }],
        principals: vec![rbac::Principal {
            identifier: Some(rbac::principal::Identifier::Any(true)),
        }],
        ..rbac::Policy::default()
    };
    let mut rules = rbac::Rbac::default();
    rules.policies.insert("p".to_owned(), policy);
    http::Rbac {
        rules: Some(rules),
        ..http::Rbac::default()
    }
}

#[test]
fn what_cannot_be_judged_here_is_refused_with_its_place() {
    use rbac::permission::{Rule, Set};
    let tracked = http::Rbac {
        track_per_rule_stats: true,
        ..http::Rbac::default()
    };
    let matcher = core::TypedExtensionConfig {
        name: "m".to_owned(),
        typed_config: Some(Any::default()),
    };
    for (rules, expected) in [
        (tracked, "track_per_rule_stats: not supported"),
        (
            of_requests(Rule::Matcher(matcher)),
            "permissions[0].matcher: not supported",
        ),
        (
            of_requests(Rule::AndRules(Set::default())),
            "permissions[0].and_rules.rules: has to have at least 1 item",
        ),
        (of_requests(Rule::Any(false)), "permissions[0].any: "),
        (
            of_requests(Rule::DestinationPort(70_000)),
            "permissions[0].destination_port: ",
        ),
    ] {
        let said = refusal(None, &[("r", packed(&rules, http::Rbac::full_name()))]);
        assert!(said.contains(expected), "{said}");
    }
    let twice = network::Rbac {
        stat_prefix: "tcp.".to_owned(),
        enforcement_type: network::rbac::EnforcementType::Continuous.into(),
        ..network::Rbac::default()
    };
    let said = refusal(Some(twice), &[]);
    assert!(said.contains("enforcement_type: not supported"), "{said}");
}

#[test]
fn rules_after_a_filter_that_may_answer_are_refused() {
    use mesh_xds::pb::envoy::extensions::filters::http::cors::v3::Cors;
    let cors = (
        "envoy.filters.http.cors",
        packed(&Cors::default(), Cors::full_name()),
    );
    let rules = packed(&http::Rbac::default(), http::Rbac::full_name());
    let rules = ("envoy.filters.http.rbac", rules);
    let said = refusal(None, &[cors.clone(), rules.clone()]);
    assert!(said.contains("have to stand before"), "{said}");
    assert_eq!(refusal(None, &[rules, cors]), "");
}
