//! Two network namespaces with a cable between them: a pod with an application and a proxy's two
//! ports, and everything else.

// Every test binary uses a part of this.
#![allow(dead_code, unreachable_pub)]

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The pod's addresses.
pub const POD: [&str; 2] = ["10.98.0.2", "fd98::2"];
/// Those of everything else.
pub const OUTSIDE: [&str; 2] = ["10.98.0.1", "fd98::1"];
/// Others of its, in blocks of their own.
pub const ELSEWHERE: [&str; 2] = ["10.97.0.1", "fd97::1"];

/// Two namespaces, which go with it.
pub struct Town {
    pub pod: String,
    pub outside: String,
    peers: Vec<Child>,
    before: Vec<String>,
}

/// Whether the tests can run here. They say why not, and fail where `CI=true`.
pub fn can_run() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap().stdout;
    let missing = ["iptables", "ip6tables", "ip", "python3"]
        .into_iter()
        .find(|program| Command::new(program).arg("--version").output().is_err());
    let why = match missing {
        _ if id != b"0\n" => "not root".to_owned(),
        Some(program) => format!("{program} is not installed"),
        None => return true,
    };
    let is_ci = std::env::var("CI").as_deref() == Ok("true");
    assert!(!is_ci, "{why}");
    println!("skipped: {why}; needs root, iptables, iproute2 and python3");
    false
}

impl Town {
    pub fn build() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("mi{}x{number}", std::process::id());
        let mut town = Self {
            pod: format!("{name}p"),
            outside: format!("{name}o"),
            peers: Vec::new(),
            before: Vec::new(),
        };
        let (pod, outside) = (&town.pod.clone(), &town.outside.clone());
        for namespace in [pod, outside] {
            ip(&format!("netns add {namespace}"));
            ip(&format!("-n {namespace} link set lo up"));
        }
        ip(&format!(
            "link add eth0 netns {pod} type veth peer name eth0 netns {outside}"
        ));
        for (namespace, addresses) in [(pod, POD), (outside, OUTSIDE)] {
            let [v4, v6] = addresses;
            ip(&format!("-n {namespace} addr add {v4}/24 dev eth0"));
            ip(&format!("-n {namespace} addr add {v6}/64 dev eth0 nodad"));
            // No address of its own accord: one that turns up late looks like a trace.
            ip(&format!("-n {namespace} link set eth0 addrgenmode none"));
            ip(&format!("-n {namespace} link set eth0 up"));
        }
        for (family, elsewhere, outside_address) in [
            ("-4", ELSEWHERE[0], OUTSIDE[0]),
            ("-6", ELSEWHERE[1], OUTSIDE[1]),
        ] {
            ip(&format!(
                "{family} -n {outside} addr add {elsewhere} dev lo"
            ));
            ip(&format!(
                "{family} -n {pod} route add default via {outside_address}"
            ));
        }
        // A rule of somebody else.
        for program in ["iptables", "ip6tables"] {
            for rule in ["-t nat -N OTHERS", "-t nat -A OUTPUT -p udp -j OTHERS"] {
                let words: Vec<&str> = rule.split(' ').collect();
                ok(&town.in_pod(program, &words));
            }
        }
        town.before = town.settings();
        town
    }

    /// Starts listeners on every address of a namespace.
    pub fn listen(&mut self, namespace: &str, ports: &[u16], transparent: &[u16]) {
        let transparent: Vec<String> = transparent.iter().map(u16::to_string).collect();
        let more = transparent
            .iter()
            .flat_map(|port| ["--transparent", port.as_str()]);
        self.start(namespace, ports, &more.collect::<Vec<_>>());
    }

    /// Starts listeners, with more options for them.
    pub fn start(&mut self, namespace: &str, ports: &[u16], more: &[&str]) {
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", namespace, python()])
            .arg(peer())
            .args(["--listen", &ports.join(",")])
            .args(more);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.unwrap();
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        self.peers.push(child);
        assert_eq!(line, "ready\n");
    }

    /// Calls an address, and gives what the listener that got the call says about it.
    pub fn call(&self, namespace: &str, address: &str, port: u16, more: &[&str]) -> Value {
        let output = Command::new("ip")
            .args(["netns", "exec", namespace, python()])
            .arg(peer())
            .args(["--address", address, "--port", &port.to_string()])
            .args(more)
            .output()
            .unwrap();
        let text = ok(&output);
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}: {output:?}"))
    }

    /// Which port's listener answers a call.
    pub fn answers(&self, namespace: &str, address: &str, port: u16, more: &[&str]) -> Value {
        self.call(namespace, address, port, more)["port"].clone()
    }

    /// Runs `mesh intercept` for the pod.
    pub fn intercept(&self, words: &str) -> Output {
        intercept(&self.pod, words)
    }

    /// Runs `mesh intercept` for the pod, and expects that it can.
    pub fn intercepted(&self, words: &str) -> String {
        ok(&self.intercept(words))
    }

    /// Everything that interception may change, without counters and dates.
    pub fn settings(&self) -> Vec<String> {
        let mut all = Vec::new();
        for (program, words) in [
            ("iptables-save", ""),
            ("ip6tables-save", ""),
            ("ip", "-4 rule"),
            ("ip", "-6 rule"),
            ("ip", "-4 route show table all"),
            ("ip", "-6 route show table all"),
            ("ip", "addr show dev lo"),
        ] {
            let words: Vec<&str> = words.split_whitespace().collect();
            let text = ok(&self.in_pod(program, &words));
            let lines = text.lines().filter(|line| !line.starts_with(['#', ':']));
            all.extend(lines.map(|line| line.trim().to_owned()));
        }
        // A table without rules is none.
        all.retain(|line| !["*nat", "*mangle", "*raw", "COMMIT"].contains(&line.as_str()));
        all
    }

    /// Expects that nothing is left of an interception.
    pub fn assert_clean(&self) {
        assert_eq!(self.settings(), self.before);
    }

    fn in_pod(&self, program: &str, words: &[&str]) -> Output {
        Command::new("ip")
            .args(["netns", "exec", &self.pod, program])
            .args(words)
            .output()
            .unwrap()
    }
}

impl Drop for Town {
    fn drop(&mut self) {
        for peer in &mut self.peers {
            let _ = peer.kill();
            let _ = peer.wait();
        }
        for namespace in [&self.pod, &self.outside] {
            let _ = Command::new("ip")
                .args(["netns", "del", namespace])
                .status();
        }
    }
}

/// Runs `mesh intercept` for a namespace.
pub fn intercept(namespace: &str, words: &str) -> Output {
    let mut words = words.split(' ');
    Command::new(env!("CARGO_BIN_EXE_mesh"))
        .arg("intercept")
        .arg(words.next().unwrap())
        .args(["--netns", namespace])
        .args(words)
        .output()
        .unwrap()
}

fn peer() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/intercept_full/peer.py")
}

/// Python itself: what is in PATH may be a script that takes its time to find it.
fn python() -> &'static str {
    static PYTHON: OnceLock<String> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let print = "import sys; print(sys.executable)";
        let output = Command::new("python3").args(["-c", print]).output();
        ok(&output.unwrap()).trim().to_owned()
    })
}

/// Runs `ip`.
pub fn ip(words: &str) {
    ok(&Command::new("ip").args(words.split(' ')).output().unwrap());
}

/// What a program printed, if it succeeded.
pub fn ok(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}
