//! Processes on loopback ports of their own, and a small HTTP/1.1 client to talk to them.

// Every test binary uses a part of this.
#![allow(dead_code, unreachable_pub)]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// Nothing here takes this long unless it hangs.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HashMap<String, String>,
    pub body: String,
}

/// A connection that is kept alive.
pub struct Client {
    stream: BufReader<TcpStream>,
}

/// Ends a process that this test started, and no other.
pub fn end(child: &mut Child) {
    let pid = child.id().to_string();
    let _ = Command::new("kill").args(["-TERM", &pid]).status();
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        if let Ok(Some(_)) = child.try_wait() {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
    let _ = child.kill();
}

/// Reads a process's standard output until a line contains this; false if it ends without. What
/// comes after is read and thrown away, or the process would block on its pipe.
pub fn wait_for_line(child: &mut Child, text: &str) -> bool {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let found = lines.any(|line| line.is_ok_and(|line| line.contains(text)));
    std::thread::spawn(move || for _ in lines {});
    found
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream: BufReader::new(stream),
        }
    }

    pub fn get(&mut self, target: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = format!("GET {target} HTTP/1.1\r\n");
        if !headers.iter().any(|(name, _)| *name == "host") {
            let authority = target
                .split("//")
                .nth(1)
                .unwrap()
                .split('/')
                .next()
                .unwrap();
            request += &format!("host: {authority}\r\n");
        }
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        request += "\r\n";
        self.stream.get_mut().write_all(request.as_bytes()).unwrap();
        self.read()
    }

    fn read(&mut self) -> Answer {
        let status = self.line();
        let status = status
            .split(' ')
            .nth(1)
            .unwrap_or_else(|| panic!("{status:?}"))
            .parse()
            .unwrap();
        let mut headers = HashMap::new();
        loop {
            let line = self.line();
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').unwrap();
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let mut body = Vec::new();
        if let Some(length) = headers.get("content-length") {
            body.resize(length.parse().unwrap(), 0);
            self.stream.read_exact(&mut body).unwrap();
        } else if headers.contains_key("transfer-encoding") {
            loop {
                let length = usize::from_str_radix(&self.line(), 16).unwrap();
                let start = body.len();
                body.resize(start + length, 0);
                self.stream.read_exact(&mut body[start..]).unwrap();
                assert_eq!(self.line(), "");
                if length == 0 {
                    break;
                }
            }
        }
        Answer {
            status,
            headers,
            body: String::from_utf8(body).unwrap(),
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "the connection was closed");
        line.trim_end().to_owned()
    }
}

/// Waits for something that happens soon, without a fixed pause.
pub fn wait_until(mut done: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !done() {
        assert!(
            Instant::now() < until,
            "waited for something that did not happen"
        );
        // Polling another process: let it have the processor.
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

pub fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// A thousand ports from a base that nobody uses, below those that the kernel hands out. Holding
/// the last of them reserves the range against other tests; where all are taken it waits for one.
pub fn free_range() -> (u16, TcpListener) {
    let mut found = None;
    wait_until(|| {
        found = find_range();
        found.is_some()
    });
    found.expect("it was waited for")
}

fn find_range() -> Option<(u16, TcpListener)> {
    let offset = (std::process::id() % 10) as u16;
    for step in 0..10_u16 {
        let base = 10_000 + (offset + step) % 10 * 1000;
        let Ok(reserved) = TcpListener::bind(at(base + 999)) else {
            continue;
        };
        let ports = [
            0, 1, 6, 80, 106, 180, 300, 506, 580, 680, 781, 784, 810, 814, 900, 943, 948, 950,
        ];
        if ports
            .iter()
            .all(|offset| TcpListener::bind(at(base + offset)).is_ok())
        {
            return Some((base, reserved));
        }
    }
    None
}
