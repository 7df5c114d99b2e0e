//! What is asked of both proxies: configurations, and requests for each.

mod answers;
mod edge;
mod edits;
mod failures;
mod routing;

use mesh_core::model::{
    Action, Cluster, Condition, Forward, HeaderKey, HeaderMatch, HttpManager, Limits, PathMatch,
    Pattern, RouteTable, Rule, StringMatch, ValueMatch, VirtualHost,
};

/// A listener with its routes, and the requests that are sent to it.
pub struct Group {
    pub name: &'static str,
    pub manager: HttpManager,
    pub table: RouteTable,
    /// Clusters besides [`clusters`], with the names of their backends.
    pub clusters: Vec<(Cluster, Vec<&'static str>)>,
    pub calls: Vec<Call>,
}

/// A request, as bytes.
pub struct Call {
    pub label: String,
    pub bytes: Vec<u8>,
    /// Sent while one such request is under way and another waits for its connection.
    pub crowded: bool,
    /// Never whole: the backend notes it when it is broken off, which may be after the caller has its
    /// answer.
    pub cut: bool,
}

/// A request that is still being written.
pub struct Draft {
    line: String,
    host: Option<String>,
    headers: Vec<(String, String)>,
    body: String,
    crowded: bool,
}

/// All groups.
pub fn groups() -> Vec<Group> {
    let mut groups = routing::groups();
    groups.extend(answers::groups());
    groups.extend(edits::groups());
    groups.extend(failures::groups());
    groups.extend(edge::groups());
    groups
}

/// Clusters that every group may use. `nobody` is an address where nobody listens.
pub fn clusters() -> Vec<(Cluster, Vec<&'static str>)> {
    vec![
        (Cluster::new("a"), vec!["a"]),
        (Cluster::new("b"), vec!["b"]),
        (Cluster::new("c"), vec!["c"]),
        (Cluster::new("empty"), vec![]),
        (Cluster::new("refused"), vec!["nobody"]),
    ]
}

// === impl Group ===

impl Group {
    /// A group with these virtual hosts.
    fn hosts(
        name: &'static str,
        hosts: impl IntoIterator<Item = VirtualHost>,
        calls: impl IntoIterator<Item = Draft>,
    ) -> Self {
        Self {
            name,
            manager: HttpManager::new(name, name),
            table: hosts
                .into_iter()
                .fold(RouteTable::new(name), RouteTable::host),
            clusters: Vec::new(),
            calls: calls.into_iter().map(Call::from).collect(),
        }
    }

    /// A group with one virtual host for everything.
    fn rules(
        name: &'static str,
        rules: impl IntoIterator<Item = Rule>,
        calls: impl IntoIterator<Item = Draft>,
    ) -> Self {
        Self::hosts(name, [all(rules)], calls)
    }

    /// A group with everything sent to cluster `a`.
    fn plain(name: &'static str, calls: impl IntoIterator<Item = Draft>) -> Self {
        Self::rules(name, [Rule::prefix_to("/", "a")], calls)
    }

    fn managed(mut self, change: impl FnOnce(&mut HttpManager)) -> Self {
        change(&mut self.manager);
        self
    }

    fn table(mut self, change: impl FnOnce(&mut RouteTable)) -> Self {
        change(&mut self.table);
        self
    }

    fn raw(mut self, label: &str, bytes: &[u8]) -> Self {
        self.calls.push(Call {
            label: label.to_owned(),
            bytes: bytes.to_vec(),
            crowded: false,
            cut: false,
        });
        self
    }

