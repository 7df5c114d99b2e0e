//! Ten thousand routes, in a thousand virtual hosts, and the one that changes.

use std::{
    fmt::Write as _,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde_json::{Value, json};

use super::{
    super::{
        envoy, mesh,
        peer::{Kind, Peer, Setting},
        process::{Process, Program},
    },
    MARK, WORKERS, wire,
};

pub(super) const HOSTS: u32 = 1_000;
pub(super) const ROUTES: u32 = 10;

/// How the proxy is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// A file for each VirtualService.
    Yaml,
    /// One RouteConfiguration in a file of JSON (`path_config_source`).
    File,
    /// The same from a control plane (`DELTA_GRPC`).
    Ads,
}

/// The routes of one proxy, and where it reads them.
#[derive(Debug)]
pub(super) struct Config {
    by: Written,
    /// What it is started with, and what changes.
    start: PathBuf,
    routes: PathBuf,
    /// What is in [`Config::routes`] but the route that changes.
    table: Value,
    ports: [u16; 2],
    generation: u64,
    control: Process,
}

// === impl Written ===

impl Written {
    pub(super) fn of(kind: Kind) -> &'static [Self] {
        match kind {
            Kind::Mesh => &[Self::Ads, Self::File, Self::Yaml],
            _ => &[Self::Ads, Self::File],
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Yaml => "yaml",
            Self::File => "file",
            Self::Ads => "ads",
        }
    }
}

// === impl Config ===

impl Config {
    /// Writes it. `control` listens on this port, and is told what changes, if it is to be told.
    pub(super) fn new(
        setting: &Setting,
        peer: &Peer,
        by: Written,
        (control, port): (Process, u16),
    ) -> anyhow::Result<Self> {
        let folder = setting.file(peer.kind, by.name());
        // What is left of another round would be read, too.
        drop(fs::remove_dir_all(&folder));
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {folder:?}"))?;
        let (start, routes) = match by {
            Written::Yaml => (folder.clone(), folder.join("last.yaml")),
            Written::File => (folder.join("bootstrap.json"), folder.join("routes.json")),
            Written::Ads => (folder.join("bootstrap.json"), folder.join("routes.bin")),
        };
        let mut config = Self {
            by,
            start,
            routes,
            table: table(),
            ports: [setting.listens.admin, setting.listens.h1],
            generation: 0,
            control,
        };
        match by {
            Written::Yaml => yaml(&folder, setting.upstreams[0])?,
            Written::File | Written::Ads => {
                envoy::write(&config.start, &config.bootstrap(setting, port))?;
            }
        }
        config.change()?;
        Ok(config)
    }

    /// How to start the proxy with it.
    pub(super) fn program(&self, peer: &Peer) -> Program {
        let start = self.start.display().to_string();
        if peer.kind == Kind::Envoy {
            return envoy::program(peer, WORKERS, &self.start);
        }
        let [admin, port] = self.ports;
        let program = mesh::program(peer, WORKERS, admin);
        match self.by {
            Written::File | Written::Ads => program.arguments(["--envoy-config".to_owned(), start]),
            Written::Yaml => program
                .arguments(["--role", "gateway", "--config"])
                .arguments([start, "--map-port".to_owned(), format!("80={port}")]),
        }
    }

    /// Changes the last route, in one step as a proxy sees it.
    pub(super) fn change(&mut self) -> anyhow::Result<u64> {
        self.generation += 1;
        let generation = self.generation.to_string();
        let text = match self.by {
            Written::Yaml => last(&generation).into_bytes(),
            Written::File => self.response(&generation).into_bytes(),
            Written::Ads => wire::table(&generation),
        };
        // Of those that are read as YAML by their names this is none.
        let new = self.routes.with_extension("new");
        fs::write(&new, text)?;
        fs::rename(&new, &self.routes)
            .with_context(|| format!("cannot write {:?}", self.routes))?;
        if self.by == Written::Ads {
            let commands = self.control.child.stdin.as_mut();
            let commands = commands.context("the control plane is not told anything")?;
            writeln!(commands, "set RDS held {}", self.routes.display())?;
        }
        Ok(self.generation)
    }

