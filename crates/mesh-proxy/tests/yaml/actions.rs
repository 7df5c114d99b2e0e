//! `http[]`: where requests go, redirects, direct responses, rewrites and timeouts.

use crate::town::{
    Answer, Backend, Reply, Town, object, refused, request, routes, service, service_at, subsets,
};
use std::collections::BTreeMap;

/// A town with versions 1 to 3 of `a` and these rules.
async fn town(rules: &str) -> (Town, [Backend; 3]) {
    let backends = [
        Backend::start("v1").await,
        Backend::start("v2").await,
        Backend::start("v3").await,
    ];
    let all: Vec<&Backend> = backends.iter().collect();
    let town = Town::client(&(service("a", &all) + &subsets(&all) + &routes(rules))).await;
    (town, backends)
}

fn tally(bodies: Vec<String>) -> BTreeMap<String, usize> {
    let mut tally = BTreeMap::new();
    for body in bodies {
        *tally.entry(body).or_default() += 1;
    }
    tally
}

/// What a client gets for `GET /x/y?q=1` of host `a` from this action.
async fn answered(action: &str, matching: &str) -> Answer {
    let (town, _) = town(&format!("{{match: [{{uri: {matching}}}], {action}}}")).await;
    town.get("a", "/x/y?q=1").await
}

async fn redirected(redirect: &str) -> (u16, String) {
    let answer = answered(&format!("redirect: {redirect}"), "{prefix: /x}").await;
    assert_eq!(answer.body, "");
    (answer.status.as_u16(), answer.header("location"))
}

/// The path and host that a backend sees for `GET /x/y?q=1` of host `a`.
async fn rewritten(rewrite: &str, matching: &str) -> (String, String) {
    let action = "route: [{destination: {host: a, subset: v1}}]";
    let rules = format!("{{match: [{{uri: {matching}}}], rewrite: {rewrite}, {action}}}");
    let (town, [one, ..]) = town(&rules).await;
    town.get("a", "/x/y?q=1").await;
    let seen = one.only();
    (seen.path, seen.host)
}

#[tokio::test]
async fn weights_are_shares_of_their_sum() {
    let (town, _) = town(
        "{route: [{destination: {host: a, subset: v1}, weight: 3}, \
         {destination: {host: a, subset: v2}, weight: 1}]}",
    )
    .await;
    let tally = tally(town.bodies("a", "/", 400).await);
    assert!((270..=330).contains(&tally["v1"]), "{tally:?}");
    assert_eq!(tally.values().sum::<usize>(), 400);
}

#[tokio::test]
async fn a_weight_of_0_gets_nothing() {
    let (town, _) = town(
        "{route: [{destination: {host: a, subset: v1}, weight: 0}, \
         {destination: {host: a, subset: v2}, weight: 5}, {destination: {host: a, subset: v3}}]}",
    )
    .await;
    assert_eq!(
        tally(town.bodies("a", "/", 20).await),
        BTreeMap::from([("v2".into(), 20)])
    );
}

#[tokio::test]
async fn a_single_destination_gets_everything_whatever_its_weight() {
    let (town, _) = town("{route: [{destination: {host: a, subset: v3}, weight: 0}]}").await;
    assert_eq!(town.get("a", "/").await.line(), "200 v3");
}

#[test]
fn weights_that_add_up_to_nothing_are_refused() {
    let errors = refused(&routes(
        "{route: [{destination: {host: a}}, {destination: {host: b}}]}",
    ));
    assert!(errors.contains("weights"), "{errors}");
}

#[tokio::test]
async fn destination_subset_and_port_name_the_cluster() {
    let (one, two) = (Backend::start("v1").await, Backend::start("v2").await);
    let ports = "{name: http, port: 80}, {name: http-2, port: 8080}";
    let mut yaml = service_at("b", "default", ports, &[("v1", one.address)]);
    yaml = yaml.replace(
        "{http: ",
        &format!("{{http-2: {}, http: ", two.address.port()),
    );
    yaml += &service("a", &[&one]);
    yaml += &routes(
        "{match: [{uri: {prefix: /2}}], route: [{destination: {host: b, port: {number: 8080}}}]}, \
         {route: [{destination: {host: b, port: {number: 80}}}]}",
    );
    let town = Town::client(&yaml).await;
    assert_eq!(town.get("a", "/2").await.body, "v2");
    assert_eq!(town.get("a", "/").await.body, "v1");
}

