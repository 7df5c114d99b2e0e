//! Each task of `examples/tasks/` on our own proxies without a control plane: each reads the YAML by
//! itself, and what the tasks promise is the same.

#[path = "tasks/cases.rs"]
mod cases;
#[path = "tasks/demo.rs"]
mod demo;
mod support;
#[path = "tasks/wire.rs"]
mod wire;

use demo::{DataPlane, Demo};

cases::test_every_task_on!(Some(Demo::start(DataPlane::ReadsYaml)));

#[test]
fn there_is_no_control_plane() {
    let demo = Demo::start(DataPlane::ReadsYaml);
    assert!(std::net::TcpStream::connect(demo.control()).is_err());
    assert!(!demo.ask(9, "/stats").body.contains("control_plane."));
}
