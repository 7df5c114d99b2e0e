//! The list of files that mutants are drawn from.

use std::{fs, path::Path};

use anyhow::{Context as _, bail, ensure};

/// Where it is, relative to the root.
const LIST: &str = "xtask/mutants.txt";

/// A package on the list.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) package: String,
    /// Packages whose tests are run against what its own do not notice.
    pub(super) dependents: Vec<String>,
    /// Relative to the root of the workspace.
    pub(super) files: Vec<String>,
}

/// Reads it.
///
/// # Errors
///
/// If a line is none, or names a file that does not exist.
pub(super) fn read(root: &Path) -> anyhow::Result<Vec<Listed>> {
    let text =
        fs::read_to_string(root.join(LIST)).with_context(|| format!("cannot read {LIST}"))?;
    let listed = parse(&text)?;
    for file in listed.iter().flat_map(|of| &of.files) {
        ensure!(root.join(file).is_file(), "{LIST}: there is no {file}");
    }
    Ok(listed)
}

fn parse(text: &str) -> anyhow::Result<Vec<Listed>> {
    let mut listed: Vec<Listed> = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        if let Some((package, rest)) = line.strip_prefix('[').and_then(|of| of.split_once(']')) {
            listed.push(Listed {
                package: package.to_owned(),
                dependents: rest.split_whitespace().map(str::to_owned).collect(),
                files: Vec::new(),
            });
            continue;
        }
        let Some(of) = listed.last_mut() else {
            bail!("{LIST}:{}: a file comes before any package", at + 1);
        };
        of.files.push(format!("crates/{}/{line}", of.package));
    }
    Ok(listed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_belong_to_the_package_before_them() {
        let text = "# words\n[a] b c\nsrc/x.rs # why\n\nsrc/y.rs\n[d]\n";
        let listed = parse(text).unwrap();
        assert_eq!(listed.len(), 2);
        assert_eq!(listed[0].package, "a");
        assert_eq!(listed[0].dependents, ["b", "c"]);
        assert_eq!(listed[0].files, ["crates/a/src/x.rs", "crates/a/src/y.rs"]);
        assert!(listed[1].dependents.is_empty() && listed[1].files.is_empty());
        let error = parse("\nsrc/x.rs").unwrap_err().to_string();
        assert!(error.contains("mutants.txt:2"), "{error}");
    }
}
