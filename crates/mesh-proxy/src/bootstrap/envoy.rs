//! Envoy's own flags, so that the proxy can stand in for `envoy` where others start one.

use super::guard::GuardArgs;
use super::log::log_to;
use super::serve::{on_runtime, opened, until_told};
use crate::config;
use crate::xds::Driver;
use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use mesh_core::model::WorkloadRef;
use mesh_xds::Node;
use mesh_xds::bootstrap::{Bootstrap, Format};
use mesh_xds::pb::envoy::config::core::v3::Node as NodeProto;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Envoy's flags.
#[derive(Debug, Args)]
#[command(next_help_heading = "Envoy's flags")]
pub(super) struct EnvoyArgs {
    /// Envoy's bootstrap, in YAML or JSON (`.json`).
    #[arg(short = 'c', long, value_name = "FILE")]
    config_path: Option<PathBuf>,
    /// YAML that is merged over the bootstrap.
    #[arg(long, value_name = "TEXT")]
    config_yaml: Option<String>,
    /// Worker threads. Default: one per core.
    #[arg(long, value_name = "N")]
    concurrency: Option<usize>,
    /// What to do: serve; check the configuration; or start, and end once all of it is in force.
    #[arg(long, value_enum, default_value_t)]
    mode: Mode,
    /// Log at this level and above. Default: MESH_LOG, or else info.
    #[arg(short = 'l', long, value_enum, ignore_case = true)]
    log_level: Option<Level>,
    /// Append the log to this file.
    #[arg(long, value_name = "FILE")]
    log_path: Option<PathBuf>,
    /// Seconds that requests get to finish when the proxy drains. Default: 5.
    #[arg(long, value_name = "N")]
    drain_time_s: Option<u64>,
    /// The node's id. Wins over the bootstrap's.
    #[arg(long, value_name = "ID")]
    service_node: Option<String>,
    /// The node's cluster. Wins over the bootstrap's.
    #[arg(long, value_name = "NAME")]
    service_cluster: Option<String>,
    /// The node's zone. Wins over the bootstrap's.
    #[arg(long, value_name = "ZONE")]
    service_zone: Option<String>,
    /// Write the address of the admin interface to this file.
    #[arg(long, value_name = "FILE")]
    admin_address_path: Option<PathBuf>,
    #[command(flatten)]
    guard: GuardArgs,
    #[command(flatten)]
    unused: Unused,
}

