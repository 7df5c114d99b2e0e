//! What is refused, by name and place; what is accepted with a warning.

#[path = "support/lib.rs"]
mod support;

use mesh_istio::{Files, Severity, World};
use support::{BOOKINFO, destination_rule, good, lines, virtual_service, world};

const TO_A: &str = "route: [{destination: {host: a}}]";

/// Each text is refused with a message that holds the words beside it.
fn refused(cases: &[(String, &str)]) {
    for (text, words) in cases {
        let (world, findings) = world(text);
        let errors: Vec<String> = findings
            .iter()
            .filter(|f| f.is_error())
            .map(ToString::to_string)
            .collect();
        assert!(
            errors.iter().any(|line| line.contains(words)),
            "{words:?} in {errors:?}\n{text}"
        );
        assert!(world.is_empty(), "refused, yet in force:\n{text}");
    }
}

#[test]
fn the_sample_is_accepted_whole() {
    assert_eq!(good(BOOKINFO).len(), 17);
}

#[test]
fn virtual_services_are_checked() {
    let rule = |text: &str| virtual_service(&format!("{{{text}, {TO_A}}}"));
    refused(&[
        (
            virtual_service("{}"),
            "spec.http[0]: needs one of route, redirect, directResponse and delegate",
        ),
        (
            virtual_service("{route: []}"),
            "needs at least one destination",
        ),
        (
            rule("redirect: {uri: /x}"),
            "route and redirect exclude one another",
        ),
        (
            virtual_service("{delegate: {}}"),
            "spec.http[0].delegate: name is missing",
        ),
        (
            rule("match: [{}]"),
            "spec.http[0].match[0]: an empty match block",
        ),
        (
            rule("match: [{name: x, ignoreUriCase: true}]"),
            "an empty match block",
        ),
        (
            rule("match: [{uri: {}}]"),
            "match[0].uri: needs one of exact, prefix and regex",
        ),
        (
            rule("match: [{uri: {exact: /a, prefix: /b}}]"),
            "only one of exact, prefix and regex",
        ),
        (
            rule("match: [{uri: {regex: '('}}]"),
            "uri.regex: invalid regular expression",
        ),
        (
            rule(&format!(
                "match: [{{uri: {{regex: '{}'}}}}]",
                "a".repeat(1025)
            )),
            "longer than",
        ),
        (
            rule("match: [{headers: {'a b': {exact: x}}}]"),
            "\"a b\" is not a header name",
        ),
        (
            rule("match: [{headers: {'@request.auth.claims.sub': {exact: x}}}]"),
            "claims",
        ),
        (
            rule("match: [{headers: {x: {regex: '*'}}}]"),
            "headers[\"x\"].regex: invalid",
        ),
        (rule("match: [{port: 0}]"), "0 is not between 1 and 65535"),
        (
            rule("timeout: soon"),
            "spec.http[0].timeout: \"soon\" is not a duration",
        ),
        (rule("retries: {attempts: -1}"), "-1 is not between"),
        (
            rule("retries: {attempts: 0, retryOn: 5xx}"),
            "attempts is 0",
        ),
        (
            rule("retries: {attempts: 1, retryOn: 'reset,sometimes'}"),
            "\"sometimes\" is not a retry",
        ),
        (
            rule("retries: {attempts: 1, perTryTimeout: 0s}"),
            "must be at least 1ms",
        ),
        (
            rule("fault: {}"),
            "spec.http[0].fault: needs delay or abort",
        ),
        (
            rule("fault: {delay: {percentage: {value: 1}}}"),
            "fixedDelay is missing",
        ),
        (
            rule("fault: {delay: {fixedDelay: 1s, exponentialDelay: 1s, percentage: {value: 1}}}"),
            "exponentialDelay: not supported",
        ),
        (
            rule("fault: {abort: {http2Error: X, percentage: {value: 1}}}"),
            "spec.http[0].fault.abort.http2Error: not supported",
        ),
        (
            rule("fault: {abort: {percentage: {value: 1}}}"),
            "needs httpStatus or grpcStatus",
        ),
        (
            rule("fault: {abort: {httpStatus: 600, percentage: {value: 1}}}"),
            "600 is not between",
        ),
        (
            rule("fault: {abort: {grpcStatus: MAYBE, percentage: {value: 1}}}"),
            "\"MAYBE\" is not",
        ),
        (
            rule("fault: {abort: {httpStatus: 500, percentage: {value: 101}}}"),
            "101 is not a perc",
        ),
        (
            rule("fault: {abort: {httpStatus: 500, percentage: {value: 0.00001}}}"),
            "0.0001",
        ),
        (rule("rewrite: {}"), "rewrite: needs one of uri"),
        (
            rule("rewrite: {uri: /a, uriRegexRewrite: {match: b, rewrite: c}}"),
            "exclude one another",
        ),
        (
            rule("mirror: {host: b}, mirrors: [{destination: {host: c}}]"),
            "exclude one another",
        ),
        (
            rule("corsPolicy: {maxAge: 1500ms}"),
            "must be whole seconds",
        ),
        (
            rule("corsPolicy: {unmatchedPreflights: MAYBE}"),
            "\"MAYBE\" is not one of",
        ),
        (
            rule("headers: {request: {set: {':path': /x}}}"),
            "\":path\" is not a header name",
        ),
        (
            rule("headers: {request: {remove: [Host]}}"),
            "the host can only be set",
        ),
        (
            rule("headers: {response: {set: {x: '50%'}}}"),
            "write %% for a percent sign",
        ),
        (
            rule("headers: {response: {set: {x: '%SECRET%'}}}"),
            "format operator %SECRET%",
        ),
        (
            rule("headers: {request: {set: {host: b}}}, rewrite: {authority: c}"),
            "exclude one another",
        ),
        (
            virtual_service("{redirect: {}}"),
            "redirect: needs one of uri",
        ),
        (
            virtual_service("{redirect: {redirectCode: 301}}"),
            "redirect: needs one of uri",
        ),
        (
            virtual_service("{redirect: {uri: /x, redirectCode: 200}}"),
            "200 is not one of 301",
        ),
        (
            virtual_service("{redirect: {prefixRewrite: /x}}"),
            "needs a uri prefix in every match",
        ),
        (
            virtual_service("{redirect: {uri: /x}, fault: {delay: {fixedDelay: 1s}}}"),
            "redirect and fault exclude one another",
        ),
        (
            virtual_service("{directResponse: {status: 199}}"),
            "199 is not between 200 and 599",
        ),
        (
            virtual_service("{directResponse: {status: 200, body: {bytes: '!'}}}"),
            "not base64",
        ),
        (
            virtual_service("{route: [{destination: {host: a}}, {destination: {host: b}}]}"),
            "must not all be 0",
        ),
        (
            virtual_service("{route: [{destination: {host: '*.a'}}]}"),
            "cannot be a wildcard",
        ),
        (
            virtual_service("{route: [{destination: {subset: v1}}]}"),
            "destination: host is missing",
        ),
        (
            virtual_service(&format!("{{{TO_A}}}")).replace("v.example", "'*'"),
            "gateways only",
        ),
        (
            virtual_service(&format!("{{{TO_A}}}")).replace("v.example", "a, a"),
            "given twice",
        ),
        (
            virtual_service(&format!("{{{TO_A}}}")).replace("http:", "htpp:"),
            "htpp: unknown field",
        ),
    ]);
}