    /// The bench's, whose routes are in a file or come from a control plane at this port.
    fn bootstrap(&self, setting: &Setting, port: u16) -> Value {
        let mut bootstrap = envoy::bootstrap(setting, None);
        let listeners = &mut bootstrap["static_resources"]["listeners"];
        let manager = &mut listeners[0]["filter_chains"][0]["filters"][0]["typed_config"];
        if let Some(manager) = manager.as_object_mut() {
            manager.remove("route_config");
            let source = match self.by {
                Written::Ads => json!({"ads": {}, "resource_api_version": "V3"}),
                _ => json!({"path_config_source": {"path": self.routes}}),
            };
            let routes = json!({"route_config_name": "held", "config_source": source});
            manager.insert("rds".to_owned(), routes);
        }
        *listeners = json!([listeners[0]]);
        if self.by == Written::Ads {
            let service = json!({"envoy_grpc": {"cluster_name": "control"}});
            bootstrap["dynamic_resources"] = json!({"ads_config": {
                "api_type": "DELTA_GRPC", "transport_api_version": "V3", "grpc_services": [service],
            }});
            let clusters = bootstrap["static_resources"]["clusters"].as_array_mut();
            clusters
                .into_iter()
                .for_each(|it| it.push(envoy::control(port)));
        }
        bootstrap
    }

    fn response(&mut self, generation: &str) -> String {
        let hosts = &mut self.table["resources"][0]["virtual_hosts"];
        hosts[HOSTS as usize]["routes"][0]["response_headers_to_add"] =
            json!([{"header": {"key": MARK, "value": generation}}]);
        self.table["version_info"] = json!(generation);
        self.table.to_string()
    }
}

pub(super) fn domain(host: u32) -> String {
    format!("service-{host}.example.com")
}

pub(super) fn prefix(route: u32) -> String {
    format!("/api/v{route}/")
}

/// All hosts, and the one that stands for the others.
fn table() -> Value {
    let to = json!({"cluster": "http"});
    let hosts = (0..HOSTS).map(|host| {
        let routes: Vec<_> = (0..ROUTES)
            .map(|route| {
                json!({"name": format!("r{route}"), "match": {"prefix": prefix(route)}, "route": to})
            })
            .collect();
        json!({"name": format!("h{host}"), "domains": [domain(host)], "routes": routes})
    });
    let last = json!({"name": "last", "domains": ["*"], "routes": [
        {"name": "last", "match": {"prefix": "/"}, "route": to},
    ]});
    json!({"resources": [{
        "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        "name": "held",
        "virtual_hosts": hosts.chain([last]).collect::<Vec<_>>(),
    }]})
}

/// A file for each of the hosts.
fn yaml(folder: &Path, upstream: u16) -> anyhow::Result<()> {
    fs::write(folder.join("gateway.yaml"), mesh::gateway(upstream))?;
    for host in 0..HOSTS {
        let name = format!("service-{host}");
        let mut text = head(&name, &domain(host));
        for route in 0..ROUTES {
            writeln!(
                text,
                "  - name: r{route}\n    match: [{{uri: {{prefix: {}}}}}]\n    {}",
                prefix(route),
                mesh::TO
            )?;
        }
        fs::write(folder.join(format!("{name}.yaml")), text)?;
    }
    Ok(())
}

fn last(generation: &str) -> String {
    let headers = format!("headers: {{response: {{set: {{{MARK}: \"{generation}\"}}}}}}");
    let head = head("last", "*");
    format!("{head}  - name: last\n    {headers}\n    {}\n", mesh::TO)
}

fn head(name: &str, host: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}}}
spec:
  hosts: [\"{host}\"]
  gateways: [held]
  http:
"
    )
}
