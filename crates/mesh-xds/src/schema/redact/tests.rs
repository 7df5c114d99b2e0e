use super::*;
use envoy_types::pb::google::protobuf::Any;
use proptest::collection::vec;
use proptest::prelude::{any as arbitrary, prop_assert, proptest};
use prost::Message as _;

const TLS: &str = "envoy.extensions.transport_sockets.tls.v3";

fn sensitive_fields() -> Vec<String> {
    let fields = Message::all().flat_map(|message| {
        let own = message.fields().filter(|field| field.is_sensitive());
        own.map(move |field| format!("{}.{}", message.name(), field.name()))
    });
    fields.collect()
}

#[test]
fn what_is_sensitive_is_known() {
    let fields = sensitive_fields();
    for field in [
        "TlsCertificate.private_key",
        "TlsCertificate.pkcs12",
        "TlsCertificate.password",
        "TlsSessionTicketKeys.keys",
        "GenericSecret.secret",
        "PrivateKeyProvider.typed_config",
    ] {
        let field = format!("{TLS}.{field}");
        assert!(fields.contains(&field), "{field} of {fields:#?}");
    }
    let google = "envoy.config.core.v3.GrpcService.GoogleGrpc.SslCredentials.private_key";
    assert!(fields.iter().any(|field| field == google), "{fields:#?}");
    // Envoy shows it; here it may be a credential.
    let metadata = "envoy.config.core.v3.GrpcService.initial_metadata";
    assert!(fields.iter().any(|field| field == metadata), "{fields:#?}");
    let shown = format!("{TLS}.TlsCertificate.certificate_chain");
    assert!(!fields.contains(&shown));
}

#[test]
fn whatever_can_hold_a_sensitive_field_says_so() {
    let has = |name: &str| Message::named(name).unwrap().has_secrets();
    assert!(has("google.protobuf.Any") && has("xds.type.v3.TypedStruct"));
    assert!(has("envoy.config.listener.v3.Listener"));
    assert!(has(&format!("{TLS}.Secret")));
    assert!(!has("envoy.config.core.v3.SocketAddress"));
    assert!(!has("google.protobuf.Struct"));
}

#[test]
fn an_any_without_a_type_is_emptied() {
    // A reader joins the two halves.
    let halves = [
        Any {
            type_url: format!("type.googleapis.com/{TLS}.TlsCertificate"),
            value: Vec::new(),
        },
        Any {
            type_url: String::new(),
            value: b"\x12\x0b\x1a\x09hush-hush".to_vec(),
        },
    ];
    let mut bytes = Vec::new();
    for half in halves {
        delimited(2, &half.encode_to_vec(), &mut bytes);
    }
    let shown = redact("envoy.config.core.v3.TypedExtensionConfig", &bytes);
    assert!(!String::from_utf8_lossy(&shown).contains("hush"));
}

/// A reader takes the last one, which is harmless; the bytes of the others stay away, too.
#[test]
fn what_a_reader_of_an_any_passes_over_is_not_shown() {
    let name = "type.googleapis.com/envoy.config.core.v3.SocketAddress";
    let last = Any {
        type_url: name.into(),
        value: Vec::new(),
    };
    for number in [2, 3] {
        let mut bytes = Vec::new();
        delimited(number, b"hush-hush", &mut bytes);
        bytes.extend(last.encode_to_vec());
        delimited(2, b"", &mut bytes);
        let shown = redact("google.protobuf.Any", &bytes);
        assert!(!String::from_utf8_lossy(&shown).contains("hush"));
        assert!(String::from_utf8_lossy(&shown).contains(name));
    }
}

#[test]
fn of_an_any_of_an_unknown_type_nothing_is_known() {
    let any = Any {
        type_url: "type.googleapis.com/orchard.Tree".into(),
        value: b"leaves".to_vec(),
    };
    let bytes = any.encode_to_vec();
    assert_eq!(redact("google.protobuf.Any", &bytes), bytes);
}

#[test]
fn bytes_that_are_not_the_message_are_not_shown() {
    assert!(redact(&format!("{TLS}.Secret"), b"hush").is_empty());
    assert!(redact("orchard.Tree", b"\x0a\x01a").is_empty());
}

#[cfg(feature = "json")]
mod as_envoy_shows_it {
    use super::*;
    use crate::json::Codec;
    use serde_json::{Value, json};

    fn dumped(message: &str, given: &Value) -> Value {
        let codec = Codec::new();
        let bytes = codec.from_json(message, &given.to_string()).unwrap();
        let text = codec.to_json(message, &bytes).unwrap();
        let redacted = redact(message, &bytes);
        // The bytes that are sent elsewhere show no more than what is printed here.
        assert_eq!(codec.to_json(message, &redacted).unwrap(), text);
        assert!(!String::from_utf8_lossy(&redacted).contains("hush"));
        serde_json::from_str(&text).unwrap()
    }

