//! `cargo xtask instructions`: how many instructions the hot path takes, under callgrind.
//!
//! A count says on every machine nearly the same, however busy it is. What a case took before is in
//! `benches/instructions.txt`; one that takes more than 5 % more is an error.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path, process::Command};

use anyhow::{Context as _, bail};

use crate::{cargo, workspace::Workspace};

/// How often a case runs while it is counted; the same number is in the bench.
const TIMES: u64 = 256;
/// How much more than before is an error, in percent.
const TOLERANCE: u64 = 5;
const LISTING: &str = "benches/instructions.txt";
/// Alike with the other gates of the full run, which so has built most of it already.
const PROFILE: [(&str, &str); 2] = [
    ("CARGO_PROFILE_RELEASE_LTO", "off"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
];

#[derive(Debug, Default, clap::Args)]
pub(crate) struct Options {
    /// Only the cases whose name contains this
    name: Option<String>,

    /// Write what was counted to benches/instructions.txt
    #[arg(long)]
    bless: bool,
}

/// Whether valgrind is there to be called.
pub(crate) fn is_possible() -> bool {
    Command::new("valgrind")
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success())
}

/// Counts and compares.
///
/// # Errors
///
/// If valgrind is missing, a case takes more than it did, or the listing does not fit the cases.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> anyhow::Result<()> {
    if !is_possible() {
        bail!("valgrind is missing (Debian: apt-get install valgrind)");
    }
    let program = build(workspace)?;
    let listing = workspace.root().join(LISTING);
    let text = fs::read_to_string(&listing).unwrap_or_default();
    let before = parse(&text).with_context(|| listing.display().to_string())?;
    let wanted = options.name.as_deref().unwrap_or_default();
    let names = cargo::output_of(Command::new(&program).arg("--list"))?;
    let mut now = BTreeMap::new();
    let mut wrong = Vec::new();
    println!("{:<28} {:>12} {:>12} {:>8}", "case", "before", "now", "");
    for name in names.lines().filter(|name| name.contains(wanted)) {
        let count = count(Path::new(&program), name)?;
        let then = before.get(name).copied();
        println!(
            "{name:<28} {:>12} {count:>12} {:>8}",
            then.map_or_else(|| "-".into(), |then| then.to_string()),
            then.map_or_else(String::new, |then| change(then, count))
        );
        match then {
            None => wrong.push(format!("{name} is not in {LISTING}")),
            Some(then) if count * 100 > then * (100 + TOLERANCE) => {
                wrong.push(format!("{name} takes {count} instructions, not {then}"));
            }
            Some(_) => {}
        }
        now.insert(name.to_owned(), count);
    }
    if options.bless {
        let all = before.into_iter().chain(now).collect();
        return fs::write(&listing, print(&all)).context(LISTING);
    }
    if !wrong.is_empty() {
        bail!(
            "{}; if that is meant, `cargo xtask instructions --bless` writes it down",
            wrong.join("; ")
        );
    }
    Ok(())
}

/// Builds the bench and says where it is.
fn build(workspace: &Workspace) -> anyhow::Result<String> {
    let mut command = cargo::cargo(workspace.root());
    command
        .args(["bench", "--no-run", "--all-features"])
        .args(["--workspace", "--bench=instructions"])
        .args(["--message-format=json-render-diagnostics"])
        .envs(PROFILE);
    let messages = cargo::output_of(&mut command)?;
    let mut found = messages.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let is_it = message["target"]["name"] == "instructions";
        let executable = message["executable"].as_str()?;
        is_it.then(|| executable.to_owned())
    });
    found
        .next_back()
        .context("cargo built no bench `instructions`")
}

/// Instructions of one turn of a case.
fn count(program: &Path, name: &str) -> anyhow::Result<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .args(["--collect-atstart=no", "--toggle-collect=*measured*"])
        .arg(program)
        .arg(name)
        .output()
        .context("cannot start valgrind")?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("{name} under valgrind ended with {}: {said}", output.status);
    }
    let collected = said
        .lines()
        .find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok())
        .with_context(|| format!("valgrind did not say what it counted: {said}"))?;
    match collected {
        0 => bail!("{name}: nothing was counted; is `measured` still what runs it?"),
        collected => Ok(u64::div_ceil(collected, TIMES)),
    }
}

fn parse(text: &str) -> anyhow::Result<BTreeMap<String, u64>> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, count) = line.split_once(' ').context("NAME COUNT is expected")?;
            let count = count.trim().parse();
            Ok((name.to_owned(), count.with_context(|| line.to_owned())?))
        })
        .collect()
}

fn print(counts: &BTreeMap<String, u64>) -> String {
    let mut text = String::from(
        "# Instructions of one turn of each case in benches/instructions.rs.\n\
         # Written by `cargo xtask instructions --bless`; one that grows by more than 5 % is an error.\n",
    );
    for (name, count) in counts {
        writeln!(text, "{name:<28} {count}").expect("a string takes all");
    }
    text
}

fn change(before: u64, now: u64) -> String {
    let ratio = now as f64 / before as f64 - 1.0;
    format!("{:+.1} %", ratio * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_read_as_it_was_written() {
        let counts = BTreeMap::from([("head".to_owned(), 1_234), ("a-long-name".to_owned(), 5)]);
        assert_eq!(parse(&print(&counts)).unwrap(), counts);
        assert!(parse("head").is_err());
        assert!(parse("head many").is_err());
    }

    #[test]
    fn a_change_has_a_sign() {
        assert_eq!(change(1000, 1051), "+5.1 %");
        assert_eq!(change(1000, 900), "-10.0 %");
    }
}
