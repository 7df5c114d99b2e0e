//! What we would send to a node equals what a real istiod sent, for the same YAML.
//!
//! Each folder of `istiod/cases` has Istio objects and what istiod 1.30.3 made of them for one
//! sidecar and one ingress gateway. They are compared resource by resource and field by field;
//! what may differ stands in `istiod/expected.rs` with its reason, and an entry that excuses
//! nothing fails.

#[path = "istiod/difference.rs"]
mod difference;
#[path = "istiod/excuse.rs"]
mod excuse;
#[path = "istiod/expected.rs"]
mod expected;
#[path = "istiod/normal.rs"]
mod normal;
#[path = "istiod/plane.rs"]
mod plane;
#[path = "istiod/recorded.rs"]
mod recorded;

use std::collections::BTreeSet;

use difference::differences;
use excuse::{Place, Tally, Verdict};
use expected::{EXCUSES, REFUSED};

#[test]
fn what_is_sent_equals_what_istiod_sent() {
    let mut excuses = Tally::default();
    let (mut equal, mut not_yet, mut deliberate) = (0, 0, 0);
    let mut surprises = Vec::new();
    let cases = recorded::cases();
    assert_eq!(cases.len(), 45, "a case is missing");
    for case in &cases {
        for node in case.nodes() {
            let theirs = case.resources(node);
            let ours = plane::resources(case, node);
            let keys: BTreeSet<_> = theirs.keys().chain(ours.keys()).collect();
            for (kind, name) in keys {
                let key = (*kind, name.clone());
                let found = differences(ours.get(&key), theirs.get(&key));
                let mut worst = None;
                for one in found {
                    let place = Place {
                        case: &case.number,
                        node,
                        kind: *kind,
                        name,
                        field: &one.path,
                    };
                    match excuses.find(&place) {
                        Some(verdict) => worst = worst.max(Some(verdict)),
                        None => surprises.push(format!("{place}: {one}")),
                    }
                }
                match worst {
                    None => equal += 1,
                    Some(Verdict::Deliberate) => deliberate += 1,
                    Some(Verdict::NotYet(issue)) => {
                        println!(
                            "issue {issue}: case {}, {node}, {kind:?} {name}",
                            case.number
                        );
                        not_yet += 1;
                    }
                }
            }
        }
    }
    println!("{equal} resources equal, {not_yet} not yet, {deliberate} deliberate");
    assert!(
        surprises.is_empty(),
        "{} differences that nobody expected:\n{}",
        surprises.len(),
        surprises.join("\n"),
    );
    let idle = excuses.idle();
    assert!(
        idle.is_empty(),
        "these excuse nothing any more; take them out:\n{}",
        idle.join("\n"),
    );
}

#[test]
fn no_other_object_is_refused() {
    let mut refused = BTreeSet::new();
    for case in recorded::cases() {
        for object in plane::refused(&case) {
            refused.insert((case.number.clone(), object));
        }
    }
    let expected: BTreeSet<_> = REFUSED
        .iter()
        .map(|(case, object, _)| ((*case).to_owned(), (*object).to_owned()))
        .collect();
    assert_eq!(refused, expected);
}

#[test]
fn the_document_names_every_difference() {
    let document = include_str!("../../../docs/compatibility-istiod.md");
    for excuse in EXCUSES {
        let issue = match excuse.verdict {
            Verdict::NotYet(issue) => format!("| {issue} |"),
            Verdict::Deliberate => String::new(),
        };
        let mut lines = document.lines();
        let named = lines.any(|line| line.starts_with(&issue) && line.contains(excuse.why));
        assert!(named, "{:?} is missing", excuse.why);
    }
}
