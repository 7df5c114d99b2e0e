//! What an intercepted sidecar gets. That it is what istiod sends is tested with its recordings,
//! in mesh-control.

#[path = "support/lib.rs"]
mod support;

use std::sync::Arc;

use mesh_core::model::{DiscoveryKind, Snapshot, TransportProtocol};
use mesh_istio::{Capture, Diagnostic, Node};
use support::{
    addresses, cluster, clusters, host, hosts, lines, listener, listeners, object, service,
    snapshot, to, world,
};

fn intercepted(text: &str) -> (Arc<Snapshot>, Vec<String>) {
    captured(Capture::Redirect, text)
}

fn captured(capture: Capture, text: &str) -> (Arc<Snapshot>, Vec<String>) {
    let mut node = Node::sidecar("client", "default");
    node.capture = capture;
    node.labels = [("app".to_owned(), "a".to_owned())].into();
    node.address = [10, 0, 0, 1].into();
    let (world, findings) = world(text);
    assert!(!findings.iter().any(Diagnostic::is_error), "{findings:?}");
    let (snapshot, findings) = snapshot(&world, &node);
    (snapshot, lines(&findings))
}

fn tables(snapshot: &Snapshot) -> Vec<&str> {
    let tables = snapshot.tables().iter().map(|table| &*table.name);
    // Of connections to ports that nobody knows.
    tables
        .filter(|name| *name != "InboundPassthroughCluster")
        .collect()
}

fn kubernetes(name: &str, address: &str, ports: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n\
         spec: {{clusterIP: {address}, ports: [{ports}]}}\n---\n"
    )
}

#[test]
fn each_port_has_a_table_with_the_services_that_have_it() {
    let text = kubernetes(
        "x",
        "10.1.0.1",
        "{name: http, port: 80}, {name: http-b, port: 81}",
    ) + &kubernetes("y", "10.1.0.2", "{name: http, port: 80}");
    let (snapshot, findings) = intercepted(&text);
    assert_eq!(findings, Vec::<String>::new());
    assert_eq!(tables(&snapshot), ["80", "81"]);
    let (x, y) = ("x.default.svc.cluster.local", "y.default.svc.cluster.local");
    assert_eq!(
        hosts(&snapshot, "80"),
        [&format!("{x}:80"), &format!("{y}:80"), "allow_any"]
    );
    assert_eq!(hosts(&snapshot, "81"), [&format!("{x}:81"), "allow_any"]);
    assert!(snapshot.table("80").unwrap().ignore_port);
    let domains = &host(&snapshot, "81", &format!("{x}:81")).domains;
    assert!(
        domains.iter().all(|domain| !domain.contains(':')),
        "{domains:?}"
    );
    assert_eq!(
        listeners(&snapshot),
        [
            "0.0.0.0_80",
            "0.0.0.0_81",
            "virtualOutbound",
            "virtualInbound"
        ]
    );
    let port = listener(&snapshot, "0.0.0.0_80");
    assert!(!port.bind && port.inspect.tls.is_none() && port.inspect.http.is_some());
    assert_eq!(port.inspect.timeout, None);
    assert_eq!(port.chains[0].manager().unwrap().routes, "80");
    assert_eq!(port.chains[0].matches.protocols, ["http/1.1", "h2c"]);
    // What is not HTTP goes where it was going to.
    assert_eq!(
        clusters(port.default_chain.as_ref().unwrap()),
        ["PassthroughCluster"]
    );
}

#[test]
fn ports_that_do_not_say_what_they_speak_have_a_table_each() {
    let text = kubernetes("x", "10.1.0.1", "{name: web, port: 80}")
        + &kubernetes("y", "10.1.0.2", "{name: http, port: 80}");
    let (snapshot, _) = intercepted(&text);
    let own = "x.default.svc.cluster.local:80";
    assert_eq!(tables(&snapshot), ["80", own]);
    assert_eq!(host(&snapshot, own, own).domains, ["*"]);
    assert_eq!(hosts(&snapshot, own), [own]);
}