#[tokio::test]
async fn an_unknown_host_or_subset_is_a_warning_and_answers_503() {
    for destination in [
        "{host: a, subset: v9}",
        "{host: nowhere}",
        "{host: a, port: {number: 9}}",
    ] {
        let rules = format!(
            "{{headers: {{response: {{set: {{x-flags: '%RESPONSE_FLAGS%'}}}}}}, \
             route: [{{destination: {destination}}}]}}"
        );
        let (town, _) = town(&rules).await;
        let warned = town
            .findings
            .iter()
            .any(|it| it.to_string().contains("mesh.yaml:"));
        assert!(warned, "{:?}", town.findings);
        let answer = town.get("a", "/").await;
        assert_eq!(answer.line(), "503 ", "{destination}");
        assert_eq!(answer.header("x-flags"), "NC", "{destination}");
    }
}

#[tokio::test]
async fn a_short_destination_is_completed_in_the_rules_own_namespace() {
    let there = Backend::start("there").await;
    let ports = "{name: http, port: 80}";
    let mut yaml = service_at("b", "other", ports, &[("v1", there.address)]);
    yaml += &crate::town::object_in(
        "other",
        "VirtualService",
        "b",
        "{hosts: [b], http: [{route: [{destination: {host: b}}]}]}",
    );
    let town = Town::client(&yaml).await;
    assert_eq!(town.get("b.other", "/").await.body, "there");
}

#[tokio::test]
async fn hosts_may_be_wildcards_and_names_that_no_service_has() {
    let (town, _) = town("{route: [{destination: {host: a, subset: v1}}]}").await;
    drop(town);
    let one = Backend::start("v1").await;
    let yaml = service("a", &[&one])
        + &object(
            "VirtualService",
            "w",
            "{hosts: ['*.shop.example', alias.example], http: [{route: [{destination: {host: a}}]}]}",
        );
    let town = Town::client(&yaml).await;
    for host in ["x.shop.example", "alias.example", "a"] {
        assert_eq!(town.get(host, "/").await.line(), "200 v1", "{host}");
    }
}

#[tokio::test]
async fn virtual_service_export_to_hides_it_from_other_namespaces() {
    let (here, there) = (Backend::start("here").await, Backend::start("there").await);
    for (export, expected) in [
        ("'*'", "there"),
        ("default", "there"),
        (".", "here"),
        ("'~'", "here"),
    ] {
        let ports = "{name: http, port: 80}";
        let yaml = service_at("b", "other", ports, &[("v1", here.address)])
            + &service_at("c", "other", ports, &[("v1", there.address)])
            + &crate::town::object_in(
                "other",
                "VirtualService",
                "b",
                &format!(
                    "{{hosts: [b], exportTo: [{export}], http: [{{route: [{{destination: {{host: c}}}}]}}]}}"
                ),
            );
        let town = Town::client(&yaml).await;
        assert_eq!(town.get("b.other", "/").await.body, expected, "{export}");
    }
}

#[tokio::test]
async fn redirect_uri_replaces_the_whole_path() {
    assert_eq!(
        redirected("{uri: /new}").await,
        (301, "http://a/new?q=1".into())
    );
}

#[tokio::test]
async fn redirect_prefix_rewrite_replaces_the_matched_prefix() {
    assert_eq!(
        redirected("{prefixRewrite: /new}").await,
        (301, "http://a/new/y?q=1".into())
    );
}

#[tokio::test]
async fn redirect_authority_scheme_and_port_replace_each_its_part() {
    for (redirect, location) in [
        ("{authority: b.example}", "http://b.example/x/y?q=1"),
        ("{authority: 'b.example:81'}", "http://b.example:81/x/y?q=1"),
        ("{scheme: https}", "https://a/x/y?q=1"),
        ("{port: 8443}", "http://a:8443/x/y?q=1"),
        ("{scheme: https, port: 443}", "https://a/x/y?q=1"),
        (
            "{authority: b.example, uri: /z, scheme: https, port: 444}",
            "https://b.example:444/z?q=1",
        ),
    ] {
        assert_eq!(redirected(redirect).await.1, location, "{redirect}");
    }
}

#[tokio::test]
async fn redirect_derive_port_takes_the_protocols_or_the_requests() {
    let (one, ports) = (Backend::start("v1").await, "{name: http, port: 8080}");
    for (derive, location) in [
        ("FROM_PROTOCOL_DEFAULT", "http://b/"),
        ("FROM_REQUEST_PORT", "http://b:8080/"),
    ] {
        let yaml = service_at("a", "default", ports, &[("v1", one.address)])
            + &routes(&format!(
                "{{redirect: {{authority: b, derivePort: {derive}}}}}"
            ));
        let answer = Town::client(&yaml).await.get("a:8080", "/").await;
        assert_eq!(answer.header("location"), location, "{derive}");
    }
}

