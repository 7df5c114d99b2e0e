//! Runs tests where there is no nextest, with as much of `nextest.toml` as test binaries allow: each
//! has a time limit, and of those that may only be unlucky, one that fails has a second try.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use serde::Deserialize;

use crate::{cargo, workspace::Package};

/// For all tests of a binary. Nextest gives five minutes to one test, eight to one of `_full`. What a
/// binary that is ended had started may go on.
fn limit(name: &str) -> Duration {
    let minutes = if name.ends_with("_full") { 40 } else { 10 };
    Duration::from_secs(60 * minutes)
}

/// A line of `cargo test --no-run --message-format=json`, as far as it is about a test binary.
#[derive(Debug, Deserialize)]
struct Artifact {
    package_id: String,
    manifest_path: PathBuf,
    target: Target,
    profile: Profile,
    executable: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Profile {
    test: bool,
}

/// Builds with this `cargo test` and runs the binaries with these arguments.
///
/// # Errors
///
/// If something does not build, or a binary fails, twice where it has a second try.
pub(super) fn run(
    mut build: Command,
    packages: &[&Package],
    arguments: &[&str],
) -> anyhow::Result<()> {
    build.args(["--no-run", "--message-format=json-render-diagnostics"]);
    let said = cargo::output_of(&mut build)?;
    let (mut failed, mut flaky) = (Vec::new(), Vec::new());
    for binary in binaries(&said)? {
        let package = packages.iter().find(|one| one.id == binary.package_id);
        let package = package.map_or("", |one| &*one.name);
        let name = format!("{package} {}", binary.target.name);
        println!("--- {name}");
        let once = || binary.run(&build, arguments);
        if once()? {
            continue;
        }
        if may_be_unlucky(package, &binary.target) {
            println!("--- {name}: a second try");
            if once()? {
                flaky.push(name);
                continue;
            }
        }
        failed.push(name);
    }
    for name in flaky {
        println!("FLAKY: {name}");
    }
    if !failed.is_empty() {
        bail!("these failed: {}", failed.join(", "));
    }
    Ok(())
}

/// The test binaries among what cargo said.
fn binaries(said: &str) -> anyhow::Result<Vec<Artifact>> {
    let mut binaries = Vec::new();
    for line in said.lines() {
        let message: serde_json::Value = serde_json::from_str(line).context("what cargo says")?;
        if message["reason"] != "compiler-artifact" {
            continue;
        }
        let artifact: Artifact = serde_json::from_value(message).context("what cargo says")?;
        if artifact.profile.test && artifact.executable.is_some() {
            binaries.push(artifact);
        }
    }
    Ok(binaries)
}

/// What is about real processes, kernels and time. As in `nextest.toml`.
fn may_be_unlucky(package: &str, target: &Target) -> bool {
    let is_integration = target.kind.iter().any(|kind| kind == "test");
    let is_on_machine = ["mesh-proxy", "mesh-cli"].contains(&package);
    let is_late = super::is_full(&target.name) || super::is_gate(&target.name);
    is_integration && (is_on_machine || is_late)
}

/// Waits for the end, unless that takes too long.
fn within(limit: Duration, command: &mut Command) -> anyhow::Result<Option<ExitStatus>> {
    let mut child = command.spawn()?;
    let until = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= until {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::park_timeout(Duration::from_millis(20));
    }
}

// === impl Artifact ===

impl Artifact {
    /// Whether it ends well. It finds itself where cargo would start it.
    fn run(&self, build: &Command, arguments: &[&str]) -> anyhow::Result<bool> {
        let Some(executable) = &self.executable else {
            return Ok(true);
        };
        let folder = self
            .manifest_path
            .parent()
            .unwrap_or_else(|| Path::new("."));
        let mut command = Command::new(executable);
        let variables: BTreeMap<_, _> = build.get_envs().collect();
        for (name, value) in variables {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.env("CARGO_MANIFEST_DIR", folder);
        command.args(arguments).current_dir(folder);
        let limit = limit(&self.target.name);
        let ended = within(limit, &mut command)
            .with_context(|| format!("cannot run {}", executable.display()))?;
        if ended.is_none() {
            println!("{} took longer than {limit:?}", self.target.name);
        }
        Ok(ended.is_some_and(|status| status.success()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(kind: &str, name: &str) -> Target {
        Target {
            name: name.to_owned(),
            kind: vec![kind.to_owned()],
        }
    }

    #[test]
    fn only_what_runs_on_a_real_machine_has_a_second_try() {
        for (package, kind, name, expected) in [
            ("mesh-proxy", "test", "tcp", true),
            ("mesh-cli", "test", "tasks", true),
            ("mesh-control", "test", "secure_full", true),
            ("mesh-client", "test", "allocations_gate", true),
            ("mesh-proxy", "lib", "mesh_proxy", false),
            // Properties are tested there.
            ("mesh-control", "test", "control", false),
            ("mesh-xds", "test", "server", false),
        ] {
            let may = may_be_unlucky(package, &target(kind, name));
            assert_eq!(may, expected, "{package} {name}");
        }
    }

    #[test]
    fn nextest_is_told_the_same() {
        let told = include_str!("../../../nextest.toml");
        let filter = "'kind(test) & (package(mesh-proxy) | package(mesh-cli) | \
                      binary(/_(full|gate)$/))'";
        assert!(told.contains(filter), "{told}");
    }

    #[test]
    fn cargo_says_which_binaries_have_tests() {
        let artifact = |test: bool, executable: &str| {
            serde_json::json!({
                "reason": "compiler-artifact", "package_id": "p", "manifest_path": "/p/Cargo.toml",
                "target": {"name": "t", "kind": ["test"], "src_path": "/p/t.rs"},
                "profile": {"test": test, "opt_level": "0"}, "executable": executable,
            })
        };
        let said = format!(
            "{}\n{}\n{}\n",
            artifact(true, "/t-1"),
            artifact(false, "/bin"),
            serde_json::json!({"reason": "build-finished", "success": true}),
        );
        let found = binaries(&said).unwrap();
        let found: Vec<_> = found.iter().map(|one| one.executable.clone()).collect();
        assert_eq!(found, [Some("/t-1".into())]);
    }

    #[test]
    fn what_does_not_end_is_ended() {
        let ended = within(Duration::from_millis(50), Command::new("sleep").arg("600"));
        assert_eq!(ended.unwrap(), None);
        let ended = within(limit("x"), &mut Command::new("true")).unwrap();
        assert!(ended.unwrap().success());
    }
}
