//! `mesh explain` and `mesh test`, as a user runs them.

mod support;

use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use support::{end, free_range};

/// What a command printed, and how it ended.
#[derive(Debug)]
struct Ran {
    code: i32,
    out: String,
    err: String,
}

fn mesh_in(directory: &Path, args: &[&str]) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_mesh"))
        .args(args)
        .current_dir(directory)
        .env_remove("NO_COLOR")
        .output()
        .unwrap();
    Ran {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A mesh of three services; `client` is where requests come from.
const MESH: &str = "\
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec: {ports: [{name: http, port: 9080}], selector: {app: reviews}}
---
apiVersion: v1
kind: Service
metadata: {name: ratings}
spec: {ports: [{name: http, port: 9080}], selector: {app: ratings}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: r1}
spec: {address: 10.0.0.1, labels: {app: reviews, version: v1}, ports: {http: 80}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: r2}
spec: {address: 10.0.0.2, labels: {app: reviews, version: v2}, ports: {http: 80}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  trafficPolicy:
    connectionPool: {http: {http1MaxPendingRequests: 7}}
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
  - {name: v3, labels: {version: v3}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - name: jason
    match:
    - uri: {prefix: /api/}
      headers: {end-user: {exact: jason}}
    rewrite: {uri: /}
    timeout: 3s
    fault: {delay: {percentage: {value: 50}, fixedDelay: 2s}}
    route:
    - destination: {host: reviews, subset: v2}
  - name: moved
    match:
    - uri: {exact: /old}
    redirect: {uri: /new}
  - name: everyone
    route:
    - {destination: {host: reviews, subset: v1}, weight: 90}
    - {destination: {host: reviews, subset: v3}, weight: 10}
    retries: {attempts: 5, perTryTimeout: 1s}
    mirror: {host: ratings}
";

fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("mesh.yaml"), MESH).unwrap();
    directory
}

fn explained(args: &[&str]) -> String {
    let directory = directory();
    let line = [&["explain", "--config", "mesh.yaml"], args].concat();
    let ran = mesh_in(directory.path(), &line);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(!ran.out.contains('\x1b'), "colours are for terminals");
    ran.out
}

#[test]
fn a_request_is_followed_from_the_listener_to_the_endpoints() {
    let out = explained(&["GET http://reviews:9080/x", "-H", "end-user: eve"]);
    assert_eq!(out, include_str!("data/explain-everyone.txt"));
}

#[test]
fn the_rule_that_matches_brings_its_rewrite_its_timeout_and_its_fault() {
    let out = explained(&["http://reviews:9080/api/1?q", "-H", "end-user: jason"]);
    assert_eq!(out, include_str!("data/explain-jason.txt"));
}

#[test]
fn an_answer_of_the_proxy_itself_is_given_as_it_would_be() {
    let out = explained(&["http://reviews:9080/old"]);
    assert_eq!(out, include_str!("data/explain-redirect.txt"));
}

#[test]
fn json_says_the_same_in_fields() {
    let out = explained(&["http://reviews:9080/x", "--json"]);
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["route"]["name"], "everyone");
    assert_eq!(
        report["rules"][0]["unmet"]["wanted"],
        "path prefix \"/api/\""
    );
    let [first, second] = report["destinations"].as_array().unwrap().as_slice() else {
        panic!("two destinations: {report:#}")
    };
    assert_eq!(
        (&first["subset"], &first["percent"]),
        (&"v1".into(), &90.0.into())
    );
    assert_eq!(second["from"]["object"], "VirtualService reviews.default");
    assert_eq!(second["from"]["file"], "mesh.yaml");
    let line = second["from"]["line"].as_u64().unwrap();
    let text = MESH
        .lines()
        .nth(usize::try_from(line).unwrap() - 1)
        .unwrap();
    assert!(text.contains("subset: v3"), "{text}");
}

