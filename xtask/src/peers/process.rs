//! Processes that end with this one, on cores of their own.
//!
//! `setpriv --pdeathsig` asks the kernel to end a child when whoever started it is gone, however it
//! went: Ctrl-C, a signal or a crash leave nothing behind. It goes by the thread, so children are
//! started by the main one only.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

use super::machine;

/// How long a process has to end when it is asked to.
const GRACE: Duration = Duration::from_secs(3);

/// What is to be started.
#[derive(Clone, Debug, Default)]
pub(crate) struct Program {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(&'static str, String)>,
}

/// A process that was started; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) child: Child,
    pub(crate) log: PathBuf,
    pids: Vec<u32>,
}

// === impl Program ===

impl Program {
    pub(crate) fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            ..Self::default()
        }
    }

    pub(crate) fn arguments<T: Into<String>>(mut self, more: impl IntoIterator<Item = T>) -> Self {
        self.arguments.extend(more.into_iter().map(Into::into));
        self
    }

    pub(crate) fn environment(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    fn command(&self, cores: &[usize]) -> Command {
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "TERM", "taskset", "--cpu-list"])
            .arg(machine::list(cores))
            .arg(&self.program)
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts it on these cores, with what it says in a file `NAME.log`.
    pub(crate) fn start(
        &self,
        cores: &[usize],
        folder: &Path,
        name: &str,
    ) -> anyhow::Result<Process> {
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log).with_context(|| format!("cannot write {log:?}"))?;
        let mut command = self.command(cores);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::from(file.try_clone()?))
            .stderr(Stdio::from(file))
            .current_dir(folder)
            // Temporary files end with the folder.
            .env("TMPDIR", folder);
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {:?}", self.program))?;
        let pids = vec![child.id()];
        Ok(Process { child, log, pids })
    }

    /// Runs it to its end and says what it wrote.
    ///
    /// # Errors
    ///
    /// If it fails, or takes longer than `limit`.
    pub(crate) fn output(
        &self,
        cores: &[usize],
        folder: &Path,
        limit: Duration,
    ) -> anyhow::Result<String> {
        let mut process = self.start(cores, folder, "once")?;
        process.finish(limit)
    }
}

// === impl Process ===

impl Process {
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The process and those that it started.
    pub(crate) fn pids(&self) -> &[u32] {
        &self.pids
    }

    /// Looks for what it has started by now.
    pub(crate) fn look(&mut self) {
        self.pids = machine::tree(self.id());
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_some())
    }

    /// What it said so far, at most the last 2,000 characters.
    pub(crate) fn said(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let skip = text.chars().count().saturating_sub(2_000);
        text.chars().skip(skip).collect()
    }

    /// Waits for it to end by itself, and says all that it wrote.
    ///
    /// # Errors
    ///
    /// If it fails, or takes longer than `limit`.
    pub(crate) fn finish(&mut self, limit: Duration) -> anyhow::Result<String> {
        let start = Instant::now();
        while start.elapsed() < limit {
            if let Some(status) = self.child.try_wait()? {
                if !status.success() {
                    bail!("ended with {status}: {}", self.said());
                }
                return fs::read_to_string(&self.log).context("what it said");
            }
            machine::pause(Duration::from_millis(10));
        }
        bail!("has not ended after {limit:?}: {}", self.said())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.has_ended() {
            return;
        }
        // std sends no other signal than KILL, which would leave nginx's worker behind.
        let id = self.id().to_string();
        drop(Command::new("kill").args(["-TERM", &id]).status());
        let start = Instant::now();
        while start.elapsed() < GRACE {
            if self.has_ended() {
                return;
            }
            machine::pause(Duration::from_millis(10));
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_told_where_to_run_and_to_end_with_us() {
        let program = Program::new("/x/y").arguments(["-c", "z"]);
        let command = program.command(&[1, 2]);
        let line: Vec<_> = command.get_args().map(|it| it.to_string_lossy()).collect();
        assert_eq!(
            line.join(" "),
            "--pdeathsig TERM taskset --cpu-list 1,2 /x/y -c z"
        );
    }

    #[test]
    fn a_process_ends_when_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let program = Program::new("sleep").arguments(["100"]);
        let Ok(process) = program.start(&[0], folder.path(), "sleep") else {
            // No setpriv, or no taskset.
            return;
        };
        let id = process.id();
        drop(process);
        assert!(!Path::new(&format!("/proc/{id}")).exists());
    }

    #[test]
    fn what_fails_says_what_it_wrote() {
        let folder = tempfile::tempdir().unwrap();
        let program = Program::new("sh").arguments(["-c", "echo why; exit 3"]);
        let Err(error) = program.output(&[0], folder.path(), GRACE) else {
            panic!("an exit code of 3 is a failure");
        };
        let error = format!("{error:#}");
        assert!(
            error.contains("why") || error.contains("cannot start"),
            "{error}"
        );
    }
}
