//! mesh-proxy as a process of its own: this program again, as `mesh-proxy` would be with the same
//! arguments.

use clap::Parser;
use mesh_proxy::bootstrap::Cli;
use std::ffi::OsString;
use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// The first argument of a process that is a subject.
const SUBJECT: &str = "as-mesh-proxy";

/// A start that takes longer is a failure.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running mesh-proxy. Ends with its owner.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) admin: SocketAddr,
    process: Child,
}

/// The arguments of a subject, if this process is to be one.
pub(crate) fn of_a_subject() -> Option<Vec<OsString>> {
    let mut arguments = std::env::args_os().skip(1);
    (arguments.next()? == SUBJECT).then(|| arguments.collect())
}

/// What the binary `mesh-proxy` does. It does not outlive the process that started it.
pub(crate) fn become_subject(arguments: Vec<OsString>) -> ExitCode {
    std::thread::spawn(|| {
        // Nobody writes: it ends when the other end is gone, however that ended.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(1);
    });
    let name = OsString::from("mesh-proxy");
    Cli::parse_from(std::iter::once(name).chain(arguments)).execute()
}

// === impl Subject ===

impl Subject {
    /// Starts it, with a directory for what it writes.
    ///
    /// # Errors
    /// With what it said, if it ended instead.
    pub(crate) async fn start(arguments: &[String], directory: &Path) -> Result<Self, String> {
        let told = |error: std::io::Error| error.to_string();
        let (said, errors) = (directory.join("out.txt"), directory.join("err.txt"));
        let process = Command::new(std::env::current_exe().map_err(told)?)
            .arg(SUBJECT)
            .args(arguments)
            .env("MESH_LOG", "error")
            .stdin(Stdio::piped())
            .stdout(File::create(&said).map_err(told)?)
            .stderr(File::create(&errors).map_err(told)?)
            .spawn()
            .map_err(told)?;
        // From here on it ends with this, whatever happens.
        let mut subject = Self {
            admin: SocketAddr::from(([0, 0, 0, 0], 0)),
            process,
        };
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = subject.process.try_wait().map_err(told)? {
                let text = std::fs::read_to_string(&errors).unwrap_or_default();
                let text: String = text.chars().take(4000).collect();
                return Err(format!("ended with {status}: {text}"));
            }
            let text = std::fs::read_to_string(&said).unwrap_or_default();
            let place = std::fs::read_to_string(directory.join("admin.txt")).unwrap_or_default();
            if let Some(admin) = admin(&text).or_else(|| place.parse().ok()) {
                subject.admin = admin;
                return Ok(subject);
            }
            if Instant::now() > end {
                return Err("said nothing of its admin interface in time".into());
            }
            sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        // It is gone already if this fails.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What it prints when it is ready, but for what is still being printed.
fn admin(said: &str) -> Option<SocketAddr> {
    let rest = said.split("admin on http://").nth(1)?;
    rest.split_once("/\n")?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_line_is_no_address_yet() {
        let said = "listening on 127.0.0.1:80 (x)\nadmin on http://127.0.0.1:4567/\n";
        assert_eq!(admin(said), Some(SocketAddr::from(([127, 0, 0, 1], 4567))));
        for end in 0..said.len() {
            assert_eq!(admin(&said[..end]), None, "{end}");
        }
    }
}
