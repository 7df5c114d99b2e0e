//! The two contexts.

use crate::{file, inline};
use mesh_core::model::{Cluster, Secret, SecretName, SecretRef, SecretSource, StringMatch};
use mesh_xds::pb::envoy::config::cluster::v3 as cluster;
use mesh_xds::pb::envoy::config::core::v3 as core;
use mesh_xds::pb::envoy::config::core::v3::transport_socket::ConfigType;
use mesh_xds::pb::envoy::extensions::transport_sockets::tls::v3 as tls;
use mesh_xds::pb::envoy::extensions::transport_sockets::tls::v3::common_tls_context::{
    CombinedCertificateValidationContext, ValidationContextType,
};
use mesh_xds::pb::envoy::extensions::transport_sockets::tls::v3::subject_alt_name_matcher::SanType;
use mesh_xds::pb::envoy::r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern};
use mesh_xds::pb::google::protobuf::{Any, BoolValue, UInt32Value};
use mesh_xds::read::{self, ClusterResource};
use mesh_xds::{schema, write};
use prost::{Message, Name};
use std::time::Duration;

fn socket<M: Message + Name>(message: &M) -> Option<core::TransportSocket> {
    Some(core::TransportSocket {
        name: "any".to_owned(),
        config_type: Some(ConfigType::TypedConfig(Any {
            type_url: M::type_url(),
            value: message.encode_to_vec(),
        })),
    })
}

fn cluster_with(context: &tls::UpstreamTlsContext) -> cluster::Cluster {
    let mut proto = write::cluster(&Cluster::new("c"), None);
    proto.transport_socket = socket(context);
    proto
}

/// A client whose common part was changed.
fn client(change: impl FnOnce(&mut tls::CommonTlsContext)) -> Result<ClusterResource, String> {
    let mut context = tls::UpstreamTlsContext::default();
    change(context.common_tls_context.get_or_insert_default());
    read::cluster(&cluster_with(&context)).map_err(|error| error.to_string())
}

fn checked(
    change: impl FnOnce(&mut tls::CertificateValidationContext),
) -> Result<ClusterResource, String> {
    let mut context = tls::CertificateValidationContext {
        trusted_ca: file("/ca.pem"),
        ..Default::default()
    };
    change(&mut context);
    client(|common| {
        common.validation_context_type = Some(ValidationContextType::ValidationContext(context));
    })
}

fn pattern(pattern: MatchPattern) -> StringMatcher {
    StringMatcher {
        match_pattern: Some(pattern),
        ignore_case: false,
    }
}

fn sds(name: &str, source: Option<core::ConfigSource>) -> tls::SdsSecretConfig {
    tls::SdsSecretConfig {
        name: name.to_owned(),
        sds_config: source,
    }
}

#[test]
fn a_certificate_in_place_is_handed_out_under_a_name_of_its_contents() {
    let certificate = |key: &str| tls::TlsCertificate {
        certificate_chain: inline("chain"),
        private_key: inline(key),
        ..Default::default()
    };
    let read = client(|common| common.tls_certificates = vec![certificate("key")]).unwrap();
    let named = &read.cluster.tls.as_ref().unwrap().certificates[0];
    let (given, secret) = &read.secrets[0];
    assert_eq!((named, read.secrets.len()), (given, 1));
    assert_eq!(**secret, Secret::certificate("chain", "key"));
    assert_eq!(named.source, SecretSource::Local);
    assert!(matches!(SecretName::of(&named.name), SecretName::Other(_)));
}

#[test]
fn roots_and_lists_in_place_are_secrets_and_those_in_files_are_names() {
    let read = checked(|context| {
        context.trusted_ca = inline("roots");
        context.crl = inline("lists");
    });
    let read = read.unwrap();
    let validation = read
        .cluster
        .tls
        .as_ref()
        .unwrap()
        .validation
        .clone()
        .unwrap();
    let of = |named: &Option<SecretRef>| {
        let named = named.as_ref().unwrap();
        let found = read.secrets.iter().find(|(given, _)| given == named);
        Secret::clone(&found.unwrap().1)
    };
    assert_eq!(of(&validation.roots), Secret::roots("roots"));
    let Secret::Trust { revoked, .. } = of(&validation.revoked) else {
        panic!("lists of revoked certificates")
    };
    assert_eq!(revoked, b"lists");

    let read = checked(|context| context.crl = file("/crl.pem")).unwrap();
    let validation = read
        .cluster
        .tls
        .as_ref()
        .unwrap()
        .validation
        .clone()
        .unwrap();
    let local = |name: SecretName<'_>| Some(SecretRef::local(name.to_name()));
    assert_eq!(validation.roots, local(SecretName::RootFile("/ca.pem")));
    assert_eq!(
        validation.revoked,
        local(SecretName::RevokedFile("/crl.pem"))
    );
    assert!(read.secrets.is_empty());
}

