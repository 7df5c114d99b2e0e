//! Changes that can be made to a file, and those that are drawn.

use std::path::Path;

use anyhow::{Context as _, ensure};
use serde::Deserialize;

use super::list::Listed;
use crate::cargo;

/// A change, as cargo-mutants lists it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Mutant {
    pub(super) name: String,
    pub(super) package: String,
    /// Relative to the root of the workspace.
    pub(super) file: String,
    pub(super) diff: String,
    span: Span,
    replacement: String,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Span {
    start: Place,
    end: Place,
}

/// From one; columns count characters, and the end is behind the last.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Place {
    line: usize,
    column: usize,
}

/// Every change to the files of these packages, in the order of their names.
///
/// # Errors
///
/// If cargo-mutants does not run, or says something that is not understood.
pub(super) fn all(root: &Path, listed: &[&Listed]) -> anyhow::Result<Vec<Mutant>> {
    let mut command = cargo::cargo(root);
    command.args(["mutants", "--no-config", "--list", "--json", "--workspace"]);
    for file in listed.iter().flat_map(|of| &of.files) {
        command.args(["--file", file]);
    }
    let text = cargo::output_of(&mut command)?;
    let mut all: Vec<Mutant> =
        serde_json::from_str(&text).context("the list of cargo-mutants has another form")?;
    all.sort_by(|one, two| one.name.cmp(&two.name));
    Ok(all)
}

/// So many of them, by the seed. A longer draw begins with the shorter one.
pub(super) fn draw(all: &[Mutant], seed: u64, number: usize) -> Vec<Mutant> {
    let mut left: Vec<usize> = (0..all.len()).collect();
    let mut state = seed;
    let mut drawn = Vec::new();
    while drawn.len() < number && !left.is_empty() {
        // The remainder favours the first ones by less than one in 2^50.
        let at = word(&mut state) % left.len() as u64;
        let at = usize::try_from(at).unwrap_or_default();
        drawn.push(all[left.swap_remove(at)].clone());
    }
    drawn
}

/// SplitMix64.
fn word(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut word = *state;
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

// === impl Mutant ===

impl Mutant {
    /// The file with the change.
    ///
    /// # Errors
    ///
    /// If the file is not the one that the change is for.
    pub(super) fn apply(&self, text: &str) -> anyhow::Result<String> {
        let at = |place: Place| offset(text, place).context("outside of the file");
        let (start, end) = (at(self.span.start)?, at(self.span.end)?);
        ensure!(start <= end, "ends before it begins");
        let mut changed = text[..start].to_owned();
        changed.push_str(&self.replacement);
        // What is deleted may have kept words apart.
        changed.push(' ');
        changed.push_str(&text[end..]);
        Ok(changed)
    }
}

fn offset(text: &str, place: Place) -> Option<usize> {
    let before: usize = text
        .split_inclusive('\n')
        .take(place.line.checked_sub(1)?)
        .map(str::len)
        .sum();
    let line = text.get(before..)?;
    let skipped = line.chars().take(place.column.checked_sub(1)?);
    Some(before + skipped.map(char::len_utf8).sum::<usize>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mutant(name: &str, from: (usize, usize), to: (usize, usize)) -> Mutant {
        let place = |(line, column)| Place { line, column };
        Mutant {
            name: name.to_owned(),
            package: "p".to_owned(),
            file: "f".to_owned(),
            diff: String::new(),
            span: Span {
                start: place(from),
                end: place(to),
            },
            replacement: "!=".to_owned(),
        }
    }

    #[test]
    fn what_lies_between_the_two_places_is_replaced() {
        let text = "fn a() {\n    // ü\n    /* ü */ b == c\n}\n";
        let changed = mutant("m", (3, 15), (3, 17)).apply(text).unwrap();
        assert_eq!(changed, text.replace("==", "!= "));
        assert!(mutant("m", (3, 15), (3, 14)).apply(text).is_err());
    }

    #[test]
    fn a_seed_draws_the_same_and_none_twice() {
        let names: Vec<String> = (0..50).map(|at| format!("{at:02}")).collect();
        let all = names.iter().map(|name| mutant(name, (1, 1), (1, 1)));
        let all: Vec<_> = all.collect();
        let drawn = |seed, number| {
            let drawn = draw(&all, seed, number).into_iter();
            drawn.map(|one| one.name).collect::<Vec<_>>()
        };
        assert_eq!(drawn(7, 20), drawn(7, 20));
        assert_eq!(drawn(7, 20)[..10], drawn(7, 10)[..]);
        assert_ne!(drawn(7, 20), drawn(8, 20));
        let mut whole = drawn(7, 99);
        whole.sort();
        assert_eq!(whole, names);
    }
}
