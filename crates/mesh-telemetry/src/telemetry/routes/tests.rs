use super::*;
use mesh_core::Shard;
use mesh_core::model::{RouteTable, Rule, SnapshotBuilder};

/// A snapshot after `previous` with the virtual hosts `a` and `b`, each with rules that have these
/// prefixes.
fn snapshot(previous: Option<&Arc<Snapshot>>, prefixes: &[&str]) -> Arc<Snapshot> {
    let host = |name: &str| {
        prefixes
            .iter()
            .fold(VirtualHost::new(name, [name]), |host, prefix| {
                let mut rule = Rule::prefix_to("/", "c");
                rule.stat_prefix = (*prefix).into();
                host.rule(rule)
            })
    };
    let mut builder = previous.map_or_else(SnapshotBuilder::new, SnapshotBuilder::from);
    builder.routes(RouteTable::new("t").host(host("a")).host(host("b")));
    builder.build().unwrap().0
}

fn matched(snapshot: &Arc<Snapshot>, host: usize, rule: usize) -> Matched {
    Matched::new(Pinned::new(snapshot.clone()), 0, host, rule)
}

/// Counts one request for a rule.
fn count(seen: &mut Seen, book: &RouteBook, matched: &Matched) {
    let stats = seen.stats(matched, book).expect("the rule has a prefix");
    stats.block.inc(Shard::default(), RouteStat::RqTotal);
}

/// Everything in the book that is not zero.
fn totals(book: &RouteBook) -> Vec<(String, u64)> {
    let all = book.all().into_iter();
    let total = |stats: &RouteStats| stats.block.get(RouteStat::RqTotal);
    all.map(|((host, prefix), stats)| (format!("{host}.{prefix}"), total(&stats)))
        .filter(|(_, total)| *total != 0)
        .collect()
}

#[test]
fn rules_count_by_virtual_host_and_prefix_whatever_their_place() {
    let snapshot = snapshot(None, &["x", "", "y", "x"]);
    let (book, mut seen) = (RouteBook::default(), Seen::default());
    for rule in [0, 2, 3] {
        count(&mut seen, &book, &matched(&snapshot, 0, rule));
    }
    count(&mut Seen::default(), &book, &matched(&snapshot, 1, 0));
    let expected = [("a.x", 2), ("a.y", 1), ("b.x", 1)];
    assert_eq!(totals(&book), expected.map(|(n, t)| (n.to_owned(), t)));
}

#[test]
fn counts_go_on_while_the_names_stay_and_end_with_them() {
    let book = RouteBook::default();
    let (mut one, mut two) = (Seen::default(), Seen::default());
    let first = snapshot(None, &["x", "y"]);
    count(&mut one, &book, &matched(&first, 0, 0));
    count(&mut two, &book, &matched(&first, 0, 1));

    // The rules changed places, and nobody uses the old ones any more.
    let second = snapshot(Some(&first), &["", "x"]);
    drop(first);
    assert_eq!(totals(&book).len(), 2, "no request has met the new rules");
    count(&mut one, &book, &matched(&second, 0, 1));
    assert_eq!(totals(&book), [("a.x".to_owned(), 2)]);

    // A request that is still under way counts by the rules that it met.
    let late = matched(&second, 0, 1);
    let third = snapshot(Some(&second), &["z"]);
    drop(second);
    count(&mut one, &book, &matched(&third, 1, 0));
    count(&mut one, &book, &late);
    assert_eq!(
        totals(&book),
        [("a.x".to_owned(), 3), ("b.z".to_owned(), 1)]
    );
    drop(late);
    assert_eq!(totals(&book), [("b.z".to_owned(), 1)]);
}

#[test]
fn nothing_is_kept_once_no_rule_has_a_prefix() {
    let (book, mut seen) = (RouteBook::default(), Seen::default());
    let first = snapshot(None, &["x"]);
    count(&mut seen, &book, &matched(&first, 0, 0));
    let gone = Arc::downgrade(&book.all()[&("a".into(), "x".into())]);
    let second = snapshot(Some(&first), &[""]);
    drop(first);
    seen.see(&Pinned::new(second.clone()), &book);
    assert!(book.all().is_empty() && seen.0.is_empty());
    assert_eq!(gone.strong_count(), 0);
    // And the book is not even opened for rules without one.
    seen.see(&Pinned::new(second), &book);
    assert!(lock(&book.0).is_empty());
}
