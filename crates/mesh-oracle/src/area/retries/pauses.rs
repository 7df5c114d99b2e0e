//! How long a retry waits for: each pause falls somewhere in its window, and as often in each part
//! of it as Envoy's does.

use super::super::cluster;
use crate::config::{Config, Source};
use crate::dice::Dice;
use crate::request::Call;
use serde_json::{Value, json};

/// A way to back off, what makes it wait, and the windows of its pauses in milliseconds.
struct Kind {
    policy: fn() -> Value,
    script: &'static str,
    windows: &'static str,
}

const KINDS: &[Kind] = &[
    Kind {
        policy: || json!({"retry_back_off": {"base_interval": "0.150s"}}),
        script: "503,503,503,200",
        windows: "0-150 0-300 0-600",
    },
    Kind {
        policy: || json!({"retry_back_off": {"base_interval": "0.200s", "max_interval": "0.250s"}}),
        script: "503,503,503,200",
        windows: "0-200 0-250 0-250",
    },
    // Where nothing is said the first window is 25 ms, and none is longer than ten times that.
    Kind {
        policy: || json!({}),
        script: "503,503,503,503,503,503,200",
        windows: "0-25 0-50 0-100 0-200 0-250 0-250",
    },
    Kind {
        policy: || {
            json!({"rate_limited_retry_back_off": {
                "reset_headers": [{"name": "retry-after", "format": "SECONDS"}],
            }})
        },
        script: "later,200",
        windows: "1000-1500",
    },
];

/// One way to back off, with all requests about it.
pub(super) fn generate(dice: &mut Dice, requests: usize) -> Config {
    let kind = &KINDS[dice.below(KINDS.len())];
    let mut policy = (kind.policy)();
    policy["retry_on"] = json!("gateway-error");
    policy["num_retries"] = json!(10);
    let route = json!({
        "name": "r0",
        "match": {"prefix": "/"},
        "route": {"cluster": "$a", "timeout": "15s", "retry_policy": policy},
    });
    let host = json!({"name": "$v0", "domains": ["*"], "routes": [route]});
    let call = || {
        Call::get("/")
            .script(kind.script)
            .with("x-judge", &format!("pauses {}", kind.windows))
    };
    Config {
        area: "retries",
        source: Source {
            manager: json!({"route_config": {"virtual_hosts": [host]}}),
            clusters: json!([cluster("a", &["a"])]),
        },
        calls: (0..requests).map(|_| call()).collect(),
    }
}