#[test]
fn ports_that_are_not_http_have_clusters_and_no_table() {
    let text = kubernetes(
        "x",
        "10.1.0.1",
        "{name: tcp, port: 7000}, {name: https, port: 443}",
    );
    let (snapshot, _) = intercepted(&text);
    assert_eq!(tables(&snapshot), Vec::<&str>::new());
    for port in [443, 7000] {
        let name = format!("outbound|{port}||x.default.svc.cluster.local");
        let expected = format!("{name};");
        assert_eq!(
            cluster(&snapshot, &name).stat_name.as_deref(),
            Some(&*expected)
        );
    }
}

#[test]
fn the_way_in_is_named_by_the_applications_port() {
    let text = service("a", "default", 80).replace("port: 80", "port: 80, targetPort: 8080");
    let (snapshot, _) = intercepted(&text);
    let inbound = cluster(&snapshot, "inbound|8080||");
    assert_eq!(inbound.discovery, DiscoveryKind::OriginalDestination);
    // Who comes from there is not intercepted again.
    assert_eq!(inbound.bind_source, Some([127, 0, 0, 6].into()));
    assert!(addresses(&snapshot, "inbound|8080||").is_empty());
    let rule = &host(&snapshot, "inbound|8080||", "inbound|http|80").rules[0];
    assert_eq!(to(rule), "inbound|8080||");
}

#[test]
fn a_virtual_service_for_a_name_without_a_service_is_on_port_80_only() {
    let text = kubernetes(
        "x",
        "10.1.0.1",
        "{name: http, port: 80}, {name: http-b, port: 81}",
    ) + "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v}\n\
           spec: {hosts: [made-up.example], http: [{route: [{destination: {host: x, port: \
           {number: 80}}}]}]}\n";
    let (snapshot, _) = intercepted(&text);
    assert_eq!(
        host(&snapshot, "80", "made-up.example:80").domains,
        ["made-up.example"]
    );
    assert!(!hosts(&snapshot, "81").contains(&"made-up.example:81"));
}

#[test]
fn a_sidecars_listener_with_a_port_reaches_what_it_names_and_no_more() {
    let text = kubernetes("x", "10.1.0.1", "{name: http, port: 80}")
        + &kubernetes("y", "10.1.0.2", "{name: http, port: 80}")
        + &kubernetes("z", "10.1.0.3", "{name: http, port: 81}")
        + "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: s}\nspec:\n  \
           outboundTrafficPolicy: {mode: REGISTRY_ONLY}\n  egress:\n  \
           - {port: {number: 80, protocol: HTTP}, hosts: ['./x.default.svc.cluster.local']}\n  \
           - {hosts: ['./*']}\n";
    let (snapshot, _) = intercepted(&text);
    assert_eq!(
        hosts(&snapshot, "80"),
        ["x.default.svc.cluster.local:80", "block_all"]
    );
    assert_eq!(
        hosts(&snapshot, "81"),
        ["z.default.svc.cluster.local:81", "block_all"]
    );
}

#[test]
fn everything_comes_in_by_one_listener_and_does_not_loop() {
    for (mode, rest) in [
        ("ALLOW_ANY", "PassthroughCluster"),
        ("REGISTRY_ONLY", "BlackHoleCluster"),
    ] {
        let text = object(
            "Sidecar",
            &format!("outboundTrafficPolicy: {{mode: {mode}}}"),
        ) + "---\n"
            + &kubernetes("x", "10.1.0.1", "{name: http, port: 80}");
        let (snapshot, _) = intercepted(&text);
        let all = listener(&snapshot, "virtualOutbound");
        assert!(all.bind && all.hand_off);
        assert_eq!(all.address.to_string(), "0.0.0.0:15001");
        assert_eq!(all.chains[0].matches.destination_port, Some(15001));
        assert_eq!(clusters(&all.chains[0]), ["BlackHoleCluster"]);
        assert_eq!(clusters(&all.chains[1]), [rest]);
        let port = listener(&snapshot, "0.0.0.0_80");
        assert_eq!(clusters(port.default_chain.as_ref().unwrap()), [rest]);
    }
    let pass = cluster(&intercepted("").0, "PassthroughCluster").discovery;
    assert_eq!(pass, DiscoveryKind::OriginalDestination);
}

