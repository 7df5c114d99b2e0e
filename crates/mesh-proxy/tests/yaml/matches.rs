//! `http[].match`: which requests a rule takes.

use crate::town::{
    Backend, Reply, Town, ask, client, free_port, object, patiently, refused, request, routes,
    send_to, service, service_at, subsets, world,
};
use mesh_core::Publisher;
use mesh_core::model::SnapshotBuilder;
use mesh_istio::{Node, Role, compile};
use mesh_proxy::Proxy;
use std::collections::BTreeMap;

/// Requests that meet a match block, and requests that do not. Each is a line of method, host,
/// path and `name=value` headers.
async fn decides(block: &str, hits: &[&str], misses: &[&str]) {
    let (one, two) = (Backend::start("v1").await, Backend::start("v2").await);
    let rules = format!(
        "{{match: [{block}], route: [{{destination: {{host: a, subset: v2}}}}]}}, \
         {{route: [{{destination: {{host: a, subset: v1}}}}]}}"
    );
    let yaml = service("a", &[&one, &two]) + &subsets(&[&one, &two]) + &routes(&rules);
    let town = Town::client(&yaml).await;
    for (expected, lines) in [("v2", hits), ("v1", misses)] {
        for line in lines {
            let mut words = line.split(' ');
            let (method, host) = (words.next().unwrap(), words.next().unwrap());
            let path = words.next().unwrap();
            let headers: Vec<_> = words.map(|word| word.split_once('=').unwrap()).collect();
            let answer = town.send(request(method, host, path, &headers)).await;
            assert_eq!(answer.body, expected, "{block}: {line}");
        }
    }
}

#[tokio::test]
async fn uri_exact_compares_the_path_without_its_query() {
    let misses = ["GET a /foo/", "GET a /Foo", "GET a /foobar", "GET a /"];
    decides(
        "{uri: {exact: /foo}}",
        &["GET a /foo", "GET a /foo?x=/y"],
        &misses,
    )
    .await;
}

#[tokio::test]
async fn uri_prefix_is_a_prefix_of_bytes_and_not_of_segments() {
    let hits = ["GET a /foo", "GET a /foobar", "GET a /foo/bar?q"];
    decides(
        "{uri: {prefix: /foo}}",
        &hits,
        &["GET a /fo", "GET a /Foo", "GET a /?/foo"],
    )
    .await;
}

#[tokio::test]
async fn uri_regex_has_to_match_the_whole_path_without_its_query() {
    let hits = ["GET a /v1/x", "GET a /v22/x?q=1"];
    decides(
        r#"{uri: {regex: "/v\\d+/x"}}"#,
        &hits,
        &["GET a /v1/xy", "GET a /p/v1/x"],
    )
    .await;
}

#[tokio::test]
async fn ignore_uri_case_is_for_exact_and_prefix_but_not_for_regex() {
    decides(
        "{uri: {exact: /Foo}, ignoreUriCase: true}",
        &["GET a /fOO"],
        &["GET a /fOO/"],
    )
    .await;
    decides(
        "{uri: {prefix: /Foo}, ignoreUriCase: true}",
        &["GET a /fOOl"],
        &["GET a /f"],
    )
    .await;
    decides(
        "{uri: {regex: /Foo}, ignoreUriCase: true}",
        &["GET a /Foo"],
        &["GET a /foo"],
    )
    .await;
}

#[tokio::test]
async fn method_is_compared_as_text() {
    let hits = ["PUT a /", "POST a /"];
    decides(
        r#"{method: {regex: "PUT|POST"}}"#,
        &hits,
        &["GET a /", "DELETE a /"],
    )
    .await;
    decides("{method: {exact: GET}}", &["GET a /"], &["POST a /"]).await;
}

#[tokio::test]
async fn scheme_is_http_on_plain_connections() {
    decides("{scheme: {exact: http}}", &["GET a /"], &[]).await;
    decides("{scheme: {prefix: https}}", &[], &["GET a /"]).await;
}

#[tokio::test]
async fn authority_is_compared_as_the_caller_wrote_it() {
    decides(
        "{authority: {exact: a.default}}",
        &["GET a.default /"],
        &["GET a /"],
    )
    .await;
    decides(
        r#"{authority: {regex: ".*:80"}}"#,
        &["GET a:80 /"],
        &["GET a /"],
    )
    .await;
    decides(
        "{authority: {prefix: a.}}",
        &["GET a.default.svc /"],
        &["GET a /"],
    )
    .await;
}

