//! AuthorizationPolicies and RequestAuthentications, for a gateway and for the way in to a sidecar.

mod policies;

use super::{asked as questions, evade, mutual, tokens};
use crate::config::{Config, Role, Source};
use crate::dice::Dice;
use serde_json::{Value, json};

pub(crate) use policies::{KINDS, asked, kinds};

/// Whose documents hold for the whole mesh.
const ROOT: &str = "istio-system";
/// The service that is asked.
const PROVIDER: &str = "asker";

/// Documents of which two policies are about one of these kinds each and little else.
pub(super) fn generate(dice: &mut Dice, requests: usize, kinds: [&str; 2]) -> Config {
    let some = |is: &dyn Fn(&str) -> bool| kinds.iter().any(|kind| is(kind));
    let role = dice.pick(&[Role::Gateway, Role::Inbound]);
    let asks = dice.chance(25);
    // As what is asked of tokens.
    let of_tokens =
        |kind: &str| kind.contains("request.auth") || kind.ends_with("equestPrincipals");
    let brings = some(&of_tokens) || dice.chance(60);
    // What is asked of identities is of use where there are some.
    let mode = match some(&mutual::is_asked) || dice.chance(45) {
        true => dice.pick(&["STRICT", "STRICT", "PERMISSIVE"]),
        false => "",
    };
    let mut documents = vec![mesh(dice, asks)];
    documents.extend(services());
    match role {
        Role::Gateway => {
            documents.push(gateway(dice, mode));
            documents.push(routes(dice, brings));
        }
        _ => {
            documents.push(way_in(dice));
            documents.extend((!mode.is_empty()).then(|| peers(mode)));
        }
    }
    if brings {
        let number = dice.pick(&[1, 1, 1, 2]);
        documents.push(authentication(dice, 0, number));
        if dice.chance(30) {
            documents.push(authentication(dice, number, 1));
        }
    }
    for (kind, name) in kinds.into_iter().zip(["p0", "p00"]) {
        documents.push(policies::about(dice, kind, name));
    }
    for at in 1..dice.pick(&[1, 1, 1, 2, 2, 3]) {
        documents.push(policies::policy(dice, at, !mode.is_empty()));
    }
    if asks {
        documents.push(policies::asking(dice));
    }
    let named = policies::paths(&documents);
    let calls = (0..requests).map(|_| {
        let mut call = evade::call(dice, &named);
        if brings {
            call = tokens::bring(dice, call);
        }
        // A gateway takes nobody in plain text where it asks for certificates.
        let plain = role != Role::Gateway && mode == "PERMISSIVE" && dice.chance(25);
        if !mode.is_empty() && !plain {
            call = mutual::bring(dice, mutual::Strangers::Refused, call);
        }
        match asks {
            true => questions::told(dice, &[], call),
            false => call,
        }
    });
    let calls = calls.collect();
    Config {
        area: "policy",
        source: Source::istio(role, documents),
        calls,
    }
}

/// A document of this API of Istio's.
fn object(api: &str, kind: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": format!("{api}.istio.io/v1"),
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    })
}

/// Where a document that selects workloads is, and which ones; mostly the one that is judged.
fn selecting(dice: &mut Dice, mut document: Value) -> Value {
    if dice.chance(30) {
        document["metadata"]["namespace"] = json!(ROOT);
    }
    if dice.chance(35) {
        let app = dice.pick(&["client", "client", "client", "other"]);
        document["spec"]["selector"] = json!({"matchLabels": {"app": app}});
    }
    document
}

fn mesh(dice: &mut Dice, asks: bool) -> Value {
    let mut spec = json!({});
    if dice.chance(60) {
        spec["trustDomainAliases"] = json!(["alias.test"]);
    }
    if dice.chance(60) {
        let kinds = ["NONE", "BASE", "MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES"];
        spec["pathNormalization"] = json!({"normalization": dice.pick(&kinds)});
    }
    if asks {
        spec["extensionProviders"] = json!([provider(dice)]);
    }
    json!({"kind": "MeshConfig", "spec": spec})
}

/// A service that is asked, over HTTP or gRPC.
fn provider(dice: &mut Dice) -> Value {
    let over_http = dice.chance(50);
    let service = if over_http { "over-http" } else { "over-grpc" };
    let mut spec = json!({
        "service": format!("{service}.{{id}}.test"),
        "port": 80,
        "timeout": "0.3s",
        "failOpen": dice.chance(25),
    });
    if dice.chance(30) {
        spec["statusOnError"] = json!(dice.pick(&["503", "429"]));
    }
    if over_http {
        spec["includeRequestHeadersInCheck"] = json!(["x-case", "x-asked", "x-token"]);
        spec["pathPrefix"] = json!(dice.pick(&["/check", "/"]));
        if dice.chance(50) {
            spec["headersToUpstreamOnAllow"] = json!(["x-up", "x-set-*"]);
            spec["headersToDownstreamOnDeny"] = json!(["x-why*"]);
            spec["headersToDownstreamOnAllow"] = json!(["*-down"]);
        }
    }
    let kind = match over_http {
        true => "envoyExtAuthzHttp",
        false => "envoyExtAuthzGrpc",
    };
    json!({"name": PROVIDER, kind: spec})
}

