//! Each task of `examples/tasks/` on real Envoys: the same statements as for our own proxies.
//!
//! Needs `MESH_ENVOY` (`cargo xtask envoy` prints a path); without it the tests say so and pass,
//! but fail where `CI=true`.

#[path = "tasks/cases.rs"]
mod cases;
#[path = "tasks/demo.rs"]
mod demo;
mod support;
#[path = "tasks/wire.rs"]
mod wire;

use demo::Demo;

cases::test_every_task_on!(Demo::on_envoys());

#[test]
fn envoys_end_with_the_demo() {
    let Some(demo) = Demo::on_envoys() else {
        return;
    };
    let admin = demo.admin(9);
    let about = demo.ask(9, "/server_info").body;
    // Ours answers this question too, but says something else.
    assert!(about.contains("BoringSSL"), "{about}");
    drop(demo);
    assert!(std::net::TcpStream::connect(admin).is_err());
}