#[test]
fn destination_rules_are_checked() {
    let balancer = |text: &str| destination_rule(&format!("{{loadBalancer: {{{text}}}}}"));
    let pool = |text: &str| destination_rule(&format!("{{connectionPool: {{{text}}}}}"));
    let outlier = |text: &str| destination_rule(&format!("{{outlierDetection: {{{text}}}}}"));
    refused(&[
        (
            balancer("consistentHash: {useSourceIp: true, httpHeaderName: x}"),
            "exclude one another",
        ),
        (
            balancer("consistentHash: {httpHeaderName: ':path'}"),
            "httpHeaderName: \":path\" is not the name of a header",
        ),
        (
            balancer("consistentHash: {httpCookie: {ttl: 1s}}"),
            "consistentHash.httpCookie: name is missing",
        ),
        (
            balancer("consistentHash: {httpCookie: {name: a, attributes: [{value: b}]}}"),
            "httpCookie.attributes[0]: name is missing",
        ),
        (
            balancer("consistentHash: {useSourceIp: true, maglev: {}}"),
            "consistentHash.maglev: tableSize is missing",
        ),
        (
            balancer("consistentHash: {useSourceIp: true, maglev: {tableSize: 1000}}"),
            "1000 is not a prime number",
        ),
        (
            balancer("consistentHash: {useSourceIp: true, maglev: {tableSize: 5000011}}"),
            "maglev.tableSize: 5000011 is not between",
        ),
        (
            balancer("consistentHash: {useSourceIp: true, maglev: {tableSize: 3}, ringHash: {}}"),
            "ringHash and maglev exclude",
        ),
        (
            balancer("consistentHash: {useSourceIp: true, ringHash: {minimumRingSize: 8388609}}"),
            "8388609 is not between",
        ),
        (
            balancer("simple: RANDOM, consistentHash: {useSourceIp: true}"),
            "simple and consistentHash exclude one another",
        ),
        (
            balancer("localityLbSetting: {enabled: false}, zoneAwareLbSetting: {}"),
            "localityLbSetting and zoneAwareLbSetting exclude one another",
        ),
        (
            balancer("zoneAwareLbSetting: {distribute: []}"),
            "zoneAwareLbSetting.distribute: unknown",
        ),
        (
            balancer("zoneAwareLbSetting: {failover: [{from: r1, to: r1}]}"),
            "from and to have to be different regions",
        ),
        (
            balancer("zoneAwareLbSetting: {failover: [{from: r1/z1, to: r2}]}"),
            "zoneAwareLbSetting.failover[0].from: \"r1/z1\" is not a region alone",
        ),
        (
            balancer("zoneAwareLbSetting: {failoverPriority: [v, topology.kubernetes.io/zone]}"),
            "zoneAwareLbSetting.failoverPriority[1]: \"topology.kubernetes.io/zone\" is not for",
        ),
        (
            balancer("zoneAwareLbSetting: {failoverPriority: [topology.kubernetes.io/region=r1]}"),
            "\"topology.kubernetes.io/region\" is not for failoverPriority here",
        ),
        (
            balancer("zoneAwareLbSetting: {minClusterSize: -1}"),
            "zoneAwareLbSetting.minClusterSize: -1 is not between",
        ),
        (
            destination_rule(
                "{portLevelSettings: [{port: {number: 80}, loadBalancer: {zoneAwareLbSetting: \
                 {enabled: 1}}}]}",
            ),
            "portLevelSettings[0].loadBalancer.zoneAwareLbSetting.enabled",
        ),
        (balancer("warmup: {}"), "warmup: duration is missing"),
        (
            balancer("warmup: {duration: 1s, aggression: 0.5}"),
            "warmup.aggression: has to be 1 or more",
        ),
        (
            balancer("warmup: {duration: 1s, minimumPercent: 101}"),
            "101 is not a whole percentage",
        ),
        (
            balancer("localityLbSetting: {distribute: [{from: r1, to: {r1: 60, r2: 30}}]}"),
            "the shares add up to 90, not 100",
        ),
        (
            balancer("localityLbSetting: {distribute: [{from: r1, to: {r1: 0, r2: 100}}]}"),
            "0 is not between 1 and 100",
        ),
        (
            balancer("localityLbSetting: {distribute: [{from: r1/*/z, to: {r1: 100}}]}"),
            "has a * that is not at its end",
        ),
        (
            balancer("localityLbSetting: {distribute: [{from: r1//z, to: {r1: 100}}]}"),
            "empty region, zone or subzone",
        ),
        (
            balancer(
                "localityLbSetting: {distribute: [{from: r1, to: {r1: 100}}, {from: r1/z, to: {r1: 100}}]}",
            ),
            "\"r1/z\" overlaps",
        ),
        (
            balancer(
                "localityLbSetting: {distribute: [{from: r1, to: {r1: 100}}], failover: [{from: a, to: b}]}",
            ),
            "distribute and failover exclude",
        ),
        (
            balancer("localityLbSetting: {failover: [{from: a, to: a}]}"),
            "have to be different regions",
        ),
        (
            balancer("localityLbSetting: {failover: [{from: a/b, to: c}]}"),
            "\"a/b\" is not a region alone",
        ),
        (
            balancer(
                "localityLbSetting: {failover: [{from: a, to: c}], failoverPriority: [topology.kubernetes.io/zone]}",
            ),
            "exclude one another",
        ),
        (balancer("simple: FASTEST"), "\"FASTEST\" is not one of"),
        (
            destination_rule("{retryBudget: {percent: 101}}"),
            "101 is not a percentage",
        ),
        (pool(""), "needs tcp or http"),
        (pool("tcp: {maxConnections: -1}"), "-1 is not between"),
        (pool("tcp: {connectTimeout: 0s}"), "must be at least 1ms"),
        (
            pool("http: {http2KeepAlive: {interval: 1s}}"),
            "timeout is missing",
        ),
        (
            pool("http: {h2UpgradePolicy: UPGRADE, useClientProtocol: true}"),
            "exclude one another",
        ),
        (
            outlier("maxEjectionPercent: 101"),
            "101 is not between 0 and 100",
        ),
        (
            outlier("consecutiveLocalOriginFailures: 1"),
            "needs splitExternalLocalOriginErrors",
        ),
        (
            outlier("consecutive_5xx: 1"),
            "consecutive_5xx: unknown field",
        ),
        (
            destination_rule("{portLevelSettings: [{port: {number: 1}, retryBudget: {}}]}"),
            "portLevelSettings[0].retryBudget: unknown field",
        ),
        (
            destination_rule("{portLevelSettings: [{port: {number: 1}}, {port: {number: 1}}]}"),
            "port 1 has settings twice",
        ),
        (
            destination_rule("{}").replace("host: a,", "host: a, subsets: [{name: x}, {name: x}],"),
            "subset \"x\" given twice",
        ),
    ]);
}

