//! The text format of Prometheus, with Envoy's and Istio's names.
//!
//! <https://github.com/prometheus/docs/blob/main/docs/instrumenting/exposition_formats.md>

use super::query::{Query, Select};
use super::{Distribution, Owner, Shown};
use crate::istio::{Labels, Series, TcpCount, TcpSeries};
use mesh_core::stats::{BOUNDS, Kind, Stat, Summary};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

/// The label with a cluster's name: that of Istio's bootstrap (`stats_tags`).
const CLUSTER: &str = "cluster_name";
/// The labels with a listener's prefix, with the class of a status and with a status: those of Envoy itself
/// (`source/common/config/well_known_names.cc`).
const PREFIX: &str = "envoy_http_conn_manager_prefix";
const TCP_PREFIX: &str = "envoy_tcp_prefix";
const ADDRESS: &str = "envoy_listener_address";
const CLASS: &str = "envoy_response_code_class";
const CODE: &str = "envoy_response_code";
/// The labels with what a handshake agreed on. A cluster's ciphers have one of their own.
const CIPHER: [&str; 2] = ["envoy_ssl_cipher", "cipher_suite"];
const AGREED: [(&str, &str); 2] = [
    ("ssl.curves", "envoy_ssl_curve"),
    ("ssl.versions", "envoy_ssl_version"),
];
/// The labels of a rule's statistics. Envoy finds them so only where the virtual host's name has no
/// dot, and otherwise makes a metric of every route; here they are always labels.
const HOST: &str = "envoy_virtual_host";
const ROUTE: &str = "envoy_route";

/// A metric: everything with one name.
struct Family {
    kind: &'static str,
    help: String,
    lines: String,
}

/// Which answers a statistic counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answers<'a> {
    All,
    /// Those with a status of this class.
    Class(&'a str),
    /// Those with this status.
    Code(&'a str),
}

type Families = BTreeMap<String, Family>;

pub(super) fn write<'a>(
    samples: impl Iterator<Item = Shown<'a>>,
    distributions: &[Distribution],
    series: &[(Labels, Arc<Series>)],
    connections: &[(Labels, Arc<TcpSeries>)],
    query: &Query,
) -> String {
    let mut families = Families::new();
    for sample in samples {
        add_sample(&sample, &mut families);
    }
    for Distribution { id, summary } in distributions {
        let (owner, stat) = (id.owner(), id.stat());
        let name = name(owner, stat);
        let family = family(&mut families, &name, "histogram", || help(owner, stat));
        histogram(&name, &labels(owner, None), summary, &mut family.lines);
    }
    istio(series, query, &mut families);
    istio_tcp(connections, query, &mut families);

    let mut out = String::new();
    for (name, family) in &families {
        let Family { kind, help, lines } = family;
        // Writing to a String cannot fail.
        let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{lines}");
    }
    out
}

fn add_sample(sample: &Shown<'_>, families: &mut Families) {
    let kind = match sample.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
    };
    let owner = sample.id.owner();
    let (stat, part) = match agreed(owner, sample.id.stat()) {
        Some((stat, label, value)) => (Cow::Borrowed(stat), Some((label, value))),
        None => {
            let (stat, answers) = Answers::of(sample.id.stat());
            (stat, answers.label())
        }
    };
    let name = name(owner, &stat);
    let family = family(families, &name, kind, || help(owner, &stat));
    let labels = labels(owner, part);
    let _ = writeln!(family.lines, "{name}{labels} {}", sample.value);
}

// === impl Answers ===

impl<'a> Answers<'a> {
    /// The label that says which, and its value.
    fn label(self) -> Option<(&'static str, &'a str)> {
        match self {
            Self::All => None,
            Self::Class(class) => Some((CLASS, class)),
            Self::Code(code) => Some((CODE, code)),
        }
    }

    /// Takes `downstream_rq_2xx` apart into `downstream_rq_xx` and `2`, and `upstream_rq_503` into
    /// `upstream_rq` and `503`.
    fn of(stat: &'a str) -> (Cow<'a, str>, Self) {
        let all = (Cow::Borrowed(stat), Self::All);
        let Some((name, status)) = stat.rsplit_once('_').filter(|it| it.0.ends_with("_rq")) else {
            return all;
        };
        let (status, is_class) = match status.strip_suffix("xx") {
            Some(class) => (class, true),
            None => (status, false),
        };
        let digits = status.bytes().all(|byte| byte.is_ascii_digit());
        match (is_class, status.len()) {
            (true, 1) if digits => (Cow::Owned(format!("{name}_xx")), Self::Class(status)),
            (false, 3) if digits => (Cow::Borrowed(name), Self::Code(status)),
            _ => all,
        }
    }
}

/// Takes `ssl.ciphers.TLS_AES_128_GCM_SHA256` apart into the statistic, a label and its value.
fn agreed<'a>(owner: &Owner, stat: &'a str) -> Option<(&'a str, &'static str, &'a str)> {
    if let Some(cipher) = stat.strip_prefix("ssl.ciphers.") {
        let label = CIPHER[usize::from(matches!(owner, Owner::Cluster(_)))];
        return Some(("ssl.ciphers", label, cipher));
    }
    AGREED.iter().find_map(|(name, label)| {
        let value = stat.strip_prefix(name)?.strip_prefix('.')?;
        Some((*name, *label, value))
    })
}

