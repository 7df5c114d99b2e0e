//! `mesh proxy-config`: what a proxy has, from the admin interface of Envoy or mesh-proxy.

mod bootstrap;
mod cluster;
mod dump;
mod endpoint;
mod listener;
mod route;
mod secret;

use crate::fetch::Server;
use crate::output::{self, Format, Text};
use crate::style::Style;
use clap::Subcommand;
use dump::Dump;
use serde_json::{Value, json};
use std::process::ExitCode;

/// The whole configuration, with endpoints.
const CONFIG_DUMP: &str = "/config_dump?include_eds";

/// Hosts with their health.
const CLUSTERS: &str = "/clusters?format=json";

/// What `mesh proxy-config` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    part: Part,
    /// The admin interface of the proxy.
    #[arg(
        long,
        global = true,
        value_name = "URL",
        default_value = "http://127.0.0.1:15000"
    )]
    admin: Server,
    /// How to print it. JSON and YAML are Envoy's own, whole messages.
    #[arg(long, short, global = true, value_enum, default_value = "table")]
    output: Format,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Clusters: where requests can be sent.
    #[command(visible_aliases = ["clusters", "c"])]
    Cluster(cluster::Filter),
    /// Listeners: where connections are accepted, and what happens to them.
    #[command(visible_aliases = ["listeners", "l"])]
    Listener(listener::Filter),
    /// Routes: which requests go where.
    #[command(visible_aliases = ["routes", "r"])]
    Route(route::Filter),
    /// Endpoints: the hosts of clusters, and whether they are used.
    #[command(visible_aliases = ["endpoints", "ep"])]
    Endpoint(endpoint::Filter),
    /// Certificates and roots of trust: until when they are valid. Keys are not shown.
    #[command(visible_aliases = ["secrets", "s"])]
    Secret(secret::Filter),
    /// What the proxy was started with: who it is, and from where it is configured.
    #[command(visible_alias = "b")]
    Bootstrap,
    /// All of these but secrets. As JSON or YAML: {bootstrap, clusters, endpoints, listeners, routes}, the
    /// last four as `mesh compile` prints them.
    #[command(visible_alias = "a")]
    All,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    output::exit(show(args))
}

fn show(args: &Args) -> anyhow::Result<ExitCode> {
    let style = Style::of_stdout();
    let text = match &args.part {
        Part::Endpoint(filter) => {
            let statuses = args.admin.json(CLUSTERS)?;
            match text(args.output) {
                None => endpoint::table(&statuses, filter).render(style),
                Some(form) => form.of(endpoint::select(&statuses, filter)),
            }
        }
        Part::All => {
            let dump = ask(&args.admin)?;
            match text(args.output) {
                None => {
                    let statuses = args.admin.json(CLUSTERS)?;
                    everything(&dump, &statuses, style)
                }
                Some(form) => form.of(dump.into_value()),
            }
        }
        Part::Bootstrap => {
            let dump = ask(&args.admin)?;
            let bootstrap = dump.bootstrap()?;
            match text(args.output) {
                None => bootstrap::table(bootstrap).render(style),
                Some(form) => form.of(bootstrap.clone()),
            }
        }
        Part::Cluster(filter) => {
            let dump = ask(&args.admin)?;
            let found = filter.select(&dump);
            match text(args.output) {
                None => cluster::table(&found).render(style),
                Some(form) => form.of(json!(found)),
            }
        }
        Part::Listener(filter) => {
            let dump = ask(&args.admin)?;
            let found = filter.select(&dump);
            match text(args.output) {
                None => listener::table(&found).render(style),
                Some(form) => form.of(json!(found)),
            }
        }
        Part::Secret(filter) => {
            let dump = ask(&args.admin)?;
            match text(args.output) {
                None => secret::table(&dump, filter).render(style),
                Some(form) => form.of(filter.select(&dump)),
            }
        }
        Part::Route(filter) => {
            let dump = ask(&args.admin)?;
            let found = filter.select(&dump);
            match text(args.output) {
                None => route::table(&found).render(style),
                Some(form) => form.of(json!(found)),
            }
        }
    };
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// The dump, with what is wrong with it on standard error.
fn ask(admin: &Server) -> anyhow::Result<Dump> {
    let dump = Dump::read(admin.json(CONFIG_DUMP)?)?;
    for note in dump.notes() {
        eprintln!("note: {}", crate::table::printable(note));
    }
    Ok(dump)
}

fn everything(dump: &Dump, statuses: &Value, style: Style) -> String {
    let mut parts = Vec::new();
    if let Ok(bootstrap) = dump.bootstrap() {
        parts.push(bootstrap::table(bootstrap));
    }
    parts.extend([
        cluster::table(&cluster::Filter::default().select(dump)),
        listener::table(&listener::Filter::default().select(dump)),
        route::table(&route::Filter::default().select(dump)),
        endpoint::table(statuses, &endpoint::Filter::default()),
    ]);
    let parts: Vec<String> = parts.iter().map(|table| table.render(style)).collect();
    parts.join("\n")
}

fn text(format: Format) -> Option<Text> {
    match format {
        Format::Table => None,
        Format::Json => Some(Text::Json),
        Format::Yaml => Some(Text::Yaml),
    }
}

/// The text at a JSON pointer; empty if there is none.
fn at<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The list at a JSON pointer; empty if there is none.
fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value
        .pointer(pointer)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

/// The Istio object behind a resource, as `name.namespace`: istiod leaves its path in the
/// metadata, `/apis/networking.istio.io/v1/namespaces/default/virtual-service/reviews`.
fn istio_object(resource: &Value) -> String {
    let path = at(resource, "/metadata/filter_metadata/istio/config");
    let mut parts = path.rsplit('/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(name), Some(_), Some(namespace)) if !name.is_empty() => format!("{name}.{namespace}"),
        _ => String::new(),
    }
}

/// An address as `ADDRESS:PORT`, or what it is called otherwise.
fn address(value: &Value) -> (String, Option<u16>) {
    if let Some(socket) = value.get("socket_address") {
        let port = socket.get("port_value").and_then(Value::as_u64);
        let port = port.and_then(|port| u16::try_from(port).ok());
        return (at(socket, "/address").to_owned(), port);
    }
    if let Some(pipe) = value.get("pipe") {
        return (format!("unix://{}", at(pipe, "/path")), None);
    }
    let internal = at(value, "/envoy_internal_address/server_listener_name");
    match internal {
        "" => (String::new(), None),
        name => (format!("envoy://{name}"), None),
    }
}

#[cfg(test)]
mod tests;
