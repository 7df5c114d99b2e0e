//! The demo's configuration: built in, copied out fresh, and edited there.

use super::certificates::Authority;
use super::credentials;
use super::edit::{FIRST_PORT, certified, moved, opened};
use anyhow::{Context, bail};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Marks a directory as ours, so that only such a one is ever replaced.
const MARK: &str = ".mesh-demo";

/// Certificates that exist from the start, each with its key and its hosts. Those of the last two
/// are what servers outside of the mesh show.
pub(crate) const CERTIFICATES: &[(&str, &str, &[&str])] = &[
    (
        "servercert.pem",
        "privatekey.pem",
        &["uk.bookinfo.com", "eu.bookinfo.com"],
    ),
    ("one.pem", "one-key.pem", &["one.example.com"]),
    ("two.pem", "two-key.pem", &["two.example.com"]),
];

macro_rules! built_in {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../../../examples/bookinfo/mesh/", $name)))),*]
    };
}

const FILES: &[(&str, &str)] = built_in![
    "destination-rules.yaml",
    "gateway.yaml",
    "mesh-config.yaml",
    "nodes.yaml",
    "services.yaml",
];

/// Where the configuration goes when nothing else is said. The same for every `mesh demo`, so that
/// `mesh demo apply` finds it.
pub(crate) fn usual_directory() -> PathBuf {
    std::env::temp_dir().join("mesh-demo")
}

/// Writes a fresh copy of the configuration, in place of an earlier one: with nodes from
/// `base_port` on, and a gateway that listens on `listen`.
pub(crate) fn lay_out(
    dir: &Path,
    from: Option<&Path>,
    base_port: u16,
    listen: SocketAddr,
) -> anyhow::Result<()> {
    if !(1024..=u16::MAX - 1000).contains(&base_port) {
        bail!("--base-port {base_port}: the nodes need 1000 ports from there");
    }
    if dir.exists() {
        let ours = dir.join(MARK).exists() || fs::read_dir(dir)?.next().is_none();
        if !ours {
            bail!(
                "{} holds something else; choose another --dir, or remove it",
                dir.display()
            );
        }
        fs::remove_dir_all(dir).with_context(|| format!("cannot replace {}", dir.display()))?;
    }
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    write(&dir.join(MARK), &base_port.to_string())?;
    lay_out_certificates(dir)?;
    let certificates = certificates(dir)?;
    let change = |text: &str| {
        let text = opened(&moved(text, base_port), listen);
        certified(&text, &certificates)
    };
    match from {
        None => {
            for (name, text) in FILES {
                write(&dir.join(name), &change(text))?;
            }
            Ok(())
        }
        Some(from) => copy(from, dir, &change),
    }
}

/// Where the certificates of the demo in a directory are, wherever one looks from.
pub(crate) fn certificates(dir: &Path) -> anyhow::Result<PathBuf> {
    let path = dir.join("certs");
    path.canonicalize()
        .with_context(|| format!("cannot find {}", path.display()))
}

fn lay_out_certificates(dir: &Path) -> anyhow::Result<()> {
    let place = dir.join("certs");
    fs::create_dir(&place).with_context(|| format!("cannot create {}", place.display()))?;
    let authority = Authority::create(&place)?;
    for (certificate, key, hosts) in CERTIFICATES {
        let pair = authority.issue(hosts)?;
        pair.write(&place.join(certificate), &place.join(key))?;
    }
    Ok(())
}

/// Writes a task's files, with the ports of the demo in this directory, instead of the last one's.
pub(crate) fn write_task(dir: &Path, files: &[(&str, &str)]) -> anyhow::Result<()> {
    let base_port = base_port(dir)?;
    // Aside first: who follows the directory is not to see the time between two tasks.
    let aside = dir.join(".task");
    if aside.exists() {
        fs::remove_dir_all(&aside).with_context(|| format!("cannot clear {}", aside.display()))?;
    }
    fs::create_dir_all(&aside).with_context(|| format!("cannot create {}", aside.display()))?;
    let certificates = certificates(dir)?;
    let authority = Authority::open(&certificates)?;
    for (name, text) in files {
        for secret in credentials::wanted(text) {
            secret?.write(&authority, &aside)?;
        }
        let text = certified(&moved(text, base_port), &certificates);
        write(&aside.join(name), &text)?;
    }
    clear_task(dir)?;
    let place = dir.join("task");
    fs::rename(&aside, &place).with_context(|| format!("cannot create {}", place.display()))
}

