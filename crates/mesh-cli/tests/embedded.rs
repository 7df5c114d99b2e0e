//! The YAML of tasks without any proxy: an application that reads the files of a running demo, and
//! whose own requests go where the tasks say, through a mesh client inside its process.

#[path = "tasks/demo.rs"]
mod demo;
mod support;

use demo::{DataPlane, Demo};
use http::Request;
use http_body_util::{BodyExt, Empty};
use mesh_client::MeshClient;
use mesh_identity::Files;
use mesh_istio::{Node, parse_locality};
use mesh_proxy::config::{Configuration, NodeSpec, Source};
use std::collections::BTreeSet;
use std::fs;
use support::wait_until;
use tokio::runtime::Runtime;
use tower::ServiceExt;

/// An application of the mesh's namespace.
struct Application {
    runtime: Runtime,
    mesh: MeshClient,
}

/// What came back.
#[derive(Debug)]
struct Reply {
    status: u16,
    served_by: String,
    body: String,
}

// === impl Application ===

impl Application {
    fn start(demo: &Demo) -> Self {
        let source = Source {
            paths: vec![demo.dir.clone()],
            mesh_config: None,
            node: NodeSpec::Exact(Node::sidecar("embedded", "default")),
            dns_capture: false,
            identity: false,
            self_discovery: false,
            // Where productpage is.
            locality: Some(parse_locality("us-east/a")),
            access_log: None,
        };
        let (configuration, findings) = Configuration::load(source).unwrap();
        assert!(findings.iter().all(|finding| !finding.is_error()));
        let feed = configuration.feed();
        let runtime = Runtime::new().unwrap();
        runtime.spawn(Files::new(feed.clone()).run());
        runtime.spawn(configuration.watch(|_| {}));
        let mesh = MeshClient::builder(feed, "http_proxy").build();
        Self { runtime, mesh }
    }

    fn call(&self, url: &str, headers: &[(&str, &str)]) -> Reply {
        let mut request = Request::get(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Empty::new()).unwrap();
        self.runtime.block_on(async {
            let response = self.mesh.clone().oneshot(request).await.unwrap();
            let status = response.status().as_u16();
            let served_by = response.headers().get("x-served-by");
            let served_by = served_by
                .map_or("", |value| value.to_str().unwrap())
                .to_owned();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            Reply {
                status,
                served_by,
                body: String::from_utf8(body.into()).unwrap(),
            }
        })
    }
}

#[test]
fn the_yaml_of_a_task_does_the_same_inside_an_application() {
    let demo = Demo::start(DataPlane::ReadsYaml);
    let application = Application::start(&demo);
    let reviews = "http://reviews:9080/reviews/0";
    let outside = "http://one.example.com/hostname";
    let served = |headers: &[(&str, &str)]| application.call(reviews, headers).served_by;

    // 1: a signed-in user gets another version.
    demo.apply("1");
    wait_until(|| (0..20).all(|_| served(&[]) == "reviews-v1"));
    for _ in 0..20 {
        assert_eq!(served(&[("end-user", "jason")]), "reviews-v2");
        assert_eq!(served(&[("end-user", "jasonx")]), "reviews-v1");
    }
    assert_eq!(
        application.call(outside, &[]).status,
        502,
        "nobody knows it"
    );

    // 10: paths are rewritten on the way, and a redirect is nobody else's answer.
    demo.apply("10");
    let rewritten = "http://reviews:9080/wpcatalog/x";
    wait_until(|| {
        application
            .call(rewritten, &[])
            .body
            .contains("/newcatalog/x")
    });
    let moved = application.call("http://reviews:9080/v1/getProductRatings", &[]);
    assert_eq!(moved.status, 301);

    // 17: who brings a cookie stays with an endpoint.
    demo.apply("17");
    let stays = |caller: usize| {
        let cookie = format!("reviews-stay=caller-{caller}");
        let served = (0..3).map(|_| served(&[("cookie", &cookie)]));
        served.collect::<BTreeSet<_>>()
    };
    wait_until(|| (0..80).all(|caller| stays(caller).len() == 1));
    let all: BTreeSet<_> = (0..80).flat_map(stays).collect();
    assert_eq!(all.len(), 3, "{all:?}");

    // 18: requests stay in the zone of the application.
    demo.apply("18");
    wait_until(|| (0..20).all(|_| served(&[]) == "reviews-v1"));
    let file = demo.dir.join("task/reviews.yaml");
    let text = fs::read_to_string(&file).unwrap();
    let shares = "distribute: [{from: us-east/*, to: {us-west/*: 100}}]";
    let text = text.replace("failover: [{from: us-east, to: us-west}]", shares);
    fs::write(&file, text).unwrap();
    wait_until(|| (0..20).all(|_| served(&[]) == "reviews-v3"));

    // 16: the application speaks HTTP, its library TLS with whom it should.
    demo.apply("16");
    wait_until(|| application.call(outside, &[]).status == 200);
    assert!(application.call(outside, &[]).body.contains("\"one\""));
    let edit = |from: &str, to: &str| {
        let file = demo.dir.join("task/outside.yaml");
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(from));
        fs::write(&file, text.replace(from, to)).unwrap();
    };
    for (right, wrong) in [
        ("subjectAltNames: [one.", "subjectAltNames: [two."),
        ("/ca.pem", "/two.pem"),
    ] {
        edit(right, wrong);
        wait_until(|| application.call(outside, &[]).status == 503);
        edit(wrong, right);
        wait_until(|| application.call(outside, &[]).status == 200);
    }
}
