//! `cargo xtask mutants`: whether the tests notice when a decision is changed.
//!
//! cargo-mutants says how the files on the list in `mutants.txt` can be changed; some of those
//! changes are drawn by a seed. Each is made in a copy of the workspace, where the tests of the
//! package run, and, if those notice nothing, those of the packages that depend on it. It takes
//! half a minute and more for each, so no check of CI runs it.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

use self::{
    list::Listed,
    mutant::Mutant,
    tree::{Outcome, Tree},
};
use crate::{cargo, workspace::Workspace};

mod list;
mod mutant;
mod tree;

/// How many of a hundred viable mutants have to be caught.
const ENOUGH: usize = 90;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// What the draw follows from: the same seed and the same code give the same mutants
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// How many are drawn
    #[arg(long, default_value_t = 40)]
    number: usize,

    /// Leaves out this many of those drawn, to go on where an earlier run ended
    #[arg(long, default_value_t = 0)]
    skip: usize,

    /// Only mutants with this in their names, which say file, line and change
    #[arg(long, default_value_t, hide_default_value = true)]
    only: String,

    /// Only these packages of the list; may be repeated
    #[arg(short, long, value_name = "NAME")]
    package: Vec<String>,

    /// How many jobs cargo may build with
    #[arg(long, default_value_t = 2)]
    jobs: usize,

    /// How many seconds building and running the tests of a package may take; half an hour for the
    /// first time, without any change
    #[arg(long, default_value_t = 600)]
    limit: u64,

    /// Print what is drawn, and run nothing
    #[arg(long)]
    list: bool,
}

/// Draws mutants and runs the tests against each.
///
/// # Errors
///
/// If the tests fail without any, or too few are caught.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> anyhow::Result<()> {
    for tool in ["mutants", "nextest"] {
        if !cargo::has_subcommand(workspace.root(), tool) {
            bail!("there is no cargo-{tool}: run `cargo install cargo-{tool} --locked`");
        }
    }
    let listed = list::read(workspace.root())?;
    let is_chosen =
        |of: &&Listed| options.package.is_empty() || options.package.contains(&of.package);
    let chosen: Vec<&Listed> = listed.iter().filter(is_chosen).collect();
    let mut all = mutant::all(workspace.root(), &chosen)?;
    all.retain(|mutant| mutant.name.contains(&options.only));
    let drawn = mutant::draw(&all, options.seed, options.number);
    let drawn = drawn.get(options.skip..).unwrap_or_default();
    println!("{} of {} mutants", drawn.len(), all.len());
    if options.list {
        drawn.iter().for_each(|mutant| println!("{}", mutant.name));
        return Ok(());
    }
    let place = workspace.metadata.target_directory.join("mutants");
    let tree = Tree::copy(
        workspace.root(),
        place,
        options.jobs,
        Duration::from_secs(options.limit),
    )?;
    let mut outcomes = Vec::new();
    // One package after the other, so that what is built for its tests is built once.
    for of in chosen {
        let mut mutants = drawn.iter().filter(|mutant| mutant.package == of.package);
        if mutants.clone().next().is_some() {
            tree.warm(&of.package)?;
        }
        mutants.try_for_each(|mutant| {
            let began = Instant::now();
            let outcome = tree.judge(mutant, &of.dependents)?;
            let took = began.elapsed().as_secs();
            println!("{outcome:?} after {took} s: {}", mutant.name);
            outcomes.push((outcome, mutant));
            anyhow::Ok(())
        })?;
    }
    report(&outcomes, tree.root())
}

fn report(outcomes: &[(Outcome, &Mutant)], tree: PathBuf) -> anyhow::Result<()> {
    let of = |wanted: Outcome| outcomes.iter().filter(move |(one, _)| *one == wanted);
    let (caught, survived) = (of(Outcome::Caught).count(), of(Outcome::Survived).count());
    let unviable = of(Outcome::Unviable).count();
    let viable = caught + survived;
    println!("{caught} caught, {survived} survived, {unviable} unviable");
    let mut text = String::new();
    for (_, mutant) in of(Outcome::Survived) {
        println!("survived: {}", mutant.name);
        text.push_str(&mutant.diff);
    }
    let place = tree.with_file_name("survivors.diff");
    fs::write(&place, text).with_context(|| format!("cannot write {}", place.display()))?;
    if caught * 100 < viable * ENOUGH {
        bail!(
            "{caught} of {viable} were caught, fewer than {ENOUGH} %; the rest is in {}",
            place.display()
        );
    }
    Ok(())
}
