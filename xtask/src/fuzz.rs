//! `cargo xtask fuzz`: the fuzz targets of `fuzz/`, built once and run one after the other.
//!
//! They are a package outside of the workspace, because they need a C++ compiler and flags that
//! nothing else is built with. They run on the stable toolchain: the coverage that libFuzzer wants
//! comes from LLVM's pass alone. What is found stays in `target/fuzz-corpus`, so that the next run
//! starts where this one ended; an input that fails is kept in `target/fuzz-artifacts`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

use crate::{
    cargo,
    workspace::{DependencyKind, Metadata, Workspace},
};

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// How long each target runs
    #[arg(long, default_value_t = 60)]
    seconds: u32,

    /// Only this target; may be repeated
    #[arg(long, value_name = "NAME")]
    target: Vec<String>,

    /// How many targets run at a time
    #[arg(long, default_value_t = 1)]
    jobs: usize,

    /// Run one target over this input and nothing else, to see why it fails
    #[arg(long, value_name = "FILE", requires = "target")]
    input: Option<PathBuf>,

    /// Print the names of the targets
    #[arg(long)]
    list: bool,
}

/// What libFuzzer is guided by: counters of edges, their places, and operands of comparisons.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares";

/// The longest that a target may take over one input. Instrumented code is about ten times slower.
const LONGEST_INPUT: Duration = Duration::from_secs(10);
/// The most memory that a target may take, in MiB.
const MOST_MEMORY: u32 = 2048;
/// The largest input, in bytes.
const LARGEST_INPUT: u32 = 16 * 1024;

/// Where everything is.
#[derive(Debug)]
struct Places {
    /// The package.
    package: PathBuf,
    /// What cargo builds for it.
    target: PathBuf,
    corpus: PathBuf,
    artifacts: PathBuf,
}

/// What became of a target.
#[derive(Debug)]
struct Row {
    name: String,
    executions: u64,
    coverage: u64,
    corpus: usize,
    took: Duration,
    /// What it says of the input that fails, and where that is.
    finding: Option<String>,
}

/// Builds the targets and runs those that are chosen.
///
/// # Errors
///
/// If one fails; with the path of the input.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> anyhow::Result<()> {
    let places = Places::of(workspace);
    let names = places.chosen(&options.target)?;
    if options.list {
        names.iter().for_each(|name| println!("{name}"));
        return Ok(());
    }
    let program = places.build(workspace)?;
    if let Some(input) = &options.input {
        let [name] = names.as_slice() else {
            bail!("an input is for one target; name it with --target");
        };
        return cargo::run(fuzzer(&program, name).arg(input));
    }
    let rows = run_all(&places, &program, names, options)?;
    println!("{}", table(&rows));
    let findings = rows.iter().filter(|row| row.finding.is_some()).count();
    if findings > 0 {
        bail!("{findings} of {} targets have a finding", rows.len());
    }
    Ok(())
}

/// Each target for a few seconds, in as many jobs as there are processors: no more than shows that
/// they work, and that nothing is easy to find.
pub(crate) fn smoke(workspace: &Workspace) -> anyhow::Result<()> {
    run(
        workspace,
        &Options {
            seconds: 3,
            target: Vec::new(),
            jobs: thread::available_parallelism().map_or(1, usize::from),
            input: None,
            list: false,
        },
    )
}

fn run_all(
    places: &Places,
    program: &Path,
    names: Vec<String>,
    options: &Options,
) -> anyhow::Result<Vec<Row>> {
    let waiting = Mutex::new(names.into_iter());
    let rows = Mutex::new(Vec::new());
    let next = || waiting.lock().ok().and_then(|mut names| names.next());
    thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            scope.spawn(|| {
                while let Some(name) = next() {
                    let row = places.run(program, &name, options.seconds);
                    if let Ok(mut rows) = rows.lock() {
                        rows.push(row);
                    }
                }
            });
        }
    });
    let rows = rows.into_inner().unwrap_or_default();
    let mut rows = rows.into_iter().collect::<anyhow::Result<Vec<Row>>>()?;
    rows.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(rows)
}

// === impl Places ===

