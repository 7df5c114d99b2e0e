//! `mesh compile`: the xDS that a node would get, without a server.

use crate::node::NodeArgs;
use crate::output::{self, Text};
use anyhow::Context;
use clap::ValueEnum;
use mesh_control::{describe_node, described_resources};
use mesh_istio::{Diagnostic, Files, World};
use mesh_xds::json::Codec;
use mesh_xds::read::{self, Resource};
use mesh_xds::{Encoded, TypeUrl};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

/// What `mesh compile` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Files and directories of YAML: Istio's networking objects, Kubernetes Services and their
    /// endpoints.
    #[arg(long, required = true, num_args = 1.., value_name = "DIR_OR_FILE")]
    config: Vec<PathBuf>,
    /// A MeshConfig, if it is not the ConfigMap `istio` among the objects.
    #[arg(long, value_name = "FILE")]
    mesh_config: Option<PathBuf>,
    #[command(flatten)]
    node: NodeArgs,
    /// How to print it.
    #[arg(long, short, value_enum, default_value = "yaml")]
    output: Text,
    /// Only these types of resources; may be given more than once.
    #[arg(long = "type", value_enum, value_name = "TYPE", value_delimiter = ',')]
    types: Vec<Kind>,
}

/// A type of resources, in the words of `istioctl proxy-status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    Cds,
    Eds,
    Lds,
    Rds,
    /// Without their keys.
    Sds,
    /// The names that the node may resolve in the mesh, where it says DNS_CAPTURE=true.
    Nds,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    output::exit(compile(args))
}

fn compile(args: &Args) -> anyhow::Result<ExitCode> {
    let mut files = Files::read(&args.config);
    if let Some(path) = &args.mesh_config {
        files = files.and_mesh_config(path);
    }
    let (value, findings) = resources(&files, args)?;
    for finding in &findings {
        eprintln!("{}", finding.render());
    }
    let Some(value) = value else {
        return Ok(ExitCode::FAILURE);
    };
    output::print(&args.output.of(value))?;
    Ok(ExitCode::SUCCESS)
}

/// The resources by type; none if the configuration is refused. And what there is to say about it.
fn resources(files: &Files, args: &Args) -> anyhow::Result<(Option<Value>, Vec<Diagnostic>)> {
    let identity = args.node.identity()?;
    let mut world = World::default();
    let mut findings = world.update(files);
    if findings.iter().any(Diagnostic::is_error) {
        return Ok((None, findings));
    }
    let described = describe_node(&world, &identity)?;
    let (resources, more) = described_resources(&world, &described);
    findings.extend(more);
    if findings.iter().any(Diagnostic::is_error) {
        return Ok((None, findings));
    }
    Ok((Some(by_type(&resources, &args.types)?), findings))
}

fn by_type(resources: &[(TypeUrl, Encoded)], only: &[Kind]) -> anyhow::Result<Value> {
    let wanted = |kind: Kind| only.is_empty() || only.contains(&kind);
    let mut lists: BTreeMap<&str, BTreeMap<&str, Value>> = Kind::value_variants()
        .iter()
        // Secrets and names are rare: without any there is nothing to say about them.
        .filter(|kind| {
            let rare = matches!(kind, Kind::Sds | Kind::Nds);
            only.contains(kind) || only.is_empty() && !rare
        })
        .map(|kind| (kind.list(), BTreeMap::new()))
        .collect();
    let codec = Codec::new();
    for (url, resource) in resources {
        let kind = Kind::of(*url).with_context(|| {
            format!("{}: resources of type {url} cannot be shown", resource.name)
        })?;
        if wanted(kind) {
            let list = lists.entry(kind.list()).or_default();
            if kind == Kind::Nds {
                list.insert(&resource.name, names(&resource.bytes)?);
                continue;
            }
            let message = url.url().rsplit('/').next().unwrap_or_default();
            let text = codec
                .to_json(message, &resource.bytes)
                .with_context(|| format!("{} {}", url.short(), resource.name))?;
            list.insert(&resource.name, serde_json::from_str(&text)?);
        }
    }
    let lists = lists.into_iter().map(|(key, list)| {
        let list: Vec<Value> = list.into_values().collect();
        (key.to_owned(), Value::Array(list))
    });
    Ok(Value::Object(lists.collect::<Map<_, _>>()))
}

/// A table of names, which is Istio's and not Envoy's, as proto-JSON would have it.
fn names(bytes: &[u8]) -> anyhow::Result<Value> {
    let Resource::NameTable(table) = read::resource(TypeUrl::NameTable, bytes)? else {
        anyhow::bail!("is no table of names");
    };
    let each = table.names.iter().map(|(name, info)| {
        let ips = info.addresses.iter().map(|ip| Value::from(ip.to_string()));
        let mut value = json!({"ips": ips.collect::<Vec<_>>()});
        if let Some(short) = &info.short {
            value["shortname"] = short.name.as_str().into();
            value["namespace"] = short.namespace.as_str().into();
        }
        (name.to_string(), value)
    });
    Ok(json!({"table": each.collect::<Map<_, _>>()}))
}

// === impl Kind ===

impl Kind {
    fn of(url: TypeUrl) -> Option<Self> {
        Some(match url {
            TypeUrl::Cluster => Self::Cds,
            TypeUrl::Endpoints => Self::Eds,
            TypeUrl::Listener => Self::Lds,
            TypeUrl::Routes => Self::Rds,
            TypeUrl::Secret => Self::Sds,
            TypeUrl::NameTable => Self::Nds,
            _ => return None,
        })
    }

