//! Draws the destination of a weighted split.

use crate::hash;
use http::{HeaderName, Request};
use mesh_core::Exchange;
use mesh_core::model::{Draw, Forward, Weighted};

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

/// The word that a request itself has for the draw; none leaves it to chance.
pub(crate) fn word_of<B>(forward: &Forward, request: &Request<B>) -> Option<u64> {
    match &forward.draw {
        Draw::Random => None,
        Draw::Header(name) => number(request, name),
        Draw::Hash => {
            let exchange = Exchange::of(request)?;
            hash::known(&forward.hash, request.headers(), request.uri(), exchange)
        }
    }
}

/// The number in a header that comes once, with a sign and spaces around it or not (Envoy
/// `absl::SimpleAtoi`).
fn number<B>(request: &Request<B>, name: &HeaderName) -> Option<u64> {
    let mut lines = request.headers().get_all(name).iter();
    let (line, None) = (lines.next()?, lines.next()) else {
        return None;
    };
    line.to_str().ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_core::Rng;
    use mesh_core::model::{Forward, Target};
    use mesh_core::model::{HashPolicy, HashSource};
    use mesh_core::{Caller, Exchange};
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

    #[test]
    fn a_header_that_is_one_number_decides() {
        let mut forward = Forward::split([("c", 1)]);
        forward.draw = Draw::Header(HeaderName::from_static("x-draw").into());
        let word = |lines: &[&str]| {
            let mut request = Request::get("/");
            for line in lines {
                request = request.header("x-draw", *line);
            }
            word_of(&forward, &request.body(()).unwrap())
        };
        for (line, expected) in [
            ("0", Some(0)),
            (" +7 ", Some(7)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("-1", None),
            ("0x1", None),
            ("1.0", None),
            ("", None),
        ] {
            assert_eq!(word(&[line]), expected, "{line:?}");
        }
        assert_eq!(word(&[]), None);
        assert_eq!(word(&["1", "1"]), None);
    }

    #[test]
    fn a_hash_decides_and_makes_no_cookie() {
        let mut forward = Forward::split([("c", 1)]);
        forward.draw = Draw::Hash;
        let mut cookie = mesh_core::model::HashCookie::default();
        cookie.name = "c".into();
        cookie.ttl = Some(std::time::Duration::ZERO);
        forward.hash = vec![
            HashPolicy::new(HashSource::Query("q".into())),
            HashPolicy::new(HashSource::Cookie(cookie)),
        ];
        let word = |uri: &str| {
            let mut request = Request::get(uri).body(()).unwrap();
            let now = tokio::time::Instant::now().into_std();
            Exchange::new(now, Caller::default()).attach(&mut request);
            word_of(&forward, &request)
        };
        assert_eq!(word("/?q=1"), word("/x?q=1&r"));
        assert_ne!(word("/?q=1"), word("/?q=2"));
        assert_eq!(word("/"), None);
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