/// Flags that Envoy has and that mean nothing here.
#[derive(Debug, Args)]
#[command(next_help_heading = "Envoy's flags without effect")]
struct Unused {
    /// Envoys on one machine are told apart by it; proxies need nothing for that.
    #[arg(long, value_name = "N")]
    base_id: Option<u32>,
    /// As --base-id.
    #[arg(long)]
    use_dynamic_base_id: bool,
    /// There is no hot restart.
    #[arg(long)]
    disable_hot_restart: bool,
    /// There is no hot restart, and so no parent.
    #[arg(long, value_name = "N")]
    parent_shutdown_time_s: Option<u64>,
    /// There is no hot restart: the only epoch is 0.
    #[arg(long, value_name = "0", value_parser = clap::value_parser!(u32).range(0..=0))]
    restart_epoch: Option<u32>,
    /// Levels are for the whole log; MESH_LOG can say more.
    #[arg(long, value_name = "NAME:LEVEL,...")]
    component_log_level: Option<String>,
    /// The log has a form of its own.
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// The log is written line by line.
    #[arg(long, value_name = "N")]
    file_flush_interval_msec: Option<u64>,
    /// Workers are as many as --concurrency says.
    #[arg(long)]
    cpuset_threads: bool,
    /// Unknown fields are always refused.
    #[arg(long)]
    reject_unknown_dynamic_fields: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Mode {
    #[default]
    Serve,
    Validate,
    InitOnly,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Level {
    Trace,
    Debug,
    Info,
    #[value(alias = "warn")]
    Warning,
    Error,
    Critical,
    Off,
}

// === impl EnvoyArgs ===

impl EnvoyArgs {
    /// Does what they say.
    pub(super) fn execute(self) -> anyhow::Result<ExitCode> {
        log_to(
            self.log_level.map(Level::directives),
            self.log_path.as_deref(),
        )?;
        let bootstrap = self.bootstrap()?;
        let what = self.config_path.as_ref();
        let what = what.map_or_else(
            || "--config-yaml".to_owned(),
            |path| path.display().to_string(),
        );
        if self.mode == Mode::Validate {
            Driver::check(&bootstrap).with_context(|| what.clone())?;
            println!("configuration '{what}' OK");
            return Ok(ExitCode::SUCCESS);
        }
        let driver = Driver::from_bootstrap(&bootstrap, |client| client).context(what)?;
        let mut builder = driver
            .proxy()
            .workload(workload(&bootstrap.node))
            .admin_at(bootstrap.admin.clone(), bootstrap.admin_mode)
            .drain_time(Duration::from_secs(self.drain_time_s.unwrap_or(5)));
        builder = self.guard.apply(builder)?;
        if let Some(workers) = self.concurrency {
            builder = builder.concurrency(workers);
        }
        let wanted: Vec<_> = bootstrap
            .listeners
            .iter()
            .map(|one| one.listener.name.clone())
            .collect();
        on_runtime(async {
            let proxy = builder.start().await.context("cannot start")?;
            if let Some(path) = &self.admin_address_path {
                let address = proxy
                    .admin_at()
                    .context("--admin-address-path: there is no admin interface")?;
                fs::write(path, address.to_string())
                    .with_context(|| format!("cannot write {}", path.display()))?;
            }
            let driving = tokio::spawn(driver.run());
            opened(&proxy, &wanted).await?;
            if self.mode == Mode::InitOnly {
                proxy.initialized().await;
                driving.abort();
                proxy.drain().await;
                return Ok(ExitCode::SUCCESS);
            }
            until_told(proxy, [Some(driving), None, None]).await
        })
    }

    /// The bootstrap with what flags change about it.
    fn bootstrap(&self) -> anyhow::Result<Bootstrap> {
        let mut bootstrap = load(self.config_path.as_deref(), self.config_yaml.as_deref())?;
        bootstrap.node = renamed(&bootstrap.node, |node| {
            let set = |to: &mut String, from: &Option<String>| {
                if let Some(text) = from.as_ref().filter(|text| !text.is_empty()) {
                    to.clone_from(text);
                }
            };
            set(&mut node.id, &self.service_node);
            set(&mut node.cluster, &self.service_cluster);
            if self.service_zone.is_some() {
                let locality = node.locality.get_or_insert_default();
                set(&mut locality.zone, &self.service_zone);
            }
        });
        // Envoy wants both as soon as somebody else gives it configuration.
        if bootstrap.ads.is_some() {
            for (what, flag, value) in [
                ("id", "--service-node", bootstrap.node.id()),
                ("cluster", "--service-cluster", bootstrap.node.cluster()),
            ] {
                if value.is_empty() {
                    bail!(
                        "node.{what}: required for dynamic_resources.ads_config, but missing (or {flag})"
                    );
                }
            }
        }
        Ok(bootstrap)
    }
}

// === impl Level ===

impl Level {
    /// As `tracing` has it.
    fn directives(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warn",
            // Nothing here is critical and goes on.
            Self::Error | Self::Critical => "error",
            Self::Off => "off",
        }
    }
}

/// Reads a bootstrap from a file, with a text merged over it.
pub(super) fn load(path: Option<&Path>, text: Option<&str>) -> anyhow::Result<Bootstrap> {
    let file = path.map(|path| {
        let name = || path.display().to_string();
        let format = Format::of(path).with_context(name)?;
        let text = fs::read_to_string(path).with_context(name)?;
        anyhow::Ok((format, text))
    });
    let file = file.transpose()?;
    let name = match path {
        Some(path) => path.display().to_string(),
        None if text.is_some() => "--config-yaml".to_owned(),
        None => bail!("there is no configuration: use -c FILE or --config-yaml TEXT"),
    };
    let file = file.as_ref().map(|(format, text)| (*format, text.as_str()));
    let texts = file
        .into_iter()
        .chain(text.map(|text| (Format::Yaml, text)));
    Bootstrap::from_texts(texts).map_err(|error| match error.place() {
        // FILE:LINE:COLUMN, which editors know.
        Some(_) => anyhow::anyhow!("{name}:{error}"),
        None => anyhow::anyhow!("{name}: {error}"),
    })
}

/// A node that differs.
pub(super) fn renamed(node: &Node, change: impl FnOnce(&mut NodeProto)) -> Node {
    let mut proto = node.to_proto();
    change(&mut proto);
    Node::from_proto(proto)
}

/// The node as it appears in metrics: by Istio's metadata, by its id, or by what Envoy calls its
/// cluster.
pub(super) fn workload(node: &Node) -> WorkloadRef {
    let (by_id, namespace_by_id) = node.workload().unwrap_or_else(|| (node.cluster(), ""));
    let name = node.text("WORKLOAD_NAME").unwrap_or(by_id);
    let namespace = node.text("NAMESPACE").unwrap_or(namespace_by_id);
    let labels: BTreeMap<&str, &str> = node.map("LABELS");
    config::workload(name, namespace, &labels)
}

#[cfg(test)]
mod tests {
    use super::super::Cli;
    use super::*;
    use clap::Parser;

