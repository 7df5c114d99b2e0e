//! h2load: how it is called, and what it says.
//!
//! Without its own warm-up, which is a run of its own: it counts the bytes of bodies from the
//! beginning, so that their sum would say nothing of lengths. And not where a connection is for one
//! request: h2load 1.52 makes new ones by itself, but then does not always end.

use std::{fs, path::Path};

use anyhow::{Context as _, bail};

use super::{
    process::Program,
    rows::{Load, Port, Row},
};

/// What it found.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Found {
    /// Requests a second.
    pub(crate) rate: f64,
    pub(crate) requests: u64,
    /// Without an answer, or with another status than 2xx.
    pub(crate) wrong: u64,
    /// Bytes of all bodies.
    pub(crate) data: u64,
}

/// The call for a row, on so many threads.
///
/// # Errors
///
/// If a message cannot be written to `folder`.
pub(crate) fn program(
    row: &Row,
    port: u16,
    seconds: u32,
    threads: usize,
    folder: &Path,
) -> anyhow::Result<Program> {
    let scheme = if row.port == Port::Tls {
        "https"
    } else {
        "http"
    };
    let mut program = Program::new("h2load").arguments([
        format!("--threads={threads}"),
        format!("--duration={seconds}"),
        "--groups=X25519".to_owned(),
        "--header=user-agent: h2load".to_owned(),
    ]);
    match row.load {
        Load::H1 {
            connections,
            headers,
        } => {
            program = program
                .arguments(["--h1".to_owned(), format!("--clients={connections}")])
                .arguments(headers.iter().map(|it| format!("--header={it}")));
        }
        Load::H2 {
            connections,
            streams,
            message,
        } => {
            program = program.arguments([
                format!("--clients={connections}"),
                format!("--max-concurrent-streams={streams}"),
            ]);
            if let Some(message) = message {
                let file = folder.join(format!("{}.message", row.name));
                fs::write(&file, message).with_context(|| format!("cannot write {file:?}"))?;
                program = program.arguments([
                    format!("--data={}", file.display()),
                    "--header=content-type: application/grpc".to_owned(),
                    "--header=te: trailers".to_owned(),
                ]);
            }
        }
        Load::Pace | Load::Kept { .. } | Load::Fresh(_) => bail!("{} is not for h2load", row.name),
    }
    Ok(program.arguments([format!("{scheme}://127.0.0.1:{port}{}", row.path)]))
}

/// Reads what it printed.
///
/// # Errors
///
/// If a line is not there.
pub(crate) fn read(text: &str) -> anyhow::Result<Found> {
    let line = |start: &str| {
        let mut lines = text.lines().filter_map(|line| line.strip_prefix(start));
        lines
            .next()
            .with_context(|| format!("h2load says nothing of `{start}`: {text}"))
    };
    let number = |line: &str, unit: &str| -> anyhow::Result<u64> {
        let found = line
            .split(", ")
            .find_map(|part| part.strip_suffix(unit)?.trim().parse().ok());
        found.with_context(|| format!("h2load says nothing of `{unit}` in `{line}`"))
    };
    let finished = line("finished in ")?;
    let rate = finished
        .split(", ")
        .find_map(|part| part.strip_suffix(" req/s")?.parse().ok());
    let requests = line("requests: ")?;
    let status = line("status codes: ")?;
    let done = number(requests, "succeeded")?;
    let mut wrong = 0;
    for unit in [" failed", " errored", " timeout"] {
        wrong += number(requests, unit)?;
    }
    for unit in [" 3xx", " 4xx", " 5xx"] {
        wrong += number(status, unit)?;
    }
    // "8.78MB (9209856) data", at the end of the line.
    let data = line("traffic: ")?.rsplit_once('(').and_then(|(_, rest)| {
        let (bytes, _) = rest.split_once(')')?;
        bytes.parse().ok()
    });
    Ok(Found {
        rate: rate.context("h2load says no rate")?,
        requests: done,
        wrong,
        data: data.context("h2load says nothing of data")?,
    })
}

/// Whether so many bytes are those of so many bodies, and of as many in part as may be under way
/// when the time is over.
pub(crate) fn has_the_length(found: &Found, length: u64, under_way: u64) -> bool {
    let least = found.requests * length;
    (least..=least + under_way * length).contains(&found.data)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "starting benchmark...
spawning thread #0: 32 total client(s). Timing-based test with 0s of warm-up time and 2s of main duration for measurements.
Application protocol: http/1.1

finished in 2.01s, 4075.50 req/s, 4.60MB/s
requests: 8151 total, 8215 started, 8151 done, 8150 succeeded, 1 failed, 2 errored, 4 timeout
status codes: 8120 2xx, 8 3xx, 16 4xx, 32 5xx
traffic: 9.20MB (9643397) total, 956.53KB (979484) headers (space savings 0.00%), 7.96MB (8351744) data
                     min         max         mean         sd        +/- sd
time for request:     1.74ms    119.87ms     13.08ms      7.29ms    86.41%
";

    #[test]
    fn what_it_says_is_read() {
        let found = Found {
            rate: 4075.5,
            requests: 8150,
            wrong: 63,
            data: 8_351_744,
        };
        assert_eq!(read(SAID).unwrap(), found);
    }

    #[test]
    fn a_line_that_is_missing_is_an_error_that_names_it() {
        for gone in ["finished", "requests", "status codes", "traffic"] {
            let text = SAID.replace(gone, "x");
            let error = format!("{:#}", read(&text).unwrap_err());
            assert!(error.contains(gone), "{error}");
        }
    }

    #[test]
    fn bodies_that_are_cut_or_too_long_are_seen() {
        let of = |data| Found {
            requests: 100,
            data,
            ..Found::default()
        };
        let fits =
            [99_999, 100_000, 104_000, 104_001].map(|data| has_the_length(&of(data), 1_000, 4));
        assert_eq!(fits, [false, true, true, false]);
    }

    #[test]
    fn a_call_says_where_and_how() {
        let folder = tempfile::tempdir().unwrap();
        let line = |name: &str| {
            let row = crate::peers::rows::ROWS
                .iter()
                .find(|row| row.name == name)
                .unwrap();
            let program = program(row, 99, 3, 2, folder.path()).unwrap();
            program.arguments.join(" ")
        };
        let headers = line("h1-headers");
        assert!(
            headers.contains("--h1 --clients=64 --header=accept: "),
            "{headers}"
        );
        assert!(line("tls").ends_with(" https://127.0.0.1:99/"));
        assert!(line("h2-h2").ends_with(" http://127.0.0.1:99/h2/"));
        assert!(line("grpc-unary").contains("grpc-unary.message"));
    }
}
