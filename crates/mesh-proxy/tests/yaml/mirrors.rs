//! `http[].mirror` and `mirrors`: copies that change nothing for the caller.

use crate::support::Whole;
use crate::town::{Backend, Reply, Town, nobody, routes, service, service_at, subsets};
use http::Request;

async fn town(mirror: &str) -> (Town, [Backend; 3]) {
    let backends = [
        Backend::start("v1").await,
        Backend::start("v2").await,
        Backend::start("v3").await,
    ];
    let all: Vec<&Backend> = backends.iter().collect();
    let rules = format!("{{{mirror}, route: [{{destination: {{host: a, subset: v1}}}}]}}");
    let yaml = service("a", &all)
        + &service_at(
            "dead",
            "default",
            "{name: http, port: 80}",
            &[("v1", nobody())],
        )
        + &subsets(&all)
        + &routes(&rules);
    (Town::client(&yaml).await, backends)
}

#[tokio::test]
async fn mirror_sends_a_copy_with_the_same_host_and_body() {
    let (town, [one, two, _]) = town("mirror: {host: a, subset: v2}").await;
    let request = Request::post("/p?q")
        .header("host", "a")
        .header("x-user", "jason")
        .body(Whole::from("hello"))
        .unwrap();
    assert_eq!(town.send(request).await.line(), "200 v1");
    two.arrived(1).await;
    for seen in [one.only(), two.only()] {
        assert_eq!(
            (
                seen.method.as_str(),
                seen.path.as_str(),
                seen.host.as_str(),
                seen.body.as_str()
            ),
            ("POST", "/p?q", "a", "hello"),
        );
        assert_eq!(seen.header("x-user"), "jason");
    }
}

#[tokio::test]
async fn mirrors_may_be_several() {
    let (town, [_, two, three]) = town(
        "mirrors: [{destination: {host: a, subset: v2}}, \
         {destination: {host: a, subset: v3}, percentage: {value: 100}}]",
    )
    .await;
    town.get("a", "/").await;
    two.arrived(1).await;
    three.arrived(1).await;
}

#[tokio::test]
async fn mirror_percentage_is_a_share_and_0_is_no_mirror() {
    for share in [
        "mirror: {host: a, subset: v2}, mirrorPercentage: {value: 25}",
        "mirror: {host: a, subset: v2}, mirrorPercent: 25",
        "mirrors: [{destination: {host: a, subset: v2}, percentage: {value: 25}}]",
    ] {
        let (town, [_, two, _]) = town(share).await;
        town.bodies("a", "/", 400).await;
        two.arrived(60).await;
        assert!(two.count() <= 140, "{share}: {}", two.count());
    }
    for share in [
        "mirror: {host: a, subset: v9}, mirrorPercentage: {value: 0}",
        "mirrors: [{destination: {host: a, subset: v9}, percentage: {value: 0}}]",
    ] {
        let (town, _) = town(share).await;
        // It is not even looked for.
        assert_eq!(crate::town::lines(&town.findings), "");
        assert_eq!(town.get("a", "/").await.line(), "200 v1");
    }
}

#[tokio::test]
async fn the_callers_answer_waits_for_no_mirror() {
    let (town, [_, two, _]) = town("mirror: {host: a, subset: v2}").await;
    two.always(Reply::Never);
    assert_eq!(town.get("a", "/").await.line(), "200 v1");
    two.arrived(1).await;
    let (town, _) = self::town("mirror: {host: dead}").await;
    assert_eq!(town.get("a", "/").await.line(), "200 v1");
}
