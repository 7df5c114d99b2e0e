//! mesh-proxy: with the list, by `benches/peers/mesh.sh`, and with much configuration.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::Context as _;

use super::{
    envoy,
    memory::Held,
    peer::{Peer, Setting, Start},
    process::Program,
};

pub(crate) fn start(peer: &Peer, root: &Path, setting: &Setting) -> Start {
    let listens = setting.listens;
    let access_log = setting.file(peer.kind, "access.log");
    let ports = [
        listens.h1,
        listens.h2c,
        listens.tls,
        listens.tcp,
        listens.admin,
    ];
    let upstreams = setting.upstreams.map(|port| format!("127.0.0.1:{port}"));
    let mutual = setting.mutual.iter().flat_map(|mutual| {
        let upstreams = mutual.upstreams.map(|port| format!("127.0.0.1:{port}"));
        let folder = mutual.folder.display().to_string();
        [listens.mtls.to_string(), upstreams.join(" "), folder]
    });
    let program = Program::new(root.join("benches/peers/mesh.sh"))
        .arguments(ports.map(|port| port.to_string()))
        .arguments([upstreams.join(" ")])
        .arguments([&setting.certificate, &setting.key].map(|it| it.display().to_string()))
        .arguments(mutual)
        .environment("MESH_PROXY", peer.program.display().to_string())
        .environment("MESH_WORKERS", setting.workers.to_string())
        .environment("MESH_ACCESS_LOG", access_log.display().to_string());
    Start {
        program,
        access_log: Some(access_log),
    }
}

/// mesh-proxy with so many routes or clusters, and nothing else: from Istio's YAML or from the very
/// bootstrap that Envoy reads.
///
/// # Errors
///
/// If the configuration cannot be written.
pub(crate) fn holding(
    peer: &Peer,
    setting: &Setting,
    held: Held,
    is_bootstrap: bool,
) -> anyhow::Result<Program> {
    let program = program(peer, 1, setting.listens.admin);
    if is_bootstrap {
        let file = setting.file(peer.kind, &format!("{}.json", held.name()));
        envoy::write(&file, &envoy::held_bootstrap(setting, held)?)?;
        return Ok(program.arguments(["--envoy-config".to_owned(), file.display().to_string()]));
    }
    let file = setting.file(peer.kind, &format!("{}.yaml", held.name()));
    let text = yaml(held, setting.upstreams[0]);
    fs::write(&file, text).with_context(|| format!("cannot write {file:?}"))?;
    Ok(program
        .arguments(["--role", "gateway", "--config"])
        .arguments([file.display().to_string()])
        .arguments([
            "--map-port".to_owned(),
            format!("80={}", setting.listens.h1),
        ]))
}

/// The program with so many workers, and nothing yet that configures it.
pub(crate) fn program(peer: &Peer, workers: usize, admin: u16) -> Program {
    Program::new(&peer.program)
        .arguments(["run", "--concurrency"])
        .arguments([workers.to_string()])
        .arguments(["--admin".to_owned(), format!("127.0.0.1:{admin}")])
        .environment("MESH_LOG", "error")
}

/// Where a route of a VirtualService leads, if [`gateway`] is there.
pub(crate) const TO: &str = "route: [{destination: {host: backend.example.com}}]";

/// A Gateway `held` for all hosts, and the service that [`TO`] leads to.
pub(crate) fn gateway(upstream: u16) -> String {
    let mut text = String::from(
        "apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: held}
spec:
  servers:
  - bind: 127.0.0.1
    port: {number: 80, name: http, protocol: HTTP}
    hosts: [\"*\"]
",
    );
    service(&mut text, "backend", upstream);
    text
}

/// Istio's objects for [`holding`].
pub(crate) fn yaml(held: Held, upstream: u16) -> String {
    let mut text = gateway(upstream);
    let clusters = match held {
        Held::Routes(_) => 0,
        Held::Clusters(number) => number,
    };
    for at in 0..clusters {
        service(&mut text, &format!("service-{at}"), upstream);
    }
    text += "---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: held}
spec:
  hosts: [\"*\"]
  gateways: [held]
  http:
";
    let routes = match held {
        Held::Routes(number) => number,
        Held::Clusters(_) => 0,
    };
    for at in 0..routes {
        let prefix = format!("/api/v1/service-{at}/");
        writeln!(
            text,
            "  - name: r{at}\n    match: [{{uri: {{prefix: {prefix}}}}}]\n    {TO}"
        )
        .expect("a string takes all");
    }
    writeln!(text, "  - name: last\n    {TO}").expect("a string takes all");
    text
}

fn service(text: &mut String, name: &str, upstream: u16) {
    write!(
        text,
        "---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}}}
spec:
  hosts: [{name}.example.com]
  resolution: STATIC
  ports: [{{number: 80, name: http, protocol: HTTP}}]
  endpoints: [{{address: 127.0.0.1, ports: {{http: {upstream}}}}}]
"
    )
    .expect("a string takes all");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_much_is_written_as_is_to_be_held() {
        let count = |held, what: &str| yaml(held, 1234).matches(what).count();
        assert_eq!(count(Held::Routes(7), "uri: {prefix: /api/v1/service-"), 7);
        assert_eq!(count(Held::Routes(7), "kind: ServiceEntry"), 1);
        assert_eq!(count(Held::Clusters(7), "uri:"), 0);
        assert_eq!(count(Held::Clusters(7), "kind: ServiceEntry"), 8);
        assert_eq!(count(Held::Clusters(7), "http: 1234"), 8);
    }
}
