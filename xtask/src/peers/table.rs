//! Medians, ratios within a round, and how both are shown.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::Path,
};

use anyhow::{Context as _, bail};
use serde_json::json;

use super::{
    Options,
    load::Latency,
    machine,
    measure::{Flaw, Record},
    memory::{self, Memory},
    peer::{Kind, Peer},
    rows::{ONE_WORKER, ROWS, Row},
};

/// All that was found so far.
#[derive(Debug)]
pub(crate) struct Report {
    peers: Vec<(Kind, String)>,
    rounds: u32,
    seconds: u32,
    records: Vec<Record>,
    memory: Vec<Memory>,
    /// Who does not do what a row is about.
    without: BTreeSet<(&'static str, Kind)>,
    /// How often nothing could be measured.
    failed: BTreeMap<(&'static str, Kind), u32>,
}

/// A median with the least and the most.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

// === impl Report ===

impl Report {
    pub(crate) fn new(peers: &[Peer], options: &Options) -> Self {
        let peers = peers.iter().map(|peer| (peer.kind, peer.version.clone()));
        Self {
            peers: peers.collect(),
            rounds: options.rounds,
            seconds: options.seconds,
            records: Vec::new(),
            memory: Vec::new(),
            without: BTreeSet::new(),
            failed: BTreeMap::new(),
        }
    }

    pub(crate) fn add(&mut self, record: Record) {
        self.records.push(record);
    }

    pub(crate) fn remember(&mut self, memory: Memory) {
        self.memory.push(memory);
    }

    pub(crate) fn without(&mut self, row: &'static str, peer: Kind) {
        self.without.insert((row, peer));
    }

    pub(crate) fn failed(&mut self, row: &'static str, peer: Kind) {
        *self.failed.entry((row, peer)).or_default() += 1;
    }

    /// # Errors
    ///
    /// If something could not be measured, or a response was wrong.
    pub(crate) fn result(&self) -> anyhow::Result<()> {
        let failed: u32 = self.failed.values().sum();
        let wrong = self
            .records
            .iter()
            .filter(|it| it.flaws.contains(&Flaw::Wrong));
        match (failed, wrong.count()) {
            (0, 0) => Ok(()),
            (failed, wrong) => bail!(
                "{failed} figures could not be measured, and {wrong} are with wrong responses"
            ),
        }
    }

    /// Writes all of it, as JSON.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub(crate) fn write(&self, file: Option<&Path>) -> anyhow::Result<()> {
        let Some(file) = file else {
            return Ok(());
        };
        let peers: serde_json::Map<_, _> = (self.peers.iter())
            .map(|(kind, version)| (kind.name().to_owned(), json!(version)))
            .collect();
        let all = json!({
            "machine": machine::model(),
            "peers": peers,
            "rounds": self.rounds,
            "seconds": self.seconds,
            "records": self.records,
            "memory": self.memory,
        });
        let text = serde_json::to_string_pretty(&all)?;
        fs::write(file, text + "\n").with_context(|| format!("cannot write {file:?}"))
    }

    /// The tables, in Markdown.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for row in ROWS {
            if self.records.iter().any(|record| record.row == row.name) {
                self.table(row, &mut text);
            }
        }
        if !self.memory.is_empty() {
            self.memory_table(&mut text);
        }
        text
    }

    fn table(&self, row: &Row, text: &mut String) {
        let unit = if row.units == 1 {
            "requests/s"
        } else {
            "messages/s"
        };
        let each = if row.units == 1 { "request" } else { "message" };
        write!(
            text,
            "\n### {}: {}\n\n| peer | {unit} | ÷ Envoy | µs CPU a {each} | ÷ Envoy |",
            row.name, row.what
        )
        .expect("a string takes all");
        let (latency, two) = (!row.saturates(), row.workers == 2);
        if latency {
            text.push_str(" p50 µs | p99 µs | p99.9 µs |");
        }
        if two {
            text.push_str(" ÷ one worker, CPU |");
        }
        text.push_str(" backend, generator | marks |\n|---|---|---|---|---|");
        text.push_str(&"---|".repeat(3 * usize::from(latency) + usize::from(two) + 2));
        text.push('\n');
        for (kind, _) in &self.peers {
            let name = kind.name();
            let mine: Vec<&Record> = self.of(row.name, *kind).collect();
            if mine.is_empty() {
                let says = if self.without.contains(&(row.name, *kind)) {
                    "does not have it"
                } else if self.failed.contains_key(&(row.name, *kind)) {
                    "failed"
                } else {
                    continue;
                };
                writeln!(text, "| {name} | {says} |").expect("a string takes all");
                continue;
            }
            let spread = |of: &dyn Fn(&Record) -> f64| Spread::of(mine.iter().map(|it| of(it)));
            let envoy = (row.name, Some(Kind::Envoy));
            let mut cells = vec![
                name.to_owned(),
                shown(spread(&|it| it.rate), 0),
                shown(self.ratio(&mine, envoy, |it| it.rate), 2),
                shown(spread(&|it| it.cpu), 1),
                shown(self.ratio(&mine, envoy, |it| it.cpu), 2),
            ];
            if latency {
                for of in [Latency::p50, Latency::p99, Latency::p999] {
                    let values = mine.iter().filter_map(|it| it.latency.as_ref().map(of));
                    cells.push(shown(Spread::of(values), 0));
                }
            }
            if two {
                cells.push(shown(self.ratio(&mine, (ONE_WORKER, None), |it| it.cpu), 2));
            }
            let median = |of: &dyn Fn(&Record) -> f64| spread(of).map_or(0.0, |it| it.median);
            let backend = median(&|it| it.busy.backend);
            let generator = median(&|it| it.busy.generator);
            cells.push(format!("{backend:.2}, {generator:.2}"));
            let failed = self.failed.get(&(row.name, *kind));
            cells.push(marks(&mine, failed.copied().unwrap_or_default()));
            writeln!(text, "| {} |", cells.join(" | ")).expect("a string takes all");
        }
    }

    fn of(&self, row: &str, kind: Kind) -> impl Iterator<Item = &Record> {
        let all = self.records.iter();
        all.filter(move |it| it.row == row && it.peer == kind)
    }

    /// How the records compare with those of the same round: in another row, or by another peer.
    fn ratio(
        &self,
        mine: &[&Record],
        (row, peer): (&str, Option<Kind>),
        measure: impl Fn(&Record) -> f64,
    ) -> Option<Spread> {
        Spread::of(mine.iter().filter_map(|it| {
            let mut others = self.of(row, peer.unwrap_or(it.peer));
            let other = measure(others.find(|other| other.round == it.round)?);
            (other > 0.0).then(|| measure(it) / other)
        }))
    }

    fn memory_table(&self, text: &mut String) {
        let kinds: Vec<&str> = self.peers.iter().map(|(kind, _)| kind.name()).collect();
        let columns = "---|".repeat(kinds.len() + 1);
        write!(
            text,
            "\n### memory: resident\n\n| | {} |\n|{columns}\n",
            kinds.join(" | ")
        )
        .expect("a string takes all");
        for (name, says) in memory::rows() {
            if self.memory.iter().all(|it| it.what != name) {
                continue;
            }
            let divisor = if says.ends_with("MB") { 1024.0 } else { 1.0 };
            let cells: Vec<_> = (kinds.iter())
                .map(|kind| {
                    let mine = self
                        .memory
                        .iter()
                        .filter(|it| it.what == name && it.peer == *kind);
                    shown(Spread::of(mine.map(|it| it.kilobytes / divisor)), 1)
                })
                .collect();
            writeln!(text, "| {says} | {} |", cells.join(" | ")).expect("a string takes all");
        }
    }
}