#[test]
fn nothing_said_waits_fifteen_seconds_for_a_secret() {
    let ads = core::ConfigSource {
        config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::Ads(
            Default::default(),
        )),
        ..Default::default()
    };
    let read = client(|common| {
        common.tls_certificate_sds_secret_configs = vec![sds("a", Some(ads))];
    });
    let expected = SecretRef {
        name: "a".into(),
        source: SecretSource::ControlPlane {
            initial_fetch_timeout: Duration::from_secs(15),
        },
    };
    assert_eq!(
        read.unwrap().cluster.tls.as_ref().unwrap().certificates,
        [expected]
    );
}

#[test]
fn pins_are_digests_in_either_spelling() {
    let read = checked(|context| {
        context.verify_certificate_hash = vec!["ab".repeat(32), vec!["AB"; 32].join(":")];
        context.verify_certificate_spki =
            vec!["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".to_owned()];
    });
    let validation = read
        .unwrap()
        .cluster
        .tls
        .as_ref()
        .unwrap()
        .validation
        .clone()
        .unwrap();
    assert_eq!(validation.hashes, [[0xab; 32]; 2]);
    assert_eq!(validation.spki, [[0; 32]]);
}

#[test]
fn a_name_of_one_kind_is_taken_only_if_no_other_kind_could_meet_it() {
    let typed = |kind: SanType, matcher| {
        checked(|context| {
            context.match_typed_subject_alt_names = vec![tls::SubjectAltNameMatcher {
                san_type: kind.into(),
                matcher: Some(pattern(matcher)),
                ..Default::default()
            }];
        })
    };
    let exact = |text: &str| MatchPattern::Exact(text.to_owned());
    let prefix = |text: &str| MatchPattern::Prefix(text.to_owned());
    for (kind, matcher) in [
        (SanType::Uri, exact("spiffe://a/b")),
        (SanType::Uri, prefix("spiffe://a/")),
        (SanType::Dns, exact("a.example")),
        (SanType::IpAddress, exact("10.0.0.1")),
        (SanType::Email, exact("a@b.example")),
    ] {
        let read = typed(kind, matcher).unwrap();
        let validation = read
            .cluster
            .tls
            .as_ref()
            .unwrap()
            .validation
            .clone()
            .unwrap();
        assert_eq!(validation.subject_alt_names.len(), 1);
    }
    for (kind, matcher) in [
        (SanType::Uri, exact("a.example")),
        (SanType::Dns, prefix("a")),
        (SanType::Dns, MatchPattern::Suffix(".example".to_owned())),
        (SanType::Dns, exact("10.0.0.1")),
        (
            SanType::Email,
            MatchPattern::Suffix("@b.example".to_owned()),
        ),
        (SanType::OtherName, exact("a")),
    ] {
        let error = typed(kind, matcher.clone()).unwrap_err();
        assert!(
            error.contains("match_typed_subject_alt_names[0].matcher: not supported"),
            "{error}"
        );
    }
}

#[test]
fn the_older_list_of_names_is_read_as_istio_writes_it() {
    let read = checked(|context| {
        #[expect(deprecated, reason = "this is what is tested")]
        context
            .match_subject_alt_names
            .push(pattern(MatchPattern::Prefix("spiffe://a/".to_owned())));
    });
    let validation = read
        .unwrap()
        .cluster
        .tls
        .as_ref()
        .unwrap()
        .validation
        .clone()
        .unwrap();
    assert_eq!(
        validation.subject_alt_names,
        [StringMatch::Prefix("spiffe://a/".to_owned())]
    );
}