impl Places {
    fn of(workspace: &Workspace) -> Self {
        let target = workspace.target();
        Self {
            package: workspace.root().join("fuzz"),
            target: target.join("fuzz"),
            corpus: target.join("fuzz-corpus"),
            artifacts: target.join("fuzz-artifacts"),
        }
    }

    /// The targets that are asked for, or all: each has a folder of seeds.
    fn chosen(&self, wanted: &[String]) -> anyhow::Result<Vec<String>> {
        let seeds = self.package.join("seeds");
        let mut names = BTreeSet::new();
        for entry in fs::read_dir(&seeds).with_context(|| format!("cannot list {seeds:?}"))? {
            names.insert(entry?.file_name().to_string_lossy().into_owned());
        }
        for name in wanted {
            if !names.contains(name) {
                let known: Vec<&str> = names.iter().map(String::as_str).collect();
                bail!("there is no target `{name}`, but {}", known.join(", "));
            }
        }
        Ok(names
            .into_iter()
            .filter(|name| wanted.is_empty() || wanted.contains(name))
            .collect())
    }

    /// Builds the program that all targets are in.
    fn build(&self, workspace: &Workspace) -> anyhow::Result<PathBuf> {
        self.check_lock(workspace)?;
        let host = cargo::host(workspace.root())?;
        cargo::run(
            cargo::cargo(&self.package)
                .args(["build", "--release", "--locked", "--bin", "mesh-fuzz"])
                // With a target given, macros and build scripts are built without the flags.
                .args(["--target", &host])
                .env("CARGO_TARGET_DIR", &self.target)
                .env("RUSTFLAGS", FLAGS),
        )
        .context("see above; if c++ is what is missing: libFuzzer needs it (Debian: g++)")?;
        Ok(self.target.join(host).join("release").join("mesh-fuzz"))
    }

    /// What is fuzzed is what is built: the same versions as in the workspace, and whatever its
    /// crates import by now. Cargo would refuse the second itself, but only once something is
    /// built here, which the quick tests do not do.
    fn check_lock(&self, workspace: &Workspace) -> anyhow::Result<()> {
        let root = workspace.root();
        let read = |path: PathBuf| {
            fs::read_to_string(&path).with_context(|| format!("cannot read {path:?}"))
        };
        let (ours, own) = (
            read(root.join("Cargo.lock"))?,
            read(self.package.join("Cargo.lock"))?,
        );
        let strange = differences(&versions(&ours), &versions(&own));
        if !strange.is_empty() {
            bail!(
                "fuzz/Cargo.lock has other versions than Cargo.lock ({}); copy Cargo.lock there \
                 and run `cargo metadata --manifest-path fuzz/Cargo.toml`",
                strange.join(", ")
            );
        }
        let missing = missing(&edges(&own), &workspace.metadata);
        if !missing.is_empty() {
            bail!(
                "fuzz/Cargo.lock does not know that {}; run `cargo metadata --manifest-path \
                 fuzz/Cargo.toml`",
                missing.join(", that ")
            );
        }
        Ok(())
    }

