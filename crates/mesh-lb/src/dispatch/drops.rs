//! Requests that are refused because discovery wants it so (EDS `policy.drop_overloads`).

use mesh_core::model::Drop;

/// Whether any of the shares takes a request, each of what the one before left.
pub(super) fn is_dropped(drops: &[Drop], mut word: impl FnMut() -> u64) -> bool {
    drops.iter().any(|drop| drop.share.admits(word()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_core::Rng;
    use mesh_core::model::Fraction;

    fn drop_of(percent: f64) -> Drop {
        Drop {
            category: "lb".into(),
            share: Fraction::percent(percent).unwrap(),
        }
    }

    #[test]
    fn each_category_takes_its_share_of_what_is_left() {
        let rng = Rng::with_seed(1);
        let dropped = |drops: &[Drop]| {
            let taken = (0..20_000).filter(|_| is_dropped(drops, || rng.word()));
            taken.count()
        };
        assert_eq!(dropped(&[]), 0);
        assert_eq!(dropped(&[drop_of(100.0)]), 20_000);
        // A half, and a half of the other half.
        let both = dropped(&[drop_of(50.0), drop_of(50.0)]);
        assert!((14_700..15_300).contains(&both), "{both}");
    }
}