/// What was wrong with how many of the rounds.
fn marks(records: &[&Record], failed: u32) -> String {
    let all = [
        Flaw::Wrong,
        Flaw::Backend,
        Flaw::Generator,
        Flaw::Idle,
        Flaw::Disturbed,
    ];
    let counted = all.map(|flaw| {
        let number = records.iter().filter(|it| it.flaws.contains(&flaw)).count();
        (flaw, number)
    });
    let mut said: Vec<_> = (counted.iter().filter(|(_, number)| *number > 0))
        .map(|(flaw, number)| format!("{flaw} {number} of {}", records.len()))
        .collect();
    if failed > 0 {
        said.push(format!("failed {failed} times"));
    }
    said.join(", ")
}

fn shown(spread: Option<Spread>, digits: usize) -> String {
    let Some(spread) = spread else {
        return "–".to_owned();
    };
    let Spread {
        median,
        least,
        most,
    } = spread;
    let number = |value: f64| thousands(&format!("{value:.digits$}"));
    if number(least) == number(most) {
        return number(median);
    }
    format!("{} ({}–{})", number(median), number(least), number(most))
}

/// A number with commas between thousands.
fn thousands(number: &str) -> String {
    let (whole, rest) = number.split_at(number.find('.').unwrap_or(number.len()));
    let (sign, digits) = whole.split_at(usize::from(whole.starts_with('-')));
    let mut text = sign.to_owned();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text + rest
}

// === impl Spread ===

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len().is_multiple_of(2) {
            f64::midpoint(values[middle - 1], values[middle])
        } else {
            values[middle]
        };
        Some(Self {
            median,
            least,
            most,
        })
    }
}

#[cfg(test)]
mod tests;
