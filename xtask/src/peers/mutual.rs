//! Mutual TLS on both sides: the files, who is who, and whether it is really on.
//!
//! `peers-load authority` writes the files, anew for each run.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};

use super::{
    probe::{self, Answer, LIMIT},
    process::Program,
    run::Stage,
};

/// The name that the backend's certificate is for, beside [`BACKEND`].
pub(crate) const HOST: &str = "secure.example.com";
/// What the proxy looks for in the backend's certificate.
pub(crate) const BACKEND: &str = "spiffe://cluster.local/ns/bench/sa/backend";
/// What the backend finds in the proxy's certificate.
const PROXY: &str = "spiffe://cluster.local/ns/bench/sa/proxy";
/// What is in the certificate that the load shows.
pub(crate) const CALLER: &str = "spiffe://cluster.local/ns/bench/sa/caller";

/// What a proxy needs for it.
#[derive(Clone, Debug)]
pub(crate) struct Mutual {
    /// The backend's ports with mutual TLS.
    pub(crate) upstreams: [u16; 4],
    /// Of the files.
    pub(crate) folder: PathBuf,
}

/// Who asks at a port.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller<'a> {
    pub(crate) stage: &'a Stage<'a>,
    pub(crate) mutual: &'a Mutual,
    pub(crate) port: u16,
}

/// Where the files are, within the folder of a run.
pub(crate) fn folder(folder: &Path) -> PathBuf {
    folder.join("mutual")
}

/// Whether only a caller with a certificate of the authority is answered, and the backend then sees
/// the proxy's.
///
/// # Errors
///
/// What is not so.
pub(crate) fn probe(caller: Caller<'_>) -> anyhow::Result<()> {
    let seen = seen(caller)?;
    ensure!(
        seen == PROXY,
        "the backend saw the certificate of {seen} instead of {PROXY}"
    );
    Ok(())
}

/// The same of the backend itself, which then sees the caller's.
///
/// # Errors
///
/// What is not so.
pub(crate) fn probe_backend(stage: &Stage<'_>, mutual: &Mutual) -> anyhow::Result<()> {
    for port in mutual.upstreams {
        let caller = Caller {
            stage,
            mutual,
            port,
        };
        let seen = seen(caller).context("the backend")?;
        ensure!(seen == CALLER, "the backend saw {seen} instead of {CALLER}");
    }
    Ok(())
}

/// Whose certificate the backend saw, behind a port at which all others are refused.
fn seen(caller: Caller<'_>) -> anyhow::Result<String> {
    for shows in ["nothing", "stranger"] {
        let said = caller.ask(shows, "/", &[])?;
        ensure!(
            is_refusal(&said),
            "mutual TLS: who shows {shows} is answered: {}",
            said.lines().next().unwrap_or_default()
        );
    }
    let answer = caller.get("/headers", &[])?;
    let line = answer.body.lines().next().unwrap_or_default();
    match line.strip_prefix("caller ") {
        Some(seen) if answer.status == 200 => Ok(seen.to_owned()),
        _ => bail!("mutual TLS: the backend does not say whose certificate it saw: {answer:?}"),
    }
}

/// Whether somebody was sent away: in TLS or, by nginx, with 400 and before anything is forwarded.
fn is_refusal(said: &str) -> bool {
    said.starts_with("refused: ")
        || probe::read(said)
            .is_some_and(|it| it.status == 400 && it.body.contains("SSL certificate"))
}

// === impl Mutual ===

impl Mutual {
    /// One of the files, as configuration has it.
    pub(crate) fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }
}

// === impl Caller ===

impl Caller<'_> {
    /// Asks for a path with the caller's certificate.
    ///
    /// # Errors
    ///
    /// If there is no answer of HTTP/1.1.
    pub(crate) fn get(self, path: &str, headers: &[&str]) -> anyhow::Result<Answer> {
        let said = self.ask("caller", path, headers)?;
        probe::read(&said).with_context(|| format!("mutual TLS, {path}: {said}"))
    }

    fn ask(self, shows: &str, path: &str, headers: &[&str]) -> anyhow::Result<String> {
        let stage = self.stage;
        let program = Program::new(stage.own_load)
            .arguments(["ask".to_owned(), format!("127.0.0.1:{}", self.port)])
            .arguments([
                format!("--mutual={}", self.mutual.folder.display()),
                format!("--shows={shows}"),
                format!("--path={path}"),
            ])
            .arguments(headers.iter().map(|it| format!("--header={it}")));
        // It has a limit of its own, which says more.
        let said = program.output(&stage.cores.generator, stage.folder, 2 * LIMIT);
        said.with_context(|| format!("mutual TLS, {path}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_no_refusal_unless_it_asks_for_a_certificate() {
        let of = |status: &str, body: &str| {
            is_refusal(&format!("HTTP/1.1 {status}\r\nserver: x\r\n\r\n{body}"))
        };
        assert!(is_refusal(
            "refused: received fatal alert: CertificateRequired\n"
        ));
        assert!(of(
            "400 Bad Request",
            "No required SSL certificate was sent"
        ));
        assert!(of("400 Bad Request", "The SSL certificate error"));
        assert!(!of("400 Bad Request", "no host"));
        assert!(!of("200 OK", "SSL certificate"));
        assert!(!is_refusal(""));
    }
}