#[test]
fn the_other_kinds_are_checked() {
    let object = |kind: &str, spec: &str| {
        format!(
            "apiVersion: networking.istio.io/v1beta1\nkind: {kind}\nmetadata: {{name: x}}\n\
             spec: {{{spec}}}\n"
        )
    };
    let server = |text: &str| object("Gateway", &format!("servers: [{{{text}}}]"));
    let entry = |text: &str| {
        object(
            "ServiceEntry",
            &format!(
                "hosts: [a.example], ports: [{{number: 80, name: http, protocol: HTTP}}], {text}"
            ),
        )
    };
    let sidecar = |text: &str| object("Sidecar", text);
    refused(&[
        (
            server("port: {number: 1, protocol: X}, hosts: ['*']"),
            "\"X\" is not one of",
        ),
        (
            server("port: {number: 80, protocol: HTTP}"),
            "hosts is missing",
        ),
        (
            server("port: {number: 80, protocol: HTTP}, hosts: ['a/b/c']"),
            "is not a host name",
        ),
        (
            server("port: {number: 80, protocol: HTTP}, hosts: [a], bind: 'unix:///x'"),
            "must be 0 for a Unix domain socket",
        ),
        (
            server("port: {number: 0, protocol: HTTP}, hosts: [a]"),
            "0 is not between 1 and 65535",
        ),
        (
            server("port: {protocol: HTTP}, hosts: [a], bind: 'unix://x'"),
            "absolute path",
        ),
        (
            server("port: {protocol: HTTP}, hosts: [a], bind: 'unix:///x/'"),
            "absolute path",
        ),
        (
            server("port: {protocol: HTTP}, hosts: [a], bind: 'unix:/x'"),
            "not an IP address",
        ),
        (
            entry("resolution: STATIC, endpoints: [{address: b.example}]"),
            "not an IP address",
        ),
        (
            entry("resolution: STATIC, endpoints: [{address: 'unix://x'}]"),
            "absolute path",
        ),
        (
            entry("resolution: STATIC, endpoints: [{address: 'unix:///x', ports: {http: 1}}]"),
            "has no ports",
        ),
        (
            entry("resolution: DNS, endpoints: [{address: 'unix:///x'}]"),
            "resolution STATIC is for it",
        ),
        (
            entry("resolution: STATIC, endpoints: [{address: 'unix:///x'}]").replace(
                "protocol: HTTP}",
                "protocol: HTTP}, {number: 81, name: more, protocol: HTTP}",
            ),
            "exactly one port",
        ),
        (
            entry("resolution: STATIC").replace("a.example", "'*'"),
            "every host there is",
        ),
        (
            entry("resolution: DNS").replace("a.example", "'*.b'"),
            "endpoints are missing",
        ),
        (
            entry("resolution: STATIC, endpoints: [{address: 1.2.3.4}], workloadSelector: {}"),
            "exclude one another",
        ),
        (
            object("WorkloadEntry", "labels: {a: b}"),
            "address is missing",
        ),
        (
            object("WorkloadEntry", "address: 1.2.3.4, network: n"),
            "several networks",
        ),
        (
            object("WorkloadEntry", "address: 1.2.3.4, ports: {http: 0}"),
            "0 is not between",
        ),
        (
            object("WorkloadEntry", "address: 1.2.3.4, labels: {version: 1.10}"),
            "quote it: \"1.10\"",
        ),
        (sidecar("egress: [{hosts: [reviews]}]"), "needs a namespace"),
        (
            sidecar(
                "egress: [{hosts: ['./*']}, {port: {number: 1, protocol: HTTP}, hosts: ['./*']}]",
            ),
            "comes last",
        ),
        (
            sidecar("egress: [{port: {number: 1, protocol: UDP}, hosts: ['./*']}]"),
            "\"UDP\" is not one of",
        ),
        (
            sidecar("ingress: [{port: {number: 1, protocol: HTTP}, tls: {}}]"),
            "tls: mode has to be SIMPLE or MUTUAL",
        ),
        (
            sidecar("ingress: [{port: {number: 1, protocol: HTTP}, defaultEndpoint: 'unix://x'}]"),
            "absolute path",
        ),
        (
            sidecar("ingress: [{port: {number: 1, protocol: HTTP}, bind: 'unix:///x'}]"),
            "not an IP address",
        ),
        (
            sidecar("ingress: [{port: {number: 0, protocol: HTTP}}]"),
            "0 is not between 1 and 65535",
        ),
        (
            sidecar(
                "egress: [{port: {number: 1, protocol: HTTP}, bind: 'unix:///x', hosts: ['./*']}]",
            ),
            "must be 0 for a Unix domain socket",
        ),
        (
            sidecar("egress: [{port: {protocol: TCP}, bind: 'unix:///x', hosts: ['./*']}]"),
            "not supported: a Unix domain socket for anything but HTTP",
        ),
        (
            sidecar(
                "egress: [{port: {protocol: HTTP}, bind: 'unix:///x', captureMode: IPTABLES, \
                 hosts: ['./*']}]",
            ),
            "captureMode has to be DEFAULT or NONE",
        ),
        (
            sidecar(
                "egress: [{port: {protocol: HTTP}, bind: 'unix:///x', hosts: ['./*']}, \
                 {port: {protocol: HTTP}, bind: 'unix:///x', hosts: ['*/*']}]",
            ),
            "a Unix domain socket of its own",
        ),
        (
            sidecar("egress: [{bind: 'unix:///x', hosts: ['./*']}]"),
            "bind needs a port",
        ),
        (
            sidecar("outboundTrafficPolicy: {egressProxy: {host: a}}"),
            "egressProxy: not supported",
        ),
        (
            sidecar("outboundTrafficPolicy: {mode: ALLOW_ANY_DYNAMIC_DNS}"),
            "write ALLOW_ANY",
        ),
        (
            object("EnvoyFilter", ""),
            "not supported: kind EnvoyFilter of networking.istio.io",
        ),
        (
            object("RequestAuthentication", "jwtRules: [{}]").replace("networking", "security"),
            "spec.jwtRules[0]: issuer is missing",
        ),
        (
            object(
                "RequestAuthentication",
                "jwtRules: [{issuer: a, jwks: '{\"keys\": []}'}]",
            )
            .replace("networking", "security"),
            "not a JSON Web Key Set",
        ),
        (
            object(
                "RequestAuthentication",
                "jwtRules: [{issuer: a, jwksUri: /keys}]",
            )
            .replace("networking", "security"),
            "is not a URI of http or https",
        ),
        ("a: 1\n".to_owned(), "apiVersion and kind are missing"),
        (
            "{apiVersion: v1, kind: Service, metadata: {}, spec: {}}".to_owned(),
            "metadata.name",
        ),
        (
            "{apiVersion: v1, kind: Service, metadata: {name: a}}".to_owned(),
            "spec is missing",
        ),
    ]);
}

