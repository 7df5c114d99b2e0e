//! The outside clients: curl, openssl and h2load, and what they say put in the same words.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::{Command, Stdio};

/// What was seen, by name.
pub type Facts = BTreeMap<String, String>;

/// A client and what it is told.
#[derive(Clone, Debug)]
pub enum Tool {
    /// One request for a host.
    Curl {
        host: &'static str,
        arguments: Vec<String>,
    },
    /// A handshake, with a server name or without.
    OpenSsl {
        name: Option<&'static str>,
        arguments: Vec<String>,
        /// A request of HTTP/1.1 follows.
        request: bool,
    },
    /// Twenty requests on two connections.
    H2load { host: &'static str },
}

// === impl Tool ===

impl Tool {
    /// Lets it loose. It trusts `roots` unless its arguments say otherwise.
    pub fn run(&self, to: SocketAddr, case: usize, roots: &str) -> Facts {
        match self {
            Self::Curl { host, arguments } => curl(to, case, roots, host, arguments),
            Self::OpenSsl {
                name,
                arguments,
                request,
            } => openssl(to, case, roots, *name, arguments, *request),
            Self::H2load { host } => h2load(to, case, host),
        }
    }

    /// Whether it is installed.
    pub fn is_there(program: &str) -> bool {
        let tried = Command::new(program)
            .arg(if program == "openssl" {
                "version"
            } else {
                "--version"
            })
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        tried.is_ok_and(|status| status.success())
    }
}

fn curl(to: SocketAddr, case: usize, roots: &str, host: &str, arguments: &[String]) -> Facts {
    let done = limited("curl")
        .args(["--silent", "--cacert", roots])
        .args(["--resolve", &format!("{host}:{}:{}", to.port(), to.ip())])
        .args(["--header", &format!("x-case: {case}")])
        .args(["--write-out", "\n%{http_code} %{http_version}"])
        .args(arguments)
        .arg(format!("https://{host}:{}/", to.port()))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    let (body, last) = said.rsplit_once('\n').unwrap_or(("", &said));
    let end = match done.status.code() {
        Some(0) => "well".to_owned(),
        Some(60) => "the caller refuses".to_owned(),
        // Which of these it is depends on how far it got before it was told.
        Some(16 | 35 | 52 | 55 | 56 | 92) => "refused".to_owned(),
        other => format!("{other:?}"),
    };
    Facts::from([
        ("end".into(), end),
        ("status".into(), last.to_owned()),
        ("body".into(), body.to_owned()),
    ])
}

fn openssl(
    to: SocketAddr,
    case: usize,
    roots: &str,
    name: Option<&str>,
    arguments: &[String],
    request: bool,
) -> Facts {
    let mut command = limited("openssl");
    command.args(["s_client", "-connect", &to.to_string(), "-CAfile", roots]);
    match name {
        Some(name) => command.args(["-servername", name]),
        None => command.arg("-noservername"),
    };
    let mut child = command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut input, mut output) = (child.stdin.take(), child.stdout.take().unwrap());
    if let Some(input) = &mut input
        && request
    {
        let host = name.unwrap_or("a.test");
        let text = format!("GET / HTTP/1.1\r\nhost: {host}\r\nx-case: {case}\r\n\r\n");
        // It may have been refused already.
        let _ = input.write_all(text.as_bytes());
    }
    let mut out = Vec::new();
    let mut part = [0; 4096];
    loop {
        // It hangs up when there is nothing more to say: after the handshake, or an answer.
        if !request || answered(&out) {
            drop(input.take());
        }
        match output.read(&mut part).unwrap() {
            0 => break,
            count => out.extend_from_slice(&part[..count]),
        }
    }
    let done = child.wait_with_output().unwrap();
    let (out, errors) = (
        String::from_utf8_lossy(&out),
        String::from_utf8_lossy(&done.stderr),
    );
    let after = |prefix: &str| {
        let found = out.lines().find_map(|line| line.strip_prefix(prefix));
        found.unwrap_or("(none)").to_owned()
    };
    let alert = errors
        .lines()
        .find_map(|line| line.split_once("SSL alert number "));
    let authorities: Vec<&str> = out
        .lines()
        .skip_while(|line| *line != "Acceptable client certificate CA names")
        .skip(1)
        .take_while(|line| line.contains(" = "))
        .collect();
    let mut facts = Facts::from([
        ("agreed".into(), after("New, ")),
        ("subject".into(), after("subject=")),
        ("alpn".into(), after("ALPN protocol: ")),
        ("group".into(), after("Server Temp Key: ")),
        ("signed by".into(), after("Peer signature type: ")),
        ("authorities".into(), authorities.join(", ")),
        (
            "alert".into(),
            alert.map_or("(none)", |(_, number)| number).to_owned(),
        ),
    ]);
    if request {
        facts.insert("status".into(), after("HTTP/1.1 "));
    }
    facts
}

/// Whether the head of an answer is there.
fn answered(out: &[u8]) -> bool {
    let text = String::from_utf8_lossy(out);
    let answer = text.split_once("HTTP/1.1 ");
    answer.is_some_and(|(_, answer)| answer.contains("\r\n\r\n"))
}

fn h2load(to: SocketAddr, case: usize, host: &str) -> Facts {
    let done = limited("h2load")
        .args(["-n", "20", "-c", "2", "-m", "1"])
        .args(["--connect-to", &to.to_string()])
        .args(["--header", &format!("x-case: {case}")])
        .arg(format!("https://{host}:{}/", to.port()))
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&done.stdout);
    let after = |prefix: &str| {
        let found = out.lines().find_map(|line| line.strip_prefix(prefix));
        found.unwrap_or("(none)").to_owned()
    };
    Facts::from([
        ("codes".into(), after("status codes: ")),
        ("version".into(), after("TLS Protocol: ")),
        ("cipher".into(), after("Cipher: ")),
        ("group".into(), after("Server Temp Key: ")),
        ("alpn".into(), after("Application protocol: ")),
    ])
}

/// A program that has a minute.
fn limited(program: &str) -> Command {
    let mut command = Command::new("timeout");
    command.args(["60", program]);
    command
}
