//! The program's blocks in the order in which they ran: LLVM's BOLT, after the linker.
//!
//! The compiler's profile says how often a branch is taken, in each function by itself and before it is
//! known what is inlined where. BOLT counts in the very program that it then lays out anew: what runs
//! is in two megabytes of code instead of five, and a third of the branches is not taken any more.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

use super::tool;
use crate::cargo;

/// What keeps the linker's relocations, without which functions stay where they are.
pub(super) const LINKED: &str = "-Clink-arg=-Wl,--emit-relocs";

/// The programs of BOLT.
#[derive(Debug)]
pub(super) struct Bolt {
    /// Rewrites programs.
    rewrite: PathBuf,
    /// Puts counts together.
    merge: PathBuf,
}

// === impl Bolt ===

impl Bolt {
    /// Those of this version of LLVM, if they are there.
    pub(super) fn find(version: &str) -> anyhow::Result<Self> {
        let found = |name: &str| {
            tool(name, version).with_context(|| {
                format!("{name}-{version} is missing: `apt-get install bolt-{version}`")
            })
        };
        Ok(Self {
            rewrite: found("llvm-bolt")?,
            merge: found("merge-fdata")?,
        })
    }

    /// Has the program count, in files whose names begin with `counts`, into another program.
    pub(super) fn count(&self, program: &Path, counts: &Path, into: &Path) -> anyhow::Result<()> {
        let mut command = self.command(program, into);
        command
            .args(["--instrument", "--instrumentation-file-append-pid"])
            .arg(option("--instrumentation-file", counts));
        cargo::run(&mut command)
    }

    /// Lays the program out by all that was counted, into another program.
    pub(super) fn lay_out(&self, program: &Path, counts: &Path, into: &Path) -> anyhow::Result<()> {
        let written = written(counts)?;
        if written.is_empty() {
            bail!("the proxy wrote no counts to {}.*", counts.display());
        }
        let merged = counts.with_extension("merged");
        let mut command = Command::new(&self.merge);
        command.args(written).arg("-o").arg(&merged);
        cargo::run(&mut command)?;
        let mut command = self.command(program, into);
        command.arg("--data").arg(&merged).args([
            "--reorder-blocks=ext-tsp",
            "--reorder-functions=cdsort",
            "--split-functions",
            "--split-all-cold",
            "--split-eh",
            "--icf=1",
        ]);
        cargo::run(&mut command)
    }

    /// What it says is long and of no use unless it fails: warnings and errors are left.
    fn command(&self, program: &Path, into: &Path) -> Command {
        let mut command = Command::new(&self.rewrite);
        command.arg(program).arg("-o").arg(into);
        command.args(["--update-debug-sections=0", "--v=0"]);
        command
    }
}

/// The files that processes left, one each.
fn written(counts: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let folder = counts.parent().context("counts are in a folder")?;
    let name = counts.file_name().context("counts have a name")?;
    let begins = format!("{}.", name.to_string_lossy());
    let mut found: Vec<_> = fs::read_dir(folder)
        .with_context(|| format!("cannot read {folder:?}"))?
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.starts_with(&begins) && name.ends_with(".fdata")
        })
        .map(|entry| entry.path())
        .collect();
    found.sort();
    Ok(found)
}

fn option(name: &str, path: &Path) -> String {
    format!("{name}={}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_each_process_are_found_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let counts = folder.path().join("layout");
        for name in [
            "layout.7.fdata",
            "layout.12.fdata",
            "layout.merged",
            "other.1.fdata",
        ] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let names = ["layout.12.fdata", "layout.7.fdata"];
        assert_eq!(
            written(&counts).unwrap(),
            names.map(|name| folder.path().join(name))
        );
    }

    #[test]
    fn a_proxy_that_counted_nothing_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let bolt = Bolt {
            rewrite: "/nowhere".into(),
            merge: "/nowhere".into(),
        };
        let error = bolt
            .lay_out(
                Path::new("a"),
                &folder.path().join("layout"),
                Path::new("b"),
            )
            .unwrap_err();
        assert!(error.to_string().contains("wrote no counts"), "{error}");
    }

    #[test]
    fn who_does_not_have_it_is_told_where_it_is() {
        let error = Bolt::find("0").unwrap_err().to_string();
        assert!(error.contains("apt-get install bolt-0"), "{error}");
    }
}
