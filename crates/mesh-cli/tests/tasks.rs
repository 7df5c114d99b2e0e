//! Each task of `examples/tasks/`, on the running demo.

#[path = "tasks/cases.rs"]
mod cases;
#[path = "tasks/demo.rs"]
mod demo;
mod support;
#[path = "tasks/wire.rs"]
mod wire;

use demo::{DataPlane, Demo};
use std::fs;
use std::process::Command;
use support::wait_until;

cases::test_every_task_on!(Some(Demo::start(DataPlane::MeshProxy)));

#[test]
fn the_control_plane_drives_every_proxy() {
    let demo = Demo::start(DataPlane::MeshProxy);
    let control = demo.control().to_string();
    let status = Command::new(env!("CARGO_BIN_EXE_mesh"))
        .args(["proxy-status", "--control", &control])
        .output()
        .unwrap();
    let text = String::from_utf8(status.stdout).unwrap();
    assert_eq!(status.status.code(), Some(0), "{text}");
    for node in [
        "details",
        "httpbin",
        "productpage",
        "ratings",
        "reviews-v1",
        "reviews-v2",
        "reviews-v3",
    ] {
        assert!(text.contains(&format!("{node}.default")), "{text}");
    }
    assert!(text.contains("ingressgateway.istio-system"), "{text}");
    demo.assert_nothing_is_rejected();
}

#[test]
fn a_mistake_changes_nothing_and_is_reported_with_its_line() {
    let demo = Demo::start(DataPlane::MeshProxy);
    demo.apply("1");
    fs::write(demo.dir.join("task/broken.yaml"), "kind: [").unwrap();
    for _ in 0..50 {
        assert_eq!(
            cases::version(&demo.call(cases::REVIEWS, &[("end-user", "jason")])),
            "reviews-v2"
        );
    }
    wait_until(|| !demo.said("broken.yaml:1:").is_empty());
    // Other files are followed all the same, and the mistake is known.
    demo.change(|dir| {
        let file = dir.join("task/reviews.yaml");
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text.replace("subset: v2", "subset: v3")).unwrap();
    });
    let jason = demo.call(cases::REVIEWS, &[("end-user", "jason")]);
    assert_eq!(cases::version(&jason), "reviews-v3");
    assert_eq!(demo.said("broken.yaml:1:").len(), 1);

    let unknown = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: bad}\n\
                   spec:\n  hosts: [ratings]\n  http:\n  - rout: []\n";
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("bad.yaml"), unknown).unwrap();
    let checked = Command::new(env!("CARGO_BIN_EXE_mesh"))
        .args(["proxy", "validate", "--config"])
        .arg(dir.path())
        .output()
        .unwrap();
    assert_eq!(checked.status.code(), Some(1));
    let said = String::from_utf8(checked.stderr).unwrap();
    assert!(
        said.contains("bad.yaml:7:5") && said.contains("spec.http[0].rout"),
        "{said}"
    );
}
