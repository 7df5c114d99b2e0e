//! `#[ignore]` only with a reason, and only for tests that the full run runs: one that is ignored
//! everywhere proves nothing and looks as if it did.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

use super::Context;
use crate::report::Outcome;

/// An ignored test.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mark {
    file: PathBuf,
    line: usize,
    is_for_the_full_run: bool,
}

/// Whether every ignored test is for the full run.
pub(super) fn check(context: &Context<'_>) -> anyhow::Result<Outcome> {
    let marks = find(context)?;
    let wrong: Vec<&Mark> = marks
        .iter()
        .filter(|mark| !mark.is_for_the_full_run)
        .collect();
    for mark in &wrong {
        let Mark { file, line, .. } = mark;
        eprintln!("  {}:{line}: ignored for another reason", file.display());
    }
    if !wrong.is_empty() {
        bail!("an ignored test says `#[ignore = \"full: WHY\"]`, and `test --full` runs it");
    }
    println!(
        "{} tests are ignored here and run by `test --full`",
        marks.len()
    );
    Ok(Outcome::Passed)
}

/// The ignored tests of the selected packages.
pub(super) fn find(context: &Context<'_>) -> anyhow::Result<Vec<Mark>> {
    let mut marks = Vec::new();
    for package in &context.selected {
        let folder = context.workspace.folder(package);
        for part in ["src", "tests"] {
            in_folder(context.workspace.root(), &folder.join(part), &mut marks)?;
        }
    }
    Ok(marks)
}

fn in_folder(root: &Path, folder: &Path, marks: &mut Vec<Mark>) -> anyhow::Result<()> {
    if !root.join(folder).is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(root.join(folder)).with_context(|| format!("in {folder:?}"))? {
        let entry = entry?;
        let path = folder.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            in_folder(root, &path, marks)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(root.join(&path))
                .with_context(|| format!("cannot read {path:?}"))?;
            marks.extend(in_text(&path, &text));
        }
    }
    Ok(())
}

fn in_text(file: &Path, text: &str) -> Vec<Mark> {
    let numbered = (1..).zip(text.lines().map(str::trim_start));
    numbered
        .filter(|(_, text)| text.starts_with("#[ignore"))
        .map(|(line, text)| Mark {
            file: file.to_owned(),
            line,
            is_for_the_full_run: text.starts_with("#[ignore = \"full: "),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ignored_test_is_for_the_full_run_only_if_it_says_so() {
        let lines = [
            "#[test]",
            "    #[ignore = \"full: needs Envoy\"]",
            "#[ignore]",
            "#[ignore = \"flaky\"]",
            "// #[ignore] in a comment",
        ];
        let marks = in_text(Path::new("a.rs"), &lines.join("\n"));
        let found: Vec<_> = marks
            .iter()
            .map(|mark| (mark.line, mark.is_for_the_full_run))
            .collect();
        assert_eq!(found, [(2, true), (3, false), (4, false)]);
    }

    #[test]
    fn every_folder_is_looked_into() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("tests/one/two");
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("a.rs"), "#[ignore]\n").unwrap();
        fs::write(deep.join("a.md"), "#[ignore]\n").unwrap();
        let mut marks = Vec::new();
        in_folder(root.path(), Path::new("tests"), &mut marks).unwrap();
        in_folder(root.path(), Path::new("src"), &mut marks).unwrap();
        assert_eq!(marks.len(), 1);
        assert_eq!(marks[0].file, Path::new("tests/one/two/a.rs"));
    }
}
