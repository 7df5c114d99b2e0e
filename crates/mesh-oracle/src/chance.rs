//! Where chance decides which endpoint a request goes to, or when, it is not compared request by
//! request.
//!
//! A request says so in `x-judge`, which no subject cares for:
//!
//! | value | what is compared |
//! |---|---|
//! | `any` | nothing of the endpoint |
//! | `share NAME` | how often each endpoint was chosen over all requests with this name: both samples have to be of one distribution |
//! | `turn NAME P` | the order of endpoints, which has a period of P; where it begins may differ |
//! | `weights NAME` | how often each endpoint was chosen, to within two |
//! | `pauses W1 W2…` | how long each retry waited for, in quarters of its window (`FROM-TO` in milliseconds): both samples have to be of one distribution |

use crate::difference::Difference;
use crate::facts::Facts;
use crate::request::Call;
use crate::wire::Message;
use std::collections::BTreeMap;
use tokio::time::Instant;

/// The quantile of the normal distribution beyond which one case of a million is.
const ONE_IN_A_MILLION: f64 = 4.7534;
/// By how much counts in turns may differ: both may have begun anywhere.
const UNEVEN: usize = 2;

/// Requests that are judged together.
struct Group<'a> {
    how: &'a str,
    drawn: [Vec<&'a str>; 2],
}

/// Takes what chance decided out of the facts of a request.
pub(crate) fn note(call: &Call, facts: &mut Facts) {
    if call
        .header("x-judge")
        .is_none_or(|it| windows(it).is_some())
    {
        return;
    }
    let mut drawn = facts.get("log host").to_owned();
    if matches!(&*drawn, "-" | "(none)") {
        drawn = format!("{} {}", facts.get("status"), facts.get("log flags"));
    } else {
        let reached = facts.get("upstream 0 header (reached)").to_owned();
        drawn = format!("{drawn} {reached}");
    }
    let of_endpoint = |fact: &str| fact == "log host" || fact.ends_with(" header (reached)");
    facts.facts.retain(|fact, _| !of_endpoint(fact));
    facts.drawn = Some(drawn);
}

/// By how much a pause may seem longer than it is, on a machine that others share.
const SLACK: f64 = 100.0;

