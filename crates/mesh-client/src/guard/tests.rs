use crate::{Body, MeshClient};
use axum::Router;
use axum::http::HeaderMap;
use axum::routing::any;
use http::{HeaderName, Request};
use http_body_util::BodyExt;
use mesh_core::model::{
    Ask, AskHttp, Authn, AuthnRule, Authz, ClaimHeader, Cluster, EndpointSet, External, HeaderKey,
    HeaderMatch, HttpManager, Jwks, JwtProvider, RouteTable, Rule, SnapshotBuilder, StringMatch,
    TokenRequirement, VirtualHost,
};
use mesh_core::{Caller, Exchange, Publisher};
use std::net::SocketAddr;
use std::sync::Arc;
use tower::ServiceExt;

/// `{"iss": "me", "sub": "me", "exp": 4102444800}`, with the key below.
const TOKEN: &str = "eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJtZSIsInN1YiI6Im1lIiwiZXhwIjo0MTAyNDQ0ODAwfQ.\
    XTH8fBrH8ffiJnGjkxtXoaCsA3BLLuij1MRsJ_BfmJU";
const KEYS: &str = r#"{"keys": [{"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQ"}]}"#;

/// The header that the route goes by.
const SUB: HeaderName = HeaderName::from_static("x-sub");

async fn serve(router: Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

fn named(name: &'static str) -> Router {
    Router::new().fallback(any(move || async move { name }))
}

/// Lets through whatever it is asked about, and adds the header if it is told to.
fn asker() -> Router {
    Router::new().fallback(any(|headers: HeaderMap| async move {
        let edits = headers.contains_key("x-edit");
        let edit = edits.then_some((SUB, "me"));
        axum::response::AppendHeaders(edit)
    }))
}

/// Where a request goes whose route is asked about before tokens are looked for.
struct Case {
    /// Tokens clear the route that was found before.
    tokens_clear: bool,
    /// The service that is asked does.
    asking_clears: bool,
    /// The request brings a token.
    token: bool,
    /// The service edits the request.
    edits: bool,
}

async fn goes_to(case: Case) -> String {
    let mut claimed = Rule::prefix_to("/", "claimed");
    let me = StringMatch::Exact("me".into());
    let matcher = HeaderMatch::text(HeaderKey::Header(SUB), me);
    claimed.condition.headers = vec![matcher];
    let host = VirtualHost::new("all", ["*"]).rule(claimed);
    let host = host.rule(Rule::prefix_to("/", "rest"));
    let mut builder = SnapshotBuilder::new();
    builder.routes(RouteTable::new("t").host(host));
    for (name, router) in [
        ("claimed", named("claimed")),
        ("rest", named("rest")),
        ("asker", asker()),
    ] {
        let at = serve(router).await;
        builder.cluster(Cluster::new(name));
        builder.endpoints(name, EndpointSet::of([at]));
    }
    let publisher = Publisher::from_arc(builder.build().unwrap().0);
    let client = MeshClient::builder(publisher.feed(), "t").seed(1).build();

    let mut ask = AskHttp::default();
    ask.headers = vec![StringMatch::Exact("x-edit".into())];
    ask.upstream = vec![StringMatch::Exact("x-sub".into())];
    let mut external = External::new("asker", Ask::Http(ask));
    external.clear_route = case.asking_clears;
    let mut provider = JwtProvider::new("own", "me", Jwks::Inline(KEYS.into()));
    provider.clear_route = case.tokens_clear;
    provider.claim_headers = vec![ClaimHeader {
        header: SUB,
        claim: "sub".into(),
    }];
    let mut authn = Authn::default();
    authn.providers = vec![provider];
    authn.rules = vec![AuthnRule::always(TokenRequirement::AllowMissing)];
    let mut manager = HttpManager::new("t", "t");
    manager.authz = vec![Arc::new(Authz::asking(external))];
    manager.authn = Some(Arc::new(authn));
    manager.authn_at = 1;

    let mut request = Request::get("http://a.test/");
    if case.token {
        request = request.header("authorization", format!("Bearer {TOKEN}"));
    }
    if case.edits {
        request = request.header("x-edit", "1");
    }
    let mut request = request.body(Body::empty()).unwrap();
    let mut caller = Caller::default();
    caller.manager = Some(Arc::new(manager));
    Exchange::new(tokio::time::Instant::now().into_std(), caller).attach(&mut request);
    let response = client.oneshot(request).await.unwrap();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn who_is_asked_before_tokens_keeps_no_route_that_the_tokens_clear() {
    for (tokens_clear, asking_clears, token, edits, expected) in [
        // The route is that of the request as it came.
        (false, false, true, false, "rest"),
        (false, false, false, true, "rest"),
        // Tokens clear it, whether somebody was asked before or not.
        (true, false, true, false, "claimed"),
        (true, true, true, false, "claimed"),
        (true, false, true, true, "claimed"),
        // There is none: what the service changed does not matter unless it clears the route.
        (true, false, false, true, "rest"),
        (true, true, false, true, "claimed"),
        (false, true, false, true, "claimed"),
        (true, false, false, false, "rest"),
    ] {
        let case = Case {
            tokens_clear,
            asking_clears,
            token,
            edits,
        };
        let said = format!("{tokens_clear} {asking_clears} {token} {edits}");
        assert_eq!(goes_to(case).await, expected, "{said}");
    }
}
