//! `mesh demo`: Bookinfo, its sidecars and an ingress gateway, in one process on loopback ports.

mod files;
mod tasks;
mod town;

use crate::style::Style;
use anyhow::Context;
use clap::Subcommand;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use town::Town;

/// What `mesh demo` is told.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Where the ingress gateway listens.
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Start from this directory of YAML instead of the one built in.
    #[arg(long, value_name = "DIR")]
    config: Option<PathBuf>,
    /// Where the fresh copy of the configuration goes, to be edited while the demo runs.
    #[arg(long, value_name = "DIR", default_value_os_t = files::usual_directory())]
    dir: PathBuf,
    /// Move all node ports: the first node gets this one instead of 20000.
    #[arg(long, value_name = "PORT", default_value_t = files::FIRST_PORT)]
    base_port: u16,
    /// Stop as soon as the page has been served once. For scripts and tests.
    #[arg(long)]
    once: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the tasks that can be applied to a running demo.
    Tasks {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Copy a task's YAML into the configuration of a running demo, instead of the last one's.
    Apply {
        /// The task: its name, or the number it begins with.
        task: String,
        /// The configuration of the demo.
        #[arg(long, value_name = "DIR", default_value_os_t = files::usual_directory())]
        dir: PathBuf,
    },
    /// Take the last task out again.
    Reset {
        /// The configuration of the demo.
        #[arg(long, value_name = "DIR", default_value_os_t = files::usual_directory())]
        dir: PathBuf,
    },
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Some(Command::Tasks { json }) => tasks::list(json),
        Some(Command::Apply { task, dir }) => tasks::apply(&task, &dir)?,
        Some(Command::Reset { dir }) => tasks::reset(&dir)?,
        None => return serve(&args),
    }
    Ok(ExitCode::SUCCESS)
}

fn serve(args: &Args) -> anyhow::Result<ExitCode> {
    let style = Style::of_stdout();
    files::lay_out(&args.dir, args.config.as_deref(), args.base_port)?;
    println!("{}", style.bold("Bookinfo in a mesh, on this machine"));
    println!("configuration  {}", args.dir.display());
    let runtime = tokio::runtime::Runtime::new().context("cannot start a runtime")?;
    runtime.block_on(async {
        let Some(town) = Town::start(&args.dir, args.listen, style).await? else {
            return Ok(ExitCode::FAILURE);
        };
        town.check(args.listen).await?;
        if !args.once {
            println!("{}", what_to_try(args, style));
            town.run_until_interrupted().await;
            println!("\nfinishing requests …");
        }
        town.stop().await;
        Ok(ExitCode::SUCCESS)
    })
}

fn what_to_try(args: &Args, style: Style) -> String {
    let page = style.bold(&format!("http://{}/productpage", args.listen));
    let usual = args.dir == files::usual_directory();
    let dir = if usual {
        String::new()
    } else {
        format!(" --dir {}", args.dir.display())
    };
    format!(
        "\n{page}\n\n\
         Reload the page a few times: reviews come from v1 (no stars), v2 (black) and v3 (red).\n\
         Sign in as `jason`, then steer him with a task, from another terminal:\n\n  \
         cargo run --release -- demo tasks\n  \
         cargo run --release -- demo apply 01{dir}     jason sees v2, everyone else v1\n  \
         cargo run --release -- demo apply 03{dir}     half to v1, half to v3\n  \
         cargo run --release -- demo reset{dir}\n\n\
         Or edit the YAML in {}: changes take effect at once, and a mistake\n\
         is reported here with its line while the last good version stays in force.\n\
         Statistics of the gateway: http://127.0.0.1:{}/stats/prometheus\n\n\
         Ctrl-C ends the demo.",
        args.dir.display(),
        u32::from(args.base_port) + 900,
    )
}
