//! A list of steps, run one after the other, and the table of what became of each.
//!
//! A step that fails does not stop the ones after it: one run shows everything that is wrong.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use anyhow::bail;

/// What became of a step that did not fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Passed,
    /// It applies, but could not be done here. In CI that is a failure.
    Skipped(String),
    /// There is nothing here that it applies to.
    Nothing(String),
}

/// What was done so far.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    name: &'static str,
    took: Duration,
    result: Result<Outcome, String>,
}

// === impl Report ===

impl Report {
    /// Runs one step under a heading and keeps its outcome.
    pub(crate) fn step(
        &mut self,
        name: &'static str,
        what: &str,
        run: impl FnOnce() -> anyhow::Result<Outcome>,
    ) {
        println!("\n=== {name}: {what}");
        let start = Instant::now();
        let result = run().map_err(|error| format!("{error:#}"));
        let took = start.elapsed();
        let row = Row { name, took, result };
        println!("=== {name}: {} ({})", row.verdict(), seconds(took));
        self.rows.push(row);
    }

    /// Prints the table.
    ///
    /// # Errors
    ///
    /// If a step failed or, with `strict`, was skipped.
    pub(crate) fn finish(&self, strict: bool) -> anyhow::Result<()> {
        println!("\n{}", self.table());
        let bad = self.bad(strict);
        if bad.is_empty() {
            println!("all of the {} steps are good", self.rows.len());
            return Ok(());
        }
        bail!("not good: {}", bad.join(", "));
    }

    fn bad(&self, strict: bool) -> Vec<&'static str> {
        self.rows
            .iter()
            .filter(|row| match &row.result {
                Err(_) => true,
                Ok(Outcome::Skipped(_)) => strict,
                Ok(_) => false,
            })
            .map(|row| row.name)
            .collect()
    }

    fn table(&self) -> String {
        let width = self.rows.iter().map(|row| row.name.len()).max();
        let width = width.unwrap_or_default();
        let mut table = String::new();
        let mut total = Duration::ZERO;
        for row in &self.rows {
            total += row.took;
            let (name, took, verdict) = (row.name, seconds(row.took), row.verdict());
            // Writing to a String cannot fail.
            let _ = writeln!(table, "{name:width$}  {took:>8}  {verdict}");
        }
        let _ = writeln!(table, "{:width$}  {:>8}", "together", seconds(total));
        table
    }
}

// === impl Row ===

impl Row {
    fn verdict(&self) -> String {
        match &self.result {
            Ok(Outcome::Passed) => "ok".into(),
            Ok(Outcome::Skipped(why)) => format!("SKIPPED: {why}"),
            Ok(Outcome::Nothing(why)) => format!("nothing to do: {why}"),
            Err(why) => format!("FAILED: {why}"),
        }
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

/// Whether CI runs this.
pub(crate) fn in_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(results: [anyhow::Result<Outcome>; 2]) -> Report {
        let mut report = Report::default();
        for (name, result) in ["first", "second"].into_iter().zip(results) {
            report.step(name, "a step", || result);
        }
        report
    }

    #[test]
    fn a_failure_does_not_stop_the_steps_after_it() {
        let report = report([Err(anyhow::anyhow!("no compiler")), Ok(Outcome::Passed)]);
        assert_eq!(report.rows.len(), 2);
        assert_eq!(report.bad(false), ["first"]);
        assert!(report.table().contains("FAILED: no compiler"));
    }

    #[test]
    fn a_skip_is_a_failure_in_ci_only() {
        let report = report([
            Ok(Outcome::Skipped("no python3".into())),
            Ok(Outcome::Nothing("no library here".into())),
        ]);
        assert!(report.bad(false).is_empty());
        assert_eq!(report.bad(true), ["first"]);
        assert!(report.finish(false).is_ok());
        assert!(report.finish(true).is_err());
        assert!(report.table().contains("SKIPPED: no python3"));
    }
}
