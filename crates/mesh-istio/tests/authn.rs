//! Tokens of callers: which nodes ask for them, where keys come from, and routes by claims.

#[path = "support/lib.rs"]
mod support;

use mesh_core::model::{Authn, Jwks, KeyBook, KeySource, Snapshot, TokenRequirement, WantedKeys};
use mesh_istio::{Capture, Files, Node, World, wanted_keys};
use std::sync::Arc;
use std::time::Duration;
use support::{good, lines, snapshot};

const TOWN: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Endpoints
metadata: {name: web, namespace: shop}
subsets:
- addresses: [{ip: 10.0.0.1}]
  ports: [{name: http, port: 8080}]
";
const KEYS: &str = r#"jwks: '{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}'"#;

fn asks(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: RequestAuthentication\n\
         metadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

/// What an intercepted pod `web` of namespace `shop` gets, and what is said of it.
fn web(more: &str) -> (Option<Arc<Authn>>, String) {
    let (snapshot, findings) = snapshot(&good(&format!("{TOWN}{more}")), &web_node());
    (authn(&snapshot), lines(&findings).join("\n"))
}

fn web_node() -> Node {
    let mut node = Node::sidecar("web-1", "shop");
    node.labels.insert("app".to_owned(), "web".to_owned());
    node.address = [10, 0, 0, 1].into();
    node.capture = Capture::Redirect;
    node
}

fn authn(snapshot: &Snapshot) -> Option<Arc<Authn>> {
    let mut listeners = snapshot.listeners().iter();
    let inbound = listeners.find(|it| it.name == "virtualInbound")?;
    inbound.managers().next()?.authn.clone()
}

fn issuers(authn: Option<Arc<Authn>>) -> Vec<String> {
    let authn = authn.into_iter();
    let all = authn.flat_map(|authn| authn.providers.clone());
    all.map(|provider| provider.issuer.to_string()).collect()
}

#[test]
fn rules_of_the_workload_its_namespace_and_the_root_add_up() {
    let rule = |issuer: &str| format!("jwtRules: [{{issuer: {issuer}, {KEYS}}}]");
    let mine = |issuer: &str| {
        format!(
            "{{selector: {{matchLabels: {{app: web}}}}, {}}}",
            rule(issuer)
        )
    };
    let other = format!("{{selector: {{matchLabels: {{app: db}}}}, {}}}", rule("d"));
    let all = [
        asks("shop", "mine", &mine("c")),
        asks("shop", "all", &format!("{{{}}}", rule("b"))),
        asks("istio-system", "root", &format!("{{{}}}", rule("a"))),
        asks("shop", "other", &other),
        asks("pay", "elsewhere", &format!("{{{}}}", rule("e"))),
    ];
    let (authn, said) = web(&all.concat());
    assert_eq!(said, "");
    assert_eq!(issuers(authn), ["a", "b", "c"]);
    assert_eq!(issuers(web("").0), [""; 0]);
}

#[test]
fn one_issuer_is_asked_for_as_istiod_does_and_may_be_missing() {
    let spec = format!("{{jwtRules: [{{issuer: a, {KEYS}, spaceDelimitedClaims: [roles]}}]}}");
    let authn = web(&asks("shop", "x", &spec)).0.unwrap();
    let own = TokenRequirement::Provider("origins-0".into(), Vec::new());
    let expected = TokenRequirement::Any(vec![own, TokenRequirement::AllowMissing]);
    assert_eq!(authn.rules[0].requires, expected);
    assert!(authn.bypass_preflight && authn.providers[0].keep_claims);
    assert_eq!(
        authn.providers[0].word_claims,
        ["permission", "roles", "scope"]
    );
    assert!(
        !authn.providers[0].clear_route,
        "a sidecar's routes go by no claims"
    );
}

#[test]
fn keys_come_from_a_service_of_the_mesh_if_it_has_one() {
    let spec = "{jwtRules: [{issuer: a, jwksUri: 'https://keys.example/k', timeout: 2s}]}";
    let entry = "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\n\
                 metadata: {name: keys, namespace: shop}\n\
                 spec: {hosts: [keys.example], resolution: DNS, \
                 ports: [{number: 443, name: https, protocol: HTTPS}]}\n";
    let (authn, said) = web(&format!("{}{entry}", asks("shop", "x", spec)));
    assert_eq!(said, "");
    let authn = authn.unwrap();
    let Jwks::Remote(remote) = &authn.providers[0].keys else {
        panic!("they are got");
    };
    assert_eq!(&*remote.cluster, "outbound|443||keys.example");
    assert_eq!(remote.timeout.as_secs(), 2);
}

#[test]
fn keys_of_hosts_that_the_mesh_does_not_know_are_wanted_and_taken_from_the_world() {
    let uri = || KeySource::Uri("https://keys.example/k?v=1".into());
    let issuer = || KeySource::Issuer("https://b.example".into());
    let spec = "{jwtRules: [{issuer: a, jwksUri: 'https://keys.example/k?v=1', timeout: 2s}, \
                {issuer: 'https://b.example'}]}";
    let longer = "{jwtRules: [{issuer: a, jwksUri: 'https://keys.example/k?v=1', timeout: 7s}]}";
    let text = format!(
        "{TOWN}{}{}{}",
        asks("shop", "x", spec),
        asks("shop", "y", longer),
        asks("pay", "z", "{jwtRules: [{issuer: c}]}"),
    );
    let mut world = good(&text);
    let node = web_node();
    let seconds = Duration::from_secs;
    let expected = WantedKeys::from([(uri(), seconds(7)), (issuer(), seconds(5))]);
    assert_eq!(wanted_keys(&world, Some(&node)), expected);
    assert_eq!(wanted_keys(&world, None).len(), 3, "of all namespaces");

    let inline = |world: &World| {
        let (snapshot, findings) = snapshot(world, &node);
        let providers = authn(&snapshot).unwrap().providers.clone();
        let keys = providers.into_iter().map(|provider| match provider.keys {
            Jwks::Inline(text) => text.to_string(),
            other => panic!("{other:?}"),
        });
        (keys.collect::<Vec<_>>(), lines(&findings).join("\n"))
    };
    let (keys, said) = inline(&world);
    assert!(
        keys.iter().all(|keys| keys.contains("\"nobody\"")),
        "no token can be valid"
    );
    assert!(
        said.contains("until keys have come from https://keys.example/k?v=1"),
        "{said}"
    );
    assert!(
        said.contains("from the OpenID configuration of https://b.example"),
        "{said}"
    );

    let mut book = KeyBook::default();
    book.set(uri(), "K".into());
    book.set(issuer(), "L".into());
    world.set_keys(Arc::new(book));
    let (keys, said) = inline(&world);
    assert_eq!(keys, ["K", "K", "L"]);
    assert_eq!(said, "");
    let findings = world.update(&Files::from_text("mesh.yaml", &text));
    assert!(findings.is_empty());
    assert_eq!(
        inline(&world).0,
        ["K", "K", "L"],
        "they stay as objects change"
    );
}

#[test]
fn routes_of_gateways_go_by_claims() {
    let text = format!(
        "{TOWN}---\napiVersion: networking.istio.io/v1\nkind: Gateway\n\
         metadata: {{name: gw, namespace: shop}}\n\
         spec: {{selector: {{app: gw}}, servers: [{{hosts: ['*'], \
         port: {{number: 80, name: http, protocol: HTTP}}}}]}}\n---\n\
         apiVersion: networking.istio.io/v1\nkind: VirtualService\n\
         metadata: {{name: web, namespace: shop}}\n\
         spec: {{hosts: ['*'], gateways: [gw], http: [{{match: [{{headers: \
         {{'@request.auth.claims.a.b': {{exact: x}}}}, withoutHeaders: \
         {{'@request.auth.claims[c.d]': {{prefix: y}}}}}}], \
         route: [{{destination: {{host: web}}}}]}}]}}\n{}",
        asks(
            "shop",
            "x",
            &format!("{{jwtRules: [{{issuer: a, {KEYS}}}]}}")
        ),
    );
    let mut node = Node::gateway("gw-1", "shop");
    node.labels.insert("app".to_owned(), "gw".to_owned());
    let (snapshot, findings) = snapshot(&good(&text), &node);
    assert_eq!(lines(&findings).join("\n"), "");
    let manager = snapshot.listeners()[0].managers().next().unwrap();
    assert!(manager.authn.as_ref().unwrap().providers[0].clear_route);
    let rules = &snapshot.tables()[0].virtual_hosts[0].rules;
    let claims = &rules[0].condition.claims;
    let told: Vec<_> = claims
        .iter()
        .map(|it| (it.claim.path.join("/"), it.invert))
        .collect();
    assert_eq!(told, [("a/b".to_owned(), false), ("c.d".to_owned(), true)]);
    assert!(claims.iter().all(|it| it.claim.list));
}
