//! What is known of a soak at its end, and whether it is as it has to be.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

/// What may grow, in memory, between the warm and the last part: a twentieth, and so many kilobytes
/// for what an allocator keeps.
const GROWTH: u64 = 1_024;
/// Connections to the backend that stay, beyond those of the first sample: one for each endpoint and
/// protocol that is used.
const SPARE: u64 = 64;

/// What is seen of the proxy at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Sample {
    pub(super) second: u64,
    pub(super) kilobytes: u64,
    pub(super) descriptors: u64,
    pub(super) threads: u64,
    pub(super) tasks: u64,
    pub(super) callers: u64,
    pub(super) upstream: u64,
    pub(super) requests: u64,
}

/// What `peers-load churn` says at its end.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Load {
    pub(super) requests: u64,
    pub(super) statuses: BTreeMap<u16, u64>,
    pub(super) left: u64,
    pub(super) connections: u64,
    pub(super) broken: u64,
    #[serde(default)]
    pub(super) error: Option<String>,
    pub(super) rate: f64,
}

/// All that is known at the end.
#[derive(Debug, Serialize)]
pub(super) struct Record {
    pub(super) load: Load,
    pub(super) samples: Vec<Sample>,
    /// Before anybody called, and after all were gone.
    pub(super) before: Sample,
    pub(super) after: Sample,
    pub(super) changes: u64,
    /// The longest that a change took until it was in force, in milliseconds.
    pub(super) slowest: u64,
    /// Requests that the backend did not answer.
    pub(super) unanswered: u64,
    /// How requests ended that did not end well: status and flags, by the proxy's own metrics.
    pub(super) failures: BTreeMap<String, u64>,
}

// === impl Sample ===

impl Sample {
    /// What of this lasts though nobody calls.
    pub(super) fn lasting(&self, before: &Self) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut compare = |what: &str, now: u64, most: u64| {
            if now > most {
                wrong.push(format!("{now} {what} are left, and at most {most} may be"));
            }
        };
        compare("connections of callers", self.callers, 0);
        compare("requests", self.requests, 0);
        compare(
            "connections to the backend",
            self.upstream,
            before.upstream + SPARE,
        );
        let more = self.upstream.saturating_sub(before.upstream);
        compare("descriptors", self.descriptors, before.descriptors + more);
        compare("threads", self.threads, before.threads);
        // A connection to the backend is a task or two.
        compare("tasks", self.tasks, before.tasks + 2 * more);
        wrong
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>5} s {:>7} KB, {:>4} descriptors, {:>3} threads, {:>4} tasks, {:>3} callers, {:>3} connections \
             to the backend",
            self.second,
            self.kilobytes,
            self.descriptors,
            self.threads,
            self.tasks,
            self.callers,
            self.upstream
        )
    }
}

// === impl Record ===

impl Record {
    /// What is not as it has to be.
    pub(super) fn wrong(&self) -> Vec<String> {
        let mut wrong = self.after.lasting(&self.before);
        let [warm, last] = self.memory();
        let most = warm + warm / 20 + GROWTH;
        if last > most {
            wrong.push(format!("{last} KB in memory at the end, {warm} when warm"));
        }
        let failed: u64 = self.failures.values().sum();
        let of = |how: &str| self.failures.get(how).copied().unwrap_or_default();
        let by_backend = of("503 UC") + of("503 UR");
        let by_callers: u64 = (self.failures.iter())
            .filter(|(how, _)| {
                // Beside what the backend did, where both happened at once.
                let flags = how.rsplit([' ', ',']);
                flags.into_iter().any(|flag| matches!(flag, "DC" | "DR"))
            })
            .map(|(_, number)| number)
            .sum();
        if by_backend > self.unanswered {
            wrong.push(format!(
                "{by_backend} requests were broken by the backend, which broke {}",
                self.unanswered
            ));
        }
        if by_callers > self.load.left {
            wrong.push(format!(
                "{by_callers} requests were left by callers, who left {}",
                self.load.left
            ));
        }
        if failed > by_backend + by_callers {
            wrong.push(format!(
                "failures that no fault explains: {:?}",
                self.failures
            ));
        }
        let known = |status: &u16| matches!(status, 200 | 503);
        let statuses = &self.load.statuses;
        if statuses.keys().any(|it| !known(it)) || self.load.broken > 0 {
            let error = self.load.error.as_deref().unwrap_or("nothing");
            wrong.push(format!(
                "callers saw {statuses:?} and {} broken: {error}",
                self.load.broken
            ));
        }
        if statuses.get(&503).copied().unwrap_or_default() > by_backend {
            wrong.push("callers saw more 503 than the backend broke".to_owned());
        }
        wrong
    }