#[test]
fn names_are_those_that_kubernetes_takes() {
    let service = |name: &str| {
        format!("{{apiVersion: v1, kind: Service, metadata: {{name: {name}}}, spec: {{}}}}")
    };
    let rule = |name: &str| destination_rule("{}").replace("name: d", &format!("name: {name}"));
    // As a service's name, the first two would take the requests of other hosts.
    refused(&[
        (service("'*'"), "metadata.name: \"*\" is not a DNS label"),
        (service("a.b"), "metadata.name: \"a.b\" is not a DNS label"),
        (service("A"), "metadata.name: \"A\" is not a DNS label"),
        (rule("a|b"), "metadata.name: \"a|b\" is not a name"),
        (rule("a..b"), "metadata.name: \"a..b\" is not a name"),
        (rule("'%'"), "metadata.name: \"%\" is not a name"),
    ]);
    good(&rule("a.b-c"));
}

#[test]
fn a_mesh_config_is_checked_wherever_it_stands() {
    for (text, words) in [
        ("enableTracing: true", "enableTracing: unknown field"),
        (
            "accessLogEncoding: JSON",
            "accessLogEncoding: not supported yet",
        ),
        (
            "defaultHttpRetryPolicy: {attempts: 1, perTryTimeout: 1s}",
            "not allowed for the whole",
        ),
        (
            "defaultTrafficPolicy: {loadBalancer: {simple: RANDOM}}",
            "only connectionPool and",
        ),
    ] {
        let mut world = World::default();
        let findings = world.update(&Files::default().and_mesh_config_text("mesh.yaml", text));
        assert!(lines(&findings)[0].contains(words), "{findings:?}");
    }
    // In a ConfigMap the places are those of the file around it.
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio}\ndata:\n  mesh: |\n\n    \
                accessLogFile: x\n    nonsense: 1\n";
    let (_, findings) = world(text);
    assert_eq!(
        lines(&findings),
        ["mesh.yaml:8:5: MeshConfig: nonsense: unknown field"]
    );
    assert_eq!(
        findings[0].snippet.as_ref().map(|s| s.text.as_str()),
        Some("    nonsense: 1")
    );
}