    fn cluster(mut self, cluster: Cluster, backends: &[&'static str]) -> Self {
        self.clusters.push((cluster, backends.to_vec()));
        self
    }
}

// === impl Call ===

impl Call {
    /// The request with its number in a header, so that access logs can be told apart.
    pub fn numbered(&self, number: usize) -> Vec<u8> {
        let at = self.bytes.windows(2).position(|it| it == b"\r\n");
        // Whatever begins or ends with an empty line is left as it is.
        let Some(at) = at.filter(|at| *at > 0 && !self.bytes[at + 2..].starts_with(b"\r\n")) else {
            return self.bytes.clone();
        };
        let (line, rest) = self.bytes.split_at(at + 2);
        [line, format!("x-case: {number}\r\n").as_bytes(), rest].concat()
    }
}

// === impl Draft ===

impl Draft {
    /// A request with this method and target.
    fn from_line(line: &str) -> Self {
        Self {
            line: line.to_owned(),
            host: None,
            headers: Vec::new(),
            body: String::new(),
            crowded: false,
        }
    }

    fn host(mut self, host: &str) -> Self {
        self.host = Some(host.to_owned());
        self
    }

    fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// What the backends do, attempt by attempt.
    fn script(self, words: &str) -> Self {
        self.header("x-script", words)
    }

    fn grpc(self) -> Self {
        self.header("content-type", "application/grpc")
            .header("te", "trailers")
    }

    fn body(mut self, body: &str) -> Self {
        self.body = body.to_owned();
        let length = body.len().to_string();
        self.header("content-length", &length)
    }

    fn crowded(mut self) -> Self {
        self.crowded = true;
        self
    }
}

impl From<Draft> for Call {
    fn from(draft: Draft) -> Self {
        let host = draft.host.as_deref().unwrap_or("mesh");
        let mut label = draft.line.clone();
        if draft.host.is_some() {
            label += &format!(" host={host}");
        }
        let mut text = format!("{} HTTP/1.1\r\nhost: {host}\r\n", draft.line);
        for (name, value) in &draft.headers {
            text += &format!("{name}: {value}\r\n");
            label += &format!(" {name}={value}");
        }
        text += "\r\n";
        text += &draft.body;
        Self {
            label,
            bytes: text.into_bytes(),
            crowded: draft.crowded,
            cut: false,
        }
    }
}

fn send(method: &str, path: &str) -> Draft {
    Draft::from_line(&format!("{method} {path}"))
}

fn get(path: &str) -> Draft {
    send("GET", path)
}

fn gets<'a>(paths: impl IntoIterator<Item = &'a str>) -> Vec<Draft> {
    paths.into_iter().map(get).collect()
}

fn all(rules: impl IntoIterator<Item = Rule>) -> VirtualHost {
    rules
        .into_iter()
        .fold(VirtualHost::new("all", ["*"]), VirtualHost::rule)
}

fn rule(path: PathMatch, cluster: &str) -> Rule {
    let mut condition = Condition::default();
    condition.path = path;
    Rule::new(condition, Action::Forward(Forward::to(cluster)))
}

fn act(path: &str, action: Action) -> Rule {
    let mut condition = Condition::default();
    condition.path = PathMatch::Prefix(path.to_owned());
    Rule::new(condition, action)
}

fn with(mut rule: Rule, change: impl FnOnce(&mut Rule)) -> Rule {
    change(&mut rule);
    rule
}

fn changed<T>(mut value: T, change: impl FnOnce(&mut T)) -> T {
    change(&mut value);
    value
}

fn pattern(source: &str) -> Pattern {
    Pattern::new(source).unwrap()
}

fn header_is(name: &str, value: ValueMatch) -> HeaderMatch {
    let mut wanted = HeaderMatch::text(
        HeaderKey::Header(name.parse().unwrap()),
        StringMatch::Exact(String::new()),
    );
    wanted.value = value;
    wanted
}

fn exact(text: &str) -> StringMatch {
    StringMatch::Exact(text.to_owned())
}

fn tight(name: &str) -> Cluster {
    let mut cluster = Cluster::new(name);
    cluster.limits = Limits::envoy();
    cluster.limits.max_connections = 1;
    cluster.limits.max_pending = 1;
    cluster
}
