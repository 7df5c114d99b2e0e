//! A copy of the workspace in which files are changed, and the tests that run there.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    slice,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use anyhow::{Context as _, bail};

use super::mutant::Mutant;
use crate::cargo;

/// A test that hangs because of a change is ended by nextest, which leaves no process behind.
const CONFIG: &str = "[profile.default]
slow-timeout = { period = \"60s\", terminate-after = 3 }
";

/// Without any change everything is built, and slower tests run than the one that notices.
const FIRST: Duration = Duration::from_secs(1800);

/// How long nextest may take to end its tests once it is told to.
const ENDING: Duration = Duration::from_secs(60);

/// A copy of the workspace.
#[derive(Debug)]
pub(super) struct Tree {
    place: PathBuf,
    jobs: usize,
    limit: Duration,
    /// Packages whose tests are known to pass.
    warmed: RefCell<BTreeSet<String>>,
}

/// What became of a mutant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// A test failed, or took too long.
    Caught,
    /// No test noticed.
    Survived,
    /// It does not compile.
    Unviable,
}

/// How a command ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Good,
    Bad,
    Late,
}

// === impl Tree ===

impl Tree {
    /// Copies what git knows of, and what it would take in. Files that did not change keep their
    /// times, so that nothing is built again.
    pub(super) fn copy(
        root: &Path,
        place: PathBuf,
        jobs: usize,
        limit: Duration,
    ) -> anyhow::Result<Self> {
        let this = Self {
            place,
            jobs,
            limit,
            warmed: RefCell::default(),
        };
        let mut git = Command::new("git");
        git.current_dir(root);
        git.args(["ls-files", "-z", "-c", "-o", "--exclude-standard"]);
        let files = cargo::output_of(&mut git)?;
        for file in files.split_terminator('\0') {
            let (from, to) = (root.join(file), this.root().join(file));
            // Removed, but git was not told.
            let Ok(bytes) = fs::read(&from) else {
                continue;
            };
            if fs::read(&to).is_ok_and(|before| before == bytes) {
                continue;
            }
            if let Some(directory) = to.parent() {
                fs::create_dir_all(directory)?;
            }
            fs::write(&to, bytes).with_context(|| format!("cannot write {}", to.display()))?;
        }
        fs::write(this.config(), CONFIG)?;
        Ok(this)
    }

    /// Where the copy is.
    pub(super) fn root(&self) -> PathBuf {
        self.place.join("tree")
    }

    fn config(&self) -> PathBuf {
        self.place.join("nextest.toml")
    }

    /// The tests as they are have to pass.
    ///
    /// # Errors
    ///
    /// If they do not.
    pub(super) fn warm(&self, package: &str) -> anyhow::Result<()> {
        println!("{package} without a change");
        match self.tests(package, false, FIRST)? {
            End::Good => {
                self.warmed.borrow_mut().insert(package.to_owned());
                Ok(())
            }
            _ => bail!("the tests of {package} do not pass as they are"),
        }
    }

    /// Makes the change, runs tests, and takes it back.
    ///
    /// # Errors
    ///
    /// If nothing can be run.
    pub(super) fn judge(&self, mutant: &Mutant, dependents: &[String]) -> anyhow::Result<Outcome> {
        let own = slice::from_ref(&mutant.package);
        let mut outcome = self.with(mutant, || self.noticed(own))?;
        if outcome == Outcome::Survived {
            for dependent in dependents {
                if !self.warmed.borrow().contains(dependent) {
                    self.warm(dependent)?;
                }
            }
            outcome = self.with(mutant, || self.noticed(dependents))?;
        }
        Ok(outcome)
    }

    /// Makes the change for as long as this takes.
    fn with<T>(
        &self,
        mutant: &Mutant,
        during: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let file = self.root().join(&mutant.file);
        let text = fs::read_to_string(&file)?;
        let changed = mutant.apply(&text).with_context(|| mutant.name.clone())?;
        fs::write(&file, changed)?;
        let result = during();
        fs::write(&file, text).with_context(|| format!("cannot restore {}", file.display()))?;
        result
    }

    /// What the tests of these packages say. What cannot be built is not a catch.
    fn noticed(&self, packages: &[String]) -> anyhow::Result<Outcome> {
        for package in packages {
            if self.tests(package, true, self.limit)? == End::Bad {
                return Ok(Outcome::Unviable);
            }
            if self.tests(package, false, self.limit)? != End::Good {
                return Ok(Outcome::Caught);
            }
        }
        Ok(Outcome::Survived)
    }

    /// Runs a package's tests, or only builds them. Not those that need something installed.
    fn tests(&self, package: &str, only_build: bool, limit: Duration) -> anyhow::Result<End> {
        let mut command = cargo::cargo(&self.root());
        command.args(["nextest", "run", "--all-features", "--config-file"]);
        command.arg(self.config());
        command.args(["-p", package, "--cargo-quiet", "--status-level=none"]);
        command.args(["--final-status-level=none", "--failure-output=never"]);
        command.args(["-E", "not binary(/_full$/)"]);
        command.args(["--build-jobs", &self.jobs.to_string()]);
        if only_build {
            command.arg("--no-run");
        }
        command.env("CARGO_TARGET_DIR", self.place.join("build"));
        // Thousands of states that are never come back to.
        command.env("CARGO_INCREMENTAL", "0");
        command.env("PROPTEST_FAILURE_PERSISTENCE", "off");
        command.stdout(Stdio::null()).stderr(Stdio::null());
        finish(&mut command, limit)
    }
}

/// Waits for the end of a command, and ends it when its time is up.
fn finish(command: &mut Command, limit: Duration) -> anyhow::Result<End> {
    let mut child = command.spawn().context("cannot start cargo")?;
    let id = child.id().to_string();
    let tell = |signal: &str| Command::new("kill").args([signal, &id]).status();
    let (ended, end) = mpsc::channel();
    let (status, late) = thread::scope(|scope| {
        let waiting = scope.spawn(move || {
            let status = child.wait();
            // Somebody who has given up does not listen.
            let _ = ended.send(());
            status
        });
        let mut late = false;
        // First so that it ends its tests, too, which a process that is killed cannot.
        for (signal, patience) in [("-TERM", limit), ("-KILL", ENDING)] {
            if end.recv_timeout(patience) != Err(RecvTimeoutError::Timeout) {
                break;
            }
            late = true;
            let _ = tell(signal);
        }
        (waiting.join(), late)
    });
    let Ok(status) = status else {
        bail!("waiting for cargo failed");
    };
    Ok(match (late, status?.success()) {
        (true, _) => End::Late,
        (false, true) => End::Good,
        (false, false) => End::Bad,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_ends_by_itself_or_when_its_time_is_up() {
        let of = |script: &str, limit| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            finish(&mut command, limit).unwrap()
        };
        let long = Duration::from_secs(60);
        assert!(of("exit 0", long) == End::Good);
        assert!(of("exit 1", long) == End::Bad);
        assert!(of("exec sleep 600", Duration::from_millis(10)) == End::Late);
    }
}