#[test]
fn with_tproxy_listeners_are_transparent_callers_keep_their_address_and_nothing_else_differs() {
    let text = kubernetes(
        "x",
        "10.1.0.1",
        "{name: http, port: 80}, {name: tcp, port: 7}",
    );
    let (redirected, _) = captured(Capture::Redirect, &text);
    let (transparent, findings) = captured(Capture::Tproxy, &text);
    assert_eq!(findings, Vec::<String>::new());
    let names: Vec<&str> = transparent
        .listeners()
        .iter()
        .filter(|listener| listener.transparent)
        .map(|listener| &*listener.name)
        .collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names.contains(&"virtualInbound") && names.contains(&"virtualOutbound"));
    assert!(
        redirected
            .listeners()
            .iter()
            .all(|listener| !listener.transparent)
    );
    let plain = transparent.listeners().iter().map(|listener| {
        let mut listener = mesh_core::model::Listener::clone(listener);
        listener.transparent = false;
        // istiod's filter, on the way in only.
        let source = listener.inspect.original_source.take();
        let inbound = &*listener.name == "virtualInbound";
        assert_eq!(source.map(|source| source.mark), inbound.then_some(1337));
        listener
    });
    let same = redirected.listeners().iter().zip(plain);
    assert!(same.len() > 3);
    for (one, other) in same {
        assert_eq!(**one, other);
    }
    assert_eq!(tables(&redirected), tables(&transparent));
}

#[test]
fn bytes_have_a_listener_at_each_address_of_a_service() {
    let text = kubernetes(
        "x",
        "10.1.0.1",
        "{name: tcp, port: 7000}, {name: web, port: 85}",
    ) + &object(
        "ServiceEntry",
        "hosts: [db.example], addresses: [10.2.0.1, 10.3.0.0/16], resolution: NONE, \
             ports: [{number: 3306, name: tcp, protocol: TCP}]",
    );
    let (snapshot, findings) = intercepted(&text);
    assert_eq!(findings, Vec::<String>::new());
    assert_eq!(
        listeners(&snapshot)[..4],
        [
            "0.0.0.0_3306",
            "10.1.0.1_85",
            "10.1.0.1_7000",
            "10.2.0.1_3306"
        ]
    );
    let own = listener(&snapshot, "10.1.0.1_7000");
    assert_eq!(
        clusters(&own.chains[0]),
        ["outbound|7000||x.default.svc.cluster.local"]
    );
    assert_eq!((own.chains.len(), &own.default_chain), (1, &None));
    let block = listener(&snapshot, "0.0.0.0_3306");
    assert_eq!(
        block.chains[0].matches.destinations[0].to_string(),
        "10.3.0.0/16"
    );
    assert_eq!(
        clusters(block.default_chain.as_ref().unwrap()),
        ["PassthroughCluster"]
    );
    let db = cluster(&snapshot, "outbound|3306||db.example");
    assert_eq!(db.discovery, DiscoveryKind::OriginalDestination);
    // What is not HTTP on a port that does not say goes to the same service.
    let found_out = listener(&snapshot, "10.1.0.1_85");
    assert_eq!(
        found_out.chains[0].manager().unwrap().routes,
        "x.default.svc.cluster.local:85"
    );
    assert_eq!(
        clusters(found_out.default_chain.as_ref().unwrap()),
        ["outbound|85||x.default.svc.cluster.local"]
    );
}

#[test]
fn a_headless_service_is_called_at_its_endpoints() {
    let text = service("h", "default", 7000)
        .replace("selector:", "clusterIP: None, selector:")
        .replace("name: http", "name: tcp");
    let (snapshot, _) = intercepted(&text);
    assert_eq!(listeners(&snapshot)[0], "10.0.0.1_7000");
    let name = "outbound|7000||h.default.svc.cluster.local";
    assert_eq!(
        cluster(&snapshot, name).discovery,
        DiscoveryKind::OriginalDestination
    );
}

