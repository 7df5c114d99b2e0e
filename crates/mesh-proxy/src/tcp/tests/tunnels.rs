//! Connections through tunnels.

use super::*;

/// As Envoy 1.40 has it: what is in between has no reset.
#[tokio::test(start_paused = true)]
async fn a_tunnel_that_breaks_has_ended_and_what_came_out_of_it_is_passed_on() {
    let mut world = World::new();
    world.proxy.tunnel = Some(Tunnel {
        target: "host:80".into(),
        post: false,
    });
    let mut call = world.call();
    let mut made = world.connected().await;
    pass(&mut call.io, &mut made.io, "ping").await;
    made.io.write_all(b"the last").await.unwrap();
    made.fate.breaks();
    drop(made.io);
    let mut seen = String::new();
    call.io.read_to_string(&mut seen).await.unwrap();
    assert_eq!(seen, "the last");
    call.task.await.unwrap();
    assert!(!call.fate.is_reset());
    world.assert_quiet();
    // The caller reads slowly: it still gets everything.
    let mut call = world.call();
    let mut made = world.connected().await;
    made.io.write_all(&[7; 1 << 10]).await.unwrap();
    settle().await;
    made.io.write_all(&[7; 1 << 10]).await.unwrap();
    made.fate.breaks();
    drop(made.io);
    settle().await;
    assert!(!call.task.is_finished());
    let mut seen = Vec::new();
    call.io.read_to_end(&mut seen).await.unwrap();
    assert_eq!(seen.len(), 2 << 10);
    call.task.await.unwrap();
}
