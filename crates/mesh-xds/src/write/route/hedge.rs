//! Overlapping attempts, as `HedgePolicy`.

use crate::pb::envoy::config::route::v3 as pb;
use mesh_core::model::Hedge;

pub(super) fn write(hedge: Hedge) -> pb::HedgePolicy {
    pb::HedgePolicy {
        hedge_on_per_try_timeout: hedge.on_try_timeout,
        ..Default::default()
    }
}
