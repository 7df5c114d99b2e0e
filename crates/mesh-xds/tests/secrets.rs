//! Transport security and secrets: what is refused or defaulted, and where secrets go.

#[path = "tls/contexts.rs"]
mod contexts;

use mesh_core::model::{Secret, SecretName};
use mesh_xds::pb::envoy::config::core::v3 as core;
use mesh_xds::pb::envoy::config::core::v3::data_source::Specifier;
use mesh_xds::pb::envoy::extensions::transport_sockets::tls::v3 as tls;
use mesh_xds::pb::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use mesh_xds::read::{self, Resource, SecretValue};
use mesh_xds::{TypeUrl, write};
use proptest::collection::vec;
use proptest::prelude::*;
use std::sync::Arc;

pub(crate) fn file(path: &str) -> Option<core::DataSource> {
    Some(core::DataSource {
        specifier: Some(Specifier::Filename(path.to_owned())),
        ..Default::default()
    })
}

pub(crate) fn inline(text: &str) -> Option<core::DataSource> {
    Some(core::DataSource {
        specifier: Some(Specifier::InlineString(text.to_owned())),
        ..Default::default()
    })
}

fn secret() -> BoxedStrategy<Secret> {
    let bytes = || vec(any::<u8>(), 1..40);
    let trust = (bytes(), vec(any::<u8>(), 0..9)).prop_map(|(roots, lists)| {
        let mut secret = Secret::roots(roots);
        if let Secret::Trust { revoked, .. } = &mut secret {
            *revoked = lists;
        }
        secret
    });
    let certificate = (bytes(), bytes());
    let certificate = certificate.prop_map(|(chain, key)| Secret::certificate(chain, key));
    prop_oneof![certificate, trust].boxed()
}

proptest! {
    #[test]
    fn a_secret_survives(name in "[ -~]{1,9}", secret in secret()) {
        let encoded = write::encode(&name, &write::secret(&name, &secret));
        match read::resource(TypeUrl::Secret, &encoded.bytes) {
            Ok(Resource::Secret(read)) => {
                prop_assert_eq!(read.name.as_str(), name);
                prop_assert_eq!(read.value, SecretValue::Given(Arc::new(secret)));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn nothing_of_a_secret_is_shown(key in "[a-z]{20,40}") {
        let secret = Secret::certificate("chain", key.as_str());
        let encoded = write::encode("n", &write::secret("n", &secret));
        let read = read::resource(TypeUrl::Secret, &encoded.bytes);
        let shown = format!("{encoded:?} {read:?}");
        prop_assert!(!shown.contains(&key), "{}", shown);
        // Bytes are shown as text or as numbers.
        let (first, second) = (key.as_bytes()[0], key.as_bytes()[1]);
        let numbers = format!("{first}, {second}, ");
        prop_assert!(!shown.contains(&numbers), "{}", shown);
    }
}

fn certificate(chain: Option<core::DataSource>, key: Option<core::DataSource>) -> tls::Secret {
    tls::Secret {
        name: "n".to_owned(),
        r#type: Some(Type::TlsCertificate(tls::TlsCertificate {
            certificate_chain: chain,
            private_key: key,
            ..Default::default()
        })),
    }
}

fn trust(change: impl FnOnce(&mut tls::CertificateValidationContext)) -> tls::Secret {
    let mut context = tls::CertificateValidationContext {
        trusted_ca: inline("roots"),
        ..Default::default()
    };
    change(&mut context);
    tls::Secret {
        name: "n".to_owned(),
        r#type: Some(Type::ValidationContext(context)),
    }
}

#[test]
fn a_secret_in_files_is_the_name_that_says_which() {
    let read = read::secret(&certificate(file("/c.pem"), file("/k.pem"))).unwrap();
    let files = SecretName::CertificateFiles {
        certificate: "/c.pem",
        key: "/k.pem",
    };
    assert_eq!(read.value, SecretValue::At(files.to_name()));
    let roots = trust(|context| context.trusted_ca = file("/ca.pem"));
    let expected = SecretValue::At(SecretName::RootFile("/ca.pem").to_name());
    assert_eq!(read::secret(&roots).unwrap().value, expected);
    let system = trust(|context| {
        context.trusted_ca = None;
        context.system_root_certs = Some(Default::default());
    });
    let expected = SecretValue::At(SecretName::SystemRoots.to_name());
    assert_eq!(read::secret(&system).unwrap().value, expected);
}