#[test]
fn old_spellings_work_with_a_warning() {
    for text in [
        virtual_service(&format!(
            "{{fault: {{delay: {{fixedDelay: 1s, percent: 10}}}}, {TO_A}}}"
        )),
        virtual_service(&format!(
            "{{mirror: {{host: b}}, mirrorPercent: 10, {TO_A}}}"
        )),
        virtual_service(&format!(
            "{{mirror: {{host: b}}, mirror_percent: 10, {TO_A}}}"
        )),
        virtual_service(&format!("{{corsPolicy: {{allowOrigin: ['*']}}, {TO_A}}}")),
        destination_rule("{loadBalancer: {simple: LEAST_CONN}}"),
        destination_rule("{outlierDetection: {consecutiveErrors: 3}}"),
    ] {
        let (world, findings) = world(&text);
        assert_eq!(world.len(), 1, "{text}");
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].severity, Severity::Warning);
        assert!(
            findings[0].message.starts_with("deprecated"),
            "{}",
            findings[0]
        );
    }
}

#[test]
fn snake_case_is_as_good_as_camel_case() {
    good(
        "{apiVersion: networking.istio.io/v1alpha3, kind: DestinationRule, metadata: {name: a}, \
         spec: {host: a, traffic_policy: {outlier_detection: {consecutive_5xx_errors: '7'}, \
         connection_pool: {http: {http1_max_pending_requests: 1, h2_upgrade_policy: UPGRADE}}}}}",
    );
}

