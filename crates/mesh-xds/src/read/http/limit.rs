//! The rate limit of a whole listener.

use crate::pb::envoy::config::core::v3::RuntimeFractionalPercent;
use crate::pb::envoy::extensions::filters::http::local_ratelimit::v3::LocalRateLimit;
use crate::pb::envoy::r#type::v3::{HttpStatus, TokenBucket};
use crate::wire::{At, duration, number, pass_over, refuse, required, share};
use http::StatusCode;
use mesh_core::Invalid;
use mesh_core::model::{Fraction, RateLimit};

/// The limit, if the filter has a bucket and is switched on *and* enforced.
pub(super) fn read(proto: &LocalRateLimit) -> Result<Option<RateLimit>, Invalid> {
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
    let enabled = all_or_nothing(filter_enabled.as_ref()).at("filter_enabled")?;
    let enforced = all_or_nothing(filter_enforced.as_ref()).at("filter_enforced")?;
    // A filter without a bucket leaves everything to the routes.
    let Some(bucket) = token_bucket else {
        return Ok(None);
    };
    let TokenBucket {
        max_tokens,
        tokens_per_fill,
        fill_interval,
    } = bucket;
    let interval = || {
        let interval = duration("fill_interval", required("fill_interval", fill_interval)?)?;
        if interval.is_zero() {
            return Err(Invalid::new("fill_interval", "must be longer than 0 s"));
        }
        Ok(interval)
    };
    let tokens = number(tokens_per_fill.as_ref()).unwrap_or(1);
    let mut limit = RateLimit::new(*max_tokens, tokens, interval().at("token_bucket")?);
    if let Some(HttpStatus { code }) = status {
        // Envoy takes 429 for everything that is not an error.
        limit.status = u16::try_from(*code)
            .ok()
            .filter(|code| (400..600).contains(code))
            .and_then(|code| StatusCode::from_u16(code).ok())
            .unwrap_or(StatusCode::TOO_MANY_REQUESTS);
    }
    Ok((enabled && enforced).then_some(limit))
}

/// Nothing said is nothing, "for safety".
fn all_or_nothing(value: Option<&RuntimeFractionalPercent>) -> Result<bool, Invalid> {
    match value.map(share::runtime_fraction).transpose()? {
        None | Some(Fraction::NONE) => Ok(false),
        Some(Fraction::ALL) => Ok(true),
        Some(share) => {
            let message = format!("{share} is not supported, only 0 % and 100 %");
            Err(Invalid::new("", message))
        }
    }
}
