//! What is not the same, and which of it may be so.

use super::tools::Facts;
use std::fmt;

/// One fact that is not the same.
#[derive(Debug)]
pub struct Difference {
    /// The server, or `upstream`.
    pub server: &'static str,
    pub label: String,
    pub fact: String,
    pub envoy: String,
    pub ours: String,
}

/// Why a difference is no failure of the test, and which ones that holds for.
struct Excuse {
    reason: &'static str,
    holds: fn(&Difference) -> bool,
}

/// Differences that stay.
const ALLOWED: &[Excuse] = &[];

// === impl Difference ===

impl Difference {
    pub fn between(server: &'static str, label: &str, envoy: &Facts, ours: &Facts) -> Vec<Self> {
        let mut names: Vec<&String> = envoy.keys().chain(ours.keys()).collect();
        names.sort();
        names.dedup();
        let value = |facts: &Facts, name: &String| {
            let value = facts.get(name).map_or("(none)", String::as_str);
            value.to_owned()
        };
        let pairs = names.into_iter().map(|name| Self {
            server,
            label: label.to_owned(),
            fact: name.clone(),
            envoy: value(envoy, name),
            ours: value(ours, name),
        });
        pairs.filter(|it| it.envoy != it.ours).collect()
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            server,
            label,
            fact,
            envoy,
            ours,
        } = self;
        writeln!(f, "--- {server}: {label}: {fact}")?;
        writeln!(f, "  envoy: {envoy}")?;
        write!(f, "  ours:  {ours}")
    }
}

/// The differences without an excuse. An excuse that explains nothing is a failure, too.
pub fn judge(differences: &[Difference]) -> Vec<&Difference> {
    let mut idle = Vec::new();
    for excuse in ALLOWED {
        let explained = differences.iter().filter(|it| (excuse.holds)(it)).count();
        println!("allowed: {explained} × {}", excuse.reason);
        if explained == 0 {
            idle.push(excuse.reason);
        }
    }
    assert!(
        idle.is_empty(),
        "no difference is left of these, so they have to go: {idle:#?}"
    );
    let open = |it: &&Difference| !ALLOWED.iter().any(|excuse| (excuse.holds)(it));
    differences.iter().filter(open).collect()
}
