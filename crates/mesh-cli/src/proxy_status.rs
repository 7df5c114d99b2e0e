//! `mesh proxy-status`: how far each proxy is with what the control plane has for it.

use crate::fetch::Server;
use crate::output;
use crate::status::{Proxy, SYNCZ, State};
use crate::style::{Style, Tone};
use crate::table::{Cell, Table, printable};
use clap::ValueEnum;
use serde_json::{Map, Value, json};
use std::process::ExitCode;

/// The types that have a column.
const SHOWN: [&str; 4] = ["CDS", "LDS", "EDS", "RDS"];

/// What `mesh proxy-status` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this proxy: NAME.NAMESPACE, or its whole id.
    #[arg(value_name = "NODE")]
    node: Option<String>,
    /// The debug interface of the control plane.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:15014")]
    control: Server,
    /// How to print it.
    #[arg(long, short, value_enum, default_value = "table")]
    output: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    Table,
    Json,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    output::exit(show(args))
}

fn show(args: &Args) -> anyhow::Result<ExitCode> {
    let mut proxies = Proxy::read_all(&args.control.json(SYNCZ)?)?;
    if let Some(node) = &args.node {
        proxies.retain(|proxy| proxy.is(node));
        if proxies.is_empty() {
            eprintln!("error: no proxy {node:?} is connected to {}", args.control);
            return Ok(ExitCode::FAILURE);
        }
    }
    if proxies.is_empty() {
        eprintln!("note: no proxy is connected to {}", args.control);
    }
    let text = match args.output {
        Form::Table => render(&proxies, Style::of_stdout()),
        Form::Json => output::Text::Json.of(json(&proxies)),
    };
    output::print(&text)?;
    Ok(match proxies.iter().all(Proxy::is_synced) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// The table, and below it why something was rejected.
fn render(proxies: &[Proxy], style: Style) -> String {
    let mut header = vec!["NAME", "TYPE"];
    header.extend(SHOWN);
    header.push("VERSION");
    let mut table = Table::with_header(&header);
    for proxy in proxies {
        let mut row: Vec<Cell> = vec![proxy.name.as_str().into(), proxy.kind.as_str().into()];
        row.extend(SHOWN.map(|kind| cell(proxy.state(kind))));
        row.push(proxy.version.as_str().into());
        table.push(row);
    }
    let mut out = table.render(style);
    for proxy in proxies {
        for (kind, nack) in proxy.nacks() {
            let head = format!("{} rejected {kind}", printable(&proxy.name));
            out += &format!("\n{}: {}\n", style.bad(&head), printable(&nack.reason));
            for origin in &nack.origins {
                out += &format!("  --> {}\n", printable(origin));
            }
        }
    }
    out
}

fn cell(state: Option<State>) -> Cell {
    match state {
        None => Cell::from(""),
        Some(state) => {
            let tone = match state {
                State::Synced => Tone::Good,
                State::NotSent | State::Stale => Tone::Doubtful,
                State::Nacked => Tone::Bad,
            };
            Cell::toned(state.words(), tone)
        }
    }
}

fn json(proxies: &[Proxy]) -> Value {
    let proxies = proxies.iter().map(|proxy| {
        let mut types = Map::new();
        for (kind, state) in proxy.states() {
            let mut about = json!({"state": state.words()});
            if let Some(nack) = proxy.nack(kind) {
                about["reason"] = json!(nack.reason);
                about["origins"] = json!(nack.origins);
            }
            types.insert(kind.to_owned(), about);
        }
        json!({
            "name": proxy.name,
            "id": proxy.id,
            "type": proxy.kind,
            "version": proxy.version,
            "synced": proxy.is_synced(),
            "types": types,
        })
    });
    Value::Array(proxies.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::tests::SOME;

    #[test]
    fn a_row_for_each_proxy_and_the_reason_below() {
        let proxies = Proxy::read_all(&serde_json::from_str(SOME).unwrap()).unwrap();
        assert_eq!(
            render(&proxies, Style::plain()),
            "\
NAME                   TYPE      CDS      LDS      EDS        RDS      VERSION
ingress.istio-system   router    SYNCED   SYNCED   SYNCED     NACKED   1.30.0
reviews-v1.default     sidecar   SYNCED   STALE    NOT SENT   -        1.30.0

ingress.istio-system rejected RDS: http.8080: virtual_hosts[reviews:80].routes[0]: no such thing
  --> VirtualService reviews.default (mesh/reviews.yaml:14:7)
"
        );
    }

    #[test]
    fn programs_get_the_same_with_the_whole_id() {
        let proxies = Proxy::read_all(&serde_json::from_str(SOME).unwrap()).unwrap();
        let value = json(&proxies);
        assert_eq!(value[0]["types"]["RDS"]["state"], "NACKED");
        let origin = "VirtualService reviews.default (mesh/reviews.yaml:14:7)";
        assert_eq!(value[0]["types"]["RDS"]["origins"], json!([origin]));
        assert_eq!(
            value[1]["id"],
            "sidecar~10.0.0.1~reviews-v1.default~default.svc.cluster.local"
        );
        assert_eq!(value[1]["synced"], false);
        assert!(value[1]["types"].get("RDS").is_none());
    }
}
