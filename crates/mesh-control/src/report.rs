//! What happened: the last push, and what clients said of it.

use crate::class::Class;
use mesh_core::Name;
use mesh_istio::Diagnostic;
use mesh_xds::TypeUrl;
use mesh_xds::server::StreamId;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How many warnings about clients are remembered.
const WARNINGS: usize = 100;

/// What there is to tell.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    pub(crate) last: Option<Push>,
    pub(crate) pushes: u64,
    pub(crate) endpoint_pushes: u64,
    /// What reading the objects said.
    pub(crate) findings: Vec<Diagnostic>,
    /// What compiling said, for all who are connected: routes to what is not there, for one.
    pub(crate) compiled: Vec<Diagnostic>,
    warnings: VecDeque<Value>,
    nacks: HashMap<(StreamId, TypeUrl), Nack>,
}

/// A push of everything that changed.
#[derive(Debug)]
pub(crate) struct Push {
    pub(crate) number: u64,
    pub(crate) at: SystemTime,
    pub(crate) trigger: &'static str,
    pub(crate) waited: Duration,
    pub(crate) took: Duration,
    /// How many endpoint resources of the shared table changed.
    pub(crate) endpoints: usize,
    pub(crate) classes: Vec<ClassReport>,
}

/// What a push meant for one class.
#[derive(Debug)]
pub(crate) struct ClassReport {
    pub(crate) class: Arc<Class>,
    pub(crate) nodes: usize,
    pub(crate) changed: BTreeMap<TypeUrl, usize>,
    pub(crate) error: Option<String>,
}

/// What a client rejected.
#[derive(Clone, Debug)]
pub(crate) struct Nack {
    pub(crate) message: Name,
    pub(crate) resources: Vec<Name>,
    pub(crate) origins: Vec<String>,
}

// === impl Reports ===

impl Reports {
    pub(crate) fn nack(&mut self, stream: StreamId, kind: TypeUrl, nack: Nack) {
        self.nacks.insert((stream, kind), nack);
    }

    pub(crate) fn ack(&mut self, stream: StreamId, kind: TypeUrl) {
        self.nacks.remove(&(stream, kind));
    }

    pub(crate) fn gone(&mut self, stream: StreamId) {
        self.nacks.retain(|(one, _), _| *one != stream);
    }

    pub(crate) fn nack_of(&self, stream: StreamId, kind: TypeUrl) -> Option<&Nack> {
        self.nacks.get(&(stream, kind))
    }

    /// Something that whoever runs this should know of.
    pub(crate) fn warn(&mut self, node: &str, message: String) {
        if self.warnings.len() == WARNINGS {
            self.warnings.pop_front();
        }
        let at = unix(SystemTime::now());
        let warning = json!({"time": at, "proxy": node, "message": message});
        self.warnings.push_back(warning);
    }

    pub(crate) fn json(&self) -> Value {
        let last = self.last.as_ref().map(Push::json);
        json!({
            "pushes": self.pushes,
            "endpoint_pushes": self.endpoint_pushes,
            "last_push": last,
            "findings": self.findings.iter().map(finding).collect::<Vec<_>>(),
            "compile_findings": self.compiled.iter().map(finding).collect::<Vec<_>>(),
            "warnings": self.warnings,
        })
    }
}

// === impl Push ===

impl Push {
    fn json(&self) -> Value {
        let classes: Vec<_> = self.classes.iter().map(ClassReport::json).collect();
        json!({
            "number": self.number,
            "time": unix(self.at),
            "trigger": self.trigger,
            "debounced_ms": millis(self.waited),
            "took_ms": millis(self.took),
            "endpoints_changed": self.endpoints,
            "classes": classes,
        })
    }
}

impl ClassReport {
    fn json(&self) -> Value {
        let compiled = self.class.compiled();
        let changed: BTreeMap<_, _> = self.changed.iter().map(|(k, n)| (k.short(), n)).collect();
        let findings = compiled.findings.iter().chain(&compiled.dangling);
        json!({
            "class": self.class.key,
            "nodes": self.nodes,
            "changed": changed,
            "clusters": compiled.snapshot.clusters().len(),
            "listeners": compiled.snapshot.listeners().len(),
            "routes": compiled.snapshot.tables().len(),
            "compile_ms": millis(compiled.took),
            "error": self.error,
            "findings": findings.map(finding).collect::<Vec<_>>(),
        })
    }
}

/// A finding in one line, and in its parts; a line of 0 means the whole file.
fn finding(finding: &Diagnostic) -> Value {
    json!({
        "severity": finding.severity.to_string(),
        "message": finding.to_string(),
        "object": finding.object,
        "file": &*finding.file,
        "line": finding.line,
        "column": finding.column,
        "path": finding.path,
    })
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// Seconds since 1970.
fn unix(at: SystemTime) -> f64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    (since.as_secs_f64() * 1e3).round() / 1e3
}