#[test]
fn kubernetes_objects_may_carry_what_they_like() {
    let world = good(
        "apiVersion: v1
kind: Service
metadata:
  name: a
  uid: 0b5c
  managedFields: [{manager: x}]
  annotations: {kubectl.kubernetes.io/last-applied-configuration: '{}'}
spec:
  clusterIP: 10.0.0.9
  clusterIPs: [10.0.0.9]
  ipFamilies: [IPv4]
  sessionAffinity: None
  type: ClusterIP
  ports: [{name: http, port: 80, targetPort: http, nodePort: 30000, protocol: TCP}]
status: {loadBalancer: {}}
",
    );
    assert_eq!(world.services().count(), 1);
}

#[test]
fn other_kinds_are_skipped_with_a_note() {
    let (world, findings) = world(
        "{apiVersion: apps/v1, kind: Deployment, metadata: {name: a}}\n---\n\
         {apiVersion: v1, kind: ServiceAccount, metadata: {name: a}}\n---\n\
         {apiVersion: v1, kind: ConfigMap, metadata: {name: other}}\n",
    );
    assert!(world.is_empty());
    assert_eq!(findings.len(), 3);
    assert!(
        findings
            .iter()
            .all(|finding| finding.severity == Severity::Info),
        "{findings:?}"
    );
}

