//! Secrets of a bootstrap.

use crate::{read, refused};
use mesh_xds::read::Resource;

const TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3";

/// A bootstrap with a cluster whose roots have this name, and these secrets.
fn with_secrets(secrets: &str) -> String {
    format!(
        "static_resources:
  secrets: [{secrets}]
  clusters:
  - name: c
    transport_socket:
      name: tls
      typed_config:
        '@type': {TLS}.UpstreamTlsContext
        common_tls_context:
          validation_context_sds_secret_config: {{name: roots}}
"
    )
}

#[test]
fn secrets_of_a_bootstrap_are_resources_and_are_found_by_their_names() {
    let secret = "{name: roots, validation_context: {trusted_ca: {inline_string: pem}}}";
    let bootstrap = read(&with_secrets(secret));
    assert_eq!(bootstrap.secrets.len(), 1);
    let resources = bootstrap.resources();
    assert!(matches!(&resources[0], Resource::Secret(secret) if secret.name == "roots"));

    let said = refused(&with_secrets(""));
    assert_eq!(
        said,
        "static_resources.clusters[0].transport_socket: no static secret is called \"roots\""
    );
    let said = refused(&with_secrets(&format!("{secret}, {secret}")));
    assert_eq!(
        said,
        "static_resources.secrets[1].name: \"roots\" is defined twice"
    );
}

#[test]
fn a_secret_of_a_bootstrap_is_not_shown() {
    let key = "private_key: {inline_string: hush-hush}";
    let chain = "certificate_chain: {inline_string: pem}";
    let secret = format!("{{name: roots, tls_certificate: {{{chain}, {key}}}}}");
    let shown = format!("{:?}", read(&with_secrets(&secret)));
    assert!(!shown.contains("hush"), "{shown}");
}
