//! What callers use that Rust's standard library has not: `curl` and `openssl` for TLS, and lines
//! over TCP.

// Every test binary uses a part of this.
#![allow(dead_code, unreachable_pub)]

use crate::support::{PATIENCE, at};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What `curl` said.
#[derive(Debug)]
pub struct Reply {
    /// 0 if there was an answer, else the reason (EXIT CODES in its manual).
    pub exit: i32,
    /// The answer's status, or 0.
    pub status: u16,
    /// `1.1` or `2`.
    pub version: String,
    pub headers: HashMap<String, String>,
    pub body: String,
    pub error: String,
}

/// Callers of one port who trust one authority.
#[derive(Clone, Debug)]
pub struct Caller {
    pub port: u16,
    pub authority: PathBuf,
}

/// A connection on which lines are sent, and come back.
pub struct Lines(BufReader<TcpStream>);

// === impl Reply ===

impl Reply {
    /// There was no answer, because the connection was ended during the handshake or right after.
    pub fn is_refusal(&self) -> bool {
        // SSL_CONNECT_ERROR, GOT_NOTHING, SEND_ERROR, RECV_ERROR
        self.status == 0 && [35, 52, 55, 56].contains(&self.exit)
    }
}

// === impl Caller ===

impl Caller {
    /// Asks for a URL, at this port whatever its host and port are.
    pub fn get(&self, url: &str) -> Reply {
        self.get_with(url, &[])
    }

    pub fn get_with(&self, url: &str, more: &[&str]) -> Reply {
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--include", "--noproxy", "*"])
            .args(["--max-time", &PATIENCE.as_secs().to_string()])
            .args(["--connect-to", &format!("::127.0.0.1:{}", self.port)])
            .arg("--cacert")
            .arg(&self.authority)
            .args(more)
            .arg(url)
            .output()
            .expect("curl is installed");
        let text = String::from_utf8(output.stdout).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_default();
        let mut lines = head.lines();
        let mut first = lines.next().unwrap_or_default().split(' ');
        let version = first.next().unwrap_or_default();
        let headers = lines.filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        });
        Reply {
            exit: output.status.code().unwrap(),
            version: version.trim_start_matches("HTTP/").to_owned(),
            status: first.next().map_or(0, |status| status.parse().unwrap()),
            headers: headers.collect(),
            body: body.to_owned(),
            error: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The certificate that is shown to who asks for a name, or for none: PEM. Empty if the
    /// handshake is refused.
    pub fn shown(&self, name: Option<&str>) -> String {
        let mut command = Command::new("openssl");
        command
            .args(["s_client", "-connect", &at(self.port).to_string()])
            .arg("-CAfile")
            .arg(&self.authority);
        match name {
            Some(name) => command.args(["-servername", name]),
            None => command.arg("-noservername"),
        };
        let output = command
            .stdin(Stdio::null())
            .output()
            .expect("openssl is installed");
        let text = String::from_utf8_lossy(&output.stdout);
        pem(text.lines())
    }
}

/// The certificate in a file, whatever else is there and however it is indented: PEM.
pub fn certificate_in(file: &Path) -> String {
    let text = std::fs::read_to_string(file).unwrap();
    pem(text.lines().map(str::trim))
}

fn pem<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    let mut found = String::new();
    for line in lines.skip_while(|line| !line.contains("BEGIN CERTIFICATE")) {
        found += line;
        found.push('\n');
        if line.contains("END CERTIFICATE") {
            break;
        }
    }
    found
}

// === impl Lines ===

impl Lines {
    pub fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(at(port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(BufReader::new(stream))
    }

    /// Sends a line and waits for one.
    pub fn say(&mut self, line: &str) -> String {
        let text = format!("{line}\n");
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
        let mut answer = String::new();
        self.0.read_line(&mut answer).unwrap();
        answer.trim_end().to_owned()
    }

    /// Says that nothing more is sent, and reads what still comes.
    pub fn finish(mut self, last: &str) -> String {
        self.0.get_mut().write_all(last.as_bytes()).unwrap();
        self.0.get_mut().shutdown(Shutdown::Write).unwrap();
        let mut rest = String::new();
        self.0.read_to_string(&mut rest).unwrap();
        rest
    }
}