    fn parse(flags: &[&str]) -> EnvoyArgs {
        let line = ["mesh-proxy"].iter().chain(flags);
        Cli::try_parse_from(line).unwrap().envoy
    }

    #[test]
    fn a_line_for_envoy_is_taken() {
        let flags = "-c b.yaml --concurrency 2 --base-id 7 -l warning --drain-time-s 3 \
            --parent-shutdown-time-s 9 --service-node n --service-cluster c --service-zone z \
            --disable-hot-restart --admin-address-path a --log-path l --restart-epoch 0 \
            --mode init_only";
        let args = parse(&flags.split_whitespace().collect::<Vec<_>>());
        assert_eq!(args.concurrency, Some(2));
        assert_eq!(args.mode, Mode::InitOnly);
        assert_eq!(args.log_level, Some(Level::Warning));
        assert_eq!(args.unused.base_id, Some(7));
    }

    #[test]
    fn flags_win_over_the_bootstraps_node() {
        let yaml = "node: {id: a, cluster: b, locality: {region: r, zone: z}}";
        let args = parse(&[
            "--config-yaml",
            yaml,
            "--service-node",
            "n",
            "--service-zone",
            "q",
        ]);
        let node = args.bootstrap().unwrap().node;
        assert_eq!((node.id(), node.cluster()), ("n", "b"));
        assert_eq!(node.locality(), Some(("r", "q", "")));
    }

    #[test]
    fn a_text_is_merged_over_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.json");
        fs::write(&file, r#"{"node": {"id": "a", "cluster": "b"}}"#).unwrap();
        let bootstrap = load(Some(&file), Some("node: {id: c}")).unwrap();
        assert_eq!((bootstrap.node.id(), bootstrap.node.cluster()), ("c", "b"));
    }

    #[test]
    fn an_error_has_the_file_and_the_place_in_it() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.yaml");
        fs::write(&file, "node:\n  idd: a\n").unwrap();
        let error = load(Some(&file), None).unwrap_err().to_string();
        assert!(error.contains("a.yaml:2:3: node.idd"), "{error}");
    }

    #[test]
    fn a_node_without_istios_conventions_is_called_by_its_cluster() {
        let node = |yaml: &str| workload(&load(None, Some(yaml)).unwrap().node);
        assert_eq!(&*node("node: {id: x, cluster: edge}").name, "edge");
        let istio = node(
            "node: {id: sidecar~1.2.3.4~a-1.shop~x, metadata: {NAMESPACE: s, LABELS: {app: a}}}",
        );
        assert_eq!((&*istio.name, &*istio.namespace), ("a-1", "s"));
        assert_eq!(&*istio.app, "a");
    }
}
