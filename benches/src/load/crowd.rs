//! Callers on several threads until the time is over, and what they found.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::{runtime, task};

use crate::reply::Done;

#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Options {
    /// Connections at a time
    #[arg(long, default_value_t = 64)]
    connections: usize,

    #[arg(long, default_value_t = 2)]
    threads: usize,

    #[arg(long, default_value_t = 5)]
    seconds: u32,

    /// Seconds before that, which do not count
    #[arg(long, default_value_t = 1)]
    warm: u32,
}

#[derive(Debug, Default, serde::Serialize)]
pub(crate) struct Found {
    requests: u64,
    wrong: u64,
    /// Requests a second.
    rate: f64,
    /// The first thing that was wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// The time that counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    from: Instant,
    until: Instant,
}

/// Runs as many callers as there are connections, spread over the threads.
///
/// # Errors
///
/// If a thread has no runtime.
pub(crate) fn run<C, F>(options: &Options, caller: C) -> anyhow::Result<Found>
where
    C: Fn(Window) -> F + Clone + Send + 'static,
    F: Future<Output = Found> + 'static,
{
    let from = Instant::now() + Duration::from_secs(options.warm.into());
    let until = from + Duration::from_secs(options.seconds.into());
    let window = Window { from, until };
    let threads = options.threads.max(1);
    let each = options.connections.div_ceil(threads);
    let running: Vec<_> = (0..threads)
        .map(|_| {
            let caller = caller.clone();
            thread::spawn(move || several(&caller, each, window))
        })
        .collect();
    let mut found = Found::default();
    for thread in running {
        found.add(
            thread
                .join()
                .expect("a thread of the load does not panic")?,
        );
    }
    found.rate = found.requests as f64 / f64::from(options.seconds.max(1));
    Ok(found)
}

/// What one thread does.
fn several<C, F>(caller: &C, number: usize, window: Window) -> anyhow::Result<Found>
where
    C: Fn(Window) -> F,
    F: Future<Output = Found> + 'static,
{
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    task::LocalSet::new().block_on(&runtime, async {
        let callers: Vec<_> = (0..number)
            .map(|_| task::spawn_local(caller(window)))
            .collect();
        let mut found = Found::default();
        for caller in callers {
            found.add(caller.await.context("a caller ended")?);
        }
        Ok(found)
    })
}

// === impl Window ===

impl Window {
    pub(crate) fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }

    fn counts(&self, at: Instant) -> bool {
        (self.from..self.until).contains(&at)
    }
}

// === impl Found ===

impl Found {
    /// Counts what has just ended, if the time is one that counts.
    pub(crate) fn count(&mut self, done: anyhow::Result<Done>, right: Done, window: Window) {
        if !window.counts(Instant::now()) {
            return;
        }
        match done {
            Ok(done) if done == right => self.requests += 1,
            Ok(done) => self.fail(format!("{done:?}")),
            Err(error) => self.fail(format!("{error:#}")),
        }
    }

    fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.wrong += other.wrong;
        self.error = self.error.take().or(other.error);
    }

    fn fail(&mut self, error: String) {
        self.wrong += 1;
        self.error.get_or_insert(error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RIGHT: Done = Done {
        status: 200,
        length: 1,
    };

    #[test]
    fn what_ends_outside_of_the_time_that_counts_is_nothing() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let window = Window {
            from: now,
            until: now + second,
        };
        let moments = [now - second, now, now + second / 2, now + second];
        let counted = moments.map(|at| window.counts(at));
        assert_eq!(counted, [false, true, true, false]);
    }

    #[test]
    fn another_status_and_an_error_are_wrong_and_the_first_is_told() {
        let now = Instant::now();
        let hour = Duration::from_secs(3600);
        let window = Window {
            from: now,
            until: now + hour,
        };
        let mut found = Found::default();
        found.count(Ok(RIGHT), RIGHT, window);
        let other = Done {
            status: 503,
            ..RIGHT
        };
        found.count(Ok(other), RIGHT, window);
        found.count(Err(anyhow::anyhow!("closed")), RIGHT, window);
        assert_eq!((found.requests, found.wrong), (1, 2));
        assert!(found.error.unwrap().contains("503"));
    }
}
