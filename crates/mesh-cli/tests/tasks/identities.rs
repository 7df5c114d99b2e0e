//! Tasks about who calls.

use crate::demo::Demo;
use crate::support::{Answer, at, wait_until};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

const PAGE: &str = "spiffe://cluster.local/ns/default/sa/bookinfo-productpage";

/// What somebody without a certificate is answered; nothing, where the connection just ends.
fn in_plain_text(sidecar: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(sidecar).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: any\r\nconnection: close\r\n\r\n");
    // It may be closed by now.
    let _ = stream.write_all(request.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

fn seen_as(answer: &Answer) -> Option<&str> {
    answer.headers.get("x-called-by").map(String::as_str)
}

pub fn task_19_who_has_no_certificate_of_the_mesh_is_refused(demo: &Demo) {
    let details = || in_plain_text(at(demo.base + 106), "/details/0");
    let ratings = || in_plain_text(at(demo.base + 206), "/ratings/0");
    let by_sidecar = || demo.call("http://details:9080/details/0", &[]);
    for plain in [details(), ratings()] {
        assert!(plain.starts_with("HTTP/1.1 200 "), "{plain}");
        assert!(!plain.contains("x-called-by"), "{plain}");
    }
    assert_eq!(seen_as(&by_sidecar()), Some(PAGE));

    demo.apply("19");
    wait_until(|| details().is_empty());
    let plain = ratings();
    assert!(plain.starts_with("HTTP/1.1 200 "), "{plain}");
    for _ in 0..20 {
        let answer = by_sidecar();
        assert_eq!(answer.status, 200);
        assert_eq!(seen_as(&answer), Some(PAGE));
    }
}