#[tokio::test]
async fn redirect_code_is_what_is_asked_for() {
    for code in [301, 302, 303, 307, 308] {
        let redirect = format!("{{authority: b, redirectCode: {code}}}");
        assert_eq!(redirected(&redirect).await.0, code);
    }
    let errors = refused(&routes("{redirect: {uri: /, redirectCode: 304}}"));
    assert!(errors.contains("redirectCode"), "{errors}");
}

#[tokio::test]
async fn direct_response_has_a_status_and_a_body_of_text_or_bytes() {
    let any = "{prefix: /}";
    for (action, line) in [
        (
            "directResponse: {status: 418, body: {string: short and stout}}",
            "418 short and stout",
        ),
        (
            "directResponse: {status: 200, body: {bytes: aGVsbG8=}}",
            "200 hello",
        ),
        ("directResponse: {status: 503}", "503 "),
    ] {
        assert_eq!(answered(action, any).await.line(), line);
    }
}

#[tokio::test]
async fn rewrite_uri_replaces_the_prefix_or_the_whole_of_other_matches() {
    for (matching, path) in [
        ("{prefix: /x/}", "/new/y?q=1"),
        ("{prefix: /x}", "/new//y?q=1"),
        ("{exact: /x/y}", "/new/?q=1"),
        ("{regex: '/x/.*'}", "/new/?q=1"),
    ] {
        assert_eq!(
            rewritten("{uri: /new/}", matching).await.0,
            path,
            "{matching}"
        );
    }
}

#[tokio::test]
async fn rewrite_authority_is_what_the_backend_is_called() {
    let rewrite = "{authority: b.example}";
    let expected = ("/x/y?q=1".into(), "b.example".into());
    assert_eq!(rewritten(rewrite, "{prefix: /}").await, expected);
}

#[tokio::test]
async fn rewrite_uri_regex_replaces_every_match_in_the_path_only() {
    for (rewrite, path) in [
        (r"{match: '/x/(.*)', rewrite: '/\1/x'}", "/y/x?q=1"),
        ("{match: '[xyq1]', rewrite: z}", "/z/z?q=1"),
        ("{match: nothing, rewrite: z}", "/x/y?q=1"),
    ] {
        let rewrite = format!("{{uriRegexRewrite: {rewrite}}}");
        assert_eq!(
            rewritten(&rewrite, "{prefix: /}").await.0,
            path,
            "{rewrite}"
        );
    }
}

#[tokio::test]
async fn timeout_ends_a_request_that_gets_no_answer() {
    let rules = "{timeout: 0.1s, retries: {attempts: 0}, \
                 route: [{destination: {host: a, subset: v1}}]}";
    let (town, [one, ..]) = town(rules).await;
    one.always(Reply::Never);
    assert_eq!(
        town.get("a", "/").await.line(),
        "504 upstream request timeout"
    );
    assert_eq!(town.stat("v1", "upstream_rq_timeout").await, 1);
    let asked = [("x-envoy-upstream-rq-timeout-ms", "50")];
    assert_eq!(
        town.send(request("GET", "a", "/", &asked)).await.status,
        504
    );
}

#[tokio::test]
async fn timeout_0_and_no_timeout_wait_for_as_long_as_it_takes() {
    for timeout in ["timeout: 0s, ", ""] {
        let rules = format!("{{{timeout}route: [{{destination: {{host: a, subset: v1}}}}]}}");
        let (town, [one, ..]) = town(&rules).await;
        one.always(Reply::Hold);
        let waiting = town.start_get("a", "/");
        one.arrived(1).await;
        assert!(!waiting.is_finished());
        one.release();
        assert_eq!(waiting.await.unwrap().line(), "200 v1");
    }
}

#[test]
fn actions_exclude_one_another() {
    for (rule, word) in [
        (
            "{redirect: {uri: /}, directResponse: {status: 200}}",
            "exclude",
        ),
        (
            "{redirect: {uri: /}, route: [{destination: {host: a}}]}",
            "exclude",
        ),
        ("{redirect: {uri: /}, rewrite: {uri: /}}", "exclude"),
        (
            "{directResponse: {status: 200}, fault: {abort: {httpStatus: 500}}}",
            "exclude",
        ),
        (
            "{delegate: {name: d}, directResponse: {status: 200}}",
            "exclude",
        ),
        ("{}", "route"),
    ] {
        let errors = refused(&routes(rule));
        assert!(errors.contains(word), "{rule}: {errors}");
    }
}
