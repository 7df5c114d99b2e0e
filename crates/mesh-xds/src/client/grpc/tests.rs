use super::*;
use proptest::prelude::*;

/// What Istio's agent writes, but for the socket in place of an address.
const AGENT: &str = r#"{
    "xds_servers": [{"server_uri": "dns:///istiod.istio-system.svc:15010",
        "channel_creds": [{"type": "google_default"}, {"type": "insecure"}],
        "server_features": ["xds_v3", "ignore_resource_deletion"]}],
    "node": {"id": "sidecar~10.0.0.1~a.b~c", "metadata": {"GENERATOR": "grpc"}, "locality": {}},
    "certificate_providers": {"default": {"plugin_name": "file_watcher", "config": {
        "certificate_file": "/etc/cert-chain.pem", "private_key_file": "/etc/key.pem",
        "ca_certificate_file": "/etc/root-cert.pem", "refresh_interval": "900s"}}},
    "server_listener_resource_name_template": "xds.istio.io/grpc/lds/inbound/%s"
}"#;

const FEDERATION: &str = r#"{
    "xds_servers": [{"server_uri": "a:1", "channel_creds": [{"type": "insecure"}]}],
    "client_default_listener_resource_name_template":
        "xdstp://a.com/envoy.config.listener.v3.Listener/client/%s?project_id=1",
    "server_listener_resource_name_template":
        "xdstp://a.com/envoy.config.listener.v3.Listener/server/%s?project_id=1",
    "authorities": {
        "a.com": {},
        "b.com": {
            "xds_servers": [{"server_uri": "b:1", "channel_creds": [{"type": "tls", "config":
                {"ca_certificate_file": "ca.pem"}}],
                "call_creds": [{"type": "jwt_token_file", "config": {"jwt_token_file": "t"}}]}],
            "client_listener_resource_name_template":
                "xdstp://b.com/envoy.config.listener.v3.Listener/%s?x=y"
        }
    }
}"#;

#[test]
fn what_istios_agent_writes_is_read() {
    let read = GrpcBootstrap::from_json(AGENT).unwrap();
    assert_eq!(read.node.text("GENERATOR"), Some("grpc"));
    assert_eq!(
        read.servers[0].uri(),
        "http://istiod.istio-system.svc:15010"
    );
    assert!(read.servers[0].ignore_resource_deletion);
    let files = &read.certificate_providers["default"];
    assert_eq!(files.roots, Some("/etc/root-cert.pem".into()));
    let address = "0.0.0.0:80".parse().unwrap();
    let listener = read.server_listener(address).unwrap();
    assert_eq!(listener, "xds.istio.io/grpc/lds/inbound/0.0.0.0:80");
    assert!(read.client().build().is_ok());
}

#[test]
fn without_templates_a_target_is_its_listener() {
    let read = GrpcBootstrap::from_json(AGENT).unwrap();
    for target in ["xds:a:80", "xds:///a:80", "xds:/a:80"] {
        assert_eq!(read.listener(target).unwrap(), "a:80");
    }
    for wrong in ["a:80", "xds://b.com/a:80", "xds://b.com"] {
        assert!(read.listener(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn templates_of_authorities_make_structured_names() {
    let read = GrpcBootstrap::from_json(FEDERATION).unwrap();
    let kind = "envoy.config.listener.v3.Listener";
    for (target, name) in [
        (
            "xds:///a",
            format!("xdstp://a.com/{kind}/client/a?project_id=1"),
        ),
        (
            "xds:a/b%c",
            format!("xdstp://a.com/{kind}/client/a/b%25c?project_id=1"),
        ),
        ("xds://a.com/a", format!("xdstp://a.com/{kind}/a")),
        ("xds://b.com/a", format!("xdstp://b.com/{kind}/a?x=y")),
    ] {
        assert_eq!(read.listener(target).unwrap(), name.as_str());
    }
    let address = "[::1]:80".parse().unwrap();
    let name = format!("xdstp://a.com/{kind}/server/%5B::1%5D:80?project_id=1");
    assert_eq!(read.server_listener(address).unwrap(), name.as_str());
}

#[test]
fn each_authority_has_its_own_servers_or_those_of_all() {
    let read = GrpcBootstrap::from_json(FEDERATION).unwrap();
    assert!(read.authorities["a.com"].servers.is_empty());
    let [server] = read.authorities["b.com"].servers.as_slice() else {
        panic!("one server")
    };
    assert_eq!(server.uri(), "https://b:1");
    assert_eq!(server.token, Some("t".into()));
    let roots = server.tls.as_ref().unwrap().validation.as_ref().unwrap();
    assert_eq!(roots.roots.as_ref().unwrap().name, "file-root:ca.pem");
}

#[test]
fn what_is_not_supported_is_refused_with_its_place() {
    let with = |from: &str, to: &str| {
        let text = FEDERATION.replacen(from, to, 1);
        assert_ne!(text, FEDERATION, "{from}");
        GrpcBootstrap::from_json(&text).unwrap_err().to_string()
    };
    for (from, to, said) in [
        (
            "insecure",
            "google_default",
            "xds_servers[0].channel_creds: none of google_default",
        ),
        (
            "jwt_token_file",
            "sts",
            "authorities.b.com.xds_servers[0].call_creds: only",
        ),
        ("\"xds_servers\"", "\"servers\"", "servers: not supported"),
        (
            "\"server_uri\": \"a:1\",",
            "",
            "xds_servers[0].server_uri: required",
        ),
        (
            "\"server_uri\": \"a:1\"",
            "\"server_uri\": \"a:1\", \"server_features\": [\"fail_on_data_errors\"]",
            "xds_servers[0].server_features[0]: \"fail_on_data_errors\" is not supported",
        ),
        (
            "xdstp://b.com/",
            "xdstp://c.com/",
            "authorities.b.com.client_listener_resource_name_template: ",
        ),
        (
            "\"authorities\": {",
            "\"authorities\": [], \"x\": {",
            "authorities: expected an object",
        ),
    ] {
        let error = with(from, to);
        assert!(error.starts_with(said), "{error}");
    }
    assert!(GrpcBootstrap::from_json("{}").unwrap_err().path() == "xds_servers");
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "[ -~]{0,100}", at in any::<prop::sample::Index>()) {
        let _ = GrpcBootstrap::from_json(&text);
        let mut cut = FEDERATION.to_owned();
        cut.truncate(at.index(cut.len()));
        prop_assert!(GrpcBootstrap::from_json(&cut).is_err());
        if let Ok(read) = GrpcBootstrap::from_json(FEDERATION) {
            let _ = read.listener(&text);
            let _ = read.listener(&format!("xds:{text}"));
        }
    }
}
