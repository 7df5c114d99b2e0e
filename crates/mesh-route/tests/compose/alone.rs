//! Each layer by itself, without an exchange from above; only what a layer cannot do without is
//! around it: a box for bodies below mirrors, routes above a mirror by route.

use crate::place::{Boxes, MESSAGE};
use crate::policy::{Copies, ask, boxing, cors, mark, routes, teapot, tell_cluster, to_https};
use http::{HeaderName, HeaderValue, Method, Request, header};
use http_body_util::BodyExt;
use mesh_core::model::Fraction;
use mesh_core::{Caller, Error, Exchange, Failure};
use mesh_route::{
    CorsLayer, EditLayer, MapRequestBodyLayer, MirrorLayer, ReplyLayer, RespondLayer,
};
use mesh_test::Probe;
use tower::ServiceBuilder;

in_each_place!(
    a_route_layer_tells_the_layers_below_which_cluster_is_meant,
    failing,
    |send| {
        let layer = ServiceBuilder::new()
            .layer(routes())
            .map_request(tell_cluster);
        let outcome = send(layer, ask("/app/1")).await;
        outcome.is_from_upstream();
        assert_eq!(outcome.received()[0].headers()["x-cluster"], "app");
    }
);

in_each_place!(a_route_layer_stops_what_no_rule_matches, answered, |send| {
    let outcome = send(routes(), ask("/elsewhere")).await;
    assert_eq!(outcome.failure(), Some("NoRoute"));
    outcome.never_left();
});

in_each_place!(a_reply_layer_answers_for_what_fails_below_it, |send| {
    let layer = ServiceBuilder::new()
        .layer(ReplyLayer::new())
        .filter(refuse);
    let outcome = send(layer, ask("/")).await;
    assert_eq!(outcome.failure(), None, "it is answered already");
    assert_eq!(outcome.status(), if outcome.grpc { 14 } else { 503 });
    outcome.never_left();
});

fn refuse<B>(_: Request<B>) -> Result<Request<B>, Error> {
    Err(Error::new(Failure::Overloaded))
}

in_each_place!(a_reply_layer_puts_recorded_headers_on_answers, |send| {
    let layer = ServiceBuilder::new()
        .map_request(owing_a_header)
        .layer(ReplyLayer::new());
    let outcome = send(layer, ask("/")).await;
    outcome.is_from_upstream();
    assert_eq!(outcome.headers["x-owed"], "yes");
});

fn owing_a_header<B>(mut request: Request<B>) -> Request<B> {
    let exchange = Exchange::new(tokio::time::Instant::now().into_std(), Caller::default());
    exchange.add_reply_header(
        HeaderName::from_static("x-owed"),
        HeaderValue::from_static("yes"),
    );
    exchange.attach(&mut request);
    request
}

in_each_place!(an_edit_layer_marks_what_goes_either_way, failing, |send| {
    let layer = EditLayer::fixed(mark("x-in"), mark("x-out"));
    let outcome = send(layer, ask("/")).await;
    outcome.is_from_upstream();
    assert_eq!(outcome.received()[0].headers()["x-in"], "yes");
    assert_eq!(outcome.headers["x-out"], "yes");
});

in_each_place!(a_respond_layer_redirects, answered, |send| {
    let outcome = send(RespondLayer::fixed(to_https()), ask("/a?b")).await;
    assert_eq!(outcome.failure(), Some("Redirect"));
    assert_eq!(outcome.headers[header::LOCATION], "https://app.example/a?b");
    outcome.never_left();
});

in_each_place!(a_respond_layer_answers_itself, answered, |send| {
    let outcome = send(RespondLayer::fixed(teapot()), ask("/")).await;
    assert_eq!(outcome.failure(), Some("DirectResponse"));
    assert_eq!(
        (outcome.status(), &*outcome.body),
        (418, &b"short and stout"[..])
    );
    outcome.never_left();
});

in_each_place!(a_cors_layer_says_who_may_read_the_answer, failing, |send| {
    let request = ask("/").header(header::ORIGIN, "http://ok");
    let outcome = send(CorsLayer::fixed(cors()), request).await;
    outcome.is_from_upstream();
    assert_eq!(
        outcome.headers[header::ACCESS_CONTROL_ALLOW_ORIGIN],
        "http://ok"
    );
});

in_each_place!(a_cors_layer_answers_preflights, answered, |send| {
    let request = ask("/")
        .method(Method::OPTIONS)
        .header(header::ORIGIN, "http://ok")
        .header(header::ACCESS_CONTROL_REQUEST_METHOD, "POST");
    let outcome = send(CorsLayer::fixed(cors()), request).await;
    assert_eq!(outcome.failure(), Some("CorsPreflight"));
    assert_eq!(
        outcome.headers[header::ACCESS_CONTROL_ALLOW_METHODS],
        "POST"
    );
    outcome.never_left();
});

in_each_place!(a_mirror_layer_sends_a_copy_elsewhere, failing, |send| {
    let (shadow, copies) = (Probe::new(), Copies::default());
    let layer = ServiceBuilder::new()
        .layer(MirrorLayer::fixed(shadow.clone(), Fraction::ALL).executor(copies.clone()))
        .layer(boxing());
    let outcome = send(layer, ask("/a?b").header("x-kept", "yes")).await;
    outcome.is_from_upstream();
    assert_eq!(copies.send().await, 1);
    let received = [&outcome.received()[..], &shadow.requests()].concat();
    assert_eq!(received.len(), 2);
    for request in received {
        assert_eq!(request.uri().path_and_query().unwrap(), "/a?b");
        assert_eq!(request.headers()["x-kept"], "yes");
        assert_eq!(request.body(), MESSAGE);
    }
});

in_each_place!(
    a_mirror_layer_by_route_sends_a_copy_down_its_own_way,
    failing,
    |send| {
        let copies = Copies::default();
        let layer = ServiceBuilder::new()
            .layer(routes())
            .layer(MirrorLayer::per_route().executor(copies.clone()))
            .layer(boxing())
            .map_request(tell_cluster);
        let outcome = send(layer, ask("/old/1")).await;
        outcome.is_from_upstream();
        assert_eq!(copies.send().await, 1);
        let received = outcome.received();
        let clusters: Vec<_> = received
            .iter()
            .map(|of| &of.headers()["x-cluster"])
            .collect();
        assert_eq!(clusters, ["app", "shadow"]);
        assert!(received.iter().all(|request| request.body() == MESSAGE));
    }
);

in_each_place!(
    a_map_request_body_layer_changes_what_the_upstream_reads,
    |send| {
        let outcome = send(MapRequestBodyLayer::new(shouted), ask("/")).await;
        outcome.is_from_upstream();
        assert_eq!(outcome.received()[0].body(), "\0\0\0\0\x05HELLO");
    }
);

fn shouted<B: Boxes + 'static>(body: B) -> B {
    B::boxes(body.map_frame(|frame| frame.map_data(|data| data.to_ascii_uppercase().into())))
}
