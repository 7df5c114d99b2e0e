//! `LocalityLoadBalancerSetting`: which localities come first.

use crate::cursor::{Cursor, read};
use crate::diagnostic::Position;

/// Which localities come first, or get how much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalitySetting {
    /// Where it starts.
    pub at: Position,
    /// Whether localities count at all.
    pub enabled: bool,
    /// Shares by locality, of callers in a locality.
    pub distribute: Vec<Distribute>,
    /// Where callers of a region go when there is nothing left in their own.
    pub failover: Vec<Failover>,
    /// Labels that endpoints have in common with the caller, the most important first.
    pub priorities: Vec<PriorityLabel>,
}

/// What callers in `from` send where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distribute {
    /// `region/zone/subzone` of callers, with `*` at its end for all.
    pub from: Pattern,
    /// Localities with the percentage they get; together 100.
    pub to: Vec<(Pattern, u32)>,
}

/// Region to region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failover {
    /// The caller's.
    pub from: String,
    /// Where it goes.
    pub to: String,
}

/// A label that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PriorityLabel {
    /// Its key.
    pub key: String,
    /// The value that endpoints need; the caller's own where it is not said.
    pub value: Option<String>,
}

/// `region/zone/subzone`, of which the end may be missing; an empty part or `*` is any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pattern {
    /// Region, zone and subzone.
    pub parts: [String; 3],
}

/// The labels that say where something runs.
pub(super) const TOPOLOGY: [&str; 3] = [
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "topology.istio.io/subzone",
];

// === impl LocalitySetting ===

impl Default for LocalitySetting {
    fn default() -> Self {
        Self {
            at: Position::default(),
            enabled: true,
            distribute: Vec::new(),
            failover: Vec::new(),
            priorities: Vec::new(),
        }
    }
}

impl LocalitySetting {
    pub(in crate::spec) fn read(cursor: &Cursor<'_>) -> Option<Self> {
        let mut fields = cursor.fields()?;
        let setting = Self {
            at: cursor.at(),
            enabled: fields.get("enabled", read::bool).unwrap_or(true),
            distribute: fields.list("distribute", Distribute::read),
            failover: fields.list("failover", Failover::read),
            priorities: fields.list("failoverPriority", PriorityLabel::read),
        };
        fields.done();
        let callers: Vec<_> = setting.distribute.iter().map(|one| &one.from).collect();
        apart(cursor, &callers);
        if !setting.distribute.is_empty() && !setting.failover.is_empty() {
            cursor.error("distribute and failover exclude one another");
        }
        let topology =
            |one: &&PriorityLabel| one.value.is_none() && TOPOLOGY.contains(&one.key.as_str());
        if !setting.failover.is_empty()
            && let Some(label) = setting.priorities.iter().find(topology)
        {
            cursor.error(format!(
                "failover and the label {:?} in failoverPriority exclude one another",
                label.key
            ));
        }
        Some(setting)
    }

    /// Whether it is about what happens when endpoints fail.
    pub(crate) fn fails_over(&self) -> bool {
        !self.failover.is_empty() || !self.priorities.is_empty()
    }
}

impl Distribute {
    fn read(cursor: &Cursor<'_>) -> Option<Self> {
        let mut fields = cursor.fields()?;
        let from = fields.need("from", Pattern::read);
        let to = fields.entries("to", |key, cursor| {
            let pattern = Pattern::of(cursor, key);
            let share = cursor.integer(1, 100)?;
            Some((pattern?, u32::try_from(share).ok()?))
        });
        fields.done();
        let places: Vec<_> = to.iter().map(|(place, _)| place).collect();
        apart(cursor, &places);
        let sum: u32 = to.iter().map(|(_, share)| share).sum();
        if sum != 100 {
            cursor.error(format!("the shares add up to {sum}, not 100"));
        }
        Some(Self { from: from?, to })
    }
}

