//! The log of ejections: a line of JSON for each, as Envoy writes it
//! (`cluster_manager.outlier_detection.event_log_path`).
//!
//! Requests only note what happens. The lines are made and written twice a second, by the thread
//! that keeps house.

use crate::admin;
use mesh_core::{Name, Shard, WallClock};
use mesh_lb::{Cause, ClusterHosts, Ejected, EjectionRecord};
use mesh_telemetry::access_log::AccessLogWriter;
use std::io;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Where ejections are logged.
pub(crate) struct EjectionLog {
    writer: AccessLogWriter,
    clock: WallClock,
}

// === impl EjectionLog ===

impl EjectionLog {
    pub(crate) fn open(path: &Name) -> io::Result<Self> {
        Ok(Self {
            writer: AccessLogWriter::open(path)?,
            clock: WallClock::system(),
        })
    }

    /// Takes what happened in a cluster since the last time.
    pub(crate) fn note(&self, cluster: &str, hosts: &ClusterHosts, now: Instant) {
        let (records, dropped) = hosts.take_ejections();
        for record in &records {
            let ago = now.saturating_duration_since(record.at);
            let time = self.clock.now().checked_sub(ago).unwrap_or(UNIX_EPOCH);
            let line = line(cluster, record, time);
            self.writer.write(Shard::default(), line.as_bytes());
        }
        if dropped > 0 {
            tracing::warn!(
                cluster,
                dropped,
                "more ejections than the log takes at once"
            );
        }
    }

    pub(crate) fn flush(&self) {
        if let Err(error) = self.writer.flush() {
            tracing::warn!(%error, "log of ejections");
        }
    }
}

/// Envoy's order of fields. Where a host comes back the detector is the first that there is.
fn line(cluster: &str, record: &EjectionRecord, time: SystemTime) -> String {
    let time = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(time.as_secs()).unwrap_or_default();
    let millis = i32::try_from(time.subsec_millis()).unwrap_or_default();
    let time = admin::timestamp(seconds, millis * 1_000_000);
    let text = |text: &str| serde_json::Value::from(text);
    let since = record.since.map_or_else(String::new, |since| {
        format!(r#""secs_since_last_action":"{}","#, since.as_secs())
    });
    let (action, kind, enforced, more) = match &record.ejected {
        None => ("UNEJECT", "CONSECUTIVE_5XX", false, String::new()),
        Some(ejected) => ("EJECT", kind(ejected), ejected.enforced, details(ejected)),
    };
    format!(
        "{{\"type\":\"{kind}\",\"timestamp\":{time},{since}\"cluster_name\":{},\"upstream_url\":{},\
         \"action\":\"{action}\",\"num_ejections\":{},\"enforced\":{enforced}{more}}}\n",
        text(cluster),
        text(&record.address.as_envoy().to_string()),
        record.ejections,
    )
}

fn kind(ejected: &Ejected) -> &'static str {
    match (ejected.cause, ejected.local) {
        (Cause::Consecutive5xx, _) => "CONSECUTIVE_5XX",
        (Cause::ConsecutiveGateway, _) => "CONSECUTIVE_GATEWAY_FAILURE",
        (Cause::ConsecutiveLocal, _) => "CONSECUTIVE_LOCAL_ORIGIN_FAILURE",
        (Cause::SuccessRate, false) => "SUCCESS_RATE",
        (Cause::SuccessRate, true) => "SUCCESS_RATE_LOCAL_ORIGIN",
        (Cause::FailurePercentage, false) => "FAILURE_PERCENTAGE",
        (Cause::FailurePercentage, true) => "FAILURE_PERCENTAGE_LOCAL_ORIGIN",
        // A detector that is not known here.
        _ => "UNKNOWN",
    }
}

/// What was judged. Percentages are cut to whole ones, as in Envoy.
fn details(ejected: &Ejected) -> String {
    match (ejected.cause, &ejected.rates) {
        (Cause::SuccessRate, Some(rates)) => format!(
            ",\"eject_success_rate_event\":{{\"host_success_rate\":{},\
             \"cluster_average_success_rate\":{},\
             \"cluster_success_rate_ejection_threshold\":{}}}",
            whole(rates.host),
            whole(rates.average),
            whole(rates.threshold),
        ),
        (_, Some(rates)) => format!(
            ",\"eject_failure_percentage_event\":{{\"host_success_rate\":{}}}",
            whole(rates.host)
        ),
        (_, None) => ",\"eject_consecutive_event\":{}".to_owned(),
    }
}