#[test]
fn what_cannot_be_explained_ends_with_2_and_says_what_was_expected() {
    let directory = directory();
    for (args, said) in [
        (&["--config", "mesh.yaml", "GET"][..], "has no scheme"),
        (
            &["--config", "mesh.yaml", "http://a/", "-H", "x"],
            "expected \"name: value\"",
        ),
        (
            &["--config", "mesh.yaml", "http://a/", "--node", "nobody.x"],
            "nobody",
        ),
        (
            &["--config", "mesh.yaml", "http://a/", "--listener", "9"],
            "there is no listener",
        ),
        (&["http://a/"], "--config"),
        (
            &[
                "--admin",
                "http://127.0.0.1:1",
                "http://a/",
                "--role",
                "sidecar",
            ],
            "leave out",
        ),
        (
            &["--admin", "http://127.0.0.1:1", "http://a/"],
            "cannot ask",
        ),
    ] {
        let line = [&["explain"], args].concat();
        let ran = mesh_in(directory.path(), &line);
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(ran.err.contains(said), "{args:?}: {ran:?}");
    }
    fs::write(directory.path().join("bad.yaml"), "kind: VirtualService\n").unwrap();
    let ran = mesh_in(
        directory.path(),
        &["explain", "--config", "bad.yaml", "http://a/"],
    );
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.err.contains("bad.yaml"), "{ran:?}");
}

