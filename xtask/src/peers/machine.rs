//! Cores and what happens on them, from `/proc`.

use std::{collections::BTreeMap, fs, thread, time::Duration};

/// Who runs where.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Cores {
    pub(crate) backend: Vec<usize>,
    pub(crate) proxy: Vec<usize>,
    pub(crate) generator: Vec<usize>,
}

/// What ran on all cores since they started, in hundredths of a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ticks {
    pub(crate) busy: u64,
    /// That the hypervisor gave to others.
    pub(crate) steal: u64,
}

/// Nanoseconds that a tick of `/proc/stat` is, as USER_HZ is 100 everywhere.
pub(crate) const TICK: u64 = 10_000_000;

/// Cores of the machine that this process may use.
pub(crate) fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Waits. There is one thread, and nothing that it would keep from running.
#[allow(clippy::disallowed_methods)]
pub(crate) fn pause(time: Duration) {
    thread::sleep(time);
}

/// A list as taskset takes it.
pub(crate) fn list(cores: &[usize]) -> String {
    let cores: Vec<_> = cores.iter().map(ToString::to_string).collect();
    cores.join(",")
}

/// The process and those that it started, and so on.
pub(crate) fn tree(root: u32) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|it| it.parse().ok()) else {
            continue;
        };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        if let Some(parent) = parent(&stat) {
            children.entry(parent).or_default().push(id);
        }
    }
    let mut all = vec![root];
    let mut at = 0;
    while let Some(id) = all.get(at) {
        all.extend(children.remove(id).unwrap_or_default());
        at += 1;
    }
    all
}

/// The parent in a line of `/proc/PID/stat`, whose second field may hold anything.
fn parent(stat: &str) -> Option<u32> {
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// Nanoseconds that these processes were on a core; a thread that ended does not count any more.
pub(crate) fn cpu(pids: &[u32]) -> u64 {
    let mut sum = 0;
    for id in pids {
        for task in fs::read_dir(format!("/proc/{id}/task"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            sum += text
                .split(' ')
                .next()
                .and_then(|it| it.parse().ok())
                .unwrap_or(0);
        }
    }
    sum
}

/// Kilobytes that these processes have in memory. Pages that two of them share count twice.
pub(crate) fn resident(pids: &[u32]) -> u64 {
    let of = |id: &u32| {
        let text = fs::read_to_string(format!("/proc/{id}/smaps_rollup")).unwrap_or_default();
        rss(&text).unwrap_or_default()
    };
    pids.iter().map(of).sum()
}

fn rss(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// What runs on all cores.
pub(crate) fn ticks() -> Ticks {
    read(&fs::read_to_string("/proc/stat").unwrap_or_default())
}

/// The first line: user, nice, system, idle, iowait, irq, softirq, steal (proc(5)).
fn read(stat: &str) -> Ticks {
    let first = stat.lines().next().unwrap_or_default();
    let fields: Vec<u64> = first
        .split_whitespace()
        .skip(1)
        .filter_map(|it| it.parse().ok())
        .collect();
    let field = |at: usize| fields.get(at).copied().unwrap_or_default();
    Ticks {
        busy: field(0) + field(1) + field(2) + field(5) + field(6),
        steal: field(7),
    }
}

/// What the machine is, for the record.
pub(crate) fn model() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let name = name.map_or("an unknown processor", |it| {
        it.trim_matches([' ', '\t', ':'])
    });
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{}, {} cores, Linux {}", name, cores(), kernel.trim())
}

// === impl Cores ===

impl Cores {
    /// How a machine is shared out, for a proxy with this many workers.
    ///
    /// With less than four cores the backend or the generator is in somebody's way.
    pub(crate) fn of(machine: usize, workers: usize) -> Self {
        let last = machine.max(1) - 1;
        let range = |from: usize, to: usize| (from.min(last)..=to.min(last)).collect();
        // From six on the backend has two.
        let backend = if machine >= 6 { 2 } else { 1 };
        let proxy = if machine <= 2 { last } else { backend };
        let generator = if machine <= 2 { 0 } else { proxy + workers };
        Self {
            backend: range(0, backend.min(proxy.max(1)) - 1),
            proxy: range(proxy, proxy + workers - 1),
            generator: range(generator, if machine <= 2 { 0 } else { generator + 1 }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_cores_of_its_own_where_there_are_four() {
        let cores = |machine, workers| {
            let cores = Cores::of(machine, workers);
            [cores.backend, cores.proxy, cores.generator].map(|it| list(&it))
        };
        assert_eq!(cores(1, 1), ["0", "0", "0"]);
        assert_eq!(cores(2, 1), ["0", "1", "0"]);
        assert_eq!(cores(3, 1), ["0", "1", "2"]);
        assert_eq!(cores(4, 1), ["0", "1", "2,3"]);
        assert_eq!(cores(4, 2), ["0", "1,2", "3"]);
        assert_eq!(cores(6, 1), ["0,1", "2", "3,4"]);
        assert_eq!(cores(8, 2), ["0,1", "2,3", "4,5"]);
    }

    #[test]
    fn a_parent_is_found_behind_a_name_with_brackets() {
        assert_eq!(parent("12 (a) b) S 7 12 0"), Some(7));
        assert_eq!(parent("12"), None);
    }

    #[test]
    fn busy_is_all_but_idle_waiting_and_stolen() {
        let text = "cpu  1 2 4 8 16 32 64 128 0 0\ncpu0 1 1 1\n";
        let ticks = Ticks {
            busy: 103,
            steal: 128,
        };
        assert_eq!(read(text), ticks);
        assert_eq!(read(""), Ticks::default());
    }

    #[test]
    fn what_is_resident_is_read_from_the_rollup() {
        assert_eq!(
            rss("55 - 7f [rollup]\nRss:      1234 kB\nPss: 9 kB\n"),
            Some(1234)
        );
    }

    #[test]
    fn this_process_has_used_a_core_and_memory() {
        let own = [std::process::id()];
        assert!(cpu(&own) > 0);
        assert!(resident(&own) > 0);
        assert!(tree(own[0]).contains(&own[0]));
    }
}