#[test]
fn what_a_client_cannot_do_is_refused_by_its_field() {
    type Change = fn(&mut tls::UpstreamTlsContext);
    let changes: [(&str, Change); 9] = [
        ("auto_host_sni: not supported", |c| c.auto_host_sni = true),
        ("allow_renegotiation: not supported", |c| {
            c.allow_renegotiation = true
        }),
        ("max_session_keys: not supported", |c| {
            c.max_session_keys = Some(UInt32Value { value: 1 });
        }),
        (
            "common_tls_context.tls_certificates: a client has one certificate at most",
            |c| {
                let common = c.common_tls_context.get_or_insert_default();
                common.tls_certificate_sds_secret_configs = vec![sds("a", None), sds("b", None)];
            },
        ),
        ("common_tls_context.key_log: not supported", |c| {
            c.common_tls_context.get_or_insert_default().key_log = Some(Default::default());
        }),
        (
            "common_tls_context.tls_params.tls_minimum_protocol_version: TLSv1_1 is not supported",
            |c| {
                let common = c.common_tls_context.get_or_insert_default();
                common
                    .tls_params
                    .get_or_insert_default()
                    .tls_minimum_protocol_version = 2;
            },
        ),
        (
            "common_tls_context.tls_params.ecdh_curves[0]: \"P-521\" is not supported",
            |c| {
                let common = c.common_tls_context.get_or_insert_default();
                common.tls_params.get_or_insert_default().ecdh_curves = vec!["P-521".to_owned()];
            },
        ),
        (
            "common_tls_context.combined_validation_context.default_validation_context.trusted_ca: \
             has no effect beside",
            |c| {
                let combined = CombinedCertificateValidationContext {
                    default_validation_context: Some(tls::CertificateValidationContext {
                        trusted_ca: file("/ca"),
                        ..Default::default()
                    }),
                    validation_context_sds_secret_config: Some(sds("roots", None)),
                    ..Default::default()
                };
                c.common_tls_context
                    .get_or_insert_default()
                    .validation_context_type =
                    Some(ValidationContextType::CombinedValidationContext(combined));
            },
        ),
        (
            "common_tls_context.tls_certificate_sds_secret_configs[0].sds_config\
             .api_config_source.grpc_services[0].google_grpc: not supported",
            |c| {
                let target = core::grpc_service::TargetSpecifier::GoogleGrpc(Default::default());
                let api = core::ApiConfigSource {
                    api_type: core::api_config_source::ApiType::Grpc.into(),
                    grpc_services: vec![core::GrpcService {
                        target_specifier: Some(target),
                        ..Default::default()
                    }],
                    ..Default::default()
                };
                let source = core::ConfigSource {
                    config_source_specifier: Some(
                        core::config_source::ConfigSourceSpecifier::ApiConfigSource(api),
                    ),
                    ..Default::default()
                };
                c.common_tls_context
                    .get_or_insert_default()
                    .tls_certificate_sds_secret_configs = vec![sds("a", Some(source))];
            },
        ),
    ];
    for (message, change) in changes {
        let mut context = tls::UpstreamTlsContext::default();
        change(&mut context);
        let error = read::cluster(&cluster_with(&context))
            .unwrap_err()
            .to_string();
        let expected = format!("transport_socket.typed_config.{message}");
        assert!(error.starts_with(&expected), "{error}");
    }
}