    /// What an Envoy 1.40 made of each of these.
    #[test]
    fn texts_files_and_bytes_are_replaced_and_numbers_go() {
        let secret = format!("{TLS}.Secret");
        let base64 = "W3JlZGFjdGVkXQ==";
        for (given, expected) in [
            (
                json!({"name": "a", "tls_certificate": {
                    "certificate_chain": {"filename": "/c.pem"},
                    "private_key": {"filename": "/hush.key"},
                    "password": {"inline_string": "hush"}}}),
                json!({"name": "a", "tls_certificate": {
                    "certificate_chain": {"filename": "/c.pem"},
                    "private_key": {"filename": "[redacted]"},
                    "password": {"inline_string": "[redacted]"}}}),
            ),
            (
                json!({"name": "b", "session_ticket_keys": {"keys": [
                    {"inline_bytes": "aHVzaA=="}, {"environment_variable": "hush"}]}}),
                json!({"name": "b", "session_ticket_keys": {"keys": [
                    {"inline_bytes": base64}, {"environment_variable": "[redacted]"}]}}),
            ),
            (
                json!({"name": "c", "generic_secret": {
                    "secret": {"inline_string": "hush"},
                    "secrets": {"of the king": {"inline_bytes": "aHVzaA=="}}}}),
                json!({"name": "c", "generic_secret": {
                    "secret": {"inline_string": "[redacted]"},
                    "secrets": {"of the king": {"inline_bytes": base64}}}}),
            ),
            (
                json!({"name": "d", "tls_certificate": {"private_key_provider": {
                    "provider_name": "p",
                    "typed_config": {"@type": "type.googleapis.com/google.protobuf.Struct",
                        "value": {"key": "hush", "number": 7, "list": [{"in": "hush"}]}}}}}),
                json!({"name": "d", "tls_certificate": {"private_key_provider": {
                    "provider_name": "p",
                    "typed_config": {"@type": "type.googleapis.com/google.protobuf.Struct",
                        "value": {"key": "[redacted]", "number": null,
                            "list": [{"in": "[redacted]"}]}}}}}),
            ),
        ] {
            assert_eq!(dumped(&secret, &given), expected);
        }
    }

    #[test]
    fn a_key_is_found_through_every_any_and_typed_struct() {
        let context = |key: &str| {
            json!({"common_tls_context": {"tls_certificates": [{
                "certificate_chain": {"inline_string": "shown"},
                "private_key": {"inline_string": key}}]}})
        };
        let url = format!("type.googleapis.com/{TLS}.DownstreamTlsContext");
        let wrapped = |key: &str| {
            json!({"@type": "type.googleapis.com/xds.type.v3.TypedStruct",
                "type_url": url, "value": context(key)})
        };
        let quic = |key: &str| {
            let mut inner = context(key);
            inner["@type"] = url.clone().into();
            json!({"name": "l", "filter_chains": [
                {"transport_socket": {"name": "tls", "typed_config": inner}},
                {"transport_socket": {"name": "tls", "typed_config": wrapped(key)}}]})
        };
        let shown = dumped("envoy.config.listener.v3.Listener", &quic("hush"));
        assert_eq!(shown, quic("[redacted]"));
    }

    #[test]
    fn a_typed_struct_that_does_not_fit_its_type_is_emptied() {
        let given = json!({"type_url": format!("type.googleapis.com/{TLS}.DownstreamTlsContext"),
            "value": {"no_such_field": "hush"}});
        let shown = dumped("xds.type.v3.TypedStruct", &given);
        assert_eq!(shown.get("value"), None, "{shown}");
        let other = json!({"type_url": "type.googleapis.com/orchard.Tree",
            "value": {"leaves": "green"}});
        assert_eq!(dumped("xds.type.v3.TypedStruct", &other), other);
    }

    /// Every field that is marked, filled with a text that must not be seen.
    #[test]
    fn nothing_in_any_sensitive_field_is_shown() {
        let mut tried = 0;
        for message in Message::all() {
            for field in message.fields().filter(|field| field.is_sensitive()) {
                let mut bytes = Vec::new();
                let contents = match field.kind() {
                    Kind::Message(inner) if inner.name().ends_with("DataSource") => {
                        let mut inner = Vec::new();
                        delimited(3, b"hush", &mut inner);
                        inner
                    }
                    Kind::String | Kind::Bytes => b"hush".to_vec(),
                    _ => continue,
                };
                delimited(field.number(), &contents, &mut bytes);
                let shown = redact(message.name(), &bytes);
                let text = String::from_utf8_lossy(&shown);
                assert!(
                    text.contains("[redacted]") && !text.contains("hush"),
                    "{}.{}",
                    message.name(),
                    field.name()
                );
                tried += 1;
            }
        }
        assert!(tried > 5, "{tried}");
    }
}

proptest! {
    #[test]
    fn any_bytes_may_come_and_what_is_shown_stays_as_it_is(
        bytes in vec(arbitrary::<u8>(), 0..80),
    ) {
        for name in ["Secret", "DownstreamTlsContext"] {
            let name = format!("{TLS}.{name}");
            let once = redact(&name, &bytes);
            prop_assert!(redact(&name, &once) == once);
        }
        let once = redact("google.protobuf.Any", &bytes);
        prop_assert!(redact("google.protobuf.Any", &once) == once);
    }
}