#[test]
fn a_running_proxy_gives_the_answer_that_its_files_give() {
    let (base, _reserved) = free_range();
    let directory = tempfile::tempdir().unwrap();
    let client = format!(
        "---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: client, annotations: {{mesh-rs.dev/base-port: '{base}'}}}}
spec: {{address: 127.0.0.1, labels: {{app: client}}}}
"
    );
    fs::write(
        directory.path().join("mesh.yaml"),
        format!("{MESH}{client}"),
    )
    .unwrap();
    let mut proxy = Command::new(env!("CARGO_BIN_EXE_mesh"))
        .args([
            "proxy",
            "run",
            "--config",
            "mesh.yaml",
            "--workload",
            "client.default",
        ])
        .args(["--concurrency", "1"])
        .current_dir(directory.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let told = support::wait_for_line(&mut proxy, "admin on");
    let request = [
        "GET http://reviews:9080/api/1",
        "-H",
        "end-user: jason",
        "--json",
    ];
    let admin = format!("http://127.0.0.1:{base}");
    let live = mesh_in(
        directory.path(),
        &[&["explain", "--admin", &admin], &request[..]].concat(),
    );
    let files = [
        "explain",
        "--config",
        "mesh.yaml",
        "--workload",
        "client.default",
    ];
    let offline = mesh_in(directory.path(), &[&files[..], &request[..]].concat());
    end(&mut proxy);
    assert!(told, "the proxy says where its admin interface is");
    assert_eq!((live.code, offline.code), (0, 0), "{live:?} {offline:?}");
    let mut answers =
        [&live.out, &offline.out].map(|out| serde_json::from_str::<Value>(out).unwrap());
    for answer in &mut answers {
        // How often it was configured.
        answer["configuration"] = Value::Null;
    }
    let [live, offline] = answers;
    assert_eq!(live["route"]["name"], "jason");
    assert_eq!(live, offline);
}

const SUITE: &str = "\
config: [mesh.yaml]
tests:
- name: jason gets v2
  request: GET http://reviews:9080/api/1
  headers: {end-user: jason}
  expect: {host: reviews, subset: v2, path: /1, policy: {timeout: 3s}}
- name: everyone gets v1 # and nobody v3
  request: GET http://reviews:9080/x
  expect: {subset: v1}
";

#[test]
fn expectations_that_are_not_met_come_with_the_explanation() {
    let directory = directory();
    fs::write(directory.path().join("expect.yaml"), SUITE).unwrap();
    let ran = mesh_in(directory.path(), &["test", "expect.yaml"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    let mut lines = ran.out.lines();
    assert_eq!(lines.next(), Some("ok    jason gets v2"));
    assert_eq!(
        lines.next(),
        Some("FAIL  everyone gets v1  (expect.yaml:7:3)")
    );
    assert_eq!(
        lines.next(),
        Some("      subset: expected v1, found v1, v3")
    );
    for part in ["      request        GET reviews:9080/x", "subset v3"] {
        assert!(ran.out.contains(part), "{}", ran.out);
    }
    assert_eq!(ran.out.lines().last(), Some("1 of 2 expectations met"));

    let tap = mesh_in(
        directory.path(),
        &["test", "expect.yaml", "--output", "tap"],
    );
    assert_eq!(tap.code, 1);
    let plan: Vec<&str> = tap
        .out
        .lines()
        .filter(|line| !line.starts_with('#'))
        .collect();
    assert_eq!(
        plan,
        [
            "TAP version 13",
            "1..2",
            "ok 1 - jason gets v2",
            "not ok 2 - everyone gets v1"
        ]
    );

    let json = mesh_in(directory.path(), &["test", "expect.yaml", "--json"]);
    assert_eq!(json.code, 1);
    let report: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(
        (&report["passed"], &report["failed"]),
        (&1.into(), &1.into())
    );
    assert_eq!(report["tests"][1]["mismatches"][0]["found"], "v1, v3");
    assert_eq!(
        report["tests"][1]["explanation"]["route"]["name"],
        "everyone"
    );
    assert_eq!(report["tests"][0]["explanation"], Value::Null);
}

#[test]
fn expectations_that_cannot_be_read_end_with_2_and_their_place() {
    let directory = directory();
    let test = |text: &str| {
        fs::write(directory.path().join("expect.yaml"), text).unwrap();
        mesh_in(directory.path(), &["test", "expect.yaml"])
    };
    for (text, said) in [
        (
            "config: [mesh.yaml]\ntests:\n- request: http://a/\n  expect: {subst: v1}\n",
            "expect.yaml:4:12",
        ),
        (
            "tests:\n- {request: http://a/, expect: {status: 404}}\n",
            "which configuration?",
        ),
        (
            "config: [mesh.yaml]\ntests:\n- {request: a, expect: {status: 404}}\n",
            "expect.yaml:3:3",
        ),
        (
            "config: [none.yaml]\ntests:\n- {request: http://a/, expect: {status: 404}}\n",
            "none.yaml",
        ),
        (
            "config: [mesh.yaml]\ntests:\n\
             - {request: http://a/, expect: {policy: {timeout: 3s}}}\n\
             - {request: http://a/, expect: {policy: {cors: none}}}\n",
            "expect.yaml:4:3: no policy is called \"cors\": expected timeout, retries, ",
        ),
    ] {
        let ran = test(text);
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(ran.err.contains(said), "{said}: {ran:?}");
    }
    let ran = mesh_in(directory.path(), &["test", "nowhere.yaml"]);
    assert_eq!(ran.code, 2, "{ran:?}");
}

#[test]
fn labels_of_a_file_are_those_of_its_node_alone() {
    let directory = directory();
    let node = |name: &str| format!("sidecar~10.0.1.1~{name}.default~default.svc.cluster.local");
    let by_labels = "sourceLabels: {app: client}";
    let of_client = MESH.replace("headers: {end-user: {exact: jason}}", by_labels);
    fs::write(directory.path().join("mesh.yaml"), of_client).unwrap();
    let (own, other) = (node("own"), node("other"));
    let suite = |node: &str| {
        let tests: String = [("file's", ""), ("own", &own), ("other", &other)]
            .map(|(name, node)| {
                let node = match node {
                    "" => String::new(),
                    node => format!(", node: {node}"),
                };
                format!(
                    "- {{name: {name}, request: 'http://reviews:9080/api/1'{node}, \
                     expect: {{route: jason}}}}\n"
                )
            })
            .concat();
        format!("config: [mesh.yaml]\n{node}labels: {{app: client}}\ntests:\n{tests}")
    };
    let met = |suite: &str, flags: &[&str]| {
        fs::write(directory.path().join("expect.yaml"), suite).unwrap();
        let line = [&["test", "expect.yaml", "--output", "tap"], flags].concat();
        let ran = mesh_in(directory.path(), &line);
        let lines = ran.out.lines();
        let met = lines.filter_map(|line| line.strip_prefix("ok ")?.split_once(" - "));
        met.map(|(_, name)| name.to_owned()).collect::<Vec<_>>()
    };
    let with_node = suite(&format!("node: {own}\n"));
    assert_eq!(met(&with_node, &[]), ["file's", "own"]);
    assert_eq!(met(&suite(""), &[]), ["file's"]);
    // A node of the flags has the labels of the flags.
    let none: [&str; 0] = [];
    assert_eq!(met(&with_node, &["--node", &other]), none);
    let flags = ["--node", &other, "--labels", "app=client"];
    assert_eq!(met(&with_node, &flags), ["file's", "own", "other"]);
}

#[test]
fn the_expectations_of_the_examples_are_met() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let files = fs::read_dir(root.join("examples/expectations")).unwrap();
    let mut files: Vec<String> = files
        .map(|file| file.unwrap().path().display().to_string())
        .collect();
    files.sort();
    assert!(!files.is_empty());
    let mut line = vec!["test"];
    line.extend(files.iter().map(String::as_str));
    let ran = mesh_in(&root, &line);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
}
