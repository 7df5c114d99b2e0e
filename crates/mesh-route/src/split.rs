//! Draws the destination of a weighted split.

use mesh_core::model::Weighted;

/// The place of the destination that this random word falls on. Weights are relative to their sum
/// (Envoy `WeightedCluster`, Istio `HTTPRouteDestination.weight`); a destination of weight 0 gets
/// nothing. Where all weights are 0 the first destination gets everything, since a split without
/// any destination would answer requests that the table means to forward.
pub fn draw(parts: &[Weighted], word: u64) -> Option<usize> {
    let total: u64 = parts.iter().map(|part| u64::from(part.weight)).sum();
    if total == 0 {
        return (!parts.is_empty()).then_some(0);
    }
    let mut left = word % total;
    parts.iter().position(|part| {
        let weight = u64::from(part.weight);
        let here = left < weight;
        left = left.saturating_sub(weight);
        here
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_core::Rng;
    use mesh_core::model::{Forward, Target};
    use proptest::prelude::*;

    fn parts(weights: &[u32]) -> Vec<Weighted> {
        let forward = Forward::split(weights.iter().map(|weight| ("c", *weight)));
        let Target::Weighted(parts) = forward.to else {
            unreachable!("a split was asked for")
        };
        parts
    }

    #[test]
    fn ten_thousand_requests_fall_within_two_points_of_the_weights() {
        let (rng, parts) = (Rng::with_seed(7), parts(&[50, 0, 30, 20]));
        let mut drawn = [0_i32; 4];
        for _ in 0..10_000 {
            drawn[draw(&parts, rng.word()).unwrap()] += 1;
        }
        for (drawn, expected) in drawn.into_iter().zip([5_000, 0, 3_000, 2_000]) {
            assert!((drawn - expected).abs() <= 200, "{drawn} of {expected}");
        }
    }

    #[test]
    fn without_weights_the_first_gets_everything_and_without_parts_there_is_nothing() {
        assert_eq!(draw(&parts(&[0, 0]), 5), Some(0));
        assert_eq!(draw(&[], 5), None);
    }

    proptest! {
        #[test]
        fn each_word_falls_into_the_stretch_of_its_part(
            weights in prop::collection::vec(0_u32..5, 1..6),
            word: u64,
        ) {
            // One entry for each unit of weight.
            let units: Vec<usize> = weights
                .iter()
                .enumerate()
                .flat_map(|(part, weight)| std::iter::repeat_n(part, *weight as usize))
                .collect();
            let expected = if units.is_empty() {
                0
            } else {
                units[(word % units.len() as u64) as usize]
            };
            prop_assert_eq!(draw(&parts(&weights), word), Some(expected));
        }
    }
}
