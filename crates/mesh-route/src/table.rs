//! Finds the virtual host and the rule for a request: the first rule that matches, as a scan in
//! order would find it, in time that hardly grows with the number of rules.
//!
//! What is compiled from a table and from each of its virtual hosts is kept in their
//! [`Slot`](mesh_core::Slot)s, so a new snapshot compiles only what changed. Compilation happens
//! on first use; [`prepare`] does it ahead, off the request path.

use crate::domain::Domains;
use crate::head::Head;
use crate::matches::{unmet, unmet_beside_path};
use crate::names::Names;
use crate::path::Paths;
use mesh_core::model::{RouteTable, Rule, Snapshot, VirtualHost};

/// Compiles everything that routing in this snapshot needs and that was not compiled for a
/// previous one. Call it before the snapshot is published.
pub fn prepare(snapshot: &Snapshot) {
    for table in snapshot.tables() {
        domains(table);
        for host in &table.virtual_hosts {
            paths(host);
        }
    }
}

/// The places of the virtual host and, in it, of the first rule that matches.
///
/// `word` is the request's random word: it decides for all rules alike whether the request belongs
/// to their [share](mesh_core::model::Condition::share). Nothing is allocated, but for heads with
/// an authority beyond 264 bytes, or with several values of one header beyond 512 bytes, and where
/// a dozen regular expressions or more begin alike.
pub fn find(table: &RouteTable, head: &Head<'_>, word: u64) -> Option<(usize, usize)> {
    let host = find_host(table, head)?;
    let rule = find_rule(&table.virtual_hosts[host], head, word)?;
    Some((host, rule))
}

/// The place of the virtual host that serves the request's authority.
pub fn find_host(table: &RouteTable, head: &Head<'_>) -> Option<usize> {
    domains(table).find(head.authority())
}

/// The place of the first rule that matches.
pub fn find_rule(host: &VirtualHost, head: &Head<'_>, word: u64) -> Option<usize> {
    let Some(mut candidates) = paths(host).candidates(head.path()) else {
        let met = |rule: &Rule| unmet(&rule.condition, head, word).is_none();
        return host.rules.iter().position(|rule| met(rule));
    };
    // Of rules that go by headers most want one that is not there.
    let mut names = None;
    let found = candidates.find(|candidate| {
        let condition = &host.rules[candidate.rule].condition;
        if !condition.headers.is_empty() {
            let names = names.get_or_insert_with(|| Names::of(head.headers()));
            if names.lack_one(&condition.headers) {
                return false;
            }
        }
        let failed = if candidate.path_matches {
            unmet_beside_path(condition, head, word)
        } else {
            unmet(condition, head, word)
        };
        failed.is_none()
    });
    found.map(|candidate| candidate.rule)
}

fn domains(table: &RouteTable) -> &Domains {
    table.slot.get_or_init(|| Domains::compile(table))
}

fn paths(host: &VirtualHost) -> &Paths {
    host.slot.get_or_init(|| Paths::compile(&host.rules))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;
    use mesh_core::model::SnapshotBuilder;

    #[test]
    fn the_first_rule_wins_although_a_later_one_is_more_specific() {
        let host = VirtualHost::new("all", ["*"])
            .rule(Rule::prefix_to("/a", "first"))
            .rule(Rule::prefix_to("/a/b", "second"));
        let table = RouteTable::new("t").host(host);
        let request = Request::get("/a/b/c").body(()).unwrap();
        assert_eq!(find(&table, &Head::of(&request), 0), Some((0, 0)));
        let request = Request::get("/c").body(()).unwrap();
        assert_eq!(find(&table, &Head::of(&request), 0), None);
    }

    #[test]
    fn an_unchanged_host_is_not_compiled_again() {
        let table = |second: &str| {
            RouteTable::new("t")
                .host(VirtualHost::new("a", ["a"]).rule(Rule::prefix_to("/", "x")))
                .host(VirtualHost::new("b", ["b"]).rule(Rule::prefix_to("/", second)))
        };
        let mut builder = SnapshotBuilder::new();
        builder.routes(table("x"));
        let (first, _) = builder.build().unwrap();
        prepare(&first);
        let mut builder = SnapshotBuilder::from(&first);
        builder.routes(table("y"));
        let (second, _) = builder.build().unwrap();
        let compiled = |snapshot: &Snapshot, host: usize| -> Option<*const Paths> {
            let host = &snapshot.tables()[0].virtual_hosts[host];
            host.slot.get::<Paths>().map(std::ptr::from_ref)
        };
        assert_eq!(compiled(&second, 0), compiled(&first, 0));
        assert!(compiled(&first, 1).is_some());
        assert_eq!(compiled(&second, 1), None);
    }
}
