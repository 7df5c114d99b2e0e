//! Tasks about what is below HTTP: TLS, TCP, and the ports of a gateway.

use super::version;
use crate::demo::Demo;
use crate::support::{Client, at, wait_until};
use crate::wire::{Caller, Lines, certificate_in};
use serde_json::Value;
use std::fs;
use std::net::TcpStream;
use std::process::{Command, Stdio};

/// Applies a task and waits until the gateway listens on these ports of a Gateway.
fn apply(demo: &Demo, task: &str, ports: &[u16]) {
    demo.apply(task);
    for port in ports {
        // Envoy acknowledges a listener before its workers have it.
        wait_until(|| TcpStream::connect(at(demo.mapped(*port))).is_ok());
    }
}

fn caller(demo: &Demo, port: u16) -> Caller {
    Caller {
        port: demo.mapped(port),
        authority: demo.dir.join("certs/ca.pem"),
    }
}

fn hostname(body: &str) -> String {
    let body: Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("{body}"));
    body["hostname"].as_str().unwrap().to_owned()
}

pub fn task_11_the_documented_gateway_serves_five_ports_each_in_its_own_way(demo: &Demo) {
    apply(demo, "11", &[443, 9443, 9080, 2379]);
    let reviews = ["reviews-v1", "reviews-v3"];

    // 80: to https, for these hosts only.
    for host in ["uk.bookinfo.com", "eu.bookinfo.com"] {
        let redirect = Client::connect(demo.gateway()).get("/reviews/0?x", &[("host", host)]);
        assert_eq!(redirect.status, 301);
        let location = format!("https://{host}/reviews/0?x");
        assert_eq!(redirect.headers["location"], location);
    }
    assert_eq!(demo.at_gateway("/productpage").status, 200);

    // 443 with files, 9443 with a Secret.
    for port in [443, 9443] {
        for host in ["uk.bookinfo.com", "eu.bookinfo.com"] {
            let answer = caller(demo, port).get(&format!("https://{host}/reviews/0"));
            assert_eq!(answer.status, 200, "{port} {host}: {answer:?}");
            assert!(reviews.contains(&answer.headers["x-served-by"].as_str()));
            let unknown = caller(demo, port).get(&format!("https://{host}/elsewhere"));
            assert_eq!(unknown.status, 404);
        }
        let plain = caller(demo, port).get("http://uk.bookinfo.com/reviews/0");
        assert!(plain.is_refusal(), "{plain:?}");
    }
    let files = caller(demo, 443).shown(Some("uk.bookinfo.com"));
    assert_eq!(
        files,
        certificate_in(&demo.dir.join("certs/servercert.pem"))
    );
    let secret = caller(demo, 9443).shown(Some("uk.bookinfo.com"));
    let file = demo.dir.join("task/secret-bookinfo-secret.yaml");
    assert_eq!(secret, certificate_in(&file));

    // A route of another namespace: 443 has no such host, 9443 does not take it, 9080 does.
    let other = "https://de.bookinfo.com/headers";
    assert!(caller(demo, 443).get(other).is_refusal());
    assert_eq!(caller(demo, 9443).get(other).status, 404);
    let plain = caller(demo, 9080).get("http://de.bookinfo.com/headers");
    assert_eq!(plain.status, 200);
    // Neither of them has a host of another domain.
    let stranger = "https://uk.example.com/reviews/0";
    assert!(caller(demo, 443).get(stranger).is_refusal());
    assert!(caller(demo, 9443).get(stranger).is_refusal());

    // The cookie of a developer leads to another service on another port.
    let mut kept = Client::connect(at(demo.mapped(9080)));
    let developer = [("host", "uk.bookinfo.com"), ("cookie", "user=dev-123")];
    for _ in 0..20 {
        assert_eq!(version(&kept.get("/reviews/0", &developer)), "reviews-v3");
    }
    let mut others = 0;
    for _ in 0..500 {
        let answer = kept.get("/reviews/0", &[("host", "uk.bookinfo.com")]);
        others += usize::from(version(&answer) == "reviews-v3");
    }
    // A fifth of 500, with five standard deviations to each side.
    assert!((55..=145).contains(&others), "{others} of 500");

    // Inside of the mesh the same rule holds.
    let inside = "http://reviews.prod.svc.cluster.local:9080/reviews/0";
    let answer = demo.call(inside, &[("cookie", "user=dev-123")]);
    assert_eq!(version(&answer), "reviews-v3");
    assert!(reviews.contains(&version(&demo.call(inside, &[]))));

    // 2379: whatever it is that is spoken there.
    assert_eq!(Lines::connect(demo.mapped(2379)).say("hello"), "one hello");
}

