//! Real gRPC clients and servers, proxyless, with configuration compiled from Istio YAML: C core
//! from Python, and Node's own.
//!
//! They need `MESH_PYTHON` (`cargo xtask python` prints one that has gRPC, and installs gRPC for
//! Node beside it). What is not there is said and skipped, but fails where `CI=true`.

#[allow(unreachable_pub)]
#[path = "../../mesh-proxy/tests/support/ports.rs"]
mod ports;
#[path = "grpc_full/scenarios.rs"]
mod scenarios;
#[path = "grpc_full/support.rs"]
mod support;

macro_rules! with_each_client {
    ($($name:ident),* $(,)?) => {
        mod python {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                use crate::{scenarios, support};
                support::with(support::Language::Python, scenarios::$name).await;
            })*
        }
        mod node {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                use crate::{scenarios, support};
                support::with(support::Language::Node, scenarios::$name).await;
            })*
        }
    };
}

with_each_client! {
    splits_by_weight_under_each_name_of_the_service,
    routes_by_headers_and_methods,
    loses_no_call_when_endpoints_come_and_go,
    keeps_to_the_limit_of_requests,
    retries_the_codes_of_the_policy_only,
    applies_timeouts_and_faults,
    answers_for_routes_that_only_a_proxy_can_follow,
    resolves_services_by_dns,
    keeps_calls_with_one_header_together,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_serves_once_it_has_its_listener() {
    support::with(support::Language::Python, scenarios::serves).await;
}
