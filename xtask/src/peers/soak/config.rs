//! The configuration of a soak, which changes all the time.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};

use super::super::{machine, probe, run::Running};

/// How long a change may take until it is in force.
const IN_FORCE: Duration = Duration::from_secs(10);

/// The file that the proxy reads, and what it is changed to.
#[derive(Debug)]
pub(super) struct Config {
    file: PathBuf,
    text: String,
    pub(super) generation: u64,
}

/// What marks the last route's answers with the generation of its configuration.
const MARK: &str = "x-generation";
const LAST: &str = "  - name: last\n";

// === impl Config ===

impl Config {
    /// The one that `mesh.sh` wrote below this folder.
    pub(super) fn of(folder: &Path) -> anyhow::Result<Self> {
        let below = fs::read_dir(folder)?.flatten();
        let file = below
            .map(|it| it.path().join("mesh.yaml"))
            .find(|it| it.is_file())
            .context("mesh.sh wrote no configuration")?;
        let text = fs::read_to_string(&file)?;
        ensure!(text.contains(LAST), "no route `last`");
        Ok(Self {
            file,
            text,
            generation: 0,
        })
    }

    /// Another route, and one endpoint that was there is not or the other way round. How long it took
    /// until a request showed that it is in force.
    pub(super) fn change(&mut self, running: &Running) -> anyhow::Result<Duration> {
        self.generation += 1;
        let new = self.file.with_extension("new");
        fs::write(&new, self.written())?;
        let begun = Instant::now();
        fs::rename(&new, &self.file)?;
        loop {
            // The backend may break this one, too.
            let answer = probe::get(running.listens.h1, "/", &[]);
            let mark = answer.ok().and_then(|it| it.header(MARK)?.parse().ok());
            if mark == Some(self.generation) {
                return Ok(begun.elapsed());
            }
            if begun.elapsed() > IN_FORCE {
                let generation = self.generation;
                bail!("change {generation} is not in force after {IN_FORCE:?}, but {mark:?}");
            }
            machine::pause(Duration::from_millis(20));
        }
    }

    fn written(&self) -> String {
        let generation = self.generation;
        let marked =
            format!("{LAST}    headers: {{response: {{set: {{{MARK}: \"{generation}\"}}}}}}\n");
        let text = self.text.replacen(LAST, &marked, 1);
        // Of the five in turn: each of the endpoints is away for a while, and once none is.
        let away = (generation / 3 % 5) as usize;
        let mut endpoints = 0;
        let stays = |line: &&str| {
            let is_endpoint = line.trim_start().starts_with("- {address: ");
            endpoints += usize::from(is_endpoint);
            !is_endpoint || endpoints != away
        };
        let lines: Vec<_> = text.lines().filter(stays).collect();
        lines.join("\n") + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_endpoint_is_away_in_turn() {
        let text = "  endpoints:\n  - {address: a}\n  - {address: b}\n".to_owned() + LAST;
        let mut config = Config {
            file: PathBuf::new(),
            text,
            generation: 0,
        };
        let mut there = Vec::new();
        for generation in [1, 3, 6, 9] {
            config.generation = generation;
            let written = config.written();
            assert!(written.contains(&format!("{{{MARK}: \"{generation}\"}}")));
            there.push(["{address: a}", "{address: b}"].map(|it| written.contains(it)));
        }
        let expected = [[true, true], [false, true], [true, false], [true, true]];
        assert_eq!(there, expected);
    }
}
