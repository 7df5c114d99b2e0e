//! `cargo xtask pgo`: mesh-proxy, optimized by a profile of its own load.
//!
//! A request touches a few kilobytes of code in each of many crates. What the compiler knows of how
//! often a branch is taken puts those together, and leaves out of the way what reads configuration
//! and what handles errors. The load is that of `bench peers`, all its rows with the proxy alone: plain
//! and TLS, HTTP/1.1, HTTP/2, gRPC and TCP, with the list of features of the peers' configuration.
//!
//! Where LLVM's BOLT is, the program is laid out once more by what runs in it ([`bolt`]).

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, bail};

use crate::{cargo, workspace::Workspace};

mod bolt;

use bolt::Bolt;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How long the proxy is watched in each row of `bench peers`
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,

    /// Where the program goes [default: target/pgo/mesh-proxy]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Build with this profile, of the same sources and compiler, instead of making one
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,

    /// Leave the program as the linker laid it out, though BOLT is there
    #[arg(long)]
    without_bolt: bool,
}

/// Rows of `bench peers` that are not about memory.
const ROWS: &str = "http,h2,grpc,tls,tcp";
/// What rustc's component `llvm-tools` has, and LLVM itself.
const MERGE: &str = "llvm-profdata";

/// Where everything is.
#[derive(Debug)]
struct Places {
    /// What is built.
    target: PathBuf,
    /// What the proxy writes at its end, a file for each time it was started.
    raw: PathBuf,
    merged: PathBuf,
}

/// The compiler's.
#[derive(Debug)]
struct Llvm {
    /// The major one.
    version: String,
    /// Where rustup's component has its programs.
    component: PathBuf,
}

/// Builds the proxy so that it counts, has it serve, and builds it by what it counted.
///
/// # Errors
///
/// If a tool is missing, something does not build, or the proxy counted nothing.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> anyhow::Result<()> {
    let began = Instant::now();
    let host = cargo::host(workspace.root())?;
    let places = Places::of(&workspace.target().join("pgo"));
    let llvm = Llvm::of_rustc(workspace.root(), &host)?;
    let bolt = match (options.without_bolt, Bolt::find(&llvm.version)) {
        (true, _) => None,
        (false, Ok(bolt)) => Some(bolt),
        (false, Err(error)) => {
            println!("without BOLT, which makes another tenth of difference: {error}");
            None
        }
    };
    let profile = match &options.profile {
        Some(profile) => absolute(profile)?,
        None => {
            let merge = llvm.merger()?;
            places.begin()?;
            let flags = flags(&[], "-Cprofile-generate", &places.raw);
            let counting = build(workspace, &places, &host, &flags)?;
            serve(workspace, &counting, options.seconds)?;
            places.merge(&merge)?;
            places.merged.clone()
        }
    };
    let linked: &[&str] = if bolt.is_some() { &[bolt::LINKED] } else { &[] };
    let flags = flags(linked, "-Cprofile-use", &profile);
    let mut program = build(workspace, &places, &host, &flags)?;
    if let Some(bolt) = bolt {
        let [counting, laid_out] = ["counting", "laid-out"].map(|it| places.target.join(it));
        let counts = places.begin()?.join("layout");
        bolt.count(&program, &counts, &counting)?;
        serve(workspace, &counting, options.seconds)?;
        bolt.lay_out(&program, &counts, &laid_out)?;
        program = laid_out;
    }
    let out = match &options.out {
        Some(out) => out.clone(),
        None => places.target.join("mesh-proxy"),
    };
    fs::copy(&program, &out).with_context(|| format!("cannot write {out:?}"))?;
    println!(
        "{} is optimized by the profile {} ({:.0?})",
        out.display(),
        profile.display(),
        began.elapsed()
    );
    Ok(())
}

/// The flags that are in the environment, these, and one that names a file.
fn flags(more: &[&str], flag: &str, path: &Path) -> OsString {
    let mut flags = env::var_os("RUSTFLAGS").unwrap_or_default();
    for more in more {
        flags.push(" ");
        flags.push(more);
    }
    flags.push(" ");
    flags.push(flag);
    flags.push("=");
    flags.push(path);
    flags
}