/// The quarters of their windows that the pauses between a request's attempts ended in, each as
/// `pause:QUARTER`.
pub(crate) fn pauses(call: &Call, seen: &[(&'static str, Message)]) -> Option<String> {
    let windows = windows(call.header("x-judge")?)?;
    let times: Vec<Instant> = seen.iter().filter_map(|(_, it)| it.at).collect();
    let pauses = times
        .windows(2)
        .map(|two| (two[1] - two[0]).as_secs_f64() * 1e3);
    let quarters = pauses.zip(windows).map(|(pause, window)| {
        let (from, to) = window.split_once('-').unwrap_or(("0", window));
        let [from, to] = [from, to].map(|it| it.parse().unwrap_or(0.0));
        format!("pause:{}", quarter(pause, from, to))
    });
    Some(quarters.collect::<Vec<_>>().join(" "))
}

/// The pauses of one request, by what part of their windows they ended in.
pub(crate) fn each_pause(facts: &Facts) -> impl Iterator<Item = &str> {
    let drawn = facts.drawn.as_deref().unwrap_or_default();
    drawn.split(' ').filter_map(|it| it.strip_prefix("pause:"))
}

fn quarter(pause: f64, from: f64, to: f64) -> &'static str {
    match (pause - from) / (to - from) {
        part if part < 0.0 => "before",
        _ if pause > to + SLACK => "after",
        part if part < 0.25 => "1st",
        part if part < 0.5 => "2nd",
        part if part < 0.75 => "3rd",
        _ => "4th",
    }
}

fn windows(judge: &str) -> Option<impl Iterator<Item = &str>> {
    Some(judge.strip_prefix("pauses ")?.split(' '))
}

/// Whether two subjects did so different things with a request, by chance, that nothing else of it
/// can be compared.
pub(crate) fn parts(one: &Facts, other: &Facts) -> bool {
    let chance = one.drawn.is_some() && other.drawn.is_some();
    chance && answer(one) != answer(other)
}

/// What chance decided on; of endpoints it does not matter which.
fn answer(facts: &Facts) -> &str {
    match facts.drawn.as_deref() {
        Some(drawn) if drawn.contains(':') => "an endpoint",
        drawn => drawn.unwrap_or_default(),
    }
}

/// Whether chance decided between answers, so that no counter can be compared.
pub(crate) fn decides_answers(all: &[Facts]) -> bool {
    let mut drawn = all.iter().filter(|it| it.drawn.is_some());
    let first = drawn.next().map(answer);
    drawn.any(|it| Some(answer(it)) != first)
}

/// Whether a count of what balancing did differs by chance only.
pub(crate) fn explains(fact: &str, envoy: &str, ours: &str, all: &[Facts]) -> bool {
    let drawn = all.iter().filter(|it| it.drawn.is_some()).count();
    if drawn == 0 || !fact.starts_with("counter ") || !fact.contains(".lb_") {
        return false;
    }
    let [envoy, ours] = [envoy, ours].map(|it| it.parse().unwrap_or(0_usize));
    // What is not left to chance is the same at both.
    let least = envoy.min(ours).min(all.len() - drawn);
    let counts = [envoy, ours].map(|it| it - least);
    let others = counts.map(|it| drawn.saturating_sub(it));
    of_one_distribution([counts, others].into_iter())
}

/// Compares what chance decided.
pub(crate) fn compare(
    peer: &'static str,
    calls: &[Call],
    envoy: &[Facts],
    ours: &[Facts],
) -> Vec<Difference> {
    let mut groups = BTreeMap::<&str, Group<'_>>::new();
    for ((call, envoy), ours) in calls.iter().zip(envoy).zip(ours) {
        let (Some(judge), Some(envoy), Some(ours)) =
            (call.header("x-judge"), &envoy.drawn, &ours.drawn)
        else {
            continue;
        };
        let mut words = judge.split(' ');
        let (Some(how), Some(name)) = (words.next(), words.next()) else {
            continue;
        };
        let group = groups.entry(name).or_insert_with(|| Group {
            how: words.next().map_or(how, |_| judge),
            drawn: [Vec::new(), Vec::new()],
        });
        for (side, drawn) in [envoy, ours].into_iter().enumerate() {
            match windows(judge) {
                Some(_) => group.drawn[side].extend(drawn.split(' ')),
                None => group.drawn[side].push(drawn),
            }
        }
    }
    let unlike = groups.into_iter().filter_map(|(name, group)| {
        let [envoy, ours] = group.unlike()?;
        Some(Difference {
            peer,
            call: None,
            fact: format!("endpoints {name}"),
            envoy,
            ours,
        })
    });
    unlike.collect()
}

// === impl Group ===

impl Group<'_> {
    /// Both sides, where they are not alike.
    fn unlike(&self) -> Option<[String; 2]> {
        let [envoy, ours] = &self.drawn;
        let period = self.how.strip_prefix("turn ");
        let period = period.and_then(|rest| rest.split(' ').next_back()?.parse().ok());
        let alike = match (self.how, period) {
            (_, Some(period)) => in_turn(envoy, ours, period),
            ("weights", _) => {
                let mut counts = counts(envoy, ours).into_values();
                counts.all(|[a, b]| a.abs_diff(b) <= UNEVEN)
            }
            _ => of_one_distribution(counts(envoy, ours).into_values()),
        };
        if alike {
            return None;
        }
        if period.is_some() {
            return Some([envoy, ours].map(|side| side.join(", ")));
        }
        let counts = counts(envoy, ours);
        Some([0, 1].map(|side| {
            let told = counts
                .iter()
                .map(|(name, it)| format!("{name}: {}", it[side]));
            told.collect::<Vec<_>>().join(", ")
        }))
    }
}