#[test]
fn services_at_one_address_are_told_apart_by_server_names_only() {
    let entry = |name: &str, host: &str, protocol: &str| {
        object(
            "ServiceEntry",
            &format!(
                "hosts: [{host}], resolution: DNS, \
                 ports: [{{number: 443, name: p, protocol: {protocol}}}]"
            ),
        )
        .replace("name: x}", &format!("name: {name}}}"))
            + "---\n"
    };
    let text = entry("a", "a.example", "TLS")
        + &entry("b", "b.example", "HTTPS")
        + &entry("c", "c.example", "TCP")
        + &entry("d", "d.example", "TCP");
    let (snapshot, findings) = intercepted(&text);
    let port = listener(&snapshot, "0.0.0.0_443");
    assert!(port.inspect.tls.is_some());
    let names: Vec<_> = port
        .chains
        .iter()
        .map(|chain| &chain.matches.server_names[0])
        .collect();
    assert_eq!(names, ["a.example", "b.example"]);
    assert_eq!(
        clusters(port.default_chain.as_ref().unwrap()),
        ["outbound|443||c.example"]
    );
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert!(findings[0].contains("ServiceEntry d.default") && findings[0].contains("0.0.0.0:443"));
    let dns = cluster(&snapshot, "outbound|443||a.example");
    assert_eq!(dns.discovery, DiscoveryKind::StrictDns);
    assert!(dns.dns.respect_ttl && dns.dns.refresh.as_secs() == 60);
}

#[test]
fn rules_for_bytes_go_by_client_subnet_and_weight() {
    let rules = "hosts: [x], tcp: [\
        {match: [{sourceLabels: {app: stranger}}], route: [{destination: {host: no}}]}, \
        {match: [{port: 1}], route: [{destination: {host: no}}]}, \
        {match: [{gateways: [g]}], route: [{destination: {host: no}}]}, \
        {match: [{destinationSubnets: [10.9.0.0/16], sourceLabels: {app: a}}], \
         route: [{destination: {host: y}}]}, \
        {route: [{destination: {host: x}, weight: 80}, {destination: {host: y}, weight: 20}, \
                 {destination: {host: z}}]}]";
    let text = kubernetes("x", "10.1.0.1", "{name: tcp, port: 7000}")
        + &kubernetes("y", "10.1.0.2", "{name: tcp, port: 7001}")
        + &kubernetes("z", "10.1.0.3", "{name: tcp, port: 7002}")
        + &object("VirtualService", rules);
    let (snapshot, findings) = intercepted(&text);
    assert_eq!(findings, Vec::<String>::new());
    let port = listener(&snapshot, "10.1.0.1_7000");
    assert_eq!(port.chains.len(), 1);
    assert_eq!(
        port.chains[0].matches.destinations[0].to_string(),
        "10.9.0.0/16"
    );
    assert_eq!(
        clusters(&port.chains[0]),
        ["outbound|7001||y.default.svc.cluster.local"]
    );
    let rest = port.default_chain.as_ref().unwrap();
    assert_eq!(
        clusters(rest),
        [
            "80 outbound|7000||x.default.svc.cluster.local",
            "20 outbound|7001||y.default.svc.cluster.local"
        ]
    );
    assert_eq!(rest.proxy().unwrap().stat_prefix, "x.default");
}

#[test]
fn of_two_rules_for_the_same_server_name_the_first_that_applies_is_used() {
    let rules = "hosts: [x.default.svc.cluster.local], tls: [\
        {match: [{sniHosts: [x.default.svc.cluster.local], sourceNamespace: other}], \
         route: [{destination: {host: no}}]}, \
        {match: [{sniHosts: [x.default.svc.cluster.local]}], route: [{destination: {host: y}}]}, \
        {match: [{sniHosts: [x.default.svc.cluster.local]}], route: [{destination: {host: x}}]}]";
    let text = kubernetes("x", "10.1.0.1", "{name: tls, port: 443}")
        + &kubernetes("y", "10.1.0.2", "{name: tls, port: 444}")
        + &object("VirtualService", rules);
    let (snapshot, _) = intercepted(&text);
    let port = listener(&snapshot, "10.1.0.1_443");
    assert_eq!(port.chains.len(), 1);
    assert_eq!(
        port.chains[0].matches.server_names,
        ["x.default.svc.cluster.local"]
    );
    assert_eq!(
        clusters(&port.chains[0]),
        ["outbound|444||y.default.svc.cluster.local"]
    );
}

#[test]
fn a_destination_that_is_not_there_is_named_with_its_place() {
    let text = kubernetes("x", "10.1.0.1", "{name: tcp, port: 7000}")
        + &object(
            "VirtualService",
            "hosts: [x], tcp: [{route: [{destination: {host: no}}]}]",
        );
    let (_, findings) = intercepted(&text);
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert!(
        findings[0].contains("spec.tcp[0].route[0].destination.host: no service has the host"),
        "{findings:?}"
    );
}

