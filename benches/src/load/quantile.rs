//! Quantiles of what was measured, all of it kept.

/// The smallest of the values that at least so many of them do not exceed (nearest rank).
///
/// `share` is of one: 0.99 for p99. Sorts the values. Nothing of nothing is 0.
pub(crate) fn quantile(values: &mut [u32], share: f64) -> u32 {
    values.sort_unstable();
    let rank = (share * values.len() as f64).ceil() as usize;
    let at = rank.clamp(1, values.len().max(1)) - 1;
    values.get(at).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_the_nearest() {
        let mut values: Vec<u32> = (1..=100).rev().collect();
        let shares = [0.0, 0.005, 0.5, 0.501, 0.99, 0.999, 1.0];
        let found = shares.map(|share| quantile(&mut values, share));
        assert_eq!(found, [1, 1, 50, 51, 99, 100, 100]);
        assert_eq!(quantile(&mut [], 0.5), 0);
        assert_eq!(quantile(&mut [7], 0.999), 7);
    }
}
