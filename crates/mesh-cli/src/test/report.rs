//! What `mesh test` prints.

use super::Outcome;
use crate::explain::text::render;
use crate::style::Style;
use crate::table::printable;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// For people: a line for each test, and for each that fails why.
pub(super) fn text(outcomes: &[Outcome], style: Style) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    for one in outcomes {
        let name = printable(&one.test.name);
        if one.mismatches.is_empty() {
            let _ = writeln!(out, "{}    {name}", style.good("ok"));
            continue;
        }
        let _ = writeln!(out, "{}  {name}  ({})", style.bad("FAIL"), one.place());
        for line in one.reasons() {
            let _ = writeln!(out, "      {line}");
        }
        out.push('\n');
        for line in render(&one.explanation, style).lines() {
            let _ = writeln!(out, "      {line}");
        }
        out.push('\n');
    }
    let passed = outcomes
        .iter()
        .filter(|one| one.mismatches.is_empty())
        .count();
    let _ = writeln!(out, "{passed} of {} expectations met", outcomes.len());
    out
}

/// The Test Anything Protocol, version 13.
pub(super) fn tap(outcomes: &[Outcome]) -> String {
    let mut out = format!("TAP version 13\n1..{}\n", outcomes.len());
    for (at, one) in outcomes.iter().enumerate() {
        let verdict = match one.mismatches.is_empty() {
            true => "ok",
            false => "not ok",
        };
        // A `#` would begin a directive.
        let name = printable(&one.test.name).replace('#', "\\#");
        let _ = writeln!(out, "{verdict} {} - {name}", at + 1);
        if one.mismatches.is_empty() {
            continue;
        }
        let _ = writeln!(out, "# {}", one.place());
        for line in one.reasons() {
            let _ = writeln!(out, "# {line}");
        }
        for line in render(&one.explanation, Style::plain()).lines() {
            let _ = writeln!(out, "#   {line}");
        }
    }
    out
}

/// Everything, with the explanations of those that fail.
pub(super) fn json(outcomes: &[Outcome]) -> Value {
    let tests = outcomes.iter().map(|one| {
        let failed = !one.mismatches.is_empty();
        let mismatches = one
            .mismatches
            .iter()
            .map(|it| json!({"field": it.field, "expected": it.expected, "found": it.found}));
        json!({
            "name": one.test.name,
            "file": one.file,
            "line": one.test.line,
            "column": one.test.column,
            "passed": !failed,
            "mismatches": mismatches.collect::<Vec<_>>(),
            "explanation": failed.then_some(&one.explanation),
        })
    });
    let tests: Vec<Value> = tests.collect();
    let failed = outcomes
        .iter()
        .filter(|one| !one.mismatches.is_empty())
        .count();
    json!({"passed": outcomes.len() - failed, "failed": failed, "tests": tests})
}

// === impl Outcome ===

impl Outcome {
    fn place(&self) -> String {
        format!("{}:{}:{}", self.file, self.test.line, self.test.column)
    }

    fn reasons(&self) -> impl Iterator<Item = String> {
        self.mismatches.iter().map(|one| {
            let line = format!(
                "{}: expected {}, found {}",
                one.field, one.expected, one.found
            );
            printable(&line)
        })
    }
}
