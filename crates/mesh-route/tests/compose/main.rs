//! Each layer, and all of them together with tower-http's, where people put layers: on an axum
//! router, on a tonic server, in front of a tonic channel and of hyper-util's client. Everything
//! runs over in-memory pipes.

mod outcome;
mod pipe;
mod place;
mod policy;

/// Makes one test for each place: `$send` is the function of [`place`] that puts a layer there and
/// sends a request through it. What cannot fail goes there as it is; with `answered`, servers get
/// something around the layer that makes answers of its errors; with `failing`, only axum does.
macro_rules! in_each_place {
    ($name:ident, |$send:ident| $body:block) => {
        in_each_place!(@ on_an_axum_router, on_a_tonic_server, $name, $send, $body);
    };
    ($name:ident, answered, |$send:ident| $body:block) => {
        in_each_place!(
            @ on_an_axum_router_answered, on_a_tonic_server_answered, $name, $send, $body
        );
    };
    ($name:ident, failing, |$send:ident| $body:block) => {
        in_each_place!(@ on_an_axum_router_answered, on_a_tonic_server, $name, $send, $body);
    };
    (@ $router:ident, $server:ident, $name:ident, $send:ident, $body:block) => {
        mod $name {
            use super::*;

            #[tokio::test]
            async fn on_an_axum_router() {
                use crate::place::$router as $send;
                $body
            }

            #[tokio::test]
            async fn on_a_tonic_server() {
                use crate::place::$server as $send;
                $body
            }

            #[tokio::test]
            async fn in_front_of_a_tonic_channel() {
                use crate::place::before_a_tonic_channel as $send;
                $body
            }

            #[tokio::test]
            async fn in_front_of_hyper_utils_client() {
                use crate::place::before_hyper_utils_client as $send;
                $body
            }
        }
    };
}

mod alone;
mod together;
