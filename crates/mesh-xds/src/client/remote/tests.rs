use super::*;

fn remote(server: Server) -> Result<Remote, Invalid> {
    let patience = Patience {
        connect: Duration::from_secs(1),
        keep_alive: None,
    };
    let (mut remotes, _) = remotes(vec![server], patience)?;
    Ok(remotes.remove(0))
}

fn refused(server: Server) -> String {
    remote(server).unwrap_err().to_string()
}

#[test]
fn addresses_of_servers_are_checked() {
    for wrong in [
        "",
        "h:1",
        "http://h",
        "https://h",
        "ftp://h:1",
        "http://h:1/x",
        "http://h:1?x",
        "http://me:hush@h:1",
        "http://h:0",
        "unix:a",
    ] {
        let error = refused(wrong.into());
        assert!(error.contains("expected http://HOST:PORT"), "{error}");
    }
    for right in [
        "http://h:1",
        "https://h:1",
        "http://[::1]:1",
        "https://h:1/",
        "unix:///a/b",
        "unix://./a",
        "unix://@a",
    ] {
        assert!(remote(right.into()).is_ok(), "{right}");
    }
}

#[test]
fn what_needs_tls_is_refused_without_it() {
    let plain = || Server::at("http://h:1");
    let error = refused(plain().trusting("file-root:system", None, None));
    assert!(error.starts_with("servers[0].tls: "), "{error}");
    let error = refused(plain().token_file("t"));
    assert!(error.contains("only sent over TLS"), "{error}");
}

#[test]
fn a_certificate_that_would_come_from_a_discovery_service_is_refused_by_name() {
    let error = refused(Server::at("https://h:1").trusting("kubernetes://x", None, None));
    assert!(error.contains("\"kubernetes://x\""), "{error}");
}

#[test]
fn metadata_of_grpc_itself_is_refused_by_name() {
    for name in ["grpc-timeout", "te", "x-bin"] {
        let name = http::HeaderName::from_static(name);
        let server = Server::at("http://h:1").metadata(name.clone(), HeaderValue::from_static("x"));
        assert!(refused(server).contains(name.as_str()));
    }
}

#[test]
fn a_token_is_read_for_each_stream_and_never_shown() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, "one\n").unwrap();
    let remote = remote(Server::at("https://h:1").token_file(&file)).unwrap();
    let sent = || remote.request(()).unwrap().into_parts().0.into_headers();
    assert_eq!(sent()[header::AUTHORIZATION], "Bearer one");
    std::fs::write(&file, "two").unwrap();
    assert_eq!(sent()[header::AUTHORIZATION], "Bearer two");
    assert!(!format!("{:?}", sent()).contains("two"));
    for wrong in ["", "\n", "hush\u{1}"] {
        std::fs::write(&file, wrong).unwrap();
        let error = remote.request(()).unwrap_err();
        assert!(
            error.contains("token") && !error.contains("hush"),
            "{error}"
        );
    }
    std::fs::remove_file(&file).unwrap();
    assert!(remote.request(()).is_err());
}
