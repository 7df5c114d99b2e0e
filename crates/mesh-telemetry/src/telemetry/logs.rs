//! The compiled access logs of listeners, by their configuration.

use crate::access_log::{AccessLogWriter, Bell, Entry, Format, Wanted};
use crate::shard::lock;
use mesh_core::model::AccessLog;
use mesh_core::{Exchange, Invalid, Name, Shard};
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};

/// Every access log of the process.
#[derive(Default)]
pub(super) struct LogBook {
    bell: Arc<Bell>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// One for each file, however many listeners write to it.
    writers: Vec<(Name, AccessLogWriter)>,
    /// Writers that are kept although nobody uses them: they cannot be made again.
    given: Vec<AccessLogWriter>,
    sets: Vec<Arc<Logs>>,
    problems: Vec<Invalid>,
}

/// The access logs of one listener.
#[derive(Debug, Default)]
pub(crate) struct Logs {
    configs: Vec<AccessLog>,
    logs: Vec<(Format, AccessLogWriter)>,
    wanted: Wanted,
}

/// How many problems are remembered.
const MOST_PROBLEMS: usize = 100;

// === impl LogBook ===

impl LogBook {
    /// The compiled form of `configs`, all of which are in order.
    pub(super) fn check(&self, configs: &[AccessLog]) -> Result<Arc<Logs>, Invalid> {
        let mut known = lock(&self.known);
        if let Some(logs) = known.find(configs) {
            // Remembered although not in order: a request came before the check.
            if logs.logs.len() == configs.len() {
                return Ok(logs);
            }
        }
        let (logs, problems) = known.compile(configs, &self.bell);
        match problems.into_iter().next() {
            Some(problem) => Err(problem),
            None => Ok(known.remember(logs)),
        }
    }

    /// The compiled form of those of `configs` that are in order.
    pub(super) fn get(&self, configs: &[AccessLog]) -> Arc<Logs> {
        let mut known = lock(&self.known);
        if let Some(logs) = known.find(configs) {
            return logs;
        }
        let (logs, problems) = known.compile(configs, &self.bell);
        known.problems.extend(problems);
        known.problems.truncate(MOST_PROBLEMS);
        known.remember(logs)
    }

    /// Uses `target` for everything that is logged to `path`.
    pub(super) fn output(&self, path: Name, target: Box<dyn io::Write + Send>) {
        let writer = AccessLogWriter::to_with_bell(target, self.bell.clone());
        let mut known = lock(&self.known);
        known.given.push(writer.clone());
        known.writers.push((file(&path), writer));
    }

    pub(super) fn problems(&self) -> Vec<Invalid> {
        lock(&self.known).problems.clone()
    }

    /// Does something with every file, outside the lock, because files block.
    pub(super) fn each(
        &self,
        mut act: impl FnMut(&AccessLogWriter) -> io::Result<()>,
    ) -> io::Result<()> {
        let writers: Vec<_> = lock(&self.known)
            .writers
            .iter()
            .map(|(_, writer)| writer.clone())
            .collect();
        let mut result = Ok(());
        for writer in &writers {
            let one = act(writer);
            result = result.and(one);
        }
        result
    }

    pub(super) fn bell(&self) -> &Bell {
        &self.bell
    }

    pub(super) fn dropped(&self) -> u64 {
        let known = lock(&self.known);
        known
            .writers
            .iter()
            .map(|(_, writer)| writer.dropped())
            .sum()
    }
}

impl fmt::Debug for LogBook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = lock(&self.known);
        f.debug_list()
            .entries(known.writers.iter().map(|(_, writer)| writer))
            .finish()
    }
}

// === impl Known ===

impl Known {
    fn find(&self, configs: &[AccessLog]) -> Option<Arc<Logs>> {
        self.sets
            .iter()
            .find(|logs| logs.configs == configs)
            .cloned()
    }

    /// Takes the place of what is no longer used by any worker.
    fn remember(&mut self, logs: Logs) -> Arc<Logs> {
        let logs = Arc::new(logs);
        self.sets
            .retain(|known| Arc::strong_count(known) > 1 && known.configs != logs.configs);
        self.sets.push(logs.clone());
        // Dropping a writer writes out what it has.
        self.writers.retain(|(_, writer)| !writer.is_last());
        logs
    }

    fn compile(&mut self, configs: &[AccessLog], bell: &Arc<Bell>) -> (Logs, Vec<Invalid>) {
        let mut logs = Logs {
            configs: configs.to_vec(),
            ..Logs::default()
        };
        let mut problems = Vec::new();
        for (index, config) in configs.iter().enumerate() {
            match self.compile_one(config, bell) {
                Ok((format, writer)) => {
                    logs.wanted.join(format.wanted());
                    logs.logs.push((format, writer));
                }
                Err(problem) => problems.push(problem.within(format_args!("access_log[{index}]"))),
            }
        }
        (logs, problems)
    }

    fn compile_one(
        &mut self,
        config: &AccessLog,
        bell: &Arc<Bell>,
    ) -> Result<(Format, AccessLogWriter), Invalid> {
        let format = if config.format.is_empty() {
            Format::istio_default()
        } else {
            Format::parse(&config.format).map_err(|error| error.within("format"))?
        };
        let path = file(&config.path);
        if let Some((_, writer)) = self.writers.iter().find(|(known, _)| *known == path) {
            return Ok((format, writer.clone()));
        }
        let writer = AccessLogWriter::with_bell(&path, bell.clone())
            .map_err(|error| Invalid::new("path", format!("cannot open {path:?}: {error}")))?;
        self.writers.push((path, writer.clone()));
        Ok((format, writer))
    }
}

/// One name for each file: two buffers on one output would mix their lines up.
fn file(path: &Name) -> Name {
    match path.as_str() {
        "/dev/stdout" => "-".into(),
        _ => path.clone(),
    }
}

// === impl Logs ===

impl Logs {
    pub(super) fn configs(&self) -> &[AccessLog] {
        &self.configs
    }

    /// Whether nothing is logged.
    pub(crate) fn is_empty(&self) -> bool {
        self.logs.is_empty()
    }

    /// What all formats together need to be told.
    pub(crate) fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// Writes a line to each log. `line` is room to write in.
    pub(crate) fn write(
        &self,
        exchange: &Exchange,
        entry: &Entry,
        hostname: &str,
        shard: Shard,
        line: &mut Vec<u8>,
    ) {
        for (format, writer) in &self.logs {
            line.clear();
            format.write(exchange, entry, hostname, line);
            // As Istio does with the formats of its users.
            if line.last() != Some(&b'\n') {
                line.push(b'\n');
            }
            writer.write(shard, line);
        }
    }
}
