//! Weights: of requests under way, and of endpoints that are new.

use crate::pb::envoy::config::cluster::v3::cluster::SlowStartConfig;
use crate::pb::envoy::config::core::v3::RuntimeDouble;
use crate::pb::envoy::r#type::v3::Percent;
use crate::pb::google::protobuf::UInt32Value;
use crate::wire::{At, maybe_duration, number, pass_over};
use mesh_core::Invalid;
use mesh_core::model::{Balancing, Real, SlowStart};

/// A share in whole percent.
pub(super) fn percent(field: &str, value: Option<&Percent>, default: u32) -> Result<u32, Invalid> {
    let Some(Percent { value }) = value else {
        return Ok(default);
    };
    if !(0.0..=100.0).contains(value) || value.fract() != 0.0 {
        let message = format!("{value} is not a whole number from 0 to 100");
        return Err(Invalid::new(format!("{field}.value"), message));
    }
    // Whole and from 0 to 100: checked above.
    Ok(*value as u32)
}

/// The less busy of several.
pub(super) fn least_request(
    choices: Option<&UInt32Value>,
    bias: Option<&RuntimeDouble>,
) -> Result<Balancing, Invalid> {
    let choices = match number(choices).unwrap_or(2) {
        few @ (0 | 1) => {
            let message = format!("{few} is too few to choose from; use 2 or more");
            return Err(Invalid::new("choice_count", message));
        }
        choices => choices,
    };
    let bias = bias.map(|bias| real(bias, |bias| bias >= 0.0, "0 or more"));
    let bias = bias.transpose().at("active_request_bias")?;
    Ok(Balancing::LeastRequest {
        choices,
        bias: bias.unwrap_or(Real::ONE),
    })
}

/// How new endpoints get their share. Nothing without a window, as in Envoy.
pub(super) fn slow_start(value: Option<&SlowStartConfig>) -> Result<Option<SlowStart>, Invalid> {
    let read = |value: &SlowStartConfig| {
        let SlowStartConfig {
            slow_start_window,
            aggression,
            min_weight_percent,
        } = value;
        let window = maybe_duration("slow_start_window", slow_start_window.as_ref())?;
        let Some(window) = window.filter(|window| !window.is_zero()) else {
            return Ok(None);
        };
        let mut slow = SlowStart::new(window);
        if let Some(asked) = aggression {
            let asked = real(asked, |asked| asked > 0.0, "more than 0");
            slow.aggression = asked.at("aggression")?;
        }
        let least = min_weight_percent.as_ref();
        slow.minimum = percent("min_weight_percent", least, slow.minimum)?;
        Ok(Some(slow))
    };
    let read = value.map(read).transpose();
    Ok(read.at("slow_start_config")?.flatten())
}

/// A number that runtime could change; here its default holds.
fn real(value: &RuntimeDouble, takes: fn(f64) -> bool, what: &str) -> Result<Real, Invalid> {
    let RuntimeDouble {
        default_value,
        runtime_key,
    } = value;
    pass_over!("envoy.config.core.v3.RuntimeDouble": runtime_key);
    let real = Real::new(*default_value).filter(|real| takes(real.get()));
    real.ok_or_else(|| {
        let message = format!("{default_value} is not a number that is {what}");
        Invalid::new("default_value", message)
    })
}
