//! One measurement, and whether it can be believed.

use std::{
    fmt,
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{
    load::{self, Generator, Latency},
    machine::{self, Cores, Ticks},
    peer::Kind,
    rows::{Load, Row},
    run::Stage,
};

/// How often a row is measured again when something was wrong.
const AGAIN: u32 = 3;
/// What is not counted at either end, where the load comes up and goes down.
const EDGE: Duration = Duration::from_millis(200);

/// Shares of a core, on average over the time that counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Busy {
    pub(crate) proxy: f64,
    pub(crate) backend: f64,
    pub(crate) generator: f64,
    /// Whatever else ran on this machine.
    pub(crate) other: f64,
    /// What the hypervisor gave to others.
    pub(crate) steal: f64,
}

/// What was found for one peer in one row and round.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Record {
    pub(crate) round: u32,
    pub(crate) row: &'static str,
    #[serde(serialize_with = "name")]
    pub(crate) peer: Kind,
    /// Requests or messages a second.
    pub(crate) rate: f64,
    pub(crate) wrong: u64,
    /// Microseconds of the proxy's CPU for a request or message.
    pub(crate) cpu: f64,
    pub(crate) latency: Option<Latency>,
    pub(crate) busy: Busy,
    /// Of how many measurements this is the best.
    pub(crate) attempts: u32,
    #[serde(serialize_with = "flaws")]
    pub(crate) flaws: Vec<Flaw>,
}

/// Why a measurement cannot be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// Responses with another status or length, or none.
    Wrong,
    /// The backend was the bottleneck.
    Backend,
    /// The generator was.
    Generator,
    /// The proxy had time left where it should have had none.
    Idle,
    /// Others were at work.
    Disturbed,
}

fn name<S: serde::Serializer>(kind: &Kind, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(kind.name())
}

fn flaws<S: serde::Serializer>(flaws: &[Flaw], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(flaws.iter().map(ToString::to_string))
}

/// A moment: what had run by then.
#[derive(Clone, Copy, Debug)]
struct Moment {
    at: Instant,
    proxy: u64,
    backend: u64,
    generator: u64,
    all: Ticks,
}

/// Measures a row, again if something was wrong, and keeps the best.
///
/// # Errors
///
/// If the generator fails each time.
pub(crate) fn row(
    stage: &Stage<'_>,
    at: usize,
    row: &Row,
    round: u32,
    seconds: u32,
) -> anyhow::Result<Record> {
    let mut best: Option<Record> = None;
    let mut failure = None;
    let mut attempts = 0;
    while attempts <= AGAIN {
        attempts += 1;
        match once(stage, at, row, round, seconds) {
            Ok(record) => {
                if best
                    .as_ref()
                    .is_none_or(|it| record.trouble() < it.trouble())
                {
                    best = Some(record);
                }
            }
            Err(error) => failure = Some(error),
        }
        if best.as_ref().is_some_and(|it| it.flaws.is_empty()) {
            break;
        }
    }
    match (best, failure) {
        (Some(record), _) => Ok(Record { attempts, ..record }),
        (None, Some(error)) => Err(error),
        (None, None) => unreachable!("the loop runs at least once"),
    }
}

fn once(
    stage: &Stage<'_>,
    at: usize,
    row: &Row,
    round: u32,
    seconds: u32,
) -> anyhow::Result<Record> {
    let (peer, running) = &stage.running[at];
    let port = row.port.of(running.listens);
    let generator = Generator {
        own: stage.own_load.clone(),
        threads: stage.cores.generator.len(),
    };
    // h2load has no warm-up that could be used.
    if let Load::H1 { .. } | Load::H2 { .. } = row.load {
        let (program, _) = generator.program(row, port, 1, stage.folder)?;
        program.output(
            &stage.cores.generator,
            stage.folder,
            Duration::from_secs(20),
        )?;
    }
    running.forget_the_log();
    let (program, warm) = generator.program(row, port, seconds, stage.folder)?;
    let mut load = program.start(&stage.cores.generator, stage.folder, "load")?;
    let moment = |load: &[u32]| Moment {
        at: Instant::now(),
        proxy: machine::cpu(running.process.pids()),
        backend: machine::cpu(stage.backend.pids()),
        generator: machine::cpu(load),
        all: machine::ticks(),
    };
    machine::pause(Duration::from_secs(u64::from(warm)) + EDGE);
    let from = moment(load.pids());
    machine::pause(Duration::from_secs(u64::from(seconds)) - 2 * EDGE);
    let to = moment(load.pids());
    let said = load.finish(Duration::from_secs(u64::from(seconds) + 20))?;
    let found = load::read(row, &said)?;
    let busy = between(&from, &to);
    let rate = found.rate * row.units as f64;
    Ok(Record {
        round,
        row: row.name,
        peer: peer.kind,
        rate,
        wrong: found.wrong,
        cpu: if rate > 0.0 {
            busy.proxy * 1e6 / rate
        } else {
            0.0
        },
        latency: found.latency,
        busy,
        attempts: 1,
        flaws: judge(row, stage.cores, &busy, found.wrong, rate),
    })
}

fn between(from: &Moment, to: &Moment) -> Busy {
    let nanos = (to.at - from.at).as_nanos() as f64;
    let share = |from: u64, to: u64| to.saturating_sub(from) as f64 / nanos;
    let ticks = |from: u64, to: u64| share(from * machine::TICK, to * machine::TICK);
    let proxy = share(from.proxy, to.proxy);
    let backend = share(from.backend, to.backend);
    let generator = share(from.generator, to.generator);
    let all = ticks(from.all.busy, to.all.busy);
    Busy {
        proxy,
        backend,
        generator,
        other: (all - proxy - backend - generator).max(0.0),
        steal: ticks(from.all.steal, to.all.steal),
    }
}

