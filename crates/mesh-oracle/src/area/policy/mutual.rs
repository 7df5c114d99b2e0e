//! Callers with certificates, and what is told of them (`x-forwarded-client-cert`).

use super::TYPE;
use crate::callers::{ALL, From, PLACE, SERVER_NAMES, Secured};
use crate::dice::Dice;
use crate::request::Call;
use crate::stage::raw::{LOOKS, SOCKET};
use serde_json::{Value, json};

/// What is done with the header that tells of callers.
pub(crate) const FORWARDING: [&str; 5] = [
    "SANITIZE",
    "FORWARD_ONLY",
    "APPEND_FORWARD",
    "SANITIZE_SET",
    "ALWAYS_FORWARD_ONLY",
];

/// Whether strangers call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strangers {
    /// They are accepted.
    Welcome,
    /// They are refused, and call rarely.
    Refused,
    /// They would be accepted, and a name that nobody vouched for would count in Envoy.
    Absent,
}

/// Whether a policy about this asks who calls, or for what only TLS tells.
pub(super) fn is_asked(kind: &str) -> bool {
    let kind = kind.to_lowercase();
    let of_peers = [
        "principal",
        "namespace",
        "serviceaccount",
        "trustdomain",
        "connection.sni",
    ];
    of_peers.iter().any(|it| kind.contains(it)) && !kind.contains("request")
}

/// Lets the listener of this number of Envoy's ask its callers for certificates. Says whether strangers
/// call.
pub(super) fn listen(dice: &mut Dice, at: usize, manager: &mut Value) -> Strangers {
    let file = |name: &str| json!({"filename": format!("{PLACE}/{name}")});
    let mut validation = json!({"trusted_ca": file("root-cert.pem")});
    let strangers = at % 4 == 3;
    if strangers {
        validation["trust_chain_verification"] = json!("ACCEPT_UNTRUSTED");
    } else if dice.chance(40) {
        let matcher = dice.pick(&[
            json!({"prefix": "spiffe://cluster.local/"}),
            json!({"exact": "spiffe://cluster.local/ns/a/sa/b"}),
        ]);
        validation["match_typed_subject_alt_names"] =
            json!([{"san_type": "URI", "matcher": matcher}]);
    }
    manager[SOCKET] = json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": format!("{TYPE}.extensions.transport_sockets.tls.v3.DownstreamTlsContext"),
            "common_tls_context": {
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_certificates": [{
                    "certificate_chain": file("cert-chain.pem"),
                    "private_key": file("key.pem"),
                }],
                "validation_context": validation,
            },
            "require_client_certificate": dice.chance(50),
        },
    });
    if dice.chance(60) {
        // Without, policies know of no server name.
        manager[LOOKS] = json!([{
            "name": "envoy.filters.listener.tls_inspector",
            "typed_config": {
                "@type": format!("{TYPE}.extensions.filters.listener.tls_inspector.v3.TlsInspector"),
            },
        }]);
    }
    // Sometimes nothing is said. Each round begins one later: else a mode would always meet the same
    // of what else comes in turn, such as callers that a service refuses.
    let round = FORWARDING.len() + 1;
    if let Some(mode) = FORWARDING.get((at + at / round) % round) {
        manager["forward_client_cert_details"] = json!(mode);
        let mut details = json!({});
        for name in ["subject", "cert", "chain", "dns", "uri"] {
            if dice.chance(50) {
                details[name] = json!(true);
            }
        }
        manager["set_current_client_cert_details"] = details;
    }
    // In the rules of filters and of routes.
    let names = manager.to_string().contains("\"authenticated\"");
    match strangers {
        true if names => Strangers::Absent,
        true => Strangers::Welcome,
        false => Strangers::Refused,
    }
}

/// A request of somebody. Who can only be refused calls rarely.
pub(super) fn bring(dice: &mut Dice, strangers: Strangers, mut call: Call) -> Call {
    let stranger = ALL.iter().find(|who| who.from == From::Elsewhere);
    let who = match stranger.filter(|_| strangers == Strangers::Welcome && dice.chance(20)) {
        Some(stranger) => stranger,
        None if dice.chance(45) => &ALL[dice.below(4)],
        None => &ALL[dice.below(ALL.len())],
    };
    let comes = match strangers {
        Strangers::Welcome => true,
        Strangers::Refused => dice.chance(20),
        Strangers::Absent => false,
    };
    if who.from == From::Elsewhere && !comes {
        return bring(dice, strangers, call);
    }
    call.secured = Some(Secured {
        as_whom: who.name,
        server_name: dice.pick(&SERVER_NAMES),
    });
    if dice.chance(30) {
        let said = dice.pick(&[
            "By=spiffe://cluster.local/ns/a/sa/z;URI=spiffe://cluster.local/ns/a/sa/b",
            "URI=spiffe://cluster.local/ns/a/sa/b,URI=spiffe://cluster.local/ns/x/sa/y",
            "Hash=abc;Subject=\"CN=a,O=\\\"b\\\"\"",
            "x",
        ]);
        call = call.with("x-forwarded-client-cert", said);
    }
    call
}
