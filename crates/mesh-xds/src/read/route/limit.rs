//! Local rate limits, from `LocalRateLimit`.

use super::filters::Setting;
use crate::pb::envoy::extensions::filters::http::local_ratelimit::v3::LocalRateLimit;
use crate::wire::{limit, required};
use mesh_core::Invalid;
use mesh_core::model::RateLimit;
use std::sync::Arc;

/// Reads a local rate limit. Unless it is switched on *and* enforced it refuses nobody.
pub(super) fn read(proto: &LocalRateLimit) -> Result<Setting<Arc<RateLimit>>, Invalid> {
    required("token_bucket", &proto.token_bucket)?;
    let limit::Read { limit, on } = limit::read(proto)?;
    Ok(match limit {
        Some(limit) if on => Setting::On(Arc::new(limit)),
        _ => Setting::Off,
    })
}
