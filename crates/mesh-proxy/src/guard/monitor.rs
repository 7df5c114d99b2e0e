//! How much of something the process uses, as the system says it.

use mesh_core::model::WatchedResource;
use std::fs;
use std::io;

/// Where the system says what a control group has, in its second version.
const GROUP: &str = "/sys/fs/cgroup";

/// The part that is used, from 0 to 1; more where more is used than there should be.
///
/// # Errors
/// If the system does not say it.
pub(super) fn pressure(resource: WatchedResource) -> io::Result<f64> {
    let (used, most) = match resource {
        WatchedResource::Heap(most) => (own_memory()?, most),
        WatchedResource::ControlGroup(most) => {
            let used = number(&fs::read_to_string(format!("{GROUP}/memory.current"))?)?;
            // The text `max` is no limit.
            let group = fs::read_to_string(format!("{GROUP}/memory.max"))?;
            let group = number(&group).unwrap_or(u64::MAX);
            (used, if most == 0 { group } else { most.min(group) })
        }
        WatchedResource::Descriptors => (descriptors()?, most_descriptors()?),
        _ => return Err(io::ErrorKind::Unsupported.into()),
    };
    Ok(share(used, most))
}

fn share(used: u64, most: u64) -> f64 {
    // Exact enough up to some peta.
    used as f64 / most.max(1) as f64
}

/// What the process has for itself, in bytes: without what is mapped of files.
fn own_memory() -> io::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    Ok(number(kib.unwrap_or_default())?.saturating_mul(1024))
}

fn descriptors() -> io::Result<u64> {
    // Their number, since Linux 6.2; before that it is 0.
    match fs::metadata("/proc/self/fd")?.len() {
        0 => Ok(fs::read_dir("/proc/self/fd")?.count() as u64),
        count => Ok(count),
    }
}

/// How many descriptors the process may have.
///
/// # Errors
/// If the system does not say it.
pub(super) fn most_descriptors() -> io::Result<u64> {
    let limits = fs::read_to_string("/proc/self/limits")?;
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    match line.and_then(|line| line.split_whitespace().next()) {
        Some("unlimited") => Ok(u64::MAX),
        most => number(most.unwrap_or_default()),
    }
}

fn number(text: &str) -> io::Result<u64> {
    text.trim()
        .parse()
        .map_err(|_| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_has_memory_and_descriptors_of_which_it_may_have_more() {
        let all = own_memory().unwrap();
        let used = pressure(WatchedResource::Heap(2 * all)).unwrap();
        assert!(used > 0.1, "{used}");
        assert!(pressure(WatchedResource::Heap(1)).unwrap() > 1000.0);
        let before = descriptors().unwrap();
        let files = [(); 40].map(|()| fs::File::open("/proc/self/status").unwrap());
        // Other tests open and close some, too.
        assert!(descriptors().unwrap() > before + 20);
        drop(files);
        let used = pressure(WatchedResource::Descriptors).unwrap();
        assert!((0.0..1.0).contains(&used), "{used}");
    }

    #[test]
    fn nothing_at_all_is_divided_by() {
        assert_eq!(share(1, 2), 0.5);
        assert!(share(1, 0).is_finite());
    }
}
