//! `ZoneAwareLoadBalancerSetting`: the caller's own zone first, as far as it can take it.

use super::locality::{Failover, PriorityLabel, TOPOLOGY};
use crate::cursor::{Cursor, read};
use crate::diagnostic::Position;

/// The caller's own zone comes first as far as it can take it, and its own region before others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneAwareSetting {
    /// Where it starts.
    pub at: Position,
    /// Whether zones and regions count; if not, no zone is preferred even where a proxy would.
    pub enabled: bool,
    /// Where callers of a region go when there is nothing left in their own.
    pub failover: Vec<Failover>,
    /// Labels that endpoints have in common with the caller, the most important first. Within each
    /// rank the own region comes first.
    pub priorities: Vec<PriorityLabel>,
    /// With fewer endpoints in the own region than this no zone is preferred. Default 6.
    pub minimum: Option<u32>,
}

// === impl ZoneAwareSetting ===

impl ZoneAwareSetting {
    pub(in crate::spec) fn read(cursor: &Cursor<'_>) -> Option<Self> {
        let mut fields = cursor.fields()?;
        let label = |cursor: &Cursor<'_>| {
            let label = PriorityLabel::read(cursor)?;
            if TOPOLOGY.contains(&label.key.as_str()) {
                cursor.error(format!(
                    "{:?} is not for failoverPriority here: regions and zones count anyway",
                    label.key
                ));
                return None;
            }
            Some(label)
        };
        let setting = Self {
            at: cursor.at(),
            enabled: fields.get("enabled", read::bool).unwrap_or(true),
            failover: fields.list("failover", Failover::read),
            priorities: fields.list("failoverPriority", label),
            minimum: fields.get("minClusterSize", read::u32),
        };
        fields.done();
        Some(setting)
    }
}
