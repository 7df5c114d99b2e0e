//! `mesh intercept`: sends an application's connections through a proxy that it knows nothing of.

mod apply;
mod dns;
mod host;
mod options;
mod plan;
mod rule;
mod state;
#[cfg(test)]
mod tests;

use crate::output;
use apply::Done;
use host::Host;
use options::Options;
use plan::plan;
use rule::Family;
use serde_json::{Value, json};
use state::State;
use std::process::ExitCode;

/// What `mesh intercept` is told to do.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Set it up, in place of an earlier set-up.
    ///
    /// Needs root or the capability NET_ADMIN, iptables and ip. If something is refused, all is as
    /// before.
    Apply {
        #[command(flatten)]
        namespace: Namespace,
        #[command(flatten)]
        options: Box<Options>,
    },
    /// Take back what `apply` has set up, and nothing else.
    Clean {
        #[command(flatten)]
        namespace: Namespace,
    },
    /// Print what `apply` would do, for iptables-restore, ip6tables-restore and ip.
    Print {
        #[command(flatten)]
        options: Box<Options>,
        /// Print it as JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Where it is done.
#[derive(Debug, clap::Args)]
pub(crate) struct Namespace {
    /// The network namespace, as `ip netns` names it; otherwise the one of this command.
    #[arg(long, value_name = "NAME", value_parser = namespace_name)]
    netns: Option<String>,
}

/// Exit code 0, 1 if it could not be done, 2 if the options are wrong.
pub(crate) fn run(mut command: Command) -> ExitCode {
    match &mut command {
        Command::Apply { namespace, options } => {
            options.read_servers(|| dns::servers(namespace.netns.as_deref()));
        }
        Command::Print { options, .. } => options.read_servers(|| dns::servers(None)),
        Command::Clean { .. } => {}
    }
    let options = match &command {
        Command::Apply { options, .. } | Command::Print { options, .. } => options.check(),
        Command::Clean { .. } => Ok(()),
    };
    if let Err(error) = options {
        eprintln!("error: {error}");
        return ExitCode::from(2);
    }
    match execute(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn execute(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Apply { namespace, options } => {
            let done = apply::apply(&namespace.host(), &options)?;
            let mut what = format!(
                "outbound to port {}, inbound to port {}",
                options.outbound_port, options.inbound_port
            );
            if options.redirect_dns {
                what += &format!(", questions for names to port {}", options.dns_port);
            }
            report(&done, "intercepted", &what)
        }
        Command::Clean { namespace } => {
            let done = apply::clean(&namespace.host())?;
            report(&done, "cleaned", "nothing is intercepted any more")
        }
        Command::Print { options, json } => {
            let text = if json {
                output::Text::Json.of(as_json(&options))
            } else {
                as_text(&options)
            };
            output::print(&text)
        }
    }
}

fn report(done: &Done, verb: &str, what: &str) -> anyhow::Result<()> {
    for note in &done.notes {
        eprintln!("note: {note}");
    }
    let families: Vec<String> = done.families.iter().map(Family::to_string).collect();
    if families.is_empty() {
        return output::print("there was nothing of ours\n");
    }
    output::print(&format!("{verb} {}: {what}\n", families.join(" and ")))
}

fn families(options: &Options) -> &'static [Family] {
    if options.no_ipv6 {
        &[Family::V4]
    } else {
        &[Family::V4, Family::V6]
    }
}

/// What is done, as somebody would type it.
fn as_text(options: &Options) -> String {
    let mut text = String::new();
    for family in families(options) {
        let plan = plan(options, *family);
        for setting in &plan.settings {
            text += &format!("# {}\n", setting.add(*family).join(" "));
        }
        let state = State::planned(&plan);
        text += &format!("# {} --noflush\n{state}", family.restore());
    }
    text
}

fn as_json(options: &Options) -> Value {
    let families = families(options).iter().map(|family| {
        let plan = plan(options, *family);
        let commands: Vec<_> = plan.settings.iter().map(|one| one.add(*family)).collect();
        let state = State::planned(&plan);
        let tables = state.tables().map(|(table, chains, rules)| {
            let chains: Vec<&str> = chains.iter().map(|chain| chain.name()).collect();
            json!({"table": table.name(), "chains": chains, "rules": rules})
        });
        json!({
            "family": family.to_string(),
            "commands": commands,
            "restore": [family.restore(), "--noflush"],
            "tables": tables.collect::<Vec<_>>(),
        })
    });
    Value::Array(families.collect())
}

fn namespace_name(text: &str) -> Result<String, String> {
    // It is a file in /run/netns, and an argument of ip.
    if text.is_empty() || text.starts_with(['-', '.']) || text.contains('/') {
        return Err("is no name of a network namespace; `ip netns` lists them".to_owned());
    }
    Ok(text.to_owned())
}

// === impl Namespace ===

impl Namespace {
    fn host(self) -> Host {
        Host { netns: self.netns }
    }
}
