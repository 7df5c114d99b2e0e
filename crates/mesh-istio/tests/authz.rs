//! Authorization policies: which ones a node gets, and what they come to.

#[path = "support/lib.rs"]
mod support;

use mesh_core::model::{
    Authz, AuthzAction, AuthzRules, Fact, HeaderKey, Predicate, Snapshot, StringMatch, ValueMatch,
};
use mesh_istio::{Capture, Node};
use std::sync::Arc;
use support::{good, lines, snapshot, world};

const TOWN: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080}, {name: tcp, port: 7000}]
---
apiVersion: v1
kind: Endpoints
metadata: {name: web, namespace: shop}
subsets:
- addresses: [{ip: 10.0.0.1}]
  ports: [{name: http, port: 8080}, {name: tcp, port: 7000}]
";

fn policy(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

fn town(more: &[String]) -> String {
    format!("{TOWN}{}", more.concat())
}

/// What an intercepted pod `web` of namespace `shop` gets.
fn web(text: &str) -> Arc<Snapshot> {
    let mut node = Node::sidecar("web-1", "shop");
    node.labels.insert("app".to_owned(), "web".to_owned());
    node.address = [10, 0, 0, 1].into();
    node.capture = Capture::Redirect;
    let (snapshot, findings) = snapshot(&good(text), &node);
    assert!(findings.is_empty(), "{}", lines(&findings).join("\n"));
    snapshot
}

/// What judges requests, and what judges connections of bytes.
fn judges(snapshot: &Snapshot) -> (Vec<Arc<Authz>>, Vec<Arc<Authz>>) {
    let listener = snapshot.listeners().iter();
    let listener = listener
        .into_iter()
        .find(|it| it.name == "virtualInbound")
        .unwrap();
    let http = listener.managers().next().unwrap().authz.clone();
    let mut tcp = listener
        .chains
        .iter()
        .filter(|chain| chain.proxy().is_some());
    let tcp = tcp.find(|chain| chain.name != "virtualInbound-blackhole");
    (http, tcp.unwrap().authz.clone())
}

fn names(rules: &AuthzRules) -> Vec<String> {
    rules
        .policies
        .iter()
        .map(|it| it.name.to_string())
        .collect()
}

#[test]
fn policies_of_the_namespace_and_of_the_root_add_up() {
    let all = policy("shop", "all", "{}");
    let mine = policy(
        "shop",
        "mine",
        "{selector: {matchLabels: {app: web}}, rules: [{}]}",
    );
    let others = policy(
        "shop",
        "others",
        "{selector: {matchLabels: {app: x}}, rules: [{}]}",
    );
    let root = policy("istio-system", "root", "{rules: [{}, {}]}");
    let far = policy("pay", "far", "{rules: [{}]}");
    let (http, tcp) = judges(&web(&town(&[all, mine, others, root, far])));
    for authz in [http, tcp] {
        let [authz] = &authz[..] else {
            panic!("one filter for each action")
        };
        let rules = authz.rules.as_ref().unwrap();
        assert_eq!(rules.action, AuthzAction::Allow);
        assert_eq!(
            names(rules),
            [
                "ns[istio-system]-policy[root]-rule[0]",
                "ns[istio-system]-policy[root]-rule[1]",
                "ns[shop]-policy[all]-rule[0]",
                "ns[shop]-policy[mine]-rule[0]",
            ]
        );
        let never = Predicate::Not(Box::new(Predicate::Always));
        assert_eq!(rules.policies[2].permission, never);
        let always = Predicate::All(vec![Predicate::Always]);
        assert_eq!(rules.policies[3].permission, always);
    }
}

#[test]
fn a_dry_run_is_on_trial_beside_what_is_in_force() {
    let deny = "{action: DENY, rules: [{to: [{operation: {methods: [PUT]}}]}]}";
    let dry = policy("shop", "dry", deny).replace(
        "namespace: shop}",
        "namespace: shop, annotations: {istio.io/dry-run: \"true\"}}",
    );
    let (http, _) = judges(&web(&town(&[dry.clone(), policy("shop", "wet", deny)])));
    assert_eq!(
        names(http[0].rules.as_ref().unwrap()),
        ["ns[shop]-policy[wet]-rule[0]"]
    );
    assert_eq!(
        names(http[0].trial.as_ref().unwrap()),
        ["ns[shop]-policy[dry]-rule[0]"]
    );
    assert_eq!(http[0].trial_prefix, "istio_dry_run_deny_");
    let (http, tcp) = judges(&web(&town(&[dry])));
    assert!(http[0].rules.is_none() && tcp[0].rules.is_none());
    assert_eq!(tcp[0].stat_prefix, "tcp.");
}

#[test]
fn of_bytes_an_allow_needs_all_it_asks_and_a_deny_does_without() {
    let rules =
        "rules: [{from: [{source: {namespaces: [pay]}}], to: [{operation: {paths: [/x]}}]}]";
    let allow = policy("shop", "a", &format!("{{{rules}}}"));
    let deny = policy("shop", "d", &format!("{{action: DENY, {rules}}}"));
    let (http, tcp) = judges(&web(&town(&[allow, deny])));
    let counts = |all: &[Arc<Authz>]| -> Vec<usize> {
        all.iter()
            .map(|it| it.rules.as_ref().unwrap().policies.len())
            .collect()
    };
    // In istiod's order: what denies, what allows.
    assert_eq!(counts(&http), [1, 1]);
    assert_eq!(counts(&tcp), [1, 0]);
    let denied = &tcp[0].rules.as_ref().unwrap().policies[0];
    assert_eq!(denied.permission, Predicate::All(vec![Predicate::Always]));
    assert_ne!(denied.principal, Predicate::All(vec![Predicate::Always]));
}

/// What is asked of the caller, and of what is done, in the only rule.
fn asked(rule: &str) -> (String, String) {
    let text = town(&[policy("shop", "p", &format!("{{rules: [{rule}]}}"))]);
    let (http, _) = judges(&web(&text));
    let policy = &http[0].rules.as_ref().unwrap().policies[0];
    let tell = |predicate: &Predicate| format!("{predicate:?}");
    (tell(&policy.principal), tell(&policy.permission))
}

#[test]
fn names_of_callers_become_expressions_as_in_istiod() {
    for (source, expected) in [
        (
            "principals: [td/ns/a/sa/b]",
            r#"Exact("spiffe://td/ns/a/sa/b")"#,
        ),
        ("principals: ['td/*']", r#"Prefix("spiffe://td/")"#),
        ("principals: ['*/sa/b']", r#"Pattern("spiffe://.*/sa/b")"#),
        ("principals: ['*']", r#"Pattern(".+")"#),
        ("namespaces: ['a-*']", r#"Pattern(".*/ns/a-.*/.*")"#),
        ("trustDomains: [td.one]", r#"Prefix("spiffe://td.one/")"#),
        (
            "notTrustDomains: ['*.one']",
            r#"Pattern("spiffe://[^/]*\\.one/.*")"#,
        ),
        (
            "serviceAccounts: [b]",
            r#"Pattern("spiffe://.+/ns/shop/(.+/|)sa/b(/.+)?")"#,
        ),
        (
            "serviceAccounts: [a/b]",
            r#"Pattern("spiffe://.+/ns/a/(.+/|)sa/b(/.+)?")"#,
        ),
        (
            "requestPrincipals: ['https://a/*']",
            r#"Exact("https://a")"#,
        ),
    ] {
        let (principal, _) = asked(&format!("{{from: [{{source: {{{source}}}}}]}}"));
        assert!(principal.contains(expected), "{source}: {principal}");
    }
}

#[test]
fn what_is_done_is_compared_as_in_istiod() {
    for (operation, expected) in [
        (
            "hosts: ['*.A.example']",
            r#"SuffixIgnoreCase(".A.example")"#,
        ),
        ("methods: ['*']", "Present(true)"),
        ("paths: ['/a*']", r#"Prefix("/a")"#),
        ("paths: ['/a/{*}/{**}']", r#"PathTemplate("/a/*/**")"#),
        ("notPorts: ['80']", "PortRange { start: 80, end: 81 }"),
    ] {
        let (_, permission) = asked(&format!("{{to: [{{operation: {{{operation}}}}}]}}"));
        assert!(permission.contains(expected), "{operation}: {permission}");
    }
}

#[test]
fn a_header_in_brackets_is_looked_up() {
    let when = "{when: [{key: 'request.headers[X-Token]', notValues: ['*']}]}";
    let text = town(&[policy("shop", "p", &format!("{{rules: [{when}]}}"))]);
    let (http, _) = judges(&web(&text));
    let Predicate::All(all) = &http[0].rules.as_ref().unwrap().policies[0].principal else {
        panic!("all conditions have to hold");
    };
    let [Predicate::Not(not)] = &all[..] else {
        panic!("one condition, turned round")
    };
    let Predicate::Any(any) = &**not else {
        panic!("any of its values")
    };
    let [Predicate::Fact(Fact::Header(header))] = &any[..] else {
        panic!("of a header")
    };
    assert_eq!(header.key, HeaderKey::Header("x-token".parse().unwrap()));
    assert_eq!(header.value, ValueMatch::Present(true));
}

#[test]
fn a_trust_domain_has_its_other_names() {
    let mesh = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio}\n\
                data: {mesh: \"{trustDomain: new, trustDomainAliases: [old]}\"}\n";
    let spec = "{rules: [{from: [{source: {principals: [old/ns/a/sa/b]}}]}]}";
    let text = town(&[policy("shop", "p", spec), mesh.to_owned()]);
    let (http, _) = judges(&web(&text));
    let principal = &http[0].rules.as_ref().unwrap().policies[0].principal;
    let peer = |name: &str| {
        let name = StringMatch::Exact(format!("spiffe://{name}/ns/a/sa/b"));
        Predicate::Fact(Fact::Peer(Some(name)))
    };
    let both = Predicate::Any(vec![peer("new"), peer("old")]);
    assert_eq!(*principal, Predicate::All(vec![both]));
}

#[test]
fn what_istio_would_not_admit_or_is_not_supported_is_refused_by_name() {
    let to = |text: &str| format!("{{rules: [{{to: [{{operation: {{{text}}}}}]}}]}}");
    let from = |text: &str| format!("{{rules: [{{from: [{{source: {{{text}}}}}]}}]}}");
    let when = |text: &str| format!("{{rules: [{{when: [{{{text}}}]}}]}}");
    for (spec, words) in [
        ("{action: DENY}".to_owned(), "never does without rules"),
        (
            "{rules: [{from: []}]}".to_owned(),
            "from: must not be empty",
        ),
        (from(""), "must not be empty"),
        (to(""), "must not be empty"),
        (to("ports: [http]"), "\"http\" is not a port"),
        (to("paths: ['/a/{x}']"), "of braces only"),
        (to("paths: ['/{**}/{*}']"), "wildcard after **"),
        (to("paths: ['/a*/{*}']"), "is not a segment"),
        (to("what: [x]"), "what"),
        (from("ipBlocks: [a]"), "neither an address nor a block"),
        (from("principals: ['spiffe://a']"), "without spiffe://"),
        (from("serviceAccounts: ['*']"), "neither a service account"),
        (from("trustDomains: [a/ns]"), "is not a trust domain"),
        (from("serviceAccounts: [a], namespaces: [b]"), "exclude"),
        (
            when("key: source.user, values: [a]"),
            "not a key that is known",
        ),
        (when("key: source.ip"), "values or notValues is missing"),
        (
            when("key: 'request.headers', values: [a]"),
            "request.headers[…]",
        ),
        (
            when("key: 'experimental.envoy.filters.a[b]', values: [a]"),
            "not supported",
        ),
        (
            "{targetRefs: [{kind: Service, name: a}]}".to_owned(),
            "a policy for Service",
        ),
        (
            "{selector: {matchLabels: {a: b}}, targetRefs: [{kind: Gateway, name: a, group: \
             gateway.networking.k8s.io}]}"
                .to_owned(),
            "exclude each other",
        ),
    ] {
        let (world, findings) = world(&policy("shop", "p", &spec));
        let found = lines(&findings).join("\n");
        assert!(world.is_empty(), "{spec}");
        assert!(found.contains(words), "{spec}: {found}");
    }
}

const AUTHORIZERS: &str = "---
apiVersion: v1
kind: Service
metadata: {name: authz, namespace: tools}
spec:
  ports: [{name: http, port: 8000}, {name: grpc, port: 9000}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    extensionProviders:
    - name: over-grpc
      envoyExtAuthzGrpc: {service: tools/authz.tools.svc.cluster.local, port: 9000, timeout: 2s}
    - name: over-http
      envoyExtAuthzHttp:
        service: authz.tools.svc.cluster.local
        port: 8000
        failOpen: true
        statusOnError: '503'
        pathPrefix: /check
        includeRequestHeadersInCheck: [x-token, 'x-ext-*']
        includeAdditionalHeadersInCheck: {x-b: '2', x-a: '1'}
        includeRequestBodyInCheck: {maxRequestBytes: 64, allowPartialMessage: true}
        headersToUpstreamOnAllow: ['*-user']
        headersToDownstreamOnDeny: [x-why]
        headersToDownstreamOnAllow: [set-cookie]
        clearRouteCache: true
    - name: traces
      zipkin: {service: zipkin.tools.svc.cluster.local, port: 9411}
";

fn custom(name: &str, provider: &str) -> String {
    let spec = format!(
        "{{action: CUSTOM, provider: {{name: {provider}}}, \
         rules: [{{to: [{{operation: {{paths: [/admin]}}}}]}}]}}"
    );
    policy("shop", name, &spec)
}

#[test]
fn a_policy_that_asks_becomes_rules_on_trial_and_whom_they_ask() {
    let deny = policy("shop", "deny", "{action: DENY, rules: [{}]}");
    let text = town(&[AUTHORIZERS.to_owned(), custom("ask", "over-http"), deny]);
    let (http, tcp) = judges(&web(&text));
    let [asks, denies] = &http[..] else {
        panic!("whoever is asked comes first")
    };
    assert!(denies.external.is_none());
    assert!(asks.rules.is_none());
    let trial = asks.trial.as_ref().unwrap();
    assert_eq!(trial.action, AuthzAction::Deny);
    assert_eq!(
        names(trial),
        ["istio-ext-authz-over-http-ns[shop]-policy[ask]-rule[0]"]
    );
    assert_eq!(asks.trial_prefix, "istio_ext_authz_");
    let external = asks.external.as_ref().unwrap();
    assert_eq!(
        external.cluster,
        "outbound|8000||authz.tools.svc.cluster.local"
    );
    assert_eq!(
        external.only,
        Some(StringMatch::Prefix("istio-ext-authz-over-http-".to_owned()))
    );
    assert_eq!(external.timeout, Some(std::time::Duration::from_secs(600)));
    assert_eq!((external.fail_open, external.status_on_error), (true, 503));
    assert!(external.clear_route);
    assert_eq!(
        external
            .body
            .map(|body| (body.limit, body.partial, body.raw)),
        Some((64, true, false))
    );
    let mesh_core::model::Ask::Http(ask) = &external.ask else {
        panic!("over HTTP")
    };
    assert_eq!(ask.path_prefix, "/check");
    assert_eq!(
        ask.headers,
        [
            StringMatch::ExactIgnoreCase("x-token".to_owned()),
            StringMatch::PrefixIgnoreCase("x-ext-".to_owned()),
        ]
    );
    assert_eq!(
        ask.upstream,
        [StringMatch::SuffixIgnoreCase("-user".to_owned())]
    );
    let added: Vec<_> = ask.add.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(added, ["x-a", "x-b"]);
    // Over HTTP nobody is asked about connections.
    assert!(tcp.iter().all(|authz| authz.external.is_none()));
    assert_eq!(tcp.len(), 1);
}

#[test]
fn over_grpc_connections_are_asked_about_too() {
    let text = town(&[AUTHORIZERS.to_owned(), custom("ask", "over-grpc")]);
    let (http, tcp) = judges(&web(&text));
    for (all, prefix) in [(http, ""), (tcp, "tcp.")] {
        let external = all[0].external.as_ref().unwrap();
        assert_eq!(external.timeout, Some(std::time::Duration::from_secs(2)));
        assert_eq!(external.stat_prefix, prefix);
        let mesh_core::model::Ask::Grpc(ask) = &external.ask else {
            panic!("over gRPC")
        };
        assert_eq!(
            ask.authority,
            "outbound_.9000_._.authz.tools.svc.cluster.local"
        );
    }
}

#[test]
fn where_nobody_can_be_asked_what_rules_match_is_denied() {
    let mut node = Node::sidecar("web-1", "shop");
    node.labels.insert("app".to_owned(), "web".to_owned());
    node.address = [10, 0, 0, 1].into();
    node.capture = Capture::Redirect;
    for (policies, said) in [
        (
            vec![custom("ask", "nobody")],
            "there is no provider \"nobody\"",
        ),
        (vec![custom("ask", "traces")], "none that can be asked"),
        (
            vec![custom("a", "over-http"), custom("b", "over-grpc")],
            "can have one provider",
        ),
    ] {
        let text = town(&[vec![AUTHORIZERS.to_owned()], policies].concat());
        let (snapshot, findings) = snapshot(&good(&text), &node);
        let findings = lines(&findings).join("\n");
        assert!(findings.contains(said), "{findings}");
        let (http, _) = judges(&snapshot);
        for authz in http {
            assert!(authz.external.is_none());
            let rules = authz.rules.as_ref().unwrap();
            assert_eq!(rules.action, AuthzAction::Deny);
            assert!(names(rules)[0].ends_with("-deny-due-to-bad-CUSTOM-action"));
        }
    }
}

#[test]
fn providers_and_policies_that_say_too_little_are_refused() {
    for (more, said) in [
        (
            policy("shop", "a", "{action: CUSTOM, rules: [{}]}"),
            "provider.name: required",
        ),
        (
            policy("shop", "a", "{action: CUSTOM, provider: {name: over-http}}"),
            "never does without rules",
        ),
        (
            policy("shop", "a", "{provider: {name: over-http}, rules: [{}]}"),
            "only for CUSTOM",
        ),
        (
            AUTHORIZERS.replace("statusOnError: '503'", "statusOnError: '99'"),
            "statusOnError",
        ),
        (
            AUTHORIZERS.replace("[x-why]", "['*']"),
            "headersToDownstreamOnDeny[0]",
        ),
        (
            AUTHORIZERS.replace("maxRequestBytes: 64", "maxRequestBytes: 0"),
            "maxRequestBytes",
        ),
        (
            AUTHORIZERS.replace("pathPrefix: /check", "pathPrefix: check"),
            "pathPrefix",
        ),
        (
            AUTHORIZERS.replace("x-a: '1'", "x-a: '%PROTOCOL%'"),
            "includeAdditionalHeadersInCheck",
        ),
        (
            AUTHORIZERS.replace("name: traces", "name: over-http"),
            "another provider",
        ),
    ] {
        let (_, findings) = world(&town(&[more]));
        let findings = lines(&findings).join("\n");
        assert!(findings.contains(said), "{said}: {findings}");
    }
}
