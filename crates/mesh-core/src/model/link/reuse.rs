//! What of a route table goes on as it stands.

use crate::Name;
use crate::Slot;
use crate::model::RouteTable;
use std::collections::HashMap;

/// Hands over what was compiled from the previous table to the parts that are still the same.
pub(super) fn reuse(table: &RouteTable, old: &RouteTable) {
    let by_name: HashMap<&Name, usize> = old
        .virtual_hosts
        .iter()
        .enumerate()
        .map(|(at, host)| (&host.name, at))
        .collect();
    let mut all_the_same = table.virtual_hosts.len() == old.virtual_hosts.len();
    for (at, host) in table.virtual_hosts.iter().enumerate() {
        // Each host is compared once; it is what costs.
        let was = by_name.get(&host.name).copied();
        let Some(before) = was
            .map(|was| &old.virtual_hosts[was])
            .filter(|was| host == *was)
        else {
            all_the_same = false;
            continue;
        };
        all_the_same &= was == Some(at);
        host.slot.adopt(&before.slot);
        // The rules are the same, so their buckets go on as they stand.
        for (rule, old) in host.rules.iter().zip(&before.rules) {
            if let (Some(limit), Some(old)) = (&rule.rate_limit, &old.rate_limit) {
                limit.slot.adopt(&old.slot);
            }
        }
    }
    if all_the_same && settings(table) == settings(old) {
        table.slot.adopt(&old.slot);
    }
}

/// A table without its virtual hosts.
fn settings(table: &RouteTable) -> RouteTable {
    RouteTable {
        name: table.name.clone(),
        virtual_hosts: Vec::new(),
        ignore_port: table.ignore_port,
        validate_clusters: table.validate_clusters,
        request_edits: table.request_edits.clone(),
        response_edits: table.response_edits.clone(),
        most_specific_edits_win: table.most_specific_edits_win,
        on_demand: table.on_demand.clone(),
        slot: Slot::default(),
    }
}
