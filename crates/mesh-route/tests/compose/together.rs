//! All layers by route, in the order of the crate's documentation, inside and outside of
//! tower-http's.

use crate::place::{ANSWER, MESSAGE};
use crate::policy::{Copies, ask, boxing, mark, routes, tell_cluster};
use http::{HeaderValue, header};
use mesh_core::model::HeaderEdits;
use mesh_route::{CorsLayer, EditLayer, MirrorLayer, ReplyLayer, RespondLayer};
use tower::ServiceBuilder;
use tower_http::compression::CompressionLayer;
use tower_http::set_header::SetResponseHeaderLayer;
use tower_http::trace::TraceLayer;

/// The stack, whatever it is put on. A macro, since the type of such a stack is nobody's business.
macro_rules! stack {
    ($copies:expr) => {
        ServiceBuilder::new()
            .layer(TraceLayer::new_for_http())
            .layer(SetResponseHeaderLayer::overriding(
                header::SERVER,
                HeaderValue::from_static("mesh"),
            ))
            .layer(CompressionLayer::new())
            .layer(ReplyLayer::new())
            .layer(routes())
            .layer(CorsLayer::per_route())
            .layer(EditLayer::per_route())
            .layer(EditLayer::fixed(mark("x-in"), HeaderEdits::default()))
            .layer(RespondLayer::per_route())
            .layer(MirrorLayer::per_route().executor($copies))
            .layer(boxing())
            .map_request(tell_cluster)
    };
}

in_each_place!(a_request_that_is_forwarded_meets_every_layer, |send| {
    let copies = Copies::default();
    let request = ask("/old/1").header(header::ACCEPT_ENCODING, "gzip");
    let outcome = send(stack!(copies.clone()), request).await;
    assert_eq!(outcome.status(), if outcome.grpc { 0 } else { 200 });
    assert_eq!(outcome.headers[header::SERVER], "mesh");
    assert_eq!(outcome.headers["x-marked"], "yes");
    if outcome.grpc {
        assert_eq!(outcome.body, ANSWER, "messages compress themselves");
    } else {
        assert_eq!(outcome.headers[header::CONTENT_ENCODING], "gzip");
        assert_eq!(outcome.body[..2], [0x1f, 0x8b], "gzip's magic number");
    }
    assert_eq!(copies.send().await, 1);
    let received = outcome.received();
    assert_eq!(received.len(), 2);
    for (request, cluster) in received.iter().zip(["app", "shadow"]) {
        assert_eq!(request.headers()["x-cluster"], cluster);
        assert_eq!(request.headers()["x-in"], "yes");
        assert_eq!(request.uri().path(), "/new/1");
        assert_eq!(request.body(), MESSAGE);
    }
});

in_each_place!(
    what_needs_no_upstream_is_answered_and_marked_all_the_same,
    |send| {
        for (path, http, grpc) in [("/teapot", 418, 2), ("/moved", 301, 2), ("/gone", 503, 14)] {
            let outcome = send(stack!(Copies::default()), ask(path)).await;
            let status = if outcome.grpc { grpc } else { http };
            assert_eq!(outcome.status(), status, "{path}");
            assert_eq!(outcome.headers[header::SERVER], "mesh", "{path}");
            assert_eq!(outcome.headers["x-marked"], "yes", "{path}");
            let location = outcome.headers.get(header::LOCATION);
            let expected = (path == "/moved").then_some("https://app.example/moved");
            assert_eq!(location.map(|it| it.to_str().unwrap()), expected, "{path}");
            outcome.never_left();
        }
    }
);

in_each_place!(
    what_no_rule_matches_is_not_found_and_marked_by_none,
    |send| {
        let outcome = send(stack!(Copies::default()), ask("/elsewhere")).await;
        assert_eq!(outcome.status(), if outcome.grpc { 12 } else { 404 });
        assert_eq!(outcome.headers[header::SERVER], "mesh");
        assert!(!outcome.headers.contains_key("x-marked"));
        outcome.never_left();
    }
);

in_each_place!(
    a_local_reply_tells_a_known_origin_that_it_may_read_it,
    |send| {
        let request = ask("/gone").header(header::ORIGIN, "http://ok");
        let outcome = send(stack!(Copies::default()), request).await;
        assert_eq!(outcome.status(), if outcome.grpc { 14 } else { 503 });
        assert_eq!(
            outcome.headers[header::ACCESS_CONTROL_ALLOW_ORIGIN],
            "http://ok"
        );
        outcome.never_left();
    }
);
