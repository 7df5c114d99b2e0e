//! `headers` of routes and destinations: set, add, remove, and format operators.

use crate::town::{Answer, Backend, Reply, Seen, Town, refused, request, routes, service, subsets};

/// What the backend saw and the client got, with these edits of the route and the destination.
async fn through(route: &str, destination: &str, sent: &[(&str, &str)]) -> (Seen, Answer) {
    let (one, two) = (Backend::start("v1").await, Backend::start("v2").await);
    let reply = vec![
        ("x-old", "r0"),
        ("x-both", "r0"),
        ("x-many", "1"),
        ("x-many", "2"),
    ];
    one.always(Reply::With(200, reply));
    let rules = format!(
        "{{name: main, headers: {route}, \
         route: [{{destination: {{host: a, subset: v1}}, headers: {destination}}}]}}"
    );
    let yaml = service("a", &[&one, &two]) + &subsets(&[&one, &two]) + &routes(&rules);
    let town = Town::client(&yaml).await;
    let answer = town.send(request("GET", "a", "/p?q", sent)).await;
    (one.only(), answer)
}

#[tokio::test]
async fn request_set_overwrites_or_adds_and_add_appends_and_remove_removes() {
    let edits = "{request: {set: {x-old: new, x-new: new}, add: {x-many: '3'}, remove: [x-gone]}}";
    let sent = [
        ("x-old", "0"),
        ("x-old", "1"),
        ("x-many", "1"),
        ("x-gone", "1"),
    ];
    for (route, destination) in [(edits, "{}"), ("{}", edits)] {
        let (seen, _) = through(route, destination, &sent).await;
        let now = ["x-old", "x-new", "x-many", "x-gone"].map(|name| seen.header(name));
        assert_eq!(now, ["new", "new", "1,3", "-"]);
    }
}

#[tokio::test]
async fn response_set_overwrites_or_adds_and_add_appends_and_remove_removes() {
    let edits = "{response: {set: {x-old: new, x-new: new}, add: {x-many: '3'}, remove: [x-both]}}";
    for (route, destination) in [(edits, "{}"), ("{}", edits)] {
        let (_, answer) = through(route, destination, &[]).await;
        let now = ["x-old", "x-new", "x-many", "x-both"].map(|name| answer.header(name));
        assert_eq!(now, ["new", "new", "1,2,3", "-"]);
    }
}

#[tokio::test]
async fn edits_of_a_weighted_destination_are_for_that_destination_only() {
    let (one, two) = (Backend::start("v1").await, Backend::start("v2").await);
    let rules = "{headers: {request: {set: {x-route: r}}}, route: [\
        {destination: {host: a, subset: v1}, weight: 50, headers: {\
         request: {set: {x-for: one, host: one.example}, remove: [x-gone]}, \
         response: {set: {x-from: one}}}}, \
        {destination: {host: a, subset: v2}, weight: 50}]}";
    let yaml = service("a", &[&one, &two]) + &subsets(&[&one, &two]) + &routes(rules);
    let town = Town::client(&yaml).await;
    for _ in 0..20 {
        let answer = town
            .send(request("GET", "a", "/", &[("x-gone", "1")]))
            .await;
        let expected = if answer.body == "v1" { "one" } else { "-" };
        assert_eq!(answer.header("x-from"), expected);
    }
    let (first, second) = (one.seen(), two.seen());
    assert!(!first.is_empty() && !second.is_empty());
    let edited = ["x-route", "x-for", "x-gone"];
    for seen in first {
        assert_eq!(edited.map(|name| seen.header(name)), ["r", "one", "-"]);
        assert_eq!(seen.host, "one.example");
    }
    for seen in second {
        assert_eq!(edited.map(|name| seen.header(name)), ["r", "-", "1"]);
        assert_eq!(seen.host, "a");
    }
}

#[tokio::test]
async fn setting_the_host_rewrites_the_authority() {
    for name in ["host", "Host", "':authority'"] {
        let edits = format!("{{request: {{set: {{{name}: b.example}}}}}}");
        assert_eq!(through(&edits, "{}", &[]).await.0.host, "b.example");
        assert_eq!(through("{}", &edits, &[]).await.0.host, "b.example");
    }
    let errors = refused(&routes(
        "{headers: {request: {set: {host: b}}}, rewrite: {authority: c}, \
         route: [{destination: {host: a}}]}",
    ));
    assert!(errors.contains("exclude"), "{errors}");
}

#[tokio::test]
async fn operators_are_filled_in_and_two_percent_signs_are_one() {
    let operators = "{request: {set: {x-peer: '%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%', \
        x-peer-port: '%DOWNSTREAM_REMOTE_ADDRESS%', x-here: '%DOWNSTREAM_LOCAL_ADDRESS%', \
        x-protocol: '%PROTOCOL%', x-copy: 'was %REQ(X-User)%!', x-share: '100%%', \
        x-none: 'a%REQ(x-none)%b', x-route: '%ROUTE_NAME%'}}, \
        response: {set: {x-code: '%RESPONSE_CODE%', x-details: '%RESPONSE_CODE_DETAILS%', \
        x-flags: '%RESPONSE_FLAGS%', x-host: '%UPSTREAM_HOST%', x-cluster: '%UPSTREAM_CLUSTER%', \
        x-theirs: '%RESP(x-old)%', x-year: '%START_TIME%'}}}";
    let (seen, answer) = through(operators, "{}", &[("x-user", "jason")]).await;
    for (name, value) in [
        ("x-peer", "127.0.0.1"),
        ("x-protocol", "HTTP/1.1"),
        ("x-copy", "was jason!"),
        ("x-share", "100%"),
        ("x-none", "ab"),
        ("x-route", "main"),
    ] {
        assert_eq!(seen.header(name), value, "{name}");
    }
    assert!(seen.header("x-peer-port").starts_with("127.0.0.1:"));
    assert!(seen.header("x-here").starts_with("127.0.0.1:"));
    for (name, value) in [
        ("x-code", "200"),
        ("x-details", "via_upstream"),
        ("x-flags", "-"),
        ("x-cluster", "outbound|80|v1|a.default.svc.cluster.local"),
        ("x-theirs", "r0"),
    ] {
        assert_eq!(answer.header(name), value, "{name}");
    }
    assert!(answer.header("x-host").starts_with("127.0.0.1:"));
    assert!(answer.header("x-year").starts_with("20"));
}

#[tokio::test]
async fn response_edits_reach_direct_responses_and_redirects() {
    for action in ["directResponse: {status: 200}", "redirect: {uri: /}"] {
        let edits = "headers: {response: {set: {x-mine: '1'}}}";
        let yaml = service("a", &[&Backend::start("v1").await])
            + &routes(&format!("{{{edits}, {action}}}"));
        assert_eq!(
            Town::client(&yaml)
                .await
                .get("a", "/")
                .await
                .header("x-mine"),
            "1"
        );
    }
}

#[test]
fn a_lone_percent_sign_and_unknown_operators_are_refused() {
    for value in ["'50%'", "'%NO_SUCH%'", "'%REQ(x'"] {
        let rules = format!(
            "{{headers: {{request: {{set: {{x: {value}}}}}}}, route: [{{destination: {{host: a}}}}]}}"
        );
        let errors = refused(&routes(&rules));
        assert!(errors.contains("headers.request.set"), "{value}: {errors}");
    }
}