/// From 0 to 100, so the cast only cuts.
fn whole(percent: f64) -> u32 {
    percent.clamp(0.0, 100.0) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_core::model::{Address, Cluster, EndpointSet, Outlier, SnapshotBuilder, SuccessRate};
    use mesh_lb::Outcome;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is logged when hosts answer so and then some seconds pass; the last is when it is read.
    fn logged(policy: Outlier, answers: &[(usize, Outcome)], seconds: u64) -> Vec<String> {
        let mut cluster = Cluster::new("c");
        cluster.outlier = Some(policy);
        let mut builder = SnapshotBuilder::new();
        builder.cluster(cluster);
        let addresses = ["127.0.0.1:19111", "127.0.0.1:19101"];
        let addresses = addresses.map(|text| text.parse::<Address>().unwrap());
        builder.endpoints("c", EndpointSet::of(addresses));
        let (snapshot, _) = builder.build().unwrap();
        let hosts = ClusterHosts::of(&snapshot.clusters()[0]);
        let (set, now) = (hosts.current(), Instant::now());
        hosts.sweep(now);
        for (host, outcome) in answers {
            hosts.report(&set.hosts()[*host], *outcome, now);
        }
        let now = now + Duration::from_secs(seconds);
        hosts.sweep(now);
        let kept = Kept::default();
        let log = EjectionLog {
            writer: AccessLogWriter::to(kept.clone(), 1 << 20),
            clock: WallClock::fixed(Duration::from_millis(1_795_346_866_029)),
        };
        log.note("c", hosts, now);
        log.flush();
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    fn policy() -> Outlier {
        let mut policy = Outlier::default();
        policy.max_ejection_percent = 100;
        policy.interval = Duration::from_secs(1);
        policy.base_ejection_time = Duration::from_secs(1);
        policy
    }

    #[test]
    fn failures_in_a_row_and_a_return_are_logged_as_envoy_does() {
        let mut policy = policy();
        policy.consecutive_5xx = 2;
        let answers = [(0, Outcome::Answered(500)); 2];
        // Written by Envoy 1.40 but for the times.
        assert_eq!(
            logged(policy, &answers, 1),
            [
                r#"{"type":"CONSECUTIVE_5XX","timestamp":"2026-11-22T11:27:45.029Z","cluster_name":"c","upstream_url":"127.0.0.1:19111","action":"EJECT","num_ejections":1,"enforced":true,"eject_consecutive_event":{}}"#,
                r#"{"type":"CONSECUTIVE_5XX","timestamp":"2026-11-22T11:27:46.029Z","secs_since_last_action":"1","cluster_name":"c","upstream_url":"127.0.0.1:19111","action":"UNEJECT","num_ejections":1,"enforced":false}"#,
            ]
        );
    }

    #[test]
    fn a_detector_that_only_counts_is_logged_too() {
        let mut policy = policy();
        (policy.consecutive_5xx, policy.unenforced.consecutive_5xx) = (0, 1);
        let lines = logged(policy, &[(0, Outcome::Answered(500))], 0);
        assert_eq!(
            lines,
            [
                r#"{"type":"CONSECUTIVE_5XX","timestamp":"2026-11-22T11:27:46.029Z","cluster_name":"c","upstream_url":"127.0.0.1:19111","action":"EJECT","num_ejections":0,"enforced":false,"eject_consecutive_event":{}}"#
            ]
        );
    }

    #[test]
    fn rates_are_told() {
        let mut policy = policy();
        policy.consecutive_5xx = 0;
        policy.split_local_origin = true;
        policy.base_ejection_time = Duration::from_secs(10);
        let mut rule = SuccessRate::default();
        (rule.min_hosts, rule.request_volume, rule.stdev_factor) = (2, 2, 500);
        policy.success_rate = Some(rule);
        let mut answers = vec![(0, Outcome::Local(503)); 2];
        answers.extend([(1, Outcome::Answered(200)); 2]);
        let lines = logged(policy, &answers, 1);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert_eq!(
            lines[0],
            r#"{"type":"SUCCESS_RATE_LOCAL_ORIGIN","timestamp":"2026-11-22T11:27:46.029Z","cluster_name":"c","upstream_url":"127.0.0.1:19111","action":"EJECT","num_ejections":1,"enforced":true,"eject_success_rate_event":{"host_success_rate":0,"cluster_average_success_rate":50,"cluster_success_rate_ejection_threshold":25}}"#
        );
    }
}
