//! Mutual TLS: a listener that asks for certificates, and clusters that show one.

use serde_json::{Value, json};

use crate::peers::mutual::{BACKEND, HOST, Mutual};

/// What its clusters begin with.
pub(super) const PREFIX: &str = "mtls-";

/// TLS with callers, who have to show a certificate of the authority.
pub(super) fn downstream(mutual: &Mutual) -> Value {
    let mut common = common(mutual, "server");
    common["alpn_protocols"] = json!(["h2", "http/1.1"]);
    common["tls_params"] = super::downstream_params();
    common["validation_context"] = json!({"trusted_ca": {"filename": mutual.file("ca.pem")}});
    socket(
        "DownstreamTlsContext",
        &json!({"common_tls_context": common, "require_client_certificate": true}),
    )
}

/// TLS with the backend, which has to be what it says.
pub(super) fn upstream(mutual: &Mutual, is_h2: bool) -> Value {
    let mut common = common(mutual, "proxy");
    common["tls_params"] = json!({"tls_minimum_protocol_version": "TLSv1_3",
                                  "tls_maximum_protocol_version": "TLSv1_3"});
    common["validation_context"] = json!({
        "trusted_ca": {"filename": mutual.file("ca.pem")},
        "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": BACKEND}}],
    });
    if is_h2 {
        common["alpn_protocols"] = json!(["h2"]);
    }
    socket(
        "UpstreamTlsContext",
        &json!({"common_tls_context": common, "sni": HOST}),
    )
}

/// What Istio's gateways tell the backend of the caller's certificate.
pub(super) fn tell(manager: &mut Value) {
    manager["forward_client_cert_details"] = json!("SANITIZE_SET");
    manager["set_current_client_cert_details"] =
        json!({"subject": true, "cert": true, "dns": true, "uri": true});
}

/// A certificate and its key.
fn common(mutual: &Mutual, name: &str) -> Value {
    json!({"tls_certificates": [{
        "certificate_chain": {"filename": mutual.file(&format!("{name}.pem"))},
        "private_key": {"filename": mutual.file(&format!("{name}.key"))},
    }]})
}

fn socket(context: &str, config: &Value) -> Value {
    let mut config = config.clone();
    config["@type"] = json!(format!(
        "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{context}"
    ));
    json!({"name": "tls", "typed_config": config})
}