/// Replaces the Secrets of the last task by such with new certificates, and says where they are.
pub(crate) fn renew(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    base_port(dir)?;
    let authority = Authority::open(&certificates(dir)?)?;
    let place = dir.join("task");
    let mut renewed = Vec::new();
    if !place.exists() {
        return Ok(renewed);
    }
    for entry in fs::read_dir(&place).with_context(|| format!("cannot read {}", place.display()))? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        for secret in credentials::wanted(&text) {
            renewed.push(secret?.write(&authority, &place)?);
        }
    }
    Ok(renewed)
}

/// Removes the files of the last task.
pub(crate) fn clear_task(dir: &Path) -> anyhow::Result<()> {
    base_port(dir)?;
    let place = dir.join("task");
    if place.exists() {
        fs::remove_dir_all(&place).with_context(|| format!("cannot clear {}", place.display()))?;
    }
    Ok(())
}

/// The base port of the demo in a directory.
fn base_port(dir: &Path) -> anyhow::Result<u16> {
    let mark = fs::read_to_string(dir.join(MARK)).map_err(|_| {
        anyhow::anyhow!(
            "no demo runs in {}; start one with `mesh demo`",
            dir.display()
        )
    })?;
    Ok(mark.trim().parse().unwrap_or(FIRST_PORT))
}

fn copy(from: &Path, to: &Path, change: &impl Fn(&str) -> String) -> anyhow::Result<()> {
    let entries = fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))?;
    for entry in entries {
        let entry = entry?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            fs::create_dir_all(&target)?;
            copy(&path, &target, change)?;
        } else if path
            .extension()
            .is_some_and(|e| e == "yaml" || e == "yml" || e == "json")
        {
            let text = fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            write(&target, &change(&text))?;
        }
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTEN: SocketAddr = SocketAddr::new(
        std::net::IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2)),
        9999,
    );

    #[test]
    fn everything_in_the_folder_is_built_in() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/bookinfo/mesh");
        let mut there: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        there.sort();
        assert_eq!(
            there,
            FILES.iter().map(|(name, _)| *name).collect::<Vec<_>>()
        );
    }

    #[test]
    fn the_gateway_and_nobody_else_listens_where_it_is_told_to() {
        let (_, text) = FILES
            .iter()
            .find(|(name, _)| *name == "nodes.yaml")
            .unwrap();
        let text = opened(text, LISTEN);
        let mut world = mesh_istio::World::default();
        let files = mesh_istio::Files::from_text("nodes.yaml", &text);
        assert!(world.update(&files).is_empty());
        let (nodes, findings) = mesh_istio::Node::all(&world);
        assert!(findings.is_empty());
        for node in nodes {
            match node.role {
                mesh_istio::Role::Gateway { ports } => {
                    assert_eq!(ports[&80], 9999);
                    assert_eq!(ports[&443], FIRST_PORT + 943);
                    assert_eq!(node.address, LISTEN.ip());
                }
                mesh_istio::Role::Sidecar { .. } => {
                    assert_eq!(node.address.to_string(), "127.0.0.1");
                }
            }
        }
    }

    #[test]
    fn a_directory_of_somebody_elses_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("mine.txt"), "x").unwrap();
        assert!(lay_out(dir.path(), None, FIRST_PORT, LISTEN).is_err());
        assert!(dir.path().join("mine.txt").exists());

        let fresh = dir.path().join("fresh");
        lay_out(&fresh, None, FIRST_PORT, LISTEN).unwrap();
        lay_out(&fresh, None, FIRST_PORT, LISTEN).unwrap();
        assert!(fresh.join("nodes.yaml").exists());
        assert!(fresh.join("certs/ca.pem").exists());
    }
}