    /// The most in memory between the first and the third fifth, and in the last one, in kilobytes.
    fn memory(&self) -> [u64; 2] {
        let number = self.samples.len();
        let most = |from: usize, to: usize| {
            let of = self.samples[from * number / 5..to * number / 5].iter();
            of.map(|it| it.kilobytes).max().unwrap_or_default()
        };
        [most(1, 3), most(4, 5)]
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [warm, last] = self.memory();
        let load = &self.load;
        writeln!(
            f,
            "{} requests ({:.0} a second) on {} connections: {:?}, {} left, {} broken",
            load.requests, load.rate, load.connections, load.statuses, load.left, load.broken
        )?;
        writeln!(
            f,
            "{} changes of configuration, in force after {} ms at most",
            self.changes, self.slowest
        )?;
        writeln!(
            f,
            "{} requests that the backend did not answer; failures: {:?}",
            self.unanswered, self.failures
        )?;
        writeln!(f, "{warm} KB in memory when warm, {last} KB at the end")?;
        writeln!(f, "before: {}", self.before)?;
        write!(f, "after:  {}", self.after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(kilobytes: u64) -> Sample {
        Sample {
            kilobytes,
            ..Sample::default()
        }
    }

    fn record(memory: &[u64]) -> Record {
        Record {
            load: Load {
                requests: 10,
                statuses: BTreeMap::from([(200, 8), (503, 2)]),
                left: 2,
                connections: 1,
                broken: 0,
                error: None,
                rate: 1.0,
            },
            samples: memory.iter().map(|it| sample(*it)).collect(),
            before: Sample::default(),
            after: Sample::default(),
            changes: 1,
            slowest: 1,
            unanswered: 2,
            failures: BTreeMap::from([
                ("503 UC".into(), 1),
                ("503 UR".into(), 1),
                ("0 DC".into(), 1),
                ("503 UR,DR".into(), 1),
            ]),
        }
    }

    const CALM: [u64; 10] = [9, 20, 20, 20, 20, 20, 20, 20, 20, 20];

    #[test]
    fn what_faults_explain_is_good() {
        assert_eq!(record(&CALM).wrong(), Vec::<String>::new());
    }

    #[test]
    fn each_thing_that_is_not_as_it_has_to_be_is_told() {
        let mut grown = CALM;
        grown[9] = 20 + 1 + GROWTH + 1;
        assert!(record(&grown).wrong()[0].contains("in memory"));
        let mut of = record(&CALM);
        of.failures.insert("504 UT".into(), 1);
        assert!(of.wrong()[0].contains("no fault explains"));
        let mut of = record(&CALM);
        of.failures.insert("503 UC".into(), 2);
        assert!(of.wrong()[0].contains("broken by the backend"));
        let mut of = record(&CALM);
        of.load.broken = 1;
        assert!(of.wrong()[0].contains("1 broken"));
        let mut of = record(&CALM);
        of.load.statuses.insert(503, 3);
        assert!(of.wrong()[0].contains("more 503"));
        let mut of = record(&CALM);
        of.load.left = 1;
        assert!(of.wrong()[0].contains("left by callers"));
        let mut of = record(&CALM);
        (of.after.callers, of.after.tasks) = (1, 1);
        assert_eq!(of.wrong().len(), 2);
    }
}
