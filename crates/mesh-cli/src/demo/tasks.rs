//! The tasks: small pieces of Istio YAML to put into a running demo.

use super::files;
use anyhow::bail;
use std::path::Path;

/// A task: what it is called, what it shows, and its YAML.
struct Task {
    name: &'static str,
    title: &'static str,
    shows: &'static str,
    files: &'static [(&'static str, &'static str)],
}

macro_rules! task {
    ($name:literal, $title:literal, $shows:literal, [$($file:literal),*]) => {
        Task {
            name: $name,
            title: $title,
            shows: $shows,
            files: &[$((
                $file,
                include_str!(concat!("../../../../examples/tasks/", $name, "/", $file)),
            )),*],
        }
    };
}

const TASKS: &[Task] = &[
    task!(
        "01-request-routing",
        "Request routing",
        "jason sees reviews v2, everyone else v1",
        ["reviews.yaml"]
    ),
    task!(
        "02-fault-injection",
        "Fault injection",
        "ratings take 7 s for jason (or fail with 500)",
        ["ratings.yaml", "reviews.yaml"]
    ),
    task!(
        "03-traffic-shifting",
        "Traffic shifting",
        "reviews half v1, half v3; then edit the weights",
        ["reviews.yaml"]
    ),
    task!(
        "04-timeouts",
        "Timeouts",
        "reviews get 0.5 s while ratings take 2 s",
        ["ratings.yaml", "reviews.yaml"]
    ),
    task!(
        "05-circuit-breaking",
        "Circuit breaking",
        "httpbin: one connection, one waiting request",
        ["httpbin.yaml", "ingress.yaml"]
    ),
    task!(
        "06-mirroring",
        "Mirroring",
        "all of v1's traffic copied to v2",
        ["reviews.yaml"]
    ),
    task!(
        "07-ingress",
        "Ingress",
        "httpbin at the gateway, on two paths",
        ["httpbin.yaml"]
    ),
    task!(
        "08-egress",
        "Egress",
        "two services outside the mesh",
        ["outside.yaml"]
    ),
    task!(
        "09-canary-by-cookie",
        "Canary by cookie",
        "people of one company share v1 and v2",
        ["reviews.yaml"]
    ),
    task!(
        "10-rewrite-and-redirect",
        "Rewrite and redirect",
        "old catalog paths rewritten, a moved host redirected",
        ["catalog.yaml"]
    ),
    task!(
        "11-gateway",
        "The documented Gateway",
        "five ports: redirect, HTTPS twice, HTTP and TCP",
        ["gateway.yaml", "routes.yaml", "services.yaml"]
    ),
    task!(
        "12-two-domains",
        "Two domains",
        "HTTPS, and a certificate for each of two domains",
        ["gateway.yaml", "routes.yaml"]
    ),
    task!(
        "13-tcp-by-port",
        "TCP by port",
        "the port decides where a TCP connection goes",
        ["tcp.yaml"]
    ),
    task!(
        "14-tcp-shifting",
        "TCP shifting",
        "TCP connections, 80 % to one and 20 % to two",
        ["tcp.yaml"]
    ),
    task!(
        "15-passthrough",
        "Passthrough",
        "HTTPS by server name, unopened, to two backends",
        ["passthrough.yaml"]
    ),
    task!(
        "16-tls-origination",
        "TLS origination",
        "an application speaks HTTP, its sidecar HTTPS",
        ["outside.yaml"]
    ),
    task!(
        "17-session-affinity",
        "Session affinity",
        "everyone stays with one version, by a cookie",
        ["reviews.yaml"]
    ),
    task!(
        "18-locality-failover",
        "Locality failover",
        "the own zone first, another region at last",
        ["reviews.yaml"]
    ),
    task!(
        "19-mutual-tls",
        "Mutual TLS",
        "who has no certificate of the mesh is refused",
        ["policy.yaml"]
    ),
];

pub(crate) fn list(json: bool) {
    if json {
        let tasks: Vec<_> = TASKS
            .iter()
            .map(|task| {
                let files: Vec<_> = task.files.iter().map(|(name, _)| *name).collect();
                serde_json::json!({
                    "name": task.name, "title": task.title, "shows": task.shows, "files": files,
                })
            })
            .collect();
        println!("{}", serde_json::Value::from(tasks));
        return;
    }
    for task in TASKS {
        println!("{:26} {:22} {}", task.name, task.title, task.shows);
    }
    println!("\napply one with `mesh demo apply NAME`, by its number if you like");
}

pub(crate) fn apply(name: &str, dir: &Path) -> anyhow::Result<()> {
    let task = find(name)?;
    files::write_task(dir, task.files)?;
    println!("{}: {}", task.title, task.shows);
    for (file, _) in task.files {
        println!("  {}", dir.join("task").join(file).display());
    }
    Ok(())
}

pub(crate) fn renew(dir: &Path) -> anyhow::Result<()> {
    let renewed = files::renew(dir)?;
    if renewed.is_empty() {
        bail!("no task with certificates is applied");
    }
    println!("new certificates, for handshakes from now on:");
    for path in renewed {
        println!("  {}", path.display());
    }
    Ok(())
}

pub(crate) fn reset(dir: &Path) -> anyhow::Result<()> {
    files::clear_task(dir)?;
    println!("no task is applied any more");
    Ok(())
}

fn find(name: &str) -> anyhow::Result<&'static Task> {
    let number = name.parse::<u32>().map(|number| format!("{number:02}-"));
    let found = TASKS.iter().find(|task| {
        task.name == name
            || number
                .as_ref()
                .is_ok_and(|number| task.name.starts_with(number))
    });
    match found {
        Some(task) => Ok(task),
        None => bail!("no task {name:?}; `mesh demo tasks` lists them"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::edit;
    use super::*;
    use std::fs;

    #[test]
    fn every_folder_of_tasks_is_built_in_with_all_its_files() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/tasks");
        let names = |path: &Path| {
            let mut names: Vec<_> = fs::read_dir(path)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .filter(|name| !name.ends_with(".md"))
                .collect();
            names.sort();
            names
        };
        assert_eq!(
            names(&folder),
            TASKS.iter().map(|task| task.name).collect::<Vec<_>>()
        );
        for task in TASKS {
            let files: Vec<_> = task.files.iter().map(|(name, _)| *name).collect();
            assert_eq!(names(&folder.join(task.name)), files, "{}", task.name);
        }
    }

    #[test]
    fn a_task_is_found_by_its_number() {
        assert_eq!(find("3").unwrap().name, "03-traffic-shifting");
        assert_eq!(find("10").unwrap().name, "10-rewrite-and-redirect");
        assert!(find("99").is_err());
    }

    #[test]
    fn applying_a_task_replaces_the_last_one() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("demo");
        assert!(apply("1", &place).is_err(), "nothing runs there");
        let listen = "127.0.0.1:8080".parse().unwrap();
        files::lay_out(&place, None, edit::FIRST_PORT, listen).unwrap();
        apply("2", &place).unwrap();
        assert!(place.join("task/ratings.yaml").exists());
        apply("1", &place).unwrap();
        assert!(!place.join("task/ratings.yaml").exists());
        assert!(place.join("task/reviews.yaml").exists());
        reset(&place).unwrap();
        assert!(!place.join("task").exists());
    }
}