impl Failover {
    pub(super) fn read(cursor: &Cursor<'_>) -> Option<Self> {
        let mut fields = cursor.fields()?;
        let region = |cursor: &Cursor<'_>| {
            let text = cursor.string()?;
            if text.contains(['/', '*']) {
                cursor.error(format!("{text:?} is not a region alone"));
                return None;
            }
            Some(text)
        };
        let from = fields.get("from", region).unwrap_or_default();
        let to = fields.get("to", region).unwrap_or_default();
        fields.done();
        if from == to {
            cursor.error("from and to have to be different regions");
        }
        Some(Self { from, to })
    }
}

impl PriorityLabel {
    pub(super) fn read(cursor: &Cursor<'_>) -> Option<Self> {
        let text = cursor.filled()?;
        Some(match text.split_once('=') {
            // Whoever splits at every = takes no value from more than one.
            Some((key, value)) if !value.contains('=') => Self {
                key: key.to_owned(),
                value: Some(value.to_owned()),
            },
            Some((key, _)) => Self {
                key: key.to_owned(),
                value: None,
            },
            None => Self {
                key: text,
                value: None,
            },
        })
    }
}

// === impl Pattern ===

impl Pattern {
    fn read(cursor: &Cursor<'_>) -> Option<Self> {
        Self::of(cursor, &cursor.filled()?)
    }

    fn of(cursor: &Cursor<'_>, text: &str) -> Option<Self> {
        let stars = text.matches('*').count();
        if stars > 1 || stars == 1 && !text.ends_with('*') {
            cursor.error(format!("{text:?} has a * that is not at its end"));
            return None;
        }
        let mut pattern = Self::default();
        let mut parts = text.splitn(3, '/');
        for (part, text) in pattern.parts.iter_mut().zip(&mut parts) {
            if text.is_empty() {
                cursor.error("has an empty region, zone or subzone");
                return None;
            }
            *part = text.to_owned();
        }
        Some(pattern)
    }

    /// Whether these are among what it stands for.
    pub(crate) fn takes(&self, parts: [&str; 3]) -> bool {
        self.parts
            .iter()
            .zip(parts)
            .all(|(own, part)| own.is_empty() || own == "*" || own == part)
    }

    /// Whether the other can stand behind this one in a list: there is something that only the
    /// other stands for.
    fn lets_follow(&self, other: &Self) -> bool {
        let covered = self.takes(other.parts.each_ref().map(String::as_str));
        let shorter = other.parts.iter().zip(&self.parts);
        let shorter = shorter
            .into_iter()
            .all(|(other, own)| other.is_empty() || other == own);
        !covered && !shorter
    }
}

/// Refuses places that overlap, as Istio sees it: what is left over may come last.
fn apart(cursor: &Cursor<'_>, places: &[&Pattern]) {
    for (index, place) in places.iter().enumerate() {
        if places[..index]
            .iter()
            .any(|earlier| !earlier.lets_follow(place))
        {
            let text = place.parts.join("/");
            let text = text.trim_end_matches('/');
            cursor.error(format!("locality {text:?} overlaps with another one"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        let mut pattern = Pattern::default();
        for (part, text) in pattern.parts.iter_mut().zip(text.split('/')) {
            text.clone_into(part);
        }
        pattern
    }

    #[test]
    fn a_locality_stands_for_what_is_in_it() {
        let place = ["r1", "z1", "s1"];
        for (text, takes) in [
            ("*", true),
            ("r1", true),
            ("r1/*", true),
            ("r1/z1/s1", true),
            ("r1/z1/*", true),
            ("r1/z2/*", false),
            ("r2", false),
            ("r1/z1/s2", false),
        ] {
            assert_eq!(pattern(text).takes(place), takes, "{text}");
        }
    }

    #[test]
    fn what_is_left_over_may_come_last() {
        for (one, other, follows) in [
            ("*", "r1", false),
            ("r1", "*", true),
            ("r1/*", "r1/z1", false),
            ("r1/z1", "r1/*", true),
            ("r1/z1", "r1", false),
            ("r1/z1/*", "r1/z2/*", true),
            ("r1", "r2", true),
            ("r1/z1", "r1/z1", false),
        ] {
            let follows_it = pattern(one).lets_follow(&pattern(other));
            assert_eq!(follows_it, follows, "{one} {other}");
        }
    }
}