    fn run(&self, program: &Path, name: &str, seconds: u32) -> anyhow::Result<Row> {
        let (corpus, artifacts) = (self.corpus.join(name), self.artifacts.join(name));
        for folder in [&corpus, &artifacts] {
            fs::create_dir_all(folder).with_context(|| format!("cannot create {folder:?}"))?;
        }
        let seeded = fuzzer(program, name)
            .env("MESH_FUZZ_SEEDS", &corpus)
            .output()
            .with_context(|| format!("cannot start {program:?}"))?;
        if !seeded.status.success() {
            bail!(
                "the seeds of {name}: {}",
                String::from_utf8_lossy(&seeded.stderr).trim()
            );
        }
        let log = self.artifacts.join(format!("{name}.log"));
        let output = fs::File::create(&log).with_context(|| format!("cannot create {log:?}"))?;
        let start = Instant::now();
        let status = fuzzer(program, name)
            .arg(&corpus)
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-timeout={}", LONGEST_INPUT.as_secs()))
            .arg(format!("-rss_limit_mb={MOST_MEMORY}"))
            .arg(format!("-max_len={LARGEST_INPUT}"))
            .arg(format!("-artifact_prefix={}/", artifacts.display()))
            .arg("-print_final_stats=1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(output)
            .status()
            .with_context(|| format!("cannot start {program:?}"))?;
        let said = fs::read(&log).with_context(|| format!("cannot read {log:?}"))?;
        let said = String::from_utf8_lossy(&said);
        let mut row = Row::of(name, &said);
        row.took = start.elapsed();
        if !status.success() {
            row.finding = Some(finding(&said, &log));
        }
        println!("{}", row.line());
        Ok(row)
    }
}

/// The program, about to be this target.
fn fuzzer(program: &Path, name: &str) -> Command {
    let mut command = Command::new(program);
    command
        .env("MESH_FUZZ_TARGET", name)
        .env("RUST_BACKTRACE", "1");
    command
}

// === impl Row ===

impl Row {
    /// From what libFuzzer prints.
    fn of(name: &str, said: &str) -> Self {
        let number = |text: &str| {
            text.split_whitespace()
                .next()
                .and_then(|word| word.parse().ok())
        };
        let last = |mark: &str| said.rsplit_once(mark).and_then(|(_, rest)| number(rest));
        let seen = last("stat::number_of_executed_units:");
        // `12/3Kb`: how many inputs, and their size.
        let corpus = said
            .rsplit_once(" corp: ")
            .and_then(|(_, rest)| rest.split_once('/'));
        Self {
            name: name.to_owned(),
            executions: seen.unwrap_or_default(),
            coverage: last(" cov: ").unwrap_or_default(),
            corpus: corpus
                .and_then(|(count, _)| count.parse().ok())
                .unwrap_or_default(),
            took: Duration::ZERO,
            finding: None,
        }
    }

    fn line(&self) -> String {
        let Self {
            name,
            executions,
            coverage,
            corpus,
            ..
        } = self;
        let seconds = self.took.as_secs();
        let found = self.finding.as_deref().unwrap_or("nothing found");
        format!(
            "{name:<16} {seconds:>5} s {executions:>10} runs {coverage:>6} edges {corpus:>5} inputs  {found}"
        )
    }
}

fn table(rows: &[Row]) -> String {
    let lines: Vec<String> = rows.iter().map(Row::line).collect();
    format!("\n{}", lines.join("\n"))
}

/// What was found: the panic's message, and the path of the input.
fn finding(said: &str, log: &Path) -> String {
    let mut lines = said.lines();
    let panicked = lines.by_ref().any(|line| line.contains("panicked at"));
    let what = match panicked.then(|| lines.next()).flatten() {
        Some(message) => message.to_owned(),
        None => said
            .lines()
            .find(|line| line.contains("ERROR: libFuzzer"))
            .map_or_else(|| format!("it ended; see {}", log.display()), str::to_owned),
    };
    let written = said.rsplit_once("Test unit written to ");
    let path = written.and_then(|(_, rest)| rest.lines().next());
    format!(
        "FINDING: {what} ({})",
        path.map_or_else(|| log.display().to_string(), str::to_owned)
    )
}

/// The versions of each package in a lock file.
fn versions(lock: &str) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut all: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut name = "";
    for line in lock.lines() {
        let quoted = |key: &str| line.strip_prefix(key)?.strip_suffix('"');
        if let Some(text) = quoted("name = \"") {
            name = text;
        } else if let Some(text) = quoted("version = \"") {
            all.entry(name).or_default().insert(text);
        }
    }
    all
}

/// What both have, but not in the same version.
fn differences(
    ours: &BTreeMap<&str, BTreeSet<&str>>,
    own: &BTreeMap<&str, BTreeSet<&str>>,
) -> Vec<String> {
    let other = |(name, versions): (&&str, &BTreeSet<&str>)| {
        let same = ours.get(name).is_none_or(|known| versions.is_subset(known));
        (!same).then(|| (*name).to_owned())
    };
    own.iter().filter_map(other).collect()
}

