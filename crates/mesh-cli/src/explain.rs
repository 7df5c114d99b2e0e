//! `mesh explain`: why a request goes where it goes.

pub(crate) mod mesh;
pub(crate) mod section;
pub(crate) mod text;

use crate::fetch::Server;
use crate::node::NodeArgs;
use crate::output;
use crate::style::Style;
use anyhow::Context;
use mesh::Mesh;
use mesh_proxy::explain::Question;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use std::fmt::Display;
use std::path::PathBuf;
use std::process::ExitCode;

/// What `mesh explain` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The request: METHOD and URL in one argument, or only the URL.
    #[arg(value_name = "REQUEST")]
    request: String,
    /// A header of the request; may be given more than once.
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// The listener that the request comes to, by name, address or port. Without it, the one that
    /// fits best: whose port is the URL's, and whose routes know the host.
    #[arg(long, value_name = "NAME|ADDRESS|PORT")]
    listener: Option<String>,
    /// A file or directory of YAML: Istio's networking objects, Kubernetes Services and their
    /// endpoints. May be given more than once.
    #[arg(
        long,
        num_args = 1,
        value_name = "DIR_OR_FILE",
        required_unless_present = "admin",
        conflicts_with = "admin"
    )]
    config: Vec<PathBuf>,
    /// A MeshConfig, if it is not the ConfigMap `istio` among the objects.
    #[arg(long, value_name = "FILE", requires = "config")]
    mesh_config: Option<PathBuf>,
    /// Ask the admin interface of a running mesh-proxy instead.
    #[arg(long, value_name = "URL")]
    admin: Option<Server>,
    #[command(flatten)]
    node: NodeArgs,
    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
}

/// Everything but letters, digits and what RFC 3986 calls unreserved.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

pub(crate) fn run(args: &Args) -> ExitCode {
    output::exit(explain(args))
}

fn explain(args: &Args) -> anyhow::Result<ExitCode> {
    let answer = match &args.admin {
        Some(server) => ask(server, args)?,
        None => match offline(args)? {
            Some(answer) => answer,
            None => return Ok(ExitCode::FAILURE),
        },
    };
    match args.json {
        true => output::print(&output::Text::Json.of(answer))?,
        false => output::print(&text::render(&answer, Style::of_stdout()))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The answer for files; none where they are refused, and that has been said.
fn offline(args: &Args) -> anyhow::Result<Option<Value>> {
    let question = Question::parse(&args.request, &args.headers)?.listener(args.listener.clone());
    let (mesh, findings) = Mesh::read(&args.config, args.mesh_config.as_deref());
    for finding in &findings {
        eprintln!("{}", finding.render());
    }
    let Some(mesh) = mesh else {
        return Ok(None);
    };
    let Some(snapshot) = mesh.snapshot(&args.node.identity_or_sidecar()?)? else {
        return Ok(None);
    };
    let answer = mesh_proxy::explain::explain(&snapshot, &question)?;
    Ok(Some(serde_json::from_str(&answer)?))
}

fn ask(server: &Server, args: &Args) -> anyhow::Result<Value> {
    if args.node.is_given() {
        anyhow::bail!(
            "--admin asks a proxy, which knows who it is; leave out the flags for a node"
        );
    }
    // What is wrong with it is said here, not by whoever is asked.
    Question::parse(&args.request, &args.headers)?;
    let mut path = format!("/explain?request={}", escaped(&args.request));
    for header in &args.headers {
        path += &format!("&header={}", escaped(header));
    }
    if let Some(listener) = &args.listener {
        path += &format!("&listener={}", escaped(listener));
    }
    server.json(&path).context("is it a mesh-proxy?")
}

/// A text as it stands in a query.
fn escaped(text: &str) -> impl Display {
    utf8_percent_encode(text, ESCAPED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_survives_its_way_into_a_query() {
        assert_eq!(
            escaped("GET http://a:1/x?y&z").to_string(),
            "GET%20http%3A%2F%2Fa%3A1%2Fx%3Fy%26z"
        );
        assert_eq!(escaped("é+%").to_string(), "%C3%A9%2B%25");
    }
}
