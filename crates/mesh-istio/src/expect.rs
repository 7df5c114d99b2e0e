//! What users expect of their configuration: requests, and what is to become of them.
//!
//! `mesh test` compares them with what a configuration does. The schema is in
//! `docs/guide/explain.md`; a field that nobody knows is refused with its place.
//!
//! ```
//! let suite = mesh_istio::expect::Suite::read("reviews.yaml", "
//! tests:
//! - request: GET http://reviews:9080/
//!   headers: {end-user: jason}
//!   expect: {host: reviews, subset: v2}
//! ").map_err(|findings| findings[0].to_string())?;
//! assert_eq!(suite.tests[0].expect.subset.as_deref(), Some("v2"));
//! # Ok::<(), String>(())
//! ```

use crate::cursor::{Cursor, Report, read};
use crate::diagnostic::{Diagnostic, Severity};
use crate::files::LARGEST_FILE;
use crate::yaml::{Value, compose};
use std::sync::Arc;

/// The expectations of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Suite {
    /// Files and directories of the configuration, as the file names them: relative to itself.
    pub config: Vec<String>,
    /// A MeshConfig that is not among them.
    pub mesh_config: Option<String>,
    /// The node that the requests go through, for tests that do not say.
    pub node: Option<String>,
    /// Labels of that node.
    pub labels: Vec<(String, String)>,
    /// In their order; not empty.
    pub tests: Vec<Test>,
}

/// One request and what is expected of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Test {
    /// Its name; the request where none is given.
    pub name: String,
    /// `METHOD URL`, or only the URL.
    pub request: String,
    /// Headers of the request, in their order.
    pub headers: Vec<(String, String)>,
    /// The node that it goes through, if not the file's.
    pub node: Option<String>,
    /// The listener that it comes to, if not the one that fits best.
    pub listener: Option<String>,
    /// What is expected.
    pub expect: Expect,
    /// Where it stands, from 1.
    pub line: u32,
    /// Where it stands, from 1.
    pub column: u32,
}

/// What is expected of a request; what is not given is not looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Expect {
    /// The host of the service that it goes to: whole, or its first labels.
    pub host: Option<String>,
    /// The subset of that service; empty is none.
    pub subset: Option<String>,
    /// The port of that service.
    pub port: Option<u16>,
    /// The cluster that it goes to.
    pub cluster: Option<String>,
    /// Where it goes by weight: subsets, hosts or clusters, with their weights; all of them.
    pub weights: Vec<(String, u32)>,
    /// The status of the answer that the proxy makes itself.
    pub status: Option<u16>,
    /// Where that answer redirects to.
    pub location: Option<String>,
    /// Path and query as they go out.
    pub path: Option<String>,
    /// The authority as it goes out.
    pub authority: Option<String>,
    /// Headers as they go out, those that the proxy sets.
    pub headers: Vec<(String, String)>,
    /// The name of the route.
    pub route: Option<String>,
    /// Policies by name, with what is to be found in their words; `none` is none.
    pub policy: Vec<(String, String)>,
    /// How many endpoints are eligible.
    pub endpoints: Option<u32>,
}

/// Most tests of one file.
const MOST_TESTS: usize = 10_000;

// === impl Suite ===

impl Suite {
    /// Reads a file of expectations, under the name that findings give it.
    ///
    /// # Errors
    /// If it is no YAML, or says something that nobody understands. All faults are found at once.
    pub fn read(file: &str, text: &str) -> Result<Self, Vec<Diagnostic>> {
        let file: Arc<str> = file.into();
        let whole = |message: &str| Diagnostic::of_file(Severity::Error, &file, message);
        if text.len() as u64 > LARGEST_FILE {
            return Err(vec![whole("is too large")]);
        }
        let documents = compose(text).map_err(|syntax| {
            let (at, message) = (syntax.at, syntax.message);
            vec![Diagnostic::at(Severity::Error, &file, text, at, message)]
        })?;
        let [document] = documents.as_slice() else {
            return Err(vec![whole("expected one YAML document with tests")]);
        };
        let report = Report::new("Expectations".to_owned(), &file, text);
        let suite = suite(&Cursor::root(document, &report));
        match (suite, report.failed()) {
            (Some(suite), false) => Ok(suite),
            _ => Err(report.into_findings()),
        }
    }
}

