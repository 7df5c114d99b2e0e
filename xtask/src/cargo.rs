//! Child processes: cargo as the caller runs it, with its output going straight to the terminal.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

use crate::workspace::Package;

/// A cargo that runs in `root`.
pub(crate) fn cargo(root: &Path) -> Command {
    let program = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.current_dir(root);
    // `cargo run` describes xtask in the environment. Build scripts that watch such a variable
    // would run again each time a developer changes between `cargo` and `cargo xtask`.
    for (name, _) in env::vars_os() {
        if describes_a_package(&name) {
            command.env_remove(name);
        }
    }
    command
}

fn describes_a_package(variable: &OsStr) -> bool {
    let Some(variable) = variable.to_str() else {
        return false;
    };
    variable.starts_with("CARGO_PKG_") || variable.starts_with("CARGO_MANIFEST_")
}

/// Whether `cargo NAME` is there to be called.
pub(crate) fn has_subcommand(root: &Path, name: &str) -> bool {
    cargo(root)
        .args([name, "--version"])
        .output()
        .is_ok_and(|output| output.status.success())
}

/// This program. Where cargo has built it anew since it began, Linux says that its file is gone, but
/// there is one in its place.
///
/// # Errors
///
/// If it cannot be found.
pub(crate) fn this_program() -> anyhow::Result<PathBuf> {
    let path = env::current_exe().context("this program cannot be found")?;
    let replaced = path.to_str().and_then(|it| it.strip_suffix(" (deleted)"));
    Ok(replaced.map(PathBuf::from).unwrap_or(path))
}

/// Runs a command to its end, showing what it prints.
///
/// # Errors
///
/// If it cannot be started or does not exit with 0; the error repeats the command.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let line = line(command);
    eprintln!("$ {line}");
    let status = command
        .status()
        .with_context(|| format!("cannot start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` ended with {status}");
    }
    Ok(())
}

/// Runs a command and returns what it wrote to its standard output; the rest is shown.
///
/// # Errors
///
/// As [`run`], and if the output is not UTF-8.
pub(crate) fn output_of(command: &mut Command) -> anyhow::Result<String> {
    let line = line(command);
    let output = command
        .stderr(std::process::Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start `{line}`"))?;
    if !output.status.success() {
        bail!("`{line}` ended with {}", output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("what `{line}` printed"))
}

/// The platform that rustc builds for if it is not told.
///
/// # Errors
///
/// If rustc cannot be asked.
pub(crate) fn host(root: &Path) -> anyhow::Result<String> {
    of_rustc(root, "host")
}

/// What rustc says of itself: `host`, `LLVM version` and the like.
///
/// # Errors
///
/// If rustc cannot be asked, or does not say that.
pub(crate) fn of_rustc(root: &Path, field: &str) -> anyhow::Result<String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let said = output_of(Command::new(rustc).arg("-vV").current_dir(root))?;
    let mut lines = said.lines();
    let value = lines.find_map(|line| line.strip_prefix(field)?.strip_prefix(": "));
    let value = value.with_context(|| format!("rustc -vV tells no {field}"))?;
    Ok(value.to_owned())
}

/// What has `cargo doc` describe the libraries with all of their features.
///
/// With an example among the targets, cargo gives dependencies the features that tests want as well, and
/// so takes what was checked for clippy. For the libraries alone it would check tokio, and all that
/// stands on it, again.
pub(crate) fn documented(packages: &[&Package]) -> Vec<String> {
    let example = packages
        .iter()
        .find_map(|package| package.targets("example").next());
    ["--lib".into(), "--all-features".into()]
        .into_iter()
        .chain(example.map(|name| format!("--example={name}")))
        .collect()
}

/// The command as one would type it.
fn line(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let mut line = program
        .file_name()
        .unwrap_or(program.as_os_str())
        .to_string_lossy()
        .into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_one_types_it() {
        let mut command = Command::new(Path::new("/somewhere/else/cargo"));
        command.args(["test", "--workspace"]);
        assert_eq!(line(&command), "cargo test --workspace");
    }

    #[test]
    fn a_command_that_fails_is_an_error_that_names_it() {
        let root = Path::new(".");
        let error = output_of(cargo(root).args(["no-such-subcommand-of-cargo"]))
            .expect_err("cargo knows no such subcommand");
        assert!(error.to_string().contains("no-such-subcommand-of-cargo"));
        assert!(!has_subcommand(root, "no-such-subcommand-of-cargo"));
        assert!(output_of(cargo(root).arg("version")).is_ok());
    }

    #[test]
    fn only_the_description_of_a_package_is_kept_from_the_child() {
        assert!(describes_a_package(OsStr::new("CARGO_PKG_NAME")));
        assert!(describes_a_package(OsStr::new("CARGO_MANIFEST_DIR")));
        assert!(!describes_a_package(OsStr::new("CARGO_TARGET_DIR")));
        assert!(!describes_a_package(OsStr::new("CARGO_HOME")));
    }
}