#[test]
fn a_secret_in_files_survives_and_one_that_is_nowhere_is_none() {
    for at in [
        SecretName::CertificateFiles {
            certificate: "/c.pem",
            key: "/k.pem",
        },
        SecretName::RootFile("/ca.pem"),
        SecretName::SystemRoots,
    ] {
        let read = read::secret(&write::secret_in_files("n", at)).unwrap();
        assert_eq!(read.value, SecretValue::At(at.to_name()));
    }
    let nowhere = write::secret_in_files("n", SecretName::Other("kubernetes://a"));
    assert!(read::secret(&nowhere).is_err());
}

#[test]
fn what_is_no_secret_here_is_refused_by_its_field() {
    let named = |mut secret: tls::Secret, name: &str| {
        secret.name = name.to_owned();
        secret
    };
    for (secret, message) in [
        (named(trust(|_| ()), ""), "name: required, but missing"),
        (
            tls::Secret {
                name: "n".to_owned(),
                r#type: None,
            },
            "type: required, but missing",
        ),
        (
            certificate(inline("c"), None),
            "tls_certificate.private_key: required, but missing",
        ),
        (
            certificate(inline("c"), inline("")),
            "tls_certificate.private_key.inline_string: required",
        ),
        (
            certificate(inline("c"), file("/k")),
            "tls_certificate.private_key: a file for one of",
        ),
        (
            certificate(file("/c~"), file("/k")),
            "tls_certificate.certificate_chain.filename: ",
        ),
        (
            trust(|context| context.trusted_ca = None),
            "validation_context.trusted_ca: required, but missing",
        ),
        (
            trust(|context| context.crl = file("/crl")),
            "validation_context.crl: in a secret, supported only if it and trusted_ca",
        ),
        (
            trust(|context| context.verify_certificate_hash = vec!["00".repeat(32)]),
            "validation_context: only trusted_ca, system_root_certs and crl are supported",
        ),
        (
            tls::Secret {
                name: "n".to_owned(),
                r#type: Some(Type::GenericSecret(Default::default())),
            },
            "generic_secret: not supported",
        ),
    ] {
        let error = read::secret(&secret).unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
    }
}

#[cfg(feature = "json")]
#[test]
fn no_key_is_printed_wherever_it_stands() {
    use mesh_xds::json::Codec;
    let text = "
static_resources:
  secrets:
  - name: a
    tls_certificate:
      certificate_chain: {inline_string: shown}
      private_key: {inline_bytes: aHVzaC1odXNo}
      password: {inline_string: hush-hush}
  - {name: b, generic_secret: {secret: {inline_string: hush-hush}}}
  - {name: c, session_ticket_keys: {keys: [{filename: /hush}, {inline_string: hush-hush}]}}
  clusters:
  - name: c
    transport_socket:
      name: tls
      typed_config:
        '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        common_tls_context:
          tls_certificates:
          - certificate_chain: {filename: /shown}
            private_key: {inline_string: hush-hush}
";
    let message = "envoy.config.bootstrap.v3.Bootstrap";
    let codec = Codec::new();
    let bytes = codec.from_yaml(message, text).unwrap();
    let printed = codec.to_json(message, &bytes).unwrap();
    assert!(
        !printed.contains("hush") && !printed.contains("aHVzaC1odXNo"),
        "{printed}"
    );
    assert_eq!(printed.matches("[redacted]").count(), 5, "{printed}");
    // The same for bytes, in base64.
    assert_eq!(printed.matches("W3JlZGFjdGVkXQ==").count(), 1, "{printed}");
    assert_eq!(printed.matches("shown").count(), 2, "{printed}");
}