#[test]
fn a_subset_that_is_not_there_is_missed_on_ports_for_bytes_too() {
    let text = kubernetes("x", "10.1.0.1", "{name: tcp, port: 7000}")
        + &object(
            "VirtualService",
            "hosts: [x], tcp: [{route: [{destination: {host: x, subset: v9}}]}]",
        );
    let (_, findings) = intercepted(&text);
    assert!(findings[0].contains("has a subset \"v9\""), "{findings:?}");
}

#[test]
fn limits_of_idle_and_long_connections_and_tunnels_reach_bytes() {
    let text = kubernetes("x", "10.1.0.1", "{name: tcp, port: 7000}")
        + &object(
            "DestinationRule",
            "host: x, trafficPolicy: {tunnel: {targetHost: '2001:db8::1', targetPort: 443}, \
             connectionPool: {tcp: {idleTimeout: 0s, maxConnectionDuration: 5s}}}",
        );
    let (snapshot, _) = intercepted(&text);
    let port = listener(&snapshot, "10.1.0.1_7000");
    let proxy = port.chains[0].proxy().unwrap();
    assert_eq!(proxy.idle_timeout, None);
    assert_eq!(proxy.max_duration.unwrap().as_secs(), 5);
    let tunnel = proxy.tunnel.as_ref().unwrap();
    assert_eq!((&*tunnel.target, tunnel.post), ("[2001:db8::1]:443", false));
}

#[test]
fn the_way_in_tells_protocols_apart_as_far_as_ports_do_not_say() {
    let ports = "{name: http, port: 80}, {name: tcp, port: 81}, {name: web, port: 82}";
    let text = service("a", "default", 80).replace("{name: http, port: 80}", ports);
    let (snapshot, _) = intercepted(&text);
    let way_in = listener(&snapshot, "virtualInbound");
    assert!(way_in.inspect.original_destination);
    let except: Vec<u32> = way_in
        .inspect
        .http
        .as_ref()
        .unwrap()
        .except
        .iter()
        .map(|r| r.start)
        .collect();
    assert_eq!(except, [80, 81, 15006]);
    let of = |port: u16| -> Vec<(Option<TransportProtocol>, bool, bool)> {
        let chains = way_in.chains.iter();
        let chains = chains.filter(|chain| chain.matches.destination_port == Some(port));
        chains
            .map(|chain| {
                let found_out = !chain.matches.protocols.is_empty();
                (
                    chain.matches.transport,
                    found_out,
                    chain.manager().is_some(),
                )
            })
            .collect()
    };
    let (plain, tls) = (Some(TransportProtocol::Plain), Some(TransportProtocol::Tls));
    assert_eq!(of(80), [(plain, false, true)]);
    assert_eq!(of(81), [(tls, false, false), (plain, false, false)]);
    assert_eq!(
        of(82),
        [
            (plain, true, true),
            (plain, false, false),
            (tls, false, false)
        ]
    );
    let pass = cluster(&snapshot, "InboundPassthroughCluster");
    assert_eq!(pass.discovery, DiscoveryKind::OriginalDestination);
}

#[test]
fn a_sidecar_may_ask_for_listeners_that_are_called() {
    let text = kubernetes("x", "10.1.0.1", "{name: tcp, port: 7000}")
        + &object(
            "Sidecar",
            "egress: [{port: {number: 7000, protocol: TCP}, bind: 127.0.0.5, captureMode: NONE, \
             hosts: ['./*']}, {port: {number: 3128, protocol: HTTP_PROXY}, hosts: ['./*']}], \
             ingress: [{port: {number: 9000, protocol: TCP}, captureMode: NONE, \
             defaultEndpoint: '127.0.0.1:9001'}]",
        );
    let (snapshot, findings) = intercepted(&text);
    assert_eq!(findings, Vec::<String>::new());
    let own = listener(&snapshot, "127.0.0.5_7000");
    assert!(own.bind);
    assert_eq!(
        clusters(&own.chains[0]),
        ["outbound|7000||x.default.svc.cluster.local"]
    );
    assert!(listener(&snapshot, "127.0.0.1_3128").bind);
    let way_in = listener(&snapshot, "10.0.0.1_9000");
    assert!(way_in.bind && way_in.chains[0].proxy().is_some());
    assert_eq!(addresses(&snapshot, "inbound|9000||"), ["127.0.0.1:9001"]);
}
