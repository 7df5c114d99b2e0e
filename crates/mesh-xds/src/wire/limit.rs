//! Local rate limits: the same message is the filter of a whole listener and a policy of routes.

use super::share::{switch, to_runtime_fraction};
use super::{At, duration, number, pass_over, refuse, required, to_duration, to_number};
use crate::pb::envoy::extensions::filters::http::local_ratelimit::v3::LocalRateLimit;
use crate::pb::envoy::r#type::v3::{HttpStatus, StatusCode as Listed, TokenBucket};
use http::StatusCode;
use mesh_core::Invalid;
use mesh_core::model::{Fraction, RateLimit};

/// A limit that was read.
pub(crate) struct Read {
    /// The limit, if there is a bucket.
    pub(crate) limit: Option<RateLimit>,
    /// Whether it is switched on *and* enforced. Nothing said is nothing, "for safety".
    pub(crate) on: bool,
}

pub(crate) fn read(proto: &LocalRateLimit) -> Result<Read, Invalid> {
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
    let on = |field, share: &Option<_>| switch(field, share.as_ref(), Fraction::NONE);
    let enabled = on("filter_enabled", filter_enabled)?;
    let enforced = on("filter_enforced", filter_enforced)?;
    let mut limit = token_bucket
        .as_ref()
        .map(bucket)
        .transpose()
        .at("token_bucket")?;
    if let (Some(limit), Some(HttpStatus { code })) = (&mut limit, status) {
        // Envoy takes 429 for everything that is not an error.
        limit.status = u16::try_from(*code)
            .ok()
            .filter(|code| (400..600).contains(code))
            .and_then(|code| StatusCode::from_u16(code).ok())
            .unwrap_or(StatusCode::TOO_MANY_REQUESTS);
    }
    let on = enabled && enforced;
    Ok(Read { limit, on })
}

/// Without a limit the filter does nothing by itself.
pub(crate) fn write(limit: Option<&RateLimit>) -> LocalRateLimit {
    let mut out = LocalRateLimit {
        // Envoy requires one; this is Istio's.
        stat_prefix: "http_local_rate_limiter".to_owned(),
        ..LocalRateLimit::default()
    };
    let Some(limit) = limit else { return out };
    // Envoy refuses a status that is not on its list; without one it answers 429.
    out.status = Listed::try_from(i32::from(limit.status.as_u16()))
        .ok()
        .map(|code| HttpStatus { code: code.into() });
    out.token_bucket = Some(TokenBucket {
        max_tokens: limit.max_tokens,
        tokens_per_fill: to_number(limit.tokens_per_fill),
        fill_interval: Some(to_duration(limit.fill_interval)),
    });
    out.filter_enabled = Some(to_runtime_fraction(Fraction::ALL));
    out.filter_enforced = Some(to_runtime_fraction(Fraction::ALL));
    out
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_status_that_envoy_would_refuse_is_left_out() {
        let mut limit = RateLimit::new(1, 1, Duration::from_secs(1));
        limit.status = StatusCode::IM_A_TEAPOT;
        assert_eq!(write(Some(&limit)).status, None);
        limit.status = StatusCode::SERVICE_UNAVAILABLE;
        assert_eq!(write(Some(&limit)).status, Some(HttpStatus { code: 503 }));
    }
}
