//! The load of a row, whichever program makes it.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::{
    h2load, mutual,
    process::Program,
    rows::{Load, Port, RATE, Row},
};

/// Seconds that our own generators run before it counts.
pub(crate) const WARM: u32 = 1;

/// What a generator found, of either kind.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Found {
    /// Requests a second.
    pub(crate) rate: f64,
    pub(crate) requests: u64,
    pub(crate) wrong: u64,
    pub(crate) latency: Option<Latency>,
}

/// Microseconds.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    /// p99 of how late requests were sent.
    pub(crate) lag: f64,
}

/// What peers-load says.
#[derive(Debug, Deserialize)]
struct Own {
    rate: f64,
    requests: u64,
    wrong: u64,
    #[serde(flatten)]
    latency: Option<Latency>,
}

// === impl Latency ===

impl Latency {
    pub(crate) fn p50(&self) -> f64 {
        self.p50
    }

    pub(crate) fn p99(&self) -> f64 {
        self.p99
    }

    pub(crate) fn p999(&self) -> f64 {
        self.p999
    }
}

/// What makes load.
#[derive(Clone, Debug)]
pub(crate) struct Generator {
    /// The program peers-load.
    pub(crate) own: PathBuf,
    /// Cores, and so threads.
    pub(crate) threads: usize,
}

// === impl Generator ===

impl Generator {
    /// What to run for a row, and how long it takes until it counts.
    ///
    /// # Errors
    ///
    /// If a file cannot be written.
    pub(crate) fn program(
        &self,
        row: &Row,
        port: u16,
        seconds: u32,
        folder: &Path,
    ) -> anyhow::Result<(Program, u32)> {
        let address = format!("127.0.0.1:{port}");
        let times = [format!("--seconds={seconds}"), format!("--warm={WARM}")];
        let own = |name: &str| {
            let program = Program::new(&self.own).arguments([name, &address]);
            program.arguments(times.clone())
        };
        let threads = format!("--threads={}", self.threads);
        let is_mutual = row.port == Port::Mtls;
        let identity = is_mutual.then(|| format!("--mutual={}", mutual::folder(folder).display()));
        Ok(match row.load {
            Load::H1 { .. } | Load::H2 { .. } => (
                h2load::program(row, port, seconds, self.threads, folder)?,
                0,
            ),
            Load::Pace => {
                let program = own("pace").arguments([
                    format!("--rate={RATE}"),
                    format!("--path={}", row.path),
                    format!("--length={}", row.length),
                ]);
                (program, WARM)
            }
            Load::Kept { connections } => {
                let program = own("kept").arguments(identity).arguments([
                    threads,
                    format!("--connections={connections}"),
                    format!("--path={}", row.path),
                    format!("--length={}", row.length),
                ]);
                (program, WARM)
            }
            Load::Fresh(group) => {
                let group = group.map(|group| format!("--group={group}"));
                let program = own("fresh").arguments([threads]).arguments(group);
                (program.arguments(identity), WARM)
            }
        })
    }
}

/// Reads what the program for this row printed.
///
/// # Errors
///
/// If it is something else.
pub(crate) fn read(row: &Row, said: &str) -> anyhow::Result<Found> {
    if let Load::H1 { .. } | Load::H2 { .. } = row.load {
        let found = h2load::read(said)?;
        let fits = h2load::has_the_length(&found, row.length, row.under_way());
        return Ok(Found {
            rate: found.rate,
            requests: found.requests,
            // How many have another length is not known.
            wrong: found.wrong + u64::from(!fits),
            latency: None,
        });
    }
    let own: Own =
        serde_json::from_str(said).with_context(|| format!("peers-load said: {said}"))?;
    Ok(Found {
        rate: own.rate,
        requests: own.requests,
        wrong: own.wrong,
        latency: own.latency,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::rows::ROWS;

    fn row(name: &str) -> &'static Row {
        ROWS.iter().find(|row| row.name == name).unwrap()
    }

    #[test]
    fn latency_is_read_where_it_is_said() {
        let said =
            r#"{"requests":20,"wrong":1,"rate":10.5,"p50":1.0,"p99":2.0,"p999":3.0,"lag":0.5}"#;
        let found = read(row("h1-rate"), said).unwrap();
        assert_eq!((found.requests, found.wrong, found.rate), (20, 1, 10.5));
        assert_eq!(found.latency.unwrap().p999, 3.0);
        let said = r#"{"requests":20,"wrong":0,"rate":10.5,"error":"x"}"#;
        assert_eq!(read(row("tls-new"), said).unwrap().latency, None);
        assert!(read(row("tls-new"), "{}").is_err());
    }

    #[test]
    fn a_caller_has_a_certificate_in_the_rows_with_mutual_tls_only() {
        let generator = Generator {
            own: "peers-load".into(),
            threads: 2,
        };
        let line = |name: &str| {
            let (program, warm) = generator.program(row(name), 9, 3, Path::new("/f")).unwrap();
            (program.arguments.join(" "), warm)
        };
        let (kept, warm) = line("mtls");
        assert!(kept.starts_with("kept 127.0.0.1:9 --seconds=3 --warm="));
        assert!(kept.contains(" --mutual=/f/mutual --threads=2 --connections=64 "));
        assert!(kept.ends_with(" --path=/ --length=1024"));
        assert_eq!(warm, WARM);
        assert!(
            line("mtls-new")
                .0
                .ends_with(" --group=x25519 --mutual=/f/mutual")
        );
        assert!(!line("tls-new").0.contains("mutual"));
    }

    #[test]
    fn bodies_of_another_length_are_wrong() {
        let said = |data: u64| {
            format!(
                "finished in 1.00s, 2.00 req/s, 1B/s\n\
                 requests: 2 total, 2 started, 2 done, 2 succeeded, 0 failed, 0 errored, 0 timeout\n\
                 status codes: 2 2xx, 0 3xx, 0 4xx, 0 5xx\n\
                 traffic: 1B (1) total, 1B (1) headers (space savings 0.00%), 1B ({data}) data\n"
            )
        };
        assert_eq!(read(row("h1"), &said(2048)).unwrap().wrong, 0);
        assert_eq!(read(row("h1"), &said(2047)).unwrap().wrong, 1);
    }
}