fn counts<'a>(envoy: &[&'a str], ours: &[&'a str]) -> BTreeMap<&'a str, [usize; 2]> {
    let mut counts = BTreeMap::<_, [usize; 2]>::new();
    for (side, drawn) in [envoy, ours].into_iter().enumerate() {
        for name in drawn {
            counts.entry(*name).or_default()[side] += 1;
        }
    }
    counts
}

/// Whether two samples of the same size can be of one distribution: the chi-square test of
/// homogeneity.
fn of_one_distribution(counts: impl Iterator<Item = [usize; 2]>) -> bool {
    let (mut sum, mut kinds) = (0.0, 0.0_f64);
    for [a, b] in counts {
        let apart = a.abs_diff(b) as f64;
        sum += apart * apart / (a + b).max(1) as f64;
        kinds += 1.0;
    }
    let freedom = kinds - 1.0;
    // One kind of two samples of one size cannot differ.
    freedom < 1.0 || sum <= bound(freedom)
}

/// What chance exceeds once in a million times (Wilson and Hilferty).
fn bound(freedom: f64) -> f64 {
    let part = 2.0 / (9.0 * freedom);
    freedom * (1.0 - part + ONE_IN_A_MILLION * part.sqrt()).powi(3)
}

/// Whether both go the same round, wherever they begin. The first time round is Envoy's way of
/// beginning anywhere, and is left out.
fn in_turn(envoy: &[&str], ours: &[&str], period: usize) -> bool {
    let Some(end) = envoy.len().min(ours.len()).checked_sub(period) else {
        return true;
    };
    (0..period).any(|shift| (period..end).all(|at| envoy[at] == ours[at + shift]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dice::Dice;

    #[test]
    fn two_samples_of_one_distribution_pass_and_others_do_not() {
        let sample = |seed, ends: &[usize]| {
            let mut dice = Dice::of(seed, 1);
            let mut counts = vec![0; ends.len()];
            for _ in 0..2_000 {
                let draw = dice.below(100);
                counts[ends.iter().position(|end| draw < *end).unwrap()] += 1;
            }
            counts
        };
        let alike = |a: Vec<usize>, b: Vec<usize>| {
            of_one_distribution(a.into_iter().zip(b).map(|(a, b)| [a, b]))
        };
        let even = [25, 50, 75, 100];
        for seed in 0..300 {
            assert!(
                alike(sample(seed, &even), sample(seed + 1000, &even)),
                "{seed}"
            );
            let uneven = sample(seed + 1000, &[10, 50, 75, 100]);
            assert!(!alike(sample(seed, &even), uneven), "{seed}");
        }
    }

    #[test]
    fn the_bound_is_a_little_above_that_of_the_tables() {
        // 1 - 1e-6 quantiles of chi-square with 1, 5 and 20 degrees of freedom.
        for (freedom, exact) in [(1.0, 23.93), (5.0, 35.89), (20.0, 65.42)] {
            let above: f64 = bound(freedom) - exact;
            assert!((0.0..4.0).contains(&above), "{freedom}: {above}");
        }
    }

    #[test]
    fn a_pause_falls_into_a_part_of_its_window_or_beside_it() {
        let parts = [
            (999.0, "before"),
            (1000.0, "1st"),
            (1124.0, "1st"),
            (1130.0, "2nd"),
            (1300.0, "3rd"),
            (1510.0, "4th"),
            (1601.0, "after"),
        ];
        for (pause, part) in parts {
            assert_eq!(quarter(pause, 1000.0, 1500.0), part, "{pause}");
        }
    }

    #[test]
    fn a_round_may_begin_anywhere_but_keeps_its_order() {
        let rounds = |order: &str, from: usize| -> Vec<String> {
            let all = order.chars().cycle().skip(from).take(4 * order.len());
            all.map(String::from).collect()
        };
        let alike = |a: &[String], b: &[String]| {
            let [a, b] = [a, b].map(|it| it.iter().map(String::as_str).collect::<Vec<_>>());
            in_turn(&a, &b, 3)
        };
        assert!(alike(&rounds("abc", 0), &rounds("abc", 2)));
        assert!(!alike(&rounds("abc", 0), &rounds("acb", 0)));
        assert!(!alike(&rounds("abc", 0), &rounds("abb", 0)));
    }
}
