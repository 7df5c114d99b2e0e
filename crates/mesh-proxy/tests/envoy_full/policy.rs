//! Our policies as Envoy's filters and route settings have them.

use super::translate::{TYPE, duration, fraction, string};
use mesh_core::model::{AbortWith, Cors, DelayBy, Fault, RateLimit, Retry};
use serde_json::{Value, json};

pub fn retry(policy: &Retry) -> Value {
    let on: Vec<&str> = policy.on.names().collect();
    let mut out = json!({
        "retry_on": on.join(","),
        "num_retries": policy.attempts,
        "retriable_status_codes": policy.status_codes,
        "retry_back_off": {
            "base_interval": duration(policy.backoff_base),
            "max_interval": duration(policy.backoff_max),
        },
        "host_selection_retry_max_attempts": policy.host_attempts,
    });
    if let Some(limit) = policy.per_try_timeout {
        out["per_try_timeout"] = json!(duration(limit));
    }
    if let Some(limit) = policy.per_try_idle_timeout {
        out["per_try_idle_timeout"] = json!(duration(limit));
    }
    if policy.avoid_previous_hosts {
        out["retry_host_predicate"] = json!([{
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": {
                "@type": format!("{TYPE}.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"),
            },
        }]);
    }
    out
}

pub fn fault(policy: &Fault) -> Value {
    let mut out = json!({"@type": format!("{TYPE}.extensions.filters.http.fault.v3.HTTPFault")});
    if let Some(delay) = &policy.delay {
        let DelayBy::Fixed(length) = delay.by else {
            panic!("not written here: {delay:?}");
        };
        out["delay"] = json!({
            "fixed_delay": duration(length), "percentage": fraction(delay.share),
        });
    }
    if let Some(abort) = &policy.abort {
        out["abort"] = match abort.with {
            AbortWith::Http(status) => json!({"http_status": status.as_u16()}),
            AbortWith::Grpc(status) => json!({"grpc_status": status}),
            AbortWith::Header(_) => panic!("not written here: {abort:?}"),
        };
        out["abort"]["percentage"] = fraction(abort.share);
    }
    out
}

pub fn cors(policy: &Cors) -> Value {
    let origins: Vec<Value> = policy.allow_origins.iter().map(string).collect();
    json!({
        "@type": format!("{TYPE}.extensions.filters.http.cors.v3.CorsPolicy"),
        "allow_origin_string_match": origins,
        "allow_methods": policy.allow_methods,
        "allow_headers": policy.allow_headers,
        "expose_headers": policy.expose_headers,
        "max_age": policy.max_age,
        "allow_credentials": policy.allow_credentials,
        "forward_not_matching_preflights": policy.forward_unmatched_preflights,
    })
}

pub fn rate_limit(policy: &RateLimit) -> Value {
    let always = json!({"default_value": {"numerator": 100, "denominator": "HUNDRED"}});
    json!({
        "@type": format!("{TYPE}.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"),
        "stat_prefix": "limit",
        "status": {"code": policy.status.as_u16()},
        "token_bucket": {
            "max_tokens": policy.max_tokens,
            "tokens_per_fill": policy.tokens_per_fill,
            "fill_interval": duration(policy.fill_interval),
        },
        "filter_enabled": always,
        "filter_enforced": always,
    })
}