pub fn task_12_each_of_two_domains_has_its_own_certificate_which_is_replaced_under_way(
    demo: &Demo,
) {
    apply(demo, "12", &[443]);
    let gateway = caller(demo, 443);
    let (httpbin, reviews) = ("httpbin.example.com", "reviews.example.com");
    let secret = |name: &str| demo.dir.join(format!("task/secret-{name}-credential.yaml"));

    for host in [httpbin, reviews] {
        let redirect = Client::connect(demo.gateway()).get("/headers", &[("host", host)]);
        assert_eq!(redirect.status, 301);
        let location = format!("https://{host}/headers");
        assert_eq!(redirect.headers["location"], location);
    }
    let first = gateway.get(&format!("https://{httpbin}/headers"));
    assert_eq!((first.status, first.version.as_str()), (200, "2"));
    assert!(first.body.contains("\"X-Forwarded-Proto\":\"https\""));
    let old = gateway.get_with(&format!("https://{httpbin}/headers"), &["--http1.1"]);
    assert_eq!((old.status, old.version.as_str()), (200, "1.1"));
    let second = gateway.get(&format!("https://{reviews}/reviews/0"));
    assert_eq!(second.headers["x-served-by"], "reviews-v1");

    // A connection for one domain is not for the other's requests, and nobody else is known.
    let host = format!("host: {reviews}");
    let crossed = gateway.get_with(&format!("https://{httpbin}/reviews/0"), &["-H", &host]);
    assert_eq!(crossed.status, 404);
    assert!(gateway.get("https://other.example.com/").is_refusal());
    assert_eq!(gateway.shown(None), "", "who asks for no name gets nothing");

    let show = |name: &str| gateway.shown(Some(&format!("{name}.example.com")));
    for name in ["httpbin", "reviews"] {
        assert_eq!(show(name), certificate_in(&secret(name)));
    }
    let before = show("httpbin");
    renew(demo);
    wait_until(|| {
        ["httpbin", "reviews"].map(show)
            == ["httpbin", "reviews"].map(|n| certificate_in(&secret(n)))
    });
    assert_ne!(show("httpbin"), before);
    assert_eq!(
        gateway.get(&format!("https://{httpbin}/headers")).status,
        200
    );

    // Keys are shown nowhere.
    let mut shown = vec![demo.ask(9, "/config_dump").body];
    if !demo.reads_yaml {
        let path = "/debug/config_dump?proxyID=ingressgateway.istio-system";
        let sent = Client::connect(demo.control()).get(path, &[("host", "x")]);
        assert_eq!(sent.status, 200);
        shown.push(sent.body);
    }
    for text in shown {
        assert!(text.contains("kubernetes://httpbin-credential"));
        assert!(!text.contains("PRIVATE KEY"));
        // "-----BEGIN PRIVATE" in base64.
        assert!(!text.contains("LS0tLS1CRUdJTiBQUklWQVRF"));
    }

    // Without its credential a domain is closed, and the other is not concerned.
    fs::remove_file(secret("reviews")).unwrap();
    let url = format!("https://{reviews}/reviews/0");
    wait_until(|| gateway.get(&url).is_refusal());
    assert_eq!(
        gateway.get(&format!("https://{httpbin}/headers")).status,
        200
    );
    renew(demo);
    wait_until(|| gateway.get(&url).status == 200);
}

fn renew(demo: &Demo) {
    let status = Command::new(env!("CARGO_BIN_EXE_mesh"))
        .args(["demo", "renew", "--dir"])
        .arg(&demo.dir)
        .stdout(Stdio::null())
        .status();
    assert!(status.unwrap().success());
}

pub fn task_13_the_port_decides_where_a_connection_goes(demo: &Demo) {
    apply(demo, "13", &[27017, 31400]);
    for (port, server) in [(27017, "one"), (31400, "two")] {
        let mut connection = Lines::connect(demo.mapped(port));
        assert_eq!(connection.say("hello"), format!("{server} hello"));
        assert_eq!(connection.say("again"), format!("{server} again"));
        // Who says that nothing more comes still gets all answers.
        assert_eq!(connection.finish("a\nb"), format!("{server} a\n{server} b"));
    }
    demo.change(|dir| {
        let file = dir.join("task/tcp.yaml");
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text.replace("- port: 31400", "- port: 31401")).unwrap();
    });
    // No rule is left for this port, and with it no listener.
    let closed = || match TcpStream::connect(at(demo.mapped(31400))) {
        Ok(mut stream) => matches!(
            std::io::Read::read(&mut stream, &mut [0; 8]),
            Ok(0) | Err(_)
        ),
        Err(_) => true,
    };
    wait_until(closed);
    assert_eq!(Lines::connect(demo.mapped(27017)).say("x"), "one x");
}