#[tokio::test]
async fn headers_match_by_exact_prefix_regex_and_presence() {
    let misses = ["GET a /", "GET a / x=y", "GET a / x=bx", "GET a / x=B"];
    decides(
        "{headers: {x: {exact: b}}}",
        &["GET a / x=b", "GET a / X=b"],
        &misses,
    )
    .await;
    decides(
        "{headers: {x: {prefix: b}}}",
        &["GET a / x=bcd"],
        &["GET a / x=ab", "GET a /"],
    )
    .await;
    let block = r#"{headers: {x: {regex: "b+"}}}"#;
    decides(block, &["GET a / x=bbb"], &["GET a / x=bbc", "GET a /"]).await;
    decides(
        "{headers: {x: {}}}",
        &["GET a / x=any", "GET a / x="],
        &["GET a / y=x"],
    )
    .await;
    // Of several lines any may match; they are not joined.
    decides(
        "{headers: {x: {exact: c}}}",
        &["GET a / x=b x=c"],
        &["GET a / x=b", "GET a / x=b,c"],
    )
    .await;
}

#[tokio::test]
async fn all_of_a_block_has_to_hold_and_one_of_the_blocks() {
    let block = "{uri: {prefix: /p}, headers: {x: {exact: b}, y: {}}}";
    let misses = ["GET a /p x=b", "GET a /p y=1", "GET a / x=b y=1"];
    decides(block, &["GET a /p x=b y=1"], &misses).await;
    let either = "{uri: {prefix: /p}}, {headers: {x: {exact: b}}}";
    decides(either, &["GET a /p", "GET a / x=b"], &["GET a /"]).await;
}

#[tokio::test]
async fn without_headers_takes_what_differs_or_is_not_there() {
    let hits = ["GET a /", "GET a / x=c"];
    decides("{withoutHeaders: {x: {exact: b}}}", &hits, &["GET a / x=b"]).await;
    decides(
        "{withoutHeaders: {x: {prefix: b}}}",
        &hits,
        &["GET a / x=bc"],
    )
    .await;
    decides(
        r#"{withoutHeaders: {x: {regex: "b+"}}}"#,
        &hits,
        &["GET a / x=bb"],
    )
    .await;
    decides(
        "{withoutHeaders: {x: {}}}",
        &["GET a /"],
        &["GET a / x=b", "GET a / x="],
    )
    .await;
}

#[tokio::test]
async fn query_params_look_at_the_first_value_of_a_key() {
    let misses = ["GET a /", "GET a /?k=2&k=1", "GET a /?K=1", "GET a /?k"];
    decides(
        r#"{queryParams: {k: {exact: "1"}}}"#,
        &["GET a /?z&k=1&k=2"],
        &misses,
    )
    .await;
    decides(
        r#"{queryParams: {k: {prefix: "1"}}}"#,
        &["GET a /?k=12"],
        &["GET a /?k=21"],
    )
    .await;
    let block = r#"{queryParams: {k: {regex: "\\d+"}}}"#;
    decides(block, &["GET a /?k=12"], &["GET a /?k=12x", "GET a /?k="]).await;
    decides(
        "{queryParams: {k: {}}}",
        &["GET a /?k", "GET a /?k=1"],
        &["GET a /?j=k"],
    )
    .await;
    decides(
        r#"{queryParams: {k: {exact: ""}}}"#,
        &["GET a /?k"],
        &["GET a /?k=1"],
    )
    .await;
}

#[tokio::test]
async fn port_chooses_among_the_ports_of_a_service() {
    let (one, two) = (Backend::start("v1").await, Backend::start("v2").await);
    let ports = "{name: http, port: 80}, {name: http-2, port: 8080, targetPort: 80}";
    let workloads = [("v1", one.address), ("v2", two.address)];
    let mut yaml = service_at("a", "default", ports, &workloads);
    yaml = yaml.replace("ports: {http: ", "ports: {http-2: 1, http: ");
    // Both ports lead to the same place; only the rule differs.
    yaml += &subsets(&[&one, &two]);
    yaml += &routes(
        "{match: [{port: 8080}], route: [{destination: {host: a, port: {number: 80}, subset: v2}}]}, \
         {route: [{destination: {host: a, port: {number: 80}, subset: v1}}]}",
    );
    let town = Town::client(&yaml).await;
    assert_eq!(town.get("a:8080", "/").await.body, "v2");
    assert_eq!(town.get("a:80", "/").await.body, "v1");
}

