//! What is to be done at which pressure: data in, decisions out.

use mesh_core::Name;
use mesh_core::model::{Overload, OverloadAction, OverloadRule, OverloadTrigger};
use std::collections::HashMap;

/// How far the pressure has to fall below what began something before it ends: else it would begin
/// and end with every look. Envoy has no such distance.
pub(super) const RELEASE: f64 = 0.05;

/// How far something is done, in millionths.
pub(super) const WHOLLY: u32 = 1_000_000;

/// The state of every trigger.
#[derive(Debug)]
pub(super) struct Machine {
    rules: Vec<OverloadRule>,
    /// In the order of the rules' triggers: whether it asks for all.
    saturated: Vec<Vec<bool>>,
}

// === impl Machine ===

impl Machine {
    pub(super) fn new(config: &Overload) -> Self {
        let rules = config.rules.clone();
        Self {
            saturated: rules
                .iter()
                .map(|rule| vec![false; rule.triggers.len()])
                .collect(),
            rules,
        }
    }

    /// How far everything is done at these pressures, in the order of [`OverloadAction::ALL`]. A
    /// pressure that is not known leaves what was.
    pub(super) fn update(
        &mut self,
        pressures: &HashMap<Name, f64>,
    ) -> [u32; OverloadAction::ALL.len()] {
        let mut levels = [0; OverloadAction::ALL.len()];
        for (rule, saturated) in self.rules.iter().zip(&mut self.saturated) {
            let level = &mut levels[place(rule.action)];
            for (trigger, saturated) in rule.triggers.iter().zip(saturated) {
                let asked = match pressures.get(&trigger.monitor) {
                    Some(pressure) => step(trigger, *pressure, saturated),
                    None if *saturated => WHOLLY,
                    None => 0,
                };
                *level = asked.max(*level);
            }
        }
        levels
    }
}

/// The place of an action in a list of all.
pub(super) fn place(action: OverloadAction) -> usize {
    let mut all = OverloadAction::ALL.iter();
    all.position(|other| *other == action)
        .expect("the list has all actions")
}

/// Idle -> Scaling -> Saturated as the pressure grows; back only once it has fallen far enough.
fn step(trigger: &OverloadTrigger, pressure: f64, saturated: &mut bool) -> u32 {
    // Between the two there is a proportion, which is distance enough.
    let release = if trigger.from < trigger.to {
        trigger.from.max(trigger.to - RELEASE)
    } else {
        (trigger.to - RELEASE).max(0.0)
    };
    *saturated = if *saturated {
        // At a threshold of 0 it never ends, as in Envoy.
        pressure >= release
    } else {
        pressure >= trigger.to
    };
    if *saturated {
        return WHOLLY;
    }
    if trigger.from < trigger.to && pressure > trigger.from {
        let share = (pressure - trigger.from) / (trigger.to - trigger.from);
        return (share * f64::from(WHOLLY)).round() as u32;
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn machine(triggers: Vec<OverloadTrigger>) -> Machine {
        let mut config = Overload::default();
        config.rules = vec![OverloadRule::new(OverloadAction::StopRequests, triggers)];
        Machine::new(&config)
    }

    fn at(machine: &mut Machine, pressures: &[(&str, f64)]) -> u32 {
        let pressures = pressures
            .iter()
            .map(|(name, value)| ((*name).into(), *value));
        let levels = machine.update(&pressures.collect());
        let asked = levels[place(OverloadAction::StopRequests)];
        assert_eq!(levels.iter().sum::<u32>(), asked, "nothing else is done");
        asked
    }

    #[test]
    fn a_threshold_begins_at_once_and_ends_only_below_it_by_some_distance() {
        let mut machine = machine(vec![OverloadTrigger::threshold("m", 0.9)]);
        for (pressure, level) in [
            (0.0, 0),
            (0.899, 0),
            (0.9, WHOLLY),
            (0.86, WHOLLY),
            (0.84, 0),
            (0.88, 0),
            (0.95, WHOLLY),
            (2.0, WHOLLY),
            (0.1, 0),
        ] {
            assert_eq!(at(&mut machine, &[("m", pressure)]), level, "{pressure}");
        }
    }

    #[test]
    fn between_two_pressures_it_is_done_in_proportion() {
        let mut machine = machine(vec![OverloadTrigger::scaled("m", 0.5, 0.9)]);
        assert_eq!(at(&mut machine, &[("m", 0.5)]), 0);
        assert_eq!(at(&mut machine, &[("m", 0.7)]) / 1000, 500);
        assert_eq!(at(&mut machine, &[("m", 0.9)]), WHOLLY);
        assert_eq!(at(&mut machine, &[("m", 0.86)]), WHOLLY);
        assert_eq!(at(&mut machine, &[("m", 0.8)]) / 1000, 750);
    }

    #[test]
    fn the_trigger_that_asks_for_most_counts_and_silence_changes_nothing() {
        let mut machine = machine(vec![
            OverloadTrigger::threshold("m", 0.9),
            OverloadTrigger::scaled("d", 0.0, 1.0),
        ]);
        assert_eq!(at(&mut machine, &[("m", 0.1), ("d", 0.25)]), WHOLLY / 4);
        assert_eq!(at(&mut machine, &[("m", 0.95), ("d", 0.25)]), WHOLLY);
        assert_eq!(at(&mut machine, &[("d", 0.25)]), WHOLLY);
        assert_eq!(at(&mut machine, &[("m", 0.1), ("d", 0.25)]), WHOLLY / 4);
    }

    proptest! {
        #[test]
        fn whatever_the_past_all_is_done_above_and_nothing_far_below(
            from in 0.1f64..0.8,
            width in 0.0f64..0.2,
            past in proptest::collection::vec(0.0f64..1.5, 0..8),
        ) {
            let trigger = OverloadTrigger::scaled("m", from, from + width);
            let mut machine = machine(vec![trigger]);
            for pressure in past {
                at(&mut machine, &[("m", pressure)]);
            }
            prop_assert_eq!(at(&mut machine, &[("m", from + width)]), WHOLLY);
            prop_assert_eq!(at(&mut machine, &[("m", from - RELEASE - 0.001)]), 0);
        }
    }
}