fn suite(cursor: &Cursor<'_>) -> Option<Suite> {
    let mut fields = cursor.fields()?;
    let suite = Suite {
        config: fields.list("config", read::filled),
        mesh_config: fields.get("meshConfig", read::filled),
        node: fields.get("node", read::filled),
        labels: fields.entries("labels", pair),
        tests: fields.need("tests", |tests| tests.list(test))?,
    };
    fields.done();
    match suite.tests.len() {
        0 => cursor.error("expected at least one test"),
        1..=MOST_TESTS => {}
        _ => cursor.error(format!("more than {MOST_TESTS} tests")),
    }
    Some(suite)
}

fn test(cursor: &Cursor<'_>) -> Option<Test> {
    let mut fields = cursor.fields()?;
    let at = cursor.at();
    let name = fields.get("name", read::filled);
    let request = fields.need("request", read::filled);
    let headers = fields.entries("headers", pair);
    let node = fields.get("node", read::filled);
    let listener = fields.get("listener", read::filled);
    let expected = fields.need("expect", expect);
    fields.done();
    let request = request?;
    Some(Test {
        name: name.unwrap_or_else(|| request.clone()),
        request,
        headers,
        node,
        listener,
        expect: expected?,
        line: at.line,
        column: at.column,
    })
}

fn expect(cursor: &Cursor<'_>) -> Option<Expect> {
    let mut fields = cursor.fields()?;
    let expect = Expect {
        host: fields.get("host", read::filled),
        subset: fields.get("subset", read::string),
        port: fields.get("port", read::port),
        cluster: fields.get("cluster", read::filled),
        weights: fields.entries("weights", |key, value| Some((key.to_owned(), value.u32()?))),
        status: fields.get("status", read::status),
        location: fields.get("location", read::filled),
        path: fields.get("path", read::filled),
        authority: fields.get("authority", read::filled),
        headers: fields.entries("headers", pair),
        route: fields.get("route", read::string),
        policy: fields.entries("policy", pair),
        endpoints: fields.get("endpoints", read::u32),
    };
    fields.done();
    // With faults in it, it would have expected something.
    if let Value::Map(entries) = &cursor.node().value
        && entries.iter().all(|(_, value)| value.is_null())
    {
        cursor.error("expects nothing");
    }
    Some(expect)
}

/// A key and the text of its value, whatever that would be in YAML: `timeout: 3` is as good as
/// `timeout: "3"`.
fn pair(key: &str, value: &Cursor<'_>) -> Option<(String, String)> {
    match value.node().text() {
        Some(text) => Some((key.to_owned(), text.to_owned())),
        None => value.expected("a text"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> Vec<String> {
        let findings = Suite::read("e.yaml", text).unwrap_err();
        findings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_suite_is_read_whole() {
        let suite = Suite::read(
            "e.yaml",
            "
config: [mesh.yaml, more]
node: client.default
labels: {app: client}
tests:
- request: GET http://a/
  expect: {status: 404}
- name: second
  request: http://b/
  headers: {x: 1, y: 'true'}
  listener: '8080'
  expect:
    host: b
    weights: {v1: 90, v2: 10}
    policy: {timeout: 3s, retries: 5}
",
        )
        .unwrap();
        assert_eq!(suite.config, ["mesh.yaml", "more"]);
        let [first, second] = suite.tests.as_slice() else {
            panic!("two tests")
        };
        assert_eq!((&*first.name, first.line), ("GET http://a/", 6));
        assert_eq!((&*second.name, second.line), ("second", 8));
        assert_eq!(second.headers[0], ("x".to_owned(), "1".to_owned()));
        assert_eq!(second.expect.weights[1], ("v2".to_owned(), 10));
        assert_eq!(second.expect.policy[1].1, "5");
    }

    #[test]
    fn every_fault_has_its_line_and_column() {
        let found = refused(
            "
nodes: x
tests:
- {request: GET http://a/, expect: {}}
- {expect: {stauts: 404, status: 99}}
- {request: http://a/, expect: {port: http}, header: {a: b}}
",
        );
        let places: Vec<&str> = found
            .iter()
            .map(|it| it.split(": ").next().unwrap())
            .collect();
        assert_eq!(
            places,
            [
                "e.yaml:4:36",
                "e.yaml:5:3",
                "e.yaml:5:34",
                "e.yaml:5:13",
                "e.yaml:6:39",
                "e.yaml:6:46",
                "e.yaml:2:1",
            ],
            "{found:#?}"
        );
        assert!(found[0].contains("expects nothing"), "{found:#?}");
        assert!(refused("tests: [")[0].starts_with("e.yaml:1:"));
        assert!(refused("tests: []")[0].contains("at least one"));
        assert!(refused("a: b\n---\na: b")[0].contains("one YAML document"));
    }
}