#[test]
fn what_streams_of_a_secret_service_begin_with_is_read_and_never_shown() {
    use core::grpc_service::{EnvoyGrpc, TargetSpecifier};
    let of = |authority: &str, initial_metadata: &[(&str, &str)]| {
        let target = EnvoyGrpc {
            cluster_name: "agent".to_owned(),
            authority: authority.to_owned(),
            ..Default::default()
        };
        let metadata = initial_metadata.iter();
        let metadata = metadata.map(|(key, value)| core::HeaderValue {
            key: (*key).to_owned(),
            value: (*value).to_owned(),
            ..Default::default()
        });
        let api = core::ApiConfigSource {
            api_type: core::api_config_source::ApiType::Grpc.into(),
            grpc_services: vec![core::GrpcService {
                target_specifier: Some(TargetSpecifier::EnvoyGrpc(target)),
                initial_metadata: metadata.collect(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let source = core::ConfigSource {
            config_source_specifier: Some(
                core::config_source::ConfigSourceSpecifier::ApiConfigSource(api),
            ),
            ..Default::default()
        };
        let mut context = tls::UpstreamTlsContext::default();
        let common = context.common_tls_context.get_or_insert_default();
        common.tls_certificate_sds_secret_configs = vec![sds("a", Some(source))];
        cluster_with(&context)
    };
    let opening = |cluster| {
        let tls = read::cluster(&cluster).unwrap().cluster.tls.unwrap();
        match &tls.certificates[0].source {
            SecretSource::Service { opening, .. } => opening.clone(),
            other => panic!("{other:?}"),
        }
    };
    assert!(opening(of("", &[])).is_empty());
    let full = of("spire:1", &[("X-Key", "100%% hush"), ("x-key", "hush too")]);
    let read_back = opening(full.clone());
    assert_eq!(read_back.authority, "spire:1");
    let (name, value) = &read_back.metadata[0];
    assert_eq!(
        (name.as_str(), value.to_str().unwrap()),
        ("x-key", "100% hush")
    );
    assert_eq!(read_back.metadata[1].1, "hush too");
    assert!(!format!("{:?}", read::cluster(&full)).contains("hush"));
    let shown = schema::redact("envoy.config.cluster.v3.Cluster", &full.encode_to_vec());
    let shown = String::from_utf8_lossy(&shown);
    assert!(
        shown.contains("spire:1") && !shown.contains("hush"),
        "{shown}"
    );

    let at = "api_config_source.grpc_services[0]";
    for (authority, key, value, expected) in [
        (
            "a b",
            "x",
            "hush",
            "envoy_grpc.authority: \"a b\" is no host and port",
        ),
        ("", "x", "%HUSH%", "initial_metadata[0].value: operators"),
        (
            "",
            "te",
            "hush",
            "initial_metadata[0].key: \"te\" is gRPC's own",
        ),
        (
            "",
            "x-bin",
            "hush",
            "initial_metadata[0].key: \"x-bin\": binary metadata",
        ),
    ] {
        let error = read::cluster(&of(authority, &[(key, value)])).unwrap_err();
        let error = error.to_string();
        assert!(error.contains(&format!("{at}.{expected}")), "{error}");
        assert!(!error.to_lowercase().contains("hush"), "{error}");
    }
}

#[test]
fn a_check_that_would_check_nothing_is_refused_as_envoy_does() {
    let error = checked(|context| {
        context.trusted_ca = None;
        #[expect(deprecated, reason = "Istio writes it")]
        context
            .match_subject_alt_names
            .push(pattern(MatchPattern::Exact("a".to_owned())));
    });
    assert!(
        error
            .unwrap_err()
            .contains("match_subject_alt_names: names are not safe")
    );
    let error = checked(|context| context.trusted_ca = file("system"));
    assert!(
        error
            .unwrap_err()
            .contains("trusted_ca.filename: a file of this name")
    );
    let error = checked(|context| {
        context.trusted_ca = None;
        context.crl = file("/crl");
    });
    assert!(
        error
            .unwrap_err()
            .contains("crl: has no effect without trusted_ca")
    );
}

#[test]
fn a_server_shows_a_certificate() {
    use mesh_core::model::{Listener, TcpProxy};
    let model = Listener::tcp("l", ([127, 0, 0, 1], 80).into(), TcpProxy::to("s", "c"));
    let mut proto = write::listener(&model, None);
    let mut context = tls::DownstreamTlsContext::default();
    proto.filter_chains[0].transport_socket = socket(&context);
    let at = "filter_chains[0].transport_socket.typed_config";
    assert_eq!(
        read::listener(&proto).unwrap_err().to_string(),
        format!(
            "{at}.common_tls_context.tls_certificates: required, but missing: a server has to \
             show a certificate"
        )
    );
    context.require_sni = Some(BoolValue { value: true });
    proto.filter_chains[0].transport_socket = socket(&context);
    assert_eq!(
        read::listener(&proto).unwrap_err().to_string(),
        format!("{at}.require_sni: not supported")
    );
}
