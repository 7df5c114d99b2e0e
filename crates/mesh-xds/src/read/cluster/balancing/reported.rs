//! Endpoints weighed by what they report, from `ClientSideWeightedRoundRobin`.

use super::Chosen;
use crate::pb::envoy::extensions::load_balancing_policies::client_side_weighted_round_robin::v3::ClientSideWeightedRoundRobin;
use crate::wire::{boolean, maybe_duration, pass_over, unsupported};
use mesh_core::model::{Balancing, Real, ReportedWeights};
use mesh_core::{Invalid, Name};
use std::sync::Arc;

/// Round robin by weights that are reported. Slow start is read by whoever asks.
pub(super) fn read(value: &ClientSideWeightedRoundRobin) -> Result<Chosen, Invalid> {
    let ClientSideWeightedRoundRobin {
        enable_oob_load_report,
        oob_reporting_period,
        blackout_period,
        weight_expiration_period,
        weight_update_period,
        error_utilization_penalty,
        metric_names_for_computing_utilization,
        slow_start_config,
        oob_reporting_config,
    } = value;
    if boolean(enable_oob_load_report.as_ref(), false) {
        return Err(unsupported("enable_oob_load_report"));
    }
    pass_over!("envoy.extensions.load_balancing_policies.client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin":
        oob_reporting_period,
        oob_reporting_config,
    );
    let mut policy = ReportedWeights::default();
    for (field, value, period) in [
        ("blackout_period", blackout_period, &mut policy.blackout),
        (
            "weight_expiration_period",
            weight_expiration_period,
            &mut policy.expiration,
        ),
        (
            "weight_update_period",
            weight_update_period,
            &mut policy.update,
        ),
    ] {
        if let Some(value) = maybe_duration(field, value.as_ref())? {
            *period = value;
        }
    }
    if let Some(penalty) = error_utilization_penalty {
        let penalty = f64::from(penalty.value);
        let real = Real::new(penalty).filter(|real| real.get() >= 0.0);
        policy.error_penalty = real.ok_or_else(|| {
            let message = format!("{penalty} is not a number that is 0 or more");
            Invalid::new("error_utilization_penalty", message)
        })?;
    }
    let names = metric_names_for_computing_utilization.iter();
    policy.utilization = names.map(Name::from).collect();
    Ok(Chosen {
        balancing: Balancing::RoundRobin,
        slow_start: super::extension::slow_start(slow_start_config.as_ref())?,
        reported_weights: Some(Arc::new(policy)),
        ..Chosen::default()
    })
}