#[tokio::test]
async fn source_labels_and_source_namespace_choose_among_the_clients() {
    let (one, two) = (Backend::start("v1").await, Backend::start("v2").await);
    let world = service("a", &[&one, &two]) + &subsets(&[&one, &two]);
    let else_one = "{route: [{destination: {host: a, subset: v1}}]}";
    let to_two = "route: [{destination: {host: a, subset: v2}}]";
    let mut elsewhere = client();
    elsewhere.namespace = "other".to_owned();
    for (block, node, expected) in [
        ("{sourceLabels: {app: client}}", client(), "v2"),
        ("{sourceLabels: {app: client, x: y}}", client(), "v1"),
        ("{sourceNamespace: default}", client(), "v2"),
        ("{sourceNamespace: default}", elsewhere, "v1"),
    ] {
        let rules = routes(&format!("{{match: [{block}], {to_two}}}, {else_one}"));
        let town = Town::of(&(world.clone() + &rules), node).await;
        assert_eq!(town.get("a.default", "/").await.body, expected, "{block}");
    }
}

#[tokio::test]
async fn gateways_of_a_block_replace_those_of_the_object() {
    let (one, two) = (Backend::start("v1").await, Backend::start("v2").await);
    let yaml = service("a", &[&one, &two])
        + &subsets(&[&one, &two])
        + &object(
            "Gateway",
            "front",
            "{servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}",
        )
        + &object(
            "VirtualService",
            "a",
            "{hosts: [a.default.svc.cluster.local], gateways: [front, mesh], http: [\
             {match: [{gateways: [front]}], route: [{destination: {host: a, subset: v2}}]}, \
             {match: [{gateways: [mesh]}], route: [{destination: {host: a, subset: v1}}]}]}",
        );
    let town = Town::client(&yaml).await;
    assert_eq!(town.get("a", "/").await.body, "v1");
    let mut gateway = Node::gateway("front", "default");
    gateway.address = [127, 0, 0, 1].into();
    gateway.role = Role::Gateway {
        ports: BTreeMap::from([(80, free_port())]),
    };
    let town = Town::of(&yaml, gateway).await;
    let answer = send_to(town.at, ask("a.default.svc.cluster.local", "/")).await;
    assert_eq!(answer.body, "v2");
}

#[tokio::test]
async fn name_of_the_match_follows_the_name_of_the_route() {
    let one = Backend::start("v1").await;
    let note = "headers: {response: {set: {x-route: '%ROUTE_NAME%'}}}, \
                route: [{destination: {host: a}}]";
    let rules = format!(
        "{{name: shop, match: [{{name: cart, uri: {{prefix: /cart}}}}, {{uri: {{prefix: /s}}}}], \
         {note}}}, {{{note}}}"
    );
    let town = Town::client(&(service("a", &[&one]) + &routes(&rules))).await;
    assert_eq!(town.get("a", "/cart").await.header("x-route"), "shop.cart");
    assert_eq!(town.get("a", "/s").await.header("x-route"), "shop");
}

#[tokio::test]
async fn stat_prefix_counts_what_becomes_of_a_rules_requests() {
    const RULE: &str = "vhost.a.default.svc.cluster.local:80.route";
    let one = Backend::start("v1").await;
    let again = "retries: {attempts: 1, retryOn: 5xx}, route: [{destination: {host: a}}]";
    let rules = format!(
        "{{match: [{{uri: {{exact: /r}}, statPrefix: front.r}}, \
          {{uri: {{exact: /s}}, statPrefix: s}}], {again}}}, \
         {{match: [{{uri: {{exact: /late}}, statPrefix: late}}], timeout: 0.1s, {again}}}, \
         {{match: [{{uri: {{exact: /old}}, statPrefix: moved}}], redirect: {{uri: /new}}}}, \
         {{{again}}}"
    );
    let town = Town::client(&(service("a", &[&one]) + &routes(&rules))).await;

    // Answered, answered at the second try, not found, and failed for good.
    let replies = [200, 503, 200, 404, 503, 500];
    one.plan(replies.map(|status| Reply::With(status, vec![])));
    for status in [200, 200, 404, 500] {
        assert_eq!(town.get("a", "/r").await.status, status);
    }
    one.plan([Reply::Never]);
    assert_eq!(town.get("a", "/late").await.status, 504);
    assert_eq!(town.get("a", "/old").await.status, 301);
    assert_eq!(town.get("a", "/none").await.status, 200);

    let stats = town.admin("/stats?usedonly&filter=^vhost").await;
    let expected: Vec<String> = [
        "front.r.upstream_rq_200: 2",
        "front.r.upstream_rq_2xx: 2",
        "front.r.upstream_rq_404: 1",
        "front.r.upstream_rq_4xx: 1",
        "front.r.upstream_rq_500: 1",
        "front.r.upstream_rq_5xx: 1",
        "front.r.upstream_rq_completed: 4",
        "front.r.upstream_rq_retry: 2",
        "front.r.upstream_rq_retry_limit_exceeded: 1",
        "front.r.upstream_rq_retry_success: 1",
        "front.r.upstream_rq_total: 6",
        "late.upstream_rq_504: 1",
        "late.upstream_rq_5xx: 1",
        "late.upstream_rq_completed: 1",
        "late.upstream_rq_timeout: 1",
        "late.upstream_rq_total: 1",
    ]
    .map(|line| format!("{RULE}.{line}"))
    .into();
    assert_eq!(stats.lines().collect::<Vec<_>>(), expected);

    // Names are there from the beginning, and the rule without one has none.
    for unused in ["s.upstream_rq_total", "moved.upstream_rq_completed"] {
        assert_eq!(town.whole_stat(&format!("{RULE}.{unused}")).await, 0);
    }
    let all = town.admin("/stats?filter=^vhost.*rq_total").await;
    assert_eq!(all.lines().count(), 4, "{all}");
    let metrics = town
        .admin("/stats/prometheus?filter=^vhost.*r.upstream_rq_2xx")
        .await;
    assert!(
        metrics.contains(
            "envoy_vhost_route_upstream_rq_xx{envoy_response_code_class=\"2\",\
             envoy_virtual_host=\"a.default.svc.cluster.local:80\",envoy_route=\"front.r\"} 2\n"
        ),
        "{metrics}"
    );
}

