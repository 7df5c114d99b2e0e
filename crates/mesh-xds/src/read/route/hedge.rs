//! Overlapping attempts, from `HedgePolicy`.

use crate::pb::envoy::config::route::v3 as pb;
use crate::wire::pass_over;
use mesh_core::model::Hedge;

/// Reads a policy. Its other fields do nothing in Envoy either.
pub(super) fn read(proto: &pb::HedgePolicy) -> Hedge {
    let pb::HedgePolicy {
        initial_requests,
        additional_request_chance,
        hedge_on_per_try_timeout,
    } = proto;
    pass_over!("envoy.config.route.v3.HedgePolicy": additional_request_chance, initial_requests);
    Hedge {
        on_try_timeout: *hedge_on_per_try_timeout,
    }
}