    /// The key of its resources.
    fn list(self) -> &'static str {
        match self {
            Self::Cds => "clusters",
            Self::Eds => "endpoints",
            Self::Lds => "listeners",
            Self::Rds => "routes",
            Self::Sds => "secrets",
            Self::Nds => "names",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    const MESH: &str = "
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec: {ports: [{name: http, port: 9080}]}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: client, annotations: {mesh-rs.dev/base-port: '20000'}}
spec: {address: 127.0.0.1, labels: {app: client}}
";

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn compiled(yaml: &str, line: &str) -> anyhow::Result<(Option<Value>, Vec<Diagnostic>)> {
        let words = ["compile", "--config", "-"]
            .into_iter()
            .chain(line.split(' '));
        let args = Line::try_parse_from(words).unwrap().args;
        resources(&Files::from_text("a.yaml", yaml), &args)
    }

    #[test]
    fn a_node_that_captures_names_has_a_table_and_listeners_at_allocated_addresses() {
        let yaml = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: db}
spec:
  hosts: [db.example.com]
  ports: [{number: 5432, name: tcp, protocol: TCP}]
  resolution: DNS
";
        let node = "--node sidecar~10.0.0.1~a.b~b.svc.cluster.local \
                    --metadata INTERCEPTION_MODE=REDIRECT";
        let plain = compiled(yaml, node).unwrap().0.unwrap();
        assert!(plain.get("names").is_none());
        let line = format!("{node} --metadata DNS_CAPTURE=true");
        let one = compiled(yaml, &line).unwrap().0.unwrap();
        let ip = one["names"][0]["table"]["db.example.com"]["ips"][0].as_str();
        let ip = ip.expect("an address");
        assert!(ip.starts_with("240.240."));
        let listeners = one["listeners"].as_array().unwrap();
        let name = format!("{ip}_5432");
        assert!(
            listeners
                .iter()
                .any(|listener| listener["name"] == name.as_str())
        );
        let error = compiled(yaml, &format!("{node} --metadata DNS_CAPTURE=maybe")).unwrap_err();
        assert!(error.to_string().contains("DNS_CAPTURE"), "{error}");
    }

    #[test]
    fn every_way_to_name_a_workload_gives_the_same() {
        let one = compiled(MESH, "--workload client.default")
            .unwrap()
            .0
            .unwrap();
        for line in [
            "--workload client",
            "--node client.default",
            "--node sidecar~10.0.0.1~client.default~default.svc.cluster.local",
        ] {
            assert_eq!(
                compiled(MESH, line).unwrap().0.as_ref(),
                Some(&one),
                "{line}"
            );
        }
        let names: Vec<&str> = one["clusters"]
            .as_array()
            .unwrap()
            .iter()
            .map(|cluster| cluster["name"].as_str().unwrap())
            .collect();
        assert!(names.contains(&"outbound|9080||reviews.default.svc.cluster.local"));
        assert!(names.is_sorted(), "{names:?}");
        for list in ["endpoints", "listeners", "routes"] {
            assert!(!one[list].as_array().unwrap().is_empty(), "{list}");
        }
    }

    #[test]
    fn only_the_types_that_were_asked_for_are_there() {
        let line = "--workload client --type rds,lds";
        let value = compiled(MESH, line).unwrap().0.unwrap();
        let keys: Vec<&String> = value.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["listeners", "routes"]);
    }

    #[test]
    fn secrets_are_printed_without_their_keys() {
        let text = format!(
            "{MESH}---
{{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {{name: g}},
 spec: {{selector: {{a: b}}, servers: [{{port: {{number: 443, name: h, protocol: HTTPS}},
  hosts: ['*'], tls: {{mode: SIMPLE, credentialName: shop}}}}]}}}}
---
apiVersion: v1
kind: Secret
metadata: {{name: shop}}
stringData:
  tls.crt: '-----BEGIN CERTIFICATE-----'
  tls.key: |
    -----BEGIN PRIVATE KEY-----
    hush-hush
"
        );
        let line = "--node router~10.0.0.1~edge.default~x --labels a=b --type sds";
        let value = compiled(&text, line).unwrap().0.unwrap();
        let secrets = value["secrets"].as_array().unwrap();
        assert_eq!(secrets[0]["name"], "kubernetes://shop");
        let shown = value.to_string();
        assert!(shown.contains("private_key"), "{shown}");
        // As text and in base64, wherever it begins.
        for part in ["hush", "aHVzaC1o", "h1c2gtaH", "odXNoLWh"] {
            assert!(!shown.contains(part), "{shown}");
        }
        assert!(
            compiled(MESH, "--workload client")
                .unwrap()
                .0
                .unwrap()
                .get("secrets")
                .is_none()
        );
    }

    #[test]
    fn a_configuration_with_errors_gives_findings_with_their_line_instead() {
        let bad = format!(
            "{MESH}---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: r}}\nspec: {{hosts: [reviews], http: [{{rout: []}}]}}\n"
        );
        let (value, findings) = compiled(&bad, "--workload client").unwrap();
        assert!(value.is_none());
        let mut errors = findings.iter().filter(|finding| finding.is_error());
        let is_it = |one: &Diagnostic| one.line == 15 && one.path == "spec.http[0].rout";
        assert!(errors.any(is_it), "{findings:#?}");
    }

    #[test]
    fn a_node_that_nobody_describes_is_refused_by_name() {
        let error = compiled(MESH, "--workload other.shop").unwrap_err();
        assert!(error.to_string().contains("other"), "{error}");
    }

    #[test]
    fn a_client_without_a_proxy_gets_what_it_asks_for() {
        let line = "--node client.default --metadata GENERATOR=grpc";
        let value = compiled(MESH, line).unwrap().0.unwrap();
        let listeners = value["listeners"].as_array().unwrap();
        assert!(
            listeners
                .iter()
                .all(|one| one.get("api_listener").is_some()),
            "{listeners:#?}"
        );
        assert!(!listeners.is_empty());
    }
}
