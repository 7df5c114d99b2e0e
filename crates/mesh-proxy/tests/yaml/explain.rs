//! The explanation of a running proxy, against what the same proxy does.

use crate::mesh_config::first_line;
use crate::town::{
    Answer, Backend, Reply, Town, mesh_config, policy, request, routes, service, subsets,
};
use serde_json::Value;

const TOKEN: &str = "let-me-see-your-reasons";

/// What the admin interface says of a request to the host `a`.
async fn explained(town: &Town, path: &str, headers: &[(&str, &str)]) -> Value {
    let mut page = format!("/explain?request=GET%20http://a{path}");
    for (name, value) in headers {
        page += &format!("&header={name}:{value}");
    }
    let text = town.admin(&page).await;
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn header_of(answer: &Answer) -> Option<Value> {
    let header = answer.headers.get("x-mesh-explain")?;
    Some(serde_json::from_slice(header.as_bytes()).unwrap())
}

#[tokio::test]
async fn what_is_explained_is_what_happens() {
    let (v1, v2) = (Backend::start("v1").await, Backend::start("v2").await);
    let yaml = service("a", &[&v1, &v2])
        + &subsets(&[&v1, &v2])
        + &routes(
            "{name: old, match: [{uri: {prefix: /old/}}], rewrite: {uri: /new/, authority: b}, \
              headers: {request: {set: {x-a: '1'}, remove: [x-b]}}, \
              route: [{destination: {host: a, subset: v2}}]}, \
             {name: gone, match: [{uri: {exact: /gone}}], redirect: {uri: /here}}, \
             {name: jason, match: [{headers: {end-user: {exact: jason}}}], \
              route: [{destination: {host: a, subset: v2}}]}, \
             {name: rest, route: [{destination: {host: a, subset: v1}}]}",
        );
    let town = Town::client(&yaml).await;
    for (path, headers) in [
        ("/old/x?y", &[("x-b", "2")][..]),
        ("/gone", &[]),
        ("/x", &[("end-user", "jason")]),
        ("/x", &[("end-user", "eve")]),
        ("/a/%2e%2e/old/x", &[]),
    ] {
        let report = explained(&town, path, headers).await;
        let answer = town.send(request("GET", "a", path, headers)).await;
        let context = format!("{path}: {report:#}");
        if !report["answer"].is_null() {
            assert_eq!(
                report["answer"]["status"],
                answer.status.as_u16(),
                "{context}"
            );
            let location = answer.headers["location"].to_str().unwrap();
            assert_eq!(report["answer"]["location"], location, "{context}");
            assert_eq!((v1.count(), v2.count()), (0, 0), "{context}");
            continue;
        }
        assert_eq!(
            report["destinations"][0]["subset"], answer.body,
            "{context}"
        );
        let backend = if answer.body == "v1" { &v1 } else { &v2 };
        let seen = backend.only();
        assert_eq!(report["sent"]["path"], seen.path, "{context}");
        assert_eq!(report["sent"]["authority"], seen.host, "{context}");
        for set in report["sent"]["headers_set"].as_array().unwrap() {
            let name = set[0].as_str().unwrap();
            assert_eq!(set[1], seen.header(name), "{context}");
        }
        for removed in report["sent"]["headers_removed"].as_array().unwrap() {
            assert_eq!(seen.header(removed.as_str().unwrap()), "-", "{context}");
        }
        backend.forget();
    }
    let rewritten = explained(&town, "/old/x", &[("x-b", "2")]).await;
    assert_eq!(rewritten["sent"]["headers_removed"][0], "x-b");
    let unmet = &explained(&town, "/x", &[("end-user", "eve")]).await["rules"][2]["unmet"];
    assert_eq!(unmet["wanted"], "header end-user: exact \"jason\"");
    assert_eq!(unmet["had"], "eve");
}

#[tokio::test]
async fn an_ejected_host_is_not_eligible_and_says_so() {
    let (good, bad) = (Backend::start("good").await, Backend::start("bad").await);
    bad.always(Reply::With(500, vec![]));
    let yaml = service("a", &[&good, &bad])
        + &policy(
            "{loadBalancer: {simple: ROUND_ROBIN}, \
              outlierDetection: {consecutive5xxErrors: 2, maxEjectionPercent: 100}}",
        );
    let town = Town::client(&yaml).await;
    let eligible = |report: &Value| report["clusters"][0]["eligible"].as_u64().unwrap();
    assert_eq!(eligible(&explained(&town, "/", &[]).await), 2);
    town.bodies("a", "/", 8).await;
    let report = explained(&town, "/", &[]).await;
    assert_eq!(eligible(&report), 1, "{report:#}");
    let endpoints = report["clusters"][0]["endpoints"].as_array().unwrap();
    let of = |backend: &Backend| {
        let address = backend.address.to_string();
        let mut all = endpoints.iter();
        all.find(|one| one["address"] == address.as_str()).unwrap()
    };
    assert_eq!(of(&good)["eligible"], true);
    assert_eq!(of(&bad)["why"], "is ejected by outlier detection");
    assert_eq!(of(&bad)["ejected"], true);
}

#[tokio::test]
async fn a_question_that_makes_no_sense_is_refused_by_what_is_wrong() {
    let backend = Backend::start("v1").await;
    let town = Town::client(&service("a", &[&backend])).await;
    for (query, said) in [
        ("", "is no request"),
        ("?request=GET%20/x", "has no scheme and no host"),
        ("?request=http://a/&header=x", "has no value"),
        ("?request=http://a/&listener=nobody", "there is no listener"),
    ] {
        let answer = town.admin(&format!("/explain{query}")).await;
        assert!(answer.contains(said), "{query}: {answer}");
    }
}

#[tokio::test]
async fn a_request_with_the_token_is_explained_in_its_response() {
    let v1 = Backend::start("v1").await;
    let yaml = service("a", &[&v1])
        + &routes(
            "{name: abort, match: [{uri: {exact: /abort}}], \
              fault: {abort: {percentage: {value: 100}, httpStatus: 418}}, \
              route: [{destination: {host: a}}]}, \
             {name: all, timeout: 3s, route: [{destination: {host: a}}]}",
        );
    let town = Town::explaining(&yaml, TOKEN).await;
    let token = [("x-mesh-explain", TOKEN)];
    let answer = town.send(request("GET", "a", "/x", &token)).await;
    let report = header_of(&answer).expect("it has the token");
    assert_eq!(report["route"]["name"], "all");
    assert_eq!(report["policies"][0]["value"], "3s");
    assert_eq!(report["served"]["endpoint"], v1.address.to_string());
    assert_eq!(report["sent"]["path"], "/x");
    assert_eq!(v1.only().header("x-mesh-explain"), "-", "taken out");
    // An answer of the proxy's own has it too.
    let answer = town.send(request("GET", "a", "/abort", &token)).await;
    assert_eq!(answer.status, 418);
    let report = header_of(&answer).expect("it has the token");
    assert_eq!(report["route"]["name"], "abort");
    assert_eq!(report["served"]["endpoint"], Value::Null);
    // So does one that meets no rule, and one that admission refuses.
    let answer = town.send(request("GET", "b", "/x", &token)).await;
    let report = header_of(&answer).expect("it has the token");
    assert_eq!(report["virtual_host"]["name"], "allow_any", "{report:#}");
    let answer = town.send(request("GET", "a", "/%00", &token)).await;
    assert_eq!(answer.status, 400);
    let report = header_of(&answer).expect("it has the token");
    assert_eq!(report["answer"]["status"], 400, "{report:#}");
    assert_eq!(report["virtual_host"], Value::Null);
}

#[tokio::test]
async fn without_the_token_the_header_is_taken_out_and_nothing_is_said() {
    let v1 = Backend::start("v1").await;
    let town = Town::explaining(&service("a", &[&v1]), TOKEN).await;
    for wrong in ["let-me-see-your-reasonz", "x", ""] {
        let answer = town
            .send(request("GET", "a", "/x", &[("x-mesh-explain", wrong)]))
            .await;
        assert_eq!(answer.status, 200);
        assert!(header_of(&answer).is_none(), "{wrong}");
        assert_eq!(v1.only().header("x-mesh-explain"), "-", "{wrong}");
        v1.forget();
    }
    let answer = town.get("a", "/x").await;
    assert!(header_of(&answer).is_none());
}

#[tokio::test]
async fn a_proxy_without_a_token_knows_no_such_header() {
    let v1 = Backend::start("v1").await;
    let town = Town::client(&service("a", &[&v1])).await;
    let answer = town
        .send(request("GET", "a", "/x", &[("x-mesh-explain", TOKEN)]))
        .await;
    assert!(header_of(&answer).is_none());
    assert_eq!(
        v1.only().header("x-mesh-explain"),
        TOKEN,
        "a header as any other"
    );
}

#[tokio::test]
async fn no_token_gets_into_an_access_log() {
    let directory = tempfile::tempdir().unwrap();
    for (name, said) in [("right", TOKEN), ("wrong", "let-me-see-your-reasonz")] {
        let (v1, path) = (Backend::start("v1").await, directory.path().join(name));
        let file = format!("accessLogFile: {}", path.display());
        let format = r#"accessLogFormat: "%REQ(X-MESH-EXPLAIN)% %REQ(X-USER)%\n""#;
        let yaml = mesh_config(&[&file, "accessLogEncoding: TEXT", format]) + &service("a", &[&v1]);
        let town = Town::explaining(&yaml, TOKEN).await;
        let headers = [("x-mesh-explain", said), ("x-user", "jason")];
        town.send(request("GET", "a", "/x", &headers)).await;
        assert_eq!(first_line(&path).await, "- jason", "{name}");
    }
}

#[tokio::test]
async fn the_destination_that_was_drawn_is_listed_whatever_is_left_out() {
    let (v1, v2) = (Backend::start("v1").await, Backend::start("v2").await);
    let rare = "{destination: {host: a, subset: v1}, weight: 1}, ".repeat(11);
    let yaml = service("a", &[&v1, &v2])
        + &subsets(&[&v1, &v2])
        + &routes(&format!(
            "{{route: [{rare}{{destination: {{host: a, subset: v2}}, weight: 1000000}}]}}"
        ));
    let town = Town::explaining(&yaml, TOKEN).await;
    let token = [("x-mesh-explain", TOKEN)];
    let answer = town.send(request("GET", "a", "/x", &token)).await;
    let report = header_of(&answer).expect("it has the token");
    let listed = report["destinations"].as_array().unwrap();
    let last = listed.last().unwrap();
    assert_eq!(
        (&last["subset"], &last["taken"]),
        (&"v2".into(), &true.into())
    );
    assert_eq!(report["destinations_left_out"], 12 - listed.len());
    assert!(listed.len() < 12, "{report:#}");
}

#[tokio::test]
async fn a_request_with_large_headers_is_explained_without_them() {
    let v1 = Backend::start("v1").await;
    let town = Town::explaining(&service("a", &[&v1]), TOKEN).await;
    let long = "x".repeat(1000);
    let names: Vec<String> = (0..12).map(|number| format!("x-long-{number}")).collect();
    let mut headers: Vec<(&str, &str)> = names.iter().map(|name| (&**name, &*long)).collect();
    headers.push(("x-mesh-explain", TOKEN));
    let answer = town.send(request("GET", "a", "/x", &headers)).await;
    let report = header_of(&answer).expect("it has the token");
    assert_eq!(report["request"]["path"], "/x");
    assert_eq!(report["request"]["headers"], Value::Null);
    let left_out = report["request"]["headers_left_out"].as_u64();
    assert!(left_out >= Some(12), "{report:#}");
    assert_eq!(report["served"]["attempts"], 1);
}

#[tokio::test]
async fn an_answer_of_the_proxys_own_is_the_one_explained_and_no_attempt() {
    let v1 = Backend::start("v1").await;
    let yaml = service("a", &[&v1])
        + &routes(
            "{match: [{uri: {exact: /gone}}], redirect: {uri: /here}, \
              headers: {response: {set: {x-back: '%REQ(x-in)%'}}}}, \
             {directResponse: {status: 418}, \
              headers: {response: {set: {x-back: '%REQ(x-in)%'}}}}",
        );
    let town = Town::explaining(&yaml, TOKEN).await;
    let headers = [("x-in", "7"), ("x-mesh-explain", TOKEN)];
    for path in ["/gone", "/x"] {
        let answer = town.send(request("GET", "a", path, &headers)).await;
        assert_eq!(answer.header("x-back"), "7", "{path}");
        let served = header_of(&answer).expect("it has the token");
        assert_eq!(served["served"]["attempts"], 0, "{served:#}");
        for report in [explained(&town, path, &headers[..1]).await, served] {
            let mut all = report["answer"]["headers"].as_array().unwrap().iter();
            let back = all.find(|pair| pair[0] == "x-back");
            let back = back.unwrap_or_else(|| panic!("{path}: {report:#}"));
            assert_eq!(back[1], "7", "{path}");
        }
    }
}
