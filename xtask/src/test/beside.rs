//! A step that runs beside those after it, because it waits more than it computes.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
};

use anyhow::{Context as _, bail};

use super::{Context, Step};
use crate::{cargo, report::Outcome};

/// A step that was begun in a process of its own. What it prints is kept until its end.
pub(super) struct Beside {
    child: Child,
    printed: PathBuf,
}

/// How many jobs leave a processor to what runs beside them.
pub(super) fn jobs() -> usize {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    processors.saturating_sub(1).max(1)
}

// === impl Beside ===

impl Beside {
    /// Begins a step.
    ///
    /// # Errors
    ///
    /// If there is no place for what it prints, or this program cannot be started again.
    pub(super) fn begin(context: &Context<'_>, step: &Step) -> anyhow::Result<Self> {
        let folder = context.workspace.target();
        fs::create_dir_all(folder).with_context(|| format!("cannot make {folder:?}"))?;
        let printed = folder.join(format!("xtask-{}.log", step.name));
        let file = File::create(&printed).with_context(|| format!("cannot write {printed:?}"))?;
        let mut command = Command::new(cargo::this_program()?);
        command
            .current_dir(context.workspace.root())
            .args(["test", "--step", step.name]);
        if !context.packages.package.is_empty() {
            command.args(context.packages.arguments());
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .context("cannot start xtask once more")?;
        Ok(Self { child, printed })
    }

    /// Waits for its end and prints what it printed.
    ///
    /// # Errors
    ///
    /// If the step failed, or was skipped in CI.
    pub(super) fn end(mut self) -> anyhow::Result<Outcome> {
        let status = self.child.wait()?;
        print!("{}", String::from_utf8_lossy(&fs::read(&self.printed)?));
        if !status.success() {
            bail!("it ended with {status}: see what it printed");
        }
        Ok(Outcome::Passed)
    }
}