#[tokio::test]
async fn stat_prefix_counts_on_when_the_rules_change_and_goes_with_the_last() {
    let one = Backend::start("v1").await;
    let mut node = client();
    node.base_port = Some(free_port() - 1);
    let compiled = |mut builder: SnapshotBuilder, rule: &str| {
        let to_a = "route: [{destination: {host: a}}]";
        let (world, _) = world(&(service("a", &[&one]) + &routes(&format!("{{{rule}, {to_a}}}"))));
        compile(&world, &node, &mut builder);
        builder.build().unwrap().0
    };
    let named = "match: [{uri: {prefix: /}, statPrefix: s}]";
    let first = compiled(SnapshotBuilder::new(), named);
    let publisher = Publisher::from_arc(first.clone());
    let proxy = Proxy::builder(publisher.feed())
        .concurrency(1)
        .admin(Some(([127, 0, 0, 1], 0).into()))
        .start()
        .await
        .unwrap();
    assert!(proxy.ready().await.failed.is_empty());
    let total = async || {
        let path = "/stats?filter=^vhost.*s.upstream_rq_total";
        let stats = send_to(proxy.admin().unwrap(), ask("admin", path)).await;
        stats.body
    };
    let line = "vhost.a.default.svc.cluster.local:80.route.s.upstream_rq_total";

    send_to(node.outbound(0), ask("a", "/")).await;
    let second = compiled(
        SnapshotBuilder::from(&first),
        &format!("name: n, timeout: 9s, {named}"),
    );
    publisher.publish(second.clone());
    drop(first);
    assert_eq!(total().await, format!("{line}: 1\n"));
    send_to(node.outbound(0), ask("a", "/")).await;
    assert_eq!(total().await, format!("{line}: 2\n"));

    publisher.publish(compiled(SnapshotBuilder::from(&second), "name: n"));
    drop(second);
    patiently("the statistics to go".to_owned(), async {
        while !total().await.is_empty() {
            send_to(node.outbound(0), ask("a", "/")).await;
        }
    })
    .await;
}

#[test]
fn a_block_without_a_condition_is_refused() {
    for block in ["{}", "{name: n}", "{statPrefix: s}"] {
        let errors = refused(&routes(&format!(
            "{{match: [{block}], route: [{{destination: {{host: a}}}}]}}"
        )));
        assert!(errors.contains("empty match block"), "{errors}");
    }
}

#[tokio::test]
async fn the_first_rule_that_matches_wins() {
    let (one, two) = (Backend::start("v1").await, Backend::start("v2").await);
    let rules = "{match: [{uri: {prefix: /a}}], route: [{destination: {host: a, subset: v1}}]}, \
                 {match: [{uri: {exact: /ab}}], route: [{destination: {host: a, subset: v2}}]}";
    let yaml = service("a", &[&one, &two]) + &subsets(&[&one, &two]) + &routes(rules);
    let town = Town::client(&yaml).await;
    assert_eq!(town.get("a", "/ab").await.body, "v1");
    let answer = town.get("a", "/b").await;
    assert_eq!((answer.line().as_str(), two.count()), ("404 ", 0));
}
