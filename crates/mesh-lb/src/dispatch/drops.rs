//! Requests that are refused because discovery wants it so (EDS `policy.drop_overloads`).

use mesh_core::Failure;
use mesh_core::model::{Drop, Fraction};

/// How a request is refused if any of the shares takes it, each of what the one before left.
/// Where one of them is all, nothing is drawn, and that is said.
pub(super) fn dropped(drops: &[Drop], mut word: impl FnMut() -> u64) -> Option<Failure> {
    if drops.iter().any(|drop| drop.share >= Fraction::ALL) {
        return Some(Failure::UnconditionalDrop);
    }
    let taken = drops.iter().any(|drop| drop.share.admits(word()));
    taken.then_some(Failure::DropOverload)
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
    fn a_share_of_all_is_said_to_be_one() {
        let never = || panic!("nothing is drawn");
        let all = [drop_of(1.0), drop_of(100.0)];
        assert_eq!(dropped(&all, never), Some(Failure::UnconditionalDrop));
        let drawn = [drop_of(99.9999)];
        assert_eq!(dropped(&drawn, || 0), Some(Failure::DropOverload));
    }

    #[test]
    fn each_category_takes_its_share_of_what_is_left() {
        let rng = Rng::with_seed(1);
        let dropped = |drops: &[Drop]| {
            let taken = (0..20_000).filter(|_| dropped(drops, || rng.word()).is_some());
            taken.count()
        };
        assert_eq!(dropped(&[]), 0);
        assert_eq!(dropped(&[drop_of(100.0)]), 20_000);
        // A half, and a half of the other half.
        let both = dropped(&[drop_of(50.0), drop_of(50.0)]);
        assert!((14_700..15_300).contains(&both), "{both}");
    }
}