/// One program with these flags. With a target given, macros and build scripts are built without them.
fn build(
    workspace: &Workspace,
    places: &Places,
    host: &str,
    flags: &OsString,
) -> anyhow::Result<PathBuf> {
    println!("{}", flags.to_string_lossy());
    let mut command = cargo::cargo(workspace.root());
    command
        .args(["build", "--release", "--quiet"])
        .args(["--package=mesh-proxy", "--bin=mesh-proxy", "--target", host])
        .env("CARGO_TARGET_DIR", &places.target)
        // Takes longer, and leaves less that is there twice.
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .env("RUSTFLAGS", flags);
    cargo::run(&mut command)?;
    let built = places.target.join(host).join("release").join("mesh-proxy");
    Ok(built)
}

/// The rows of the bench, of which only what the proxy counts is wanted.
fn serve(workspace: &Workspace, program: &Path, seconds: u32) -> anyhow::Result<()> {
    let own = env::current_exe().context("this program cannot be found")?;
    let mut command = Command::new(own);
    command
        .current_dir(workspace.root())
        .args(["bench", "peers", "--peers=mesh", "--rounds=1"])
        .args([format!("--only={ROWS}"), format!("--seconds={seconds}")])
        .env("MESH_PROXY", program);
    cargo::run(&mut command)
}

/// A program that a distribution calls by LLVM's version.
fn tool(name: &str, version: &str) -> Option<PathBuf> {
    let named = format!("{name}-{version}");
    let path = env::var_os("PATH")?;
    let mut places = env::split_paths(&path).map(|folder| folder.join(&named));
    places.find(|place| place.is_file())
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    path.canonicalize()
        .with_context(|| format!("cannot read {path:?}"))
}

// === impl Llvm ===

impl Llvm {
    fn of_rustc(root: &Path, host: &str) -> anyhow::Result<Self> {
        let llvm = cargo::of_rustc(root, "LLVM version")?;
        let version = llvm.split('.').next().unwrap_or(&llvm).to_owned();
        let rustc = env::var_os("RUSTC").unwrap_or_else(|| OsString::from("rustc"));
        let mut asks = Command::new(rustc);
        asks.args(["--print", "sysroot"]).current_dir(root);
        let sysroot = cargo::output_of(&mut asks)?;
        Ok(Self {
            version,
            component: Path::new(sysroot.trim())
                .join("lib/rustlib")
                .join(host)
                .join("bin"),
        })
    }

    /// The program that puts profiles together, which has to be of the compiler's LLVM: rustup's, or
    /// a distribution's.
    fn merger(&self) -> anyhow::Result<PathBuf> {
        let version = &self.version;
        let ours = Some(self.component.join(MERGE)).filter(|place| place.is_file());
        ours.or_else(|| tool(MERGE, version)).with_context(|| {
            format!(
                "{MERGE} is missing: run `rustup component add llvm-tools`, or `apt-get install \
                 llvm-{version}`"
            )
        })
    }
}

// === impl Places ===

impl Places {
    fn of(target: &Path) -> Self {
        Self {
            target: target.to_owned(),
            raw: target.join("counts"),
            merged: target.join("mesh-proxy.profdata"),
        }
    }

    /// Where counts go: nothing of another run is left there.
    fn begin(&self) -> anyhow::Result<&Path> {
        if self.raw.exists() {
            fs::remove_dir_all(&self.raw)
                .with_context(|| format!("cannot empty {:?}", self.raw))?;
        }
        fs::create_dir_all(&self.raw).with_context(|| format!("cannot create {:?}", self.raw))?;
        Ok(&self.raw)
    }

    fn merge(&self, merge: &Path) -> anyhow::Result<()> {
        let mut counts = fs::read_dir(&self.raw)?;
        if counts.next().is_none() {
            bail!("the proxy wrote no counts to {}", self.raw.display());
        }
        let mut command = Command::new(merge);
        command
            .args(["merge", "--output"])
            .arg(&self.merged)
            .arg(&self.raw);
        cargo::run(&mut command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_another_run_are_gone_and_a_proxy_that_wrote_none_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places::of(folder.path());
        places.begin().unwrap();
        fs::write(places.raw.join("old.profraw"), "old").unwrap();
        places.begin().unwrap();
        let error = places.merge(Path::new("/nowhere")).unwrap_err();
        assert!(error.to_string().contains("wrote no counts"), "{error}");
    }

    #[test]
    fn flags_follow_those_that_are_there() {
        let flags = flags(&["-Ca"], "-Cb", Path::new("/c"));
        let flags = flags.to_string_lossy();
        assert!(flags.ends_with(" -Ca -Cb=/c"), "{flags}");
    }

    #[test]
    fn a_profile_that_is_not_there_is_told_before_anything_is_built() {
        let error = absolute(Path::new("no-such.profdata")).unwrap_err();
        assert!(error.to_string().contains("no-such.profdata"));
    }
}