#[test]
fn all_faults_of_an_object_are_found_at_once() {
    let (_, findings) = world(&virtual_service(&format!(
        "{{timeout: x, retries: {{attempts: y}}, fault: {{}}, unknown: 1, {TO_A}}}"
    )));
    assert_eq!(findings.len(), 4, "{:?}", lines(&findings));
}

#[test]
fn what_would_change_nothing_is_refused_or_said_to() {
    let rule = |text: &str| virtual_service(&format!("{{{text}, {TO_A}}}"));
    let mesh = |line: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\n\
             data:\n  mesh: |-\n    {line}\n"
        )
    };
    refused(&[(
        mesh("inboundTrafficPolicy: {mode: LOCALHOST}"),
        "inboundTrafficPolicy.mode: not supported",
    )]);
    for (text, words) in [
        (
            rule("mirrorPercentage: {value: 5}"),
            "mirrorPercentage has no effect",
        ),
        (rule("mirrorPercent: 5"), "mirrorPercent has no effect"),
        (
            rule("match: [{headers: {uri: {exact: x}}, method: {exact: GET}}]"),
            "has no effect: match the uri with the field of that name",
        ),
        (
            virtual_service("{redirect: {uri: /}, timeout: 1s}"),
            "timeout has no effect",
        ),
        (
            virtual_service("{directResponse: {status: 200}, retries: {attempts: 1}}"),
            "retries has no effect",
        ),
    ] {
        let (world, findings) = world(&text);
        assert_eq!(world.len(), 1, "{text}");
        let found = lines(&findings);
        assert!(found.iter().any(|line| line.contains(words)), "{found:?}");
    }
}