fn name(owner: &Owner, stat: &str) -> String {
    let scope = match owner {
        Owner::Process => "",
        Owner::Cluster(_) => "cluster_",
        Owner::Http(_) => "http_",
        Owner::Tcp(_) => "tcp_",
        Owner::Listener(_) => "listener_",
        Owner::Route(..) => "vhost_route_",
    };
    let known = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let stat = stat.replace(|c| !known(c), "_");
    format!("envoy_{scope}{stat}")
}

fn help(owner: &Owner, stat: &str) -> String {
    let scope = match owner {
        Owner::Process => "",
        Owner::Cluster(_) => "cluster.*.",
        Owner::Http(_) => "http.*.",
        Owner::Tcp(_) => "tcp.*.",
        Owner::Listener(_) => "listener.*.",
        Owner::Route(..) => "vhost.*.route.*.",
    };
    let mut help = String::from("Envoy statistic ");
    escape(&format!("{scope}{stat}."), false, &mut help);
    help
}

/// A set of labels with its braces, or nothing.
fn labels(owner: &Owner, part: Option<(&str, &str)>) -> String {
    let mut out = String::new();
    if let Some((name, value)) = part {
        label(name, value, &mut out);
    }
    match owner {
        Owner::Process => {}
        Owner::Cluster(name) => label(CLUSTER, name, &mut out),
        Owner::Http(prefix) => label(PREFIX, prefix, &mut out),
        Owner::Tcp(prefix) => label(TCP_PREFIX, prefix, &mut out),
        Owner::Listener(address) => label(ADDRESS, address, &mut out),
        Owner::Route(host, prefix) => {
            label(HOST, host, &mut out);
            label(ROUTE, prefix, &mut out);
        }
    }
    close(out)
}

fn label(name: &str, value: &str, out: &mut String) {
    out.push(if out.is_empty() { '{' } else { ',' });
    let _ = write!(out, "{name}=\"");
    escape(value, true, out);
    out.push('"');
}

fn close(mut labels: String) -> String {
    if !labels.is_empty() {
        labels.push('}');
    }
    labels
}

/// A backslash and a line break are escaped everywhere, a quotation mark in label values only.
fn escape(text: &str, quoted: bool, out: &mut String) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quoted => out.push_str("\\\""),
            c => out.push(c),
        }
    }
}

fn family<'a>(
    families: &'a mut Families,
    name: &str,
    kind: &'static str,
    help: impl FnOnce() -> String,
) -> &'a mut Family {
    families.entry(name.to_owned()).or_insert_with(|| Family {
        kind,
        help: help(),
        lines: String::new(),
    })
}

/// The lines of one histogram. `labels` has its braces.
fn histogram(name: &str, labels: &str, summary: &Summary, out: &mut String) {
    let open = match labels.strip_suffix('}') {
        Some(open) => format!("{open},"),
        None => "{".to_owned(),
    };
    for (bound, count) in BOUNDS.iter().zip(summary.cumulative) {
        let _ = writeln!(out, "{name}_bucket{open}le=\"{bound}\"}} {count}");
    }
    let Summary { count, sum, .. } = summary;
    let _ = writeln!(out, "{name}_bucket{open}le=\"+Inf\"}} {count}");
    let _ = writeln!(out, "{name}_sum{labels} {sum}");
    let _ = writeln!(out, "{name}_count{labels} {count}");
}

fn istio(series: &[(Labels, Arc<Series>)], query: &Query, families: &mut Families) {
    const TOTAL: &str = "istio_requests_total";
    const HISTOGRAMS: [(&str, &str); 3] = [
        (
            "istio_request_duration_milliseconds",
            "Duration of requests in milliseconds.",
        ),
        ("istio_request_bytes", "Bytes of request bodies."),
        ("istio_response_bytes", "Bytes of response bodies."),
    ];
    for (names, series) in series {
        let mut labels = String::new();
        for (name, value) in names.iter() {
            label(name, value, &mut labels);
        }
        let labels = close(labels);
        let summaries = series.summaries();
        if query.selects(TOTAL, Select::Counters) {
            let family = family(families, TOTAL, "counter", || "Requests.".to_owned());
            let _ = writeln!(family.lines, "{TOTAL}{labels} {}", summaries[0].count);
        }
        for ((name, help), summary) in HISTOGRAMS.into_iter().zip(&summaries) {
            if query.selects(name, Select::Histograms) {
                let family = family(families, name, "histogram", || help.to_owned());
                histogram(name, &labels, summary, &mut family.lines);
            }
        }
    }
}

fn istio_tcp(connections: &[(Labels, Arc<TcpSeries>)], query: &Query, families: &mut Families) {
    for (names, counts) in connections {
        let mut labels = String::new();
        for (name, value) in names.of_tcp() {
            label(name, value, &mut labels);
        }
        let labels = close(labels);
        for (count, name, _) in TcpCount::ALL {
            if !query.selects(name, Select::Counters) {
                continue;
            }
            let help = match count {
                TcpCount::Opened => "Connections opened.",
                TcpCount::Closed => "Connections closed.",
                TcpCount::Received => "Bytes received from callers.",
                TcpCount::Sent => "Bytes sent to callers.",
            };
            let family = family(families, name, "counter", || help.to_owned());
            let _ = writeln!(family.lines, "{name}{labels} {}", counts.get(*count));
        }
    }
}
