//! `mesh wait`: until what was sent is acknowledged.

use crate::fetch::Server;
use crate::output::{self, CANNOT_ASK};
use crate::status::{Nack, Proxy, SYNCZ, State};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The time between two looks. Longer than a control plane takes to notice that a file changed and
/// to wait for more changes, so that two equal looks mean that nothing is on its way.
const BETWEEN: Duration = Duration::from_millis(500);

/// The longest time to wait for.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// What `mesh wait` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The debug interface of the control plane.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:15014")]
    control: Server,
    /// How long to wait: 500ms, 30s, 2m.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = time)]
    timeout: Duration,
    /// Only for this proxy, which has to be connected: NAME.NAMESPACE, or its whole id. May be
    /// given more than once.
    #[arg(long, value_name = "NAME.NAMESPACE")]
    workload: Vec<String>,
}

/// Whether proxies have come to rest.
#[derive(Debug, Default)]
struct Rest {
    /// What was acknowledged at the last look, if that was everything.
    last: Option<Vec<String>>,
    /// What was missing at the last look.
    missing: Vec<String>,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    let until = Instant::now() + args.timeout;
    let mut rest = Rest::default();
    let mut failed: Option<String> = None;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let answer = args
            .control
            .json_within(SYNCZ, left.max(BETWEEN))
            .and_then(|answer| Proxy::read_all(&answer));
        match answer {
            Ok(proxies) => {
                failed = None;
                if rest.look(&proxies, &args.workload) {
                    let text = format!("{} in sync\n", counted(&proxies, &args.workload));
                    return output::exit(output::print(&text).map(|()| ExitCode::SUCCESS));
                }
            }
            Err(error) => {
                // It may be about to start.
                if failed.is_none() {
                    eprintln!("note: {error:#}; trying again");
                }
                failed = Some(format!("{error:#}"));
                rest = Rest::default();
            }
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        pause(BETWEEN.min(left));
    }
    if let Some(error) = failed {
        eprintln!("error: {error}");
        return ExitCode::from(CANNOT_ASK);
    }
    eprintln!("error: not in sync after {:?}:", args.timeout);
    for missing in &rest.missing {
        eprintln!("  {}", crate::table::printable(missing));
    }
    ExitCode::FAILURE
}

#[expect(
    clippy::disallowed_methods,
    reason = "no runtime is here to be held up"
)]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

// === impl Rest ===

impl Rest {
    /// Takes note of the state of all proxies. True if everything is acknowledged, as it was at
    /// the last look.
    fn look(&mut self, proxies: &[Proxy], workloads: &[String]) -> bool {
        self.missing = missing(proxies, workloads);
        if !self.missing.is_empty() {
            self.last = None;
            return false;
        }
        let now = proxies.iter().filter(|proxy| concerns(proxy, workloads));
        let now: Vec<String> = now.map(Proxy::sent).collect();
        let same = self.last.as_ref() == Some(&now);
        self.last = Some(now);
        if !same {
            self.missing = vec!["the last change was a moment ago".to_owned()];
        }
        same
    }
}

fn concerns(proxy: &Proxy, workloads: &[String]) -> bool {
    workloads.is_empty() || workloads.iter().any(|workload| proxy.is(workload))
}

fn counted(proxies: &[Proxy], workloads: &[String]) -> String {
    let all = proxies.iter().filter(|proxy| concerns(proxy, workloads));
    match all.count() {
        1 => "1 proxy".to_owned(),
        count => format!("{count} proxies"),
    }
}

fn missing(proxies: &[Proxy], workloads: &[String]) -> Vec<String> {
    let absent = workloads
        .iter()
        .filter(|workload| !proxies.iter().any(|proxy| proxy.is(workload)));
    let mut out: Vec<String> = absent
        .map(|workload| format!("{workload}: not connected"))
        .collect();
    if proxies.is_empty() && out.is_empty() {
        out.push("no proxy is connected".to_owned());
    }
    for proxy in proxies.iter().filter(|proxy| concerns(proxy, workloads)) {
        for (kind, state) in proxy.states() {
            if state == State::Synced {
                continue;
            }
            let reason = proxy.nack(kind).map(explained).unwrap_or_default();
            out.push(format!("{}: {kind} {}{reason}", proxy.name, state.words()));
        }
        if proxy.states().next().is_none() {
            out.push(format!("{}: it has asked for nothing yet", proxy.name));
        }
    }
    out
}

fn explained(nack: &Nack) -> String {
    match nack.origins.is_empty() {
        true => format!(": {}", nack.reason),
        false => format!(": {} ({})", nack.reason, nack.origins.join(", ")),
    }
}

/// Reads `500ms`, `30s`, `1.5m` or `1h`.
fn time(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a time such as 500ms, 30s or 2m");
    let split = text
        .find(|c: char| c.is_ascii_alphabetic())
        .ok_or_else(wrong)?;
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "ms" => number / 1e3,
        "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        _ => return Err(wrong()),
    };
    match Duration::try_from_secs_f64(seconds) {
        Ok(time) if time <= LONGEST => Ok(time),
        _ => Err(format!("{text:?} is not between 0 and {LONGEST:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::tests::{SOME, proxy};

    #[test]
    fn rest_is_two_equal_looks_at_everything_in_sync() {
        let mut rest = Rest::default();
        let none: [String; 0] = [];
        assert!(!rest.look(&[], &none), "nobody is connected");
        let old = [proxy("a.b", "1", "1")];
        assert!(!rest.look(&old, &none), "the first look");
        let new = [proxy("a.b", "2", "2")];
        assert!(!rest.look(&new, &none), "something changed in between");
        let busy = [proxy("a.b", "3", "2")];
        assert!(!rest.look(&busy, &none), "not acknowledged");
        assert_eq!(rest.missing, ["a.b: CDS STALE"]);
        let new = [proxy("a.b", "3", "3")];
        assert!(!rest.look(&new, &none), "the first look after that");
        assert!(rest.look(&new, &none));
    }

    #[test]
    fn a_workload_that_is_named_has_to_be_there_and_others_may_lag() {
        let mut rest = Rest::default();
        let wanted = ["a.b".to_owned()];
        let lagging = proxy("c.d", "2", "1");
        assert!(!rest.look(std::slice::from_ref(&lagging), &wanted));
        assert_eq!(rest.missing, ["a.b: not connected"]);
        let both = [proxy("a.b", "1", "1"), lagging];
        assert!(!rest.look(&both, &wanted));
        assert!(rest.look(&both, &wanted));
    }

    #[test]
    fn what_is_missing_is_said_with_reason_and_line() {
        let proxies = Proxy::read_all(&serde_json::from_str(SOME).unwrap()).unwrap();
        assert_eq!(
            missing(&proxies, &[]),
            [
                "ingress.istio-system: RDS NACKED: http.8080: virtual_hosts[reviews:80].routes[0]: \
                 no such thing (VirtualService reviews.default (mesh/reviews.yaml:14:7))",
                "reviews-v1.default: EDS NOT SENT",
                "reviews-v1.default: LDS STALE",
            ]
        );
    }

    #[test]
    fn times_are_read_with_their_unit_and_have_a_bound() {
        assert_eq!(time("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(time("1.5m"), Ok(Duration::from_secs(90)));
        for wrong in ["", "10", "s", "-1s", "NaNs", "1e99h", "25h", "1d"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }
}
