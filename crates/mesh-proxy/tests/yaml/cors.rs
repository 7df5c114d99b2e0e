//! `http[].corsPolicy`.

use crate::town::{Answer, Backend, Town, request, routes, service};

const ORIGIN: &str = "https://shop.example";

async fn town(policy: &str) -> (Town, Backend) {
    let one = Backend::start("v1").await;
    let rules = format!("{{corsPolicy: {policy}, route: [{{destination: {{host: a}}}}]}}");
    (
        Town::client(&(service("a", &[&one]) + &routes(&rules))).await,
        one,
    )
}

async fn preflight(town: &Town, origin: &str) -> Answer {
    let headers = [
        ("origin", origin),
        ("access-control-request-method", "PUT"),
        ("access-control-request-headers", "x-one"),
    ];
    town.send(request("OPTIONS", "a", "/", &headers)).await
}

async fn actual(town: &Town, origin: &str) -> Answer {
    town.send(request("GET", "a", "/", &[("origin", origin)]))
        .await
}

#[tokio::test]
async fn allow_origins_match_by_exact_prefix_and_regex() {
    for (origins, known, unknown) in [
        (
            "[{exact: 'https://shop.example'}]",
            ORIGIN,
            "https://shop.example.evil",
        ),
        ("[{prefix: 'https://shop'}]", ORIGIN, "http://shop.example"),
        (
            r"[{regex: 'https://[a-z]+\.example'}]",
            ORIGIN,
            "https://a.b.example",
        ),
        ("[{exact: x}, {exact: 'https://shop.example'}]", ORIGIN, "y"),
    ] {
        let (town, one) = town(&format!("{{allowOrigins: {origins}}}")).await;
        let answer = actual(&town, known).await;
        assert_eq!(
            answer.header("access-control-allow-origin"),
            known,
            "{origins}"
        );
        let answer = actual(&town, unknown).await;
        assert_eq!(answer.line(), "200 v1", "the request itself is not refused");
        assert_eq!(
            answer.header("access-control-allow-origin"),
            "-",
            "{origins}"
        );
        assert_eq!(one.count(), 2);
    }
}

#[tokio::test]
async fn a_star_allows_every_origin_and_is_answered_with_the_origin() {
    for policy in ["{allowOrigins: [{exact: '*'}]}", "{allowOrigin: ['*']}"] {
        let (town, _) = town(policy).await;
        let answer = actual(&town, ORIGIN).await;
        assert_eq!(answer.header("access-control-allow-origin"), ORIGIN);
    }
}

#[tokio::test]
async fn the_deprecated_allow_origin_is_exact() {
    let (town, _) = town("{allowOrigin: ['https://shop.example']}").await;
    assert!(crate::town::lines(&town.findings).contains("deprecated"));
    assert_eq!(
        actual(&town, ORIGIN)
            .await
            .header("access-control-allow-origin"),
        ORIGIN
    );
    assert_eq!(
        actual(&town, "x")
            .await
            .header("access-control-allow-origin"),
        "-"
    );
}

#[tokio::test]
async fn a_preflight_is_answered_with_what_is_allowed() {
    let (town, one) = town(
        "{allowOrigins: [{exact: 'https://shop.example'}], allowMethods: [GET, PUT], \
         allowHeaders: [x-one, X-Two], exposeHeaders: [x-three], maxAge: 2m, allowCredentials: true}",
    )
    .await;
    let answer = preflight(&town, ORIGIN).await;
    assert_eq!((answer.line().as_str(), one.count()), ("200 ", 0));
    for (header, value) in [
        ("access-control-allow-origin", ORIGIN),
        ("access-control-allow-methods", "GET,PUT"),
        ("access-control-allow-headers", "x-one,X-Two"),
        ("access-control-max-age", "120"),
        ("access-control-allow-credentials", "true"),
    ] {
        assert_eq!(answer.header(header), value, "{header}");
    }
    let answer = actual(&town, ORIGIN).await;
    assert_eq!(answer.body, "v1");
    for (header, value) in [
        ("access-control-expose-headers", "x-three"),
        ("access-control-allow-credentials", "true"),
        ("access-control-allow-methods", "-"),
        ("access-control-max-age", "-"),
    ] {
        assert_eq!(answer.header(header), value, "{header}");
    }
}

#[tokio::test]
async fn nothing_said_is_nothing_announced() {
    let (town, _) = town("{allowOrigins: [{prefix: 'https:'}]}").await;
    let answer = preflight(&town, ORIGIN).await;
    for header in ["methods", "headers", "credentials"] {
        assert_eq!(
            answer.header(&format!("access-control-allow-{header}")),
            "-"
        );
    }
    assert_eq!(answer.header("access-control-max-age"), "-");
}

#[tokio::test]
async fn stars_in_methods_and_headers_give_back_what_was_asked_for() {
    let policy = "{allowOrigins: [{prefix: ''}], allowMethods: ['*'], allowHeaders: ['*']}";
    let (town, _) = town(policy).await;
    let answer = preflight(&town, ORIGIN).await;
    assert_eq!(answer.header("access-control-allow-methods"), "PUT");
    assert_eq!(answer.header("access-control-allow-headers"), "x-one");
}

#[tokio::test]
async fn unmatched_preflights_are_forwarded_unless_ignored() {
    for (said, reached) in [
        ("", 1),
        (", unmatchedPreflights: FORWARD", 1),
        (", unmatchedPreflights: IGNORE", 0),
    ] {
        let (town, one) = town(&format!("{{allowOrigins: [{{exact: x}}]{said}}}")).await;
        let answer = preflight(&town, ORIGIN).await;
        assert_eq!(
            (answer.status.as_u16(), one.count()),
            (200, reached),
            "{said}"
        );
        assert_eq!(answer.header("access-control-allow-origin"), "-");
    }
}

#[tokio::test]
async fn a_request_without_an_origin_is_none_of_its_business() {
    let (town, one) = town("{allowOrigins: [{prefix: ''}]}").await;
    assert_eq!(
        town.send(request("OPTIONS", "a", "/", &[])).await.line(),
        "200 v1"
    );
    assert_eq!(one.count(), 1);
}