/// What each package in a lock file imports, by name.
fn edges(lock: &str) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut all: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut name = "";
    for line in lock.lines() {
        if let Some(text) = line.strip_prefix("name = \"") {
            name = text.trim_end_matches('"');
            all.entry(name).or_default();
        } else if let Some(text) = line.strip_prefix(" \"") {
            // ` "name",`, or ` "name 1.0.0",` where there are several versions.
            let import = text.split([' ', '"']).next().unwrap_or_default();
            all.entry(name).or_default().insert(import);
        }
    }
    all
}

/// What members of the workspace always import and a lock file does not know of.
fn missing(known: &BTreeMap<&str, BTreeSet<&str>>, metadata: &Metadata) -> Vec<String> {
    let mut missing = BTreeSet::new();
    for member in metadata.members() {
        let Some(known) = known.get(&*member.name) else {
            continue;
        };
        for import in &member.dependencies {
            let always = import.kind != Some(DependencyKind::Dev) && !import.optional;
            if always && !known.contains(&*import.name) {
                missing.insert(format!("{} imports {}", member.name, import.name));
            }
        }
    }
    missing.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = "[[package]]\nname = \"a\"\nversion = \"1.0.0\"\n\n\
        [[package]]\nname = \"b\"\nversion = \"1.0.0\"\n[[package]]\nname = \"b\"\nversion = \"2.0.0\"\n";

    #[test]
    fn a_lock_file_may_have_fewer_and_further_packages_but_no_other_versions() {
        let ours = versions(LOCK);
        let fewer =
            "name = \"b\"\nversion = \"2.0.0\"\nname = \"only-here\"\nversion = \"9.0.0\"\n";
        assert!(differences(&ours, &versions(fewer)).is_empty());
        let other = LOCK.replace("a\"\nversion = \"1.0.0", "a\"\nversion = \"1.0.1");
        assert_eq!(differences(&ours, &versions(&other)), ["a"]);
    }

    #[test]
    fn what_libfuzzer_prints_is_read() {
        let said = "#2\tINITED cov: 5 ft: 6 corp: 1/1b\n\
            #1997\tDONE   cov: 544 ft: 11 corp: 69/71Kb lim: 261 exec/s: 2 rss: 48Mb\n\
            stat::number_of_executed_units: 1997\n";
        let row = Row::of("x", said);
        assert_eq!((row.executions, row.coverage, row.corpus), (1997, 544, 69));
    }

    #[test]
    fn a_finding_is_the_message_and_the_input() {
        let said = "thread '<unnamed>' panicked at src/x.rs:1:1:\nit is broken\nstack backtrace:\n\
            Test unit written to /somewhere/crash-1\nBase64: AA==\n";
        let found = finding(said, Path::new("x.log"));
        assert_eq!(found, "FINDING: it is broken (/somewhere/crash-1)");
        let said = "==1== ERROR: libFuzzer: out-of-memory (used: 3000Mb)\n";
        assert!(finding(said, Path::new("x.log")).contains("out-of-memory"));
    }

    #[test]
    fn every_folder_of_seeds_is_a_target_and_no_other_name_is() {
        let places = Places::of(&Workspace::load().unwrap());
        let all = places.chosen(&[]).unwrap();
        assert!(all.contains(&"read_cluster".to_owned()));
        assert_eq!(places.chosen(&["json".to_owned()]).unwrap(), ["json"]);
        assert!(places.chosen(&["jason".to_owned()]).is_err());
    }

    #[test]
    fn the_fuzz_targets_are_locked_to_the_versions_of_the_workspace() {
        let workspace = Workspace::load().unwrap();
        Places::of(&workspace).check_lock(&workspace).unwrap();
    }

    #[test]
    fn a_lock_file_from_before_an_import_is_told() {
        let workspace = Workspace::load().unwrap();
        let lock = fs::read_to_string(workspace.root().join("fuzz/Cargo.lock")).unwrap();
        let (head, rest) = lock.split_once("name = \"mesh-core\"").unwrap();
        let older = format!(
            "{head}name = \"mesh-core\"{}",
            rest.replacen(" \"bytes\",\n", "", 1)
        );
        assert_eq!(
            missing(&edges(&older), &workspace.metadata),
            ["mesh-core imports bytes"]
        );
        // What is not fuzzed need not be known.
        assert!(missing(&edges(LOCK), &workspace.metadata).is_empty());
    }
}
