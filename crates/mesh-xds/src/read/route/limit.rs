//! Local rate limits, from `LocalRateLimit`.

use super::cors::enabled;
use super::filters::Setting;
use crate::pb::envoy::extensions::filters::http::local_ratelimit::v3::LocalRateLimit;
use crate::pb::envoy::r#type::v3::{HttpStatus, TokenBucket};
use crate::wire::{At, duration, number, pass_over, refuse, required};
use http::StatusCode;
use mesh_core::Invalid;
use mesh_core::model::{Fraction, RateLimit};
use std::sync::Arc;

/// Reads a local rate limit. Unless it is switched on *and* enforced it refuses nobody.
pub(super) fn read(proto: &LocalRateLimit) -> Result<Setting<Arc<RateLimit>>, Invalid> {
    let LocalRateLimit {
        stat_prefix,
        status,
        token_bucket,
        filter_enabled,
        filter_enforced,
        request_headers_to_add_when_not_enforced,
        response_headers_to_add,
        descriptors,
        stage,
        local_rate_limit_per_downstream_connection,
        local_cluster_rate_limit,
        enable_x_ratelimit_headers,
        vh_rate_limits,
        always_consume_default_token_bucket,
        rate_limited_as_resource_exhausted,
        rate_limits,
        max_dynamic_descriptors,
        enable_retry_after_header,
    } = proto;
    pass_over!(
        "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit":
            always_consume_default_token_bucket,
            max_dynamic_descriptors,
            stat_prefix,
    );
    refuse!(
        request_headers_to_add_when_not_enforced,
        response_headers_to_add,
        descriptors,
        stage,
        local_rate_limit_per_downstream_connection,
        local_cluster_rate_limit,
        enable_x_ratelimit_headers,
        vh_rate_limits,
        rate_limited_as_resource_exhausted,
        rate_limits,
        enable_retry_after_header,
    );
    let mut limit = bucket(required("token_bucket", token_bucket)?).at("token_bucket")?;
    if let Some(HttpStatus { code }) = status {
        // Envoy takes 429 for everything that is not an error.
        limit.status = u16::try_from(*code)
            .ok()
            .filter(|code| (400..600).contains(code))
            .and_then(|code| StatusCode::from_u16(code).ok())
            .unwrap_or(StatusCode::TOO_MANY_REQUESTS);
    }
    // Both are 0 % where they are not set, "for safety".
    let on = enabled("filter_enabled", filter_enabled.as_ref(), Fraction::NONE)?;
    let enforced = enabled("filter_enforced", filter_enforced.as_ref(), Fraction::NONE)?;
    Ok(if on && enforced {
        Setting::On(Arc::new(limit))
    } else {
        Setting::Off
    })
}

fn bucket(proto: &TokenBucket) -> Result<RateLimit, Invalid> {
    let TokenBucket {
        max_tokens,
        tokens_per_fill,
        fill_interval,
    } = proto;
    let interval = duration("fill_interval", required("fill_interval", fill_interval)?)?;
    if interval.is_zero() {
        return Err(Invalid::new("fill_interval", "must be longer than 0 s"));
    }
    let tokens = number(tokens_per_fill.as_ref()).unwrap_or(1);
    Ok(RateLimit::new(*max_tokens, tokens, interval))
}