pub fn task_14_connections_are_shared_by_weight_and_moved(demo: &Demo) {
    apply(demo, "14", &[31400]);
    const CONNECTIONS: usize = 1000;
    let port = demo.mapped(31400);
    let mut first = None;
    let mut one = 0;
    for _ in 0..CONNECTIONS {
        let mut connection = Lines::connect(port);
        match connection.say("x").as_str() {
            "one x" => {
                one += 1;
                first.get_or_insert(connection);
            }
            other => assert_eq!(other, "two x"),
        }
    }
    // Five standard deviations to each side of 800.
    assert!(
        (736..=864).contains(&one),
        "{one} of {CONNECTIONS} went to one"
    );

    demo.change(|dir| {
        let file = dir.join("task/tcp.yaml");
        let text = fs::read_to_string(&file).unwrap();
        let moved = text.replace("weight: 80", "weight: 0");
        fs::write(&file, moved.replace("weight: 20", "weight: 100")).unwrap();
    });
    // The files were read; that every worker goes by them takes another moment.
    wait_until(|| (0..20).all(|_| Lines::connect(port).say("x") == "two x"));
    for _ in 0..100 {
        assert_eq!(Lines::connect(port).say("x"), "two x");
    }
    // A connection stays where it is.
    assert_eq!(first.unwrap().say("still"), "one still");
}

pub fn task_15_tls_is_passed_on_unopened_by_server_name(demo: &Demo) {
    apply(demo, "15", &[443]);
    let gateway = caller(demo, 443);
    for name in ["one", "two"] {
        let host = format!("{name}.example.com");
        let answer = gateway.get(&format!("https://{host}/hostname"));
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(hostname(&answer.body), name);
        let file = demo.dir.join(format!("certs/{name}.pem"));
        assert_eq!(gateway.shown(Some(&host)), certificate_in(&file));
        // No proxy had a look inside.
        let headers = gateway.get(&format!("https://{host}/headers")).body;
        assert!(headers.contains("User-Agent") && !headers.contains("X-Forwarded-Proto"));
    }
    assert!(
        gateway
            .get("https://three.example.com/hostname")
            .is_refusal()
    );
    assert!(gateway.get("http://one.example.com/hostname").is_refusal());
    assert_eq!(
        gateway.shown(None),
        "",
        "without a name there is nowhere to go"
    );
}

pub fn task_16_a_sidecar_speaks_tls_where_its_application_speaks_http(demo: &Demo) {
    let url = "http://one.example.com/hostname";
    assert_eq!(demo.call(url, &[]).status, 502, "not before the task");
    demo.apply("16");
    let answer = demo.call(url, &[]);
    assert_eq!(
        (answer.status, hostname(&answer.body)),
        (200, "one".to_owned())
    );
    let cluster = "outbound|80||one.example.com.ssl.handshake";
    assert!(demo.stat(0, cluster) > 0);

    // The endpoint has to be who it is said to be, and known to the authority.
    let edit = |from: &str, to: &str| {
        demo.change(|dir| {
            let file = dir.join("task/outside.yaml");
            let text = fs::read_to_string(&file).unwrap();
            assert!(text.contains(from));
            fs::write(&file, text.replace(from, to)).unwrap();
        });
    };
    for (right, wrong, reason) in [
        (
            "subjectAltNames: [one.",
            "subjectAltNames: [two.",
            "ssl.fail_verify_san",
        ),
        ("/ca.pem", "/two.pem", "ssl.fail_verify_error"),
    ] {
        let reason = format!("outbound|80||one.example.com.{reason}");
        assert_eq!(demo.stat(0, &reason), 0);
        edit(right, wrong);
        // A connection from before may still be used, and files are read when they are needed.
        wait_until(|| demo.call(url, &[]).status == 503);
        assert!(demo.stat(0, &reason) > 0);
        edit(wrong, right);
        wait_until(|| demo.call(url, &[]).status == 200);
    }
}