/// How much of its cores the backend or the generator may take before it is in the way.
const MOST: f64 = 0.9;
/// How much of its cores a proxy takes that could not do more.
const LEAST: f64 = 0.9;
/// Shares of a core that others may take, of all cores together.
const OTHERS: f64 = 0.2;

/// What was wrong, if anything.
fn judge(row: &Row, cores: &Cores, busy: &Busy, wrong: u64, rate: f64) -> Vec<Flaw> {
    let of = |share: f64, cores: &[usize]| share / cores.len().max(1) as f64;
    // The one with a fixed rate never sleeps, and says itself if it was late.
    let generator = row.saturates() && of(busy.generator, &cores.generator) > MOST;
    let idle = row.saturates() && of(busy.proxy, &cores.proxy) < LEAST;
    let flaws = [
        (wrong > 0 || rate <= 0.0, Flaw::Wrong),
        (of(busy.backend, &cores.backend) > MOST, Flaw::Backend),
        (generator, Flaw::Generator),
        (idle, Flaw::Idle),
        (busy.other + busy.steal > OTHERS, Flaw::Disturbed),
    ];
    let flaws = flaws.into_iter().filter(|(is, _)| *is);
    flaws.map(|(_, flaw)| flaw).collect()
}

// === impl Record ===

impl Record {
    /// What makes one worse than another: what is wrong, then the number of flaws, then what others
    /// did, in thousandths of a core.
    fn trouble(&self) -> (bool, usize, u64) {
        let others = (self.busy.other + self.busy.steal) * 1e3;
        (
            self.flaws.contains(&Flaw::Wrong),
            self.flaws.len(),
            others as u64,
        )
    }
}

// === impl Flaw ===

impl fmt::Display for Flaw {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Wrong => "wrong responses",
            Self::Backend => "backend busy",
            Self::Generator => "generator busy",
            Self::Idle => "proxy idle",
            Self::Disturbed => "disturbed",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::rows::ROWS;

    const GOOD: Busy = Busy {
        proxy: 0.99,
        backend: 0.5,
        generator: 1.0,
        other: 0.05,
        steal: 0.01,
    };

    fn flaws(row: &str, busy: Busy, wrong: u64) -> Vec<Flaw> {
        let row = ROWS.iter().find(|it| it.name == row).unwrap();
        judge(row, &Cores::of(4, row.workers), &busy, wrong, 1.0)
    }

    #[test]
    fn what_is_as_it_should_be_has_no_flaw() {
        assert_eq!(flaws("h1", GOOD, 0), []);
        assert_eq!(flaws("h1-rate", Busy { proxy: 0.3, ..GOOD }, 0), []);
    }

    #[test]
    fn each_flaw_is_seen() {
        let cases = [
            (
                Busy {
                    backend: 0.91,
                    ..GOOD
                },
                0,
                Flaw::Backend,
            ),
            // Of two cores.
            (
                Busy {
                    generator: 1.81,
                    ..GOOD
                },
                0,
                Flaw::Generator,
            ),
            (
                Busy {
                    proxy: 0.89,
                    ..GOOD
                },
                0,
                Flaw::Idle,
            ),
            (
                Busy {
                    other: 0.15,
                    steal: 0.06,
                    ..GOOD
                },
                0,
                Flaw::Disturbed,
            ),
            (GOOD, 1, Flaw::Wrong),
        ];
        for (busy, wrong, flaw) in cases {
            assert_eq!(flaws("h1", busy, wrong), [flaw]);
        }
    }

    #[test]
    fn shares_are_those_of_the_time_between() {
        let at = Instant::now();
        let from = Moment {
            at,
            proxy: 5,
            backend: 5,
            generator: 5,
            all: Ticks {
                busy: 100,
                steal: 7,
            },
        };
        let second = 1_000_000_000;
        let to = Moment {
            at: at + Duration::from_secs(2),
            proxy: 5 + 2 * second,
            backend: 5 + second,
            generator: 5 + second / 2,
            all: Ticks {
                busy: 500,
                steal: 27,
            },
        };
        let busy = between(&from, &to);
        let close = |share: f64, expected: f64| (share - expected).abs() < 1e-9;
        assert!(close(busy.proxy, 1.0) && close(busy.backend, 0.5) && close(busy.generator, 0.25));
        assert!(
            close(busy.other, 0.25) && close(busy.steal, 0.1),
            "{busy:?}"
        );
    }

    #[test]
    fn one_with_a_wrong_response_is_the_worst() {
        let record = |flaws: &[Flaw], other| Record {
            round: 0,
            row: "h1",
            peer: Kind::Mesh,
            rate: 1.0,
            wrong: 0,
            cpu: 1.0,
            latency: None,
            busy: Busy { other, ..GOOD },
            attempts: 1,
            flaws: flaws.to_vec(),
        };
        let wrong = record(&[Flaw::Wrong], 0.0).trouble();
        let two = record(&[Flaw::Idle, Flaw::Disturbed], 0.0).trouble();
        let much = record(&[Flaw::Disturbed], 0.9).trouble();
        let little = record(&[Flaw::Disturbed], 0.3).trouble();
        assert!(little < much && much < two && two < wrong);
    }
}