/// Who is behind the gateway, and who is asked.
fn services() -> Vec<Value> {
    let service = |name: &str, protocol: &str, backend: &str| {
        let endpoint = json!({"address": "127.0.0.1", "ports": {"port": format!("@{backend}")}});
        let spec = json!({
            "hosts": [format!("{name}.{{id}}.test")],
            "location": "MESH_EXTERNAL",
            "resolution": "STATIC",
            "ports": [{"number": 80, "name": "port", "protocol": protocol}],
            "endpoints": [endpoint],
        });
        object("networking", "ServiceEntry", name, spec)
    };
    vec![
        service("a", "HTTP", "a"),
        service("b", "HTTP", "b"),
        service("over-grpc", "GRPC", "y"),
        service("over-http", "HTTP", "z"),
    ]
}

fn gateway(dice: &mut Dice, mode: &str) -> Value {
    let port = json!({"number": "@listener", "name": "http", "protocol": "HTTP"});
    let mut server = json!({"port": port, "bind": "{address}", "hosts": ["*"]});
    if !mode.is_empty() {
        server["port"]["protocol"] = json!("HTTPS");
        server["tls"] = json!({"mode": "ISTIO_MUTUAL"});
        if dice.chance(20) {
            let names = [
                "spiffe://cluster.local/ns/a/sa/b",
                "spiffe://else.test/ns/a/sa/b",
            ];
            server["tls"]["subjectAltNames"] = json!(names);
        }
    }
    let spec = json!({"selector": {"app": "client"}, "servers": [server]});
    object("networking", "Gateway", "gw", spec)
}

/// Routes that rewrite, answer and redirect; some paths have none.
fn routes(dice: &mut Dice, brings: bool) -> Value {
    let to = |name: &str| json!([{"destination": {"host": format!("{name}.{{id}}.test")}}]);
    let mut http = vec![
        json!({"name": "rewritten", "match": [{"uri": {"prefix": "/old/"}}],
               "rewrite": {"uri": "/admin/"}, "route": to("a")}),
        json!({"name": "answered", "match": [{"uri": {"exact": "/fixed"}}],
               "directResponse": {"status": 200, "body": {"string": "fixed"}}}),
        json!({"name": "redirected", "match": [{"uri": {"prefix": "/moved"}}],
               "redirect": {"uri": "/new"}}),
        json!({"name": "admin", "match": [{"uri": {"prefix": "/admin"}}], "route": to("b")}),
    ];
    if brings && dice.chance(60) {
        let claim = dice.pick(&["sub", "groups", "scope", "a.b"]);
        let value = dice.pick(&[
            json!({"exact": "me"}),
            json!({"prefix": "x"}),
            json!({"regex": ".+"}),
        ]);
        let headers = json!({ format!("@request.auth.claims.{claim}"): value });
        let at = dice.below(http.len() + 1);
        let claimed = json!({"name": "claimed", "match": [{"headers": headers}], "route": to("b")});
        http.insert(at, claimed);
    }
    if dice.chance(75) {
        let prefix = json!([{"uri": {"prefix": "/"}}]);
        http.push(json!({"name": "rest", "match": prefix, "route": to("a")}));
    }
    let spec = json!({"hosts": ["*"], "gateways": ["gw"], "http": http});
    object("networking", "VirtualService", "main", spec)
}

/// The way in to a sidecar's application.
fn way_in(dice: &mut Dice) -> Value {
    let protocol = dice.pick(&["HTTP", "HTTP", "HTTP2"]);
    // Over HTTP/2 another one answers.
    let backend = if protocol == "HTTP" { "a" } else { "h" };
    let ingress = json!({
        "port": {"number": "@listener", "protocol": protocol, "name": "way-in"},
        "bind": "{address}",
        "captureMode": "NONE",
        "defaultEndpoint": format!("127.0.0.1:{{port {backend}}}"),
    });
    object(
        "networking",
        "Sidecar",
        "narrow",
        json!({"ingress": [ingress]}),
    )
}

/// How callers of the namespace come.
fn peers(mode: &str) -> Value {
    object(
        "security",
        "PeerAuthentication",
        "peers",
        json!({"mtls": {"mode": mode}}),
    )
}

/// One issuer or two, from this one on.
fn authentication(dice: &mut Dice, first: usize, number: usize) -> Value {
    let rules: Vec<Value> = (first..first + number)
        .map(|at| tokens::rule(dice, at))
        .collect();
    let spec = json!({"jwtRules": rules});
    let name = format!("tokens{first}");
    let document = object("security", "RequestAuthentication", &name, spec);
    selecting(dice, document)
}
