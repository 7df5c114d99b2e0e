//! A running demo, and a small HTTP/1.1 client to talk to it.
//!
//! The demo is the real binary on loopback ports of its own, so these tests see what a user sees.

// Every test binary uses a part of this.
#![allow(dead_code, unreachable_pub)]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Nothing here takes this long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running demo. Ended with SIGTERM when dropped.
pub struct Demo {
    child: Child,
    pub dir: PathBuf,
    pub base: u16,
    _temp: tempfile::TempDir,
    _reserved: TcpListener,
}

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

impl Demo {
    pub fn start() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("demo");
        let (base, reserved) = free_range();
        let mut child = Command::new(env!("CARGO_BIN_EXE_mesh"))
            .args(["demo", "--listen", &format!("127.0.0.1:{}", base + 950)])
            .args(["--base-port", &base.to_string()])
            .arg("--dir")
            .arg(&dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = Vec::new();
        loop {
            let Some(Ok(line)) = lines.next() else {
                panic!("the demo ended before it was ready:\n{}", seen.join("\n"))
            };
            if line.contains("Ctrl-C ends the demo") {
                break;
            }
            seen.push(line);
        }
        // Keep the pipe empty, or the demo would block on it.
        std::thread::spawn(move || for _ in lines {});
        Self {
            child,
            dir,
            base,
            _temp: temp,
            _reserved: reserved,
        }
    }

    /// The ingress gateway.
    pub fn gateway(&self) -> SocketAddr {
        at(self.base + 950)
    }

    /// The outbound proxy that productpage uses.
    pub fn outbound(&self) -> SocketAddr {
        at(self.base + 1)
    }

    /// The admin interface of the n-th node: 0 productpage, 1 details, 2 ratings, 3 to 5 reviews,
    /// 6 httpbin, 9 the gateway.
    pub fn admin(&self, node: u16) -> SocketAddr {
        at(self.base + node * 100)
    }

    /// Calls a service the way productpage does.
    pub fn call(&self, target: &str, headers: &[(&str, &str)]) -> Answer {
        Client::connect(self.outbound()).get(target, headers)
    }

    pub fn at_gateway(&self, path: &str) -> Answer {
        let host = self.gateway().to_string();
        Client::connect(self.gateway()).get(path, &[("host", &host)])
    }

    /// Applies a task and waits until every node has it.
    pub fn apply(&self, task: &str) {
        self.change(|dir| {
            let status = Command::new(env!("CARGO_BIN_EXE_mesh"))
                .args(["demo", "apply", task, "--dir"])
                .arg(dir)
                .stdout(Stdio::null())
                .status()
                .unwrap();
            assert!(status.success());
        });
    }

    /// Changes the configuration and waits until every node has it.
    pub fn change(&self, change: impl FnOnce(&Path)) {
        let before: Vec<u64> = NODES.iter().map(|node| self.version(*node)).collect();
        change(&self.dir);
        for (node, before) in NODES.iter().zip(before) {
            wait_until(|| self.version(*node) > before);
        }
    }

    fn version(&self, node: u16) -> u64 {
        let dump = self.ask(node, "/config_dump?origins").body;
        // The version is a number on a line of its own.
        let line = dump
            .lines()
            .rev()
            .find(|line| line.contains("\"version\""))
            .unwrap();
        line.chars()
            .filter(char::is_ascii_digit)
            .collect::<String>()
            .parse()
            .unwrap()
    }

    pub fn ask(&self, node: u16, path: &str) -> Answer {
        Client::connect(self.admin(node)).get(path, &[("host", "admin")])
    }

    /// The sum of the statistics whose names end like this. There has to be one.
    pub fn stat(&self, node: u16, name: &str) -> u64 {
        let stats = self.ask(node, "/stats").body;
        let values: Vec<u64> = stats
            .lines()
            .filter_map(|line| line.rsplit_once(": "))
            .filter(|(found, _)| found.ends_with(name))
            .map(|(_, value)| value.parse().unwrap())
            .collect();
        assert!(!values.is_empty(), "no statistic {name}");
        values.iter().sum()
    }
}

const NODES: [u16; 8] = [0, 1, 2, 3, 4, 5, 6, 9];

impl Drop for Demo {
    fn drop(&mut self) {
        end(&mut self.child);
    }
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
/// the last of them reserves the range against other tests.
pub fn free_range() -> (u16, TcpListener) {
    let offset = (std::process::id() % 10) as u16;
    for step in 0..10_u16 {
        let base = 10_000 + (offset + step) % 10 * 1000;
        let Ok(reserved) = TcpListener::bind(at(base + 999)) else {
            continue;
        };
        let ports = [0, 1, 6, 80, 106, 180, 300, 506, 580, 680, 900, 950];
        if ports
            .iter()
            .all(|offset| TcpListener::bind(at(base + offset)).is_ok())
        {
            return (base, reserved);
        }
    }
    panic!("no free ports")
}
