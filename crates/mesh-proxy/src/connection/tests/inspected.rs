//! What the first bytes of a connection say.

use super::*;

#[tokio::test(start_paused = true)]
async fn what_is_spoken_in_plain_text_chooses_the_chain() {
    let mut listener = listener()
        .chain(speaking(http("one"), &["http/1.0", "http/1.1"]))
        .chain(speaking(bytes("two"), &["h2c"]))
        .chain(bytes("other"));
    listener.inspect.http = Some(Inspector::default());
    let world = World::new();
    let state = world.listen(listener);
    let said = world.call(&state).says(GET).await;
    assert!(said.starts_with("one "), "{said}");
    world
        .call(&state)
        .says("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await;
    assert_eq!(world.passed_on("two"), 1);
    world.call(&state).says("\x16\x03hello").await;
    assert_eq!(world.passed_on("other"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_line_without_an_end_is_none() {
    let mut listener = listener()
        .chain(speaking(http("http"), &["http/1.1"]))
        .chain(bytes("other"));
    listener.inspect.http = Some(Inspector::default());
    let world = World::new();
    let state = world.listen(listener);
    world.call(&state).says("x".repeat(64 << 10)).await;
    assert_eq!(world.passed_on("other"), 1);
}

#[tokio::test(start_paused = true)]
async fn the_server_name_chooses_the_chain() {
    let named = |name: &str| {
        let mut chain = bytes(name);
        chain.matches.server_names = vec![name.into()];
        chain
    };
    let mut plain = http("plain");
    plain.matches.transport = Some(TransportProtocol::Plain);
    let mut listener = listener()
        .chain(named("a.com"))
        .chain(named("*.b.com"))
        .chain(plain);
    listener.inspect.tls = Some(Inspector::default());
    let world = World::new();
    let state = world.listen(listener);
    for (server_name, chain) in [("a.com", "a.com"), ("x.b.com", "*.b.com")] {
        let hello = hello(server_name).await;
        // However it arrives.
        let mut call = world.call(&state);
        for byte in &hello {
            call.io.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        call.rest().await;
        assert_eq!(world.passed_on(chain), 1, "{server_name}");
    }
    world.call(&state).says(hello("c.com").await).await;
    assert_eq!(world.stat(ListenerStat::NoFilterChainMatch), 1);
    let said = world.call(&state).says(GET).await;
    assert!(said.starts_with("plain "), "{said}");
}

#[tokio::test(start_paused = true)]
async fn a_port_that_is_excepted_is_not_looked_at() {
    let mut listener = listener()
        .chain(speaking(bytes("http"), &["http/1.1"]))
        .chain(bytes("other"));
    listener.inspect.original_destination = true;
    listener.inspect.http = Some(Inspector {
        except: vec![PortRange::single(7000)],
    });
    let world = World::new();
    let state = world.listen(listener);
    // A caller that waits for the server to speak first would wait for ever otherwise.
    world
        .intercepted(&state, Some("10.1.1.1:7000"))
        .rest()
        .await;
    assert_eq!(world.passed_on("other"), 1);
    world
        .intercepted(&state, Some("10.1.1.1:7001"))
        .says(GET)
        .await;
    assert_eq!(world.passed_on("http"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_says_too_little_is_closed_in_time() {
    let mut listener = listener().chain(bytes("all"));
    listener.inspect.tls = Some(Inspector::default());
    listener.inspect.timeout = Some(3 * SECOND);
    let world = World::new();
    let state = world.listen(listener);
    let began = Instant::now();
    let call = world.call(&state);
    tokio::time::sleep(SECOND).await;
    assert_eq!(world.stat(ListenerStat::PreCxActive), 1);
    call.rest().await;
    assert_eq!(began.elapsed(), 3 * SECOND);
    assert_eq!(world.stat(ListenerStat::PreCxTimeout), 1);
    assert_eq!(world.stat(ListenerStat::PreCxActive), 0);
    assert_eq!(world.passed_on("all"), 0);
}

#[tokio::test(start_paused = true)]
async fn after_the_timeout_a_connection_goes_on_with_what_is_known() {
    let mut listener = listener()
        .chain(http("all"))
        .chain(speaking(bytes("h1"), &["http/1.1"]));
    listener.inspect.http = Some(Inspector::default());
    listener.inspect.timeout = Some(3 * SECOND);
    listener.inspect.continue_on_timeout = true;
    let world = World::new();
    let state = world.listen(listener);
    let (first, rest) = GET.split_at(10);
    let mut call = world.call(&state);
    call.io.write_all(first.as_bytes()).await.unwrap();
    tokio::time::sleep(4 * SECOND).await;
    // The first bytes are not lost.
    let said = call.says(rest).await;
    assert!(said.starts_with("all "), "{said}");
    assert_eq!(world.stat(ListenerStat::PreCxTimeout), 1);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_while_it_is_looked_at_is_gone() {
    let mut listener = listener().chain(bytes("all"));
    listener.inspect.tls = Some(Inspector::default());
    listener.inspect.timeout = None;
    let world = World::new();
    let state = world.listen(listener);
    let Call { io, task } = world.call(&state);
    drop(io);
    task.await.unwrap();
    assert_eq!(world.passed_on("all"), 0);
    assert_eq!(world.stat(ListenerStat::PreCxActive), 0);
}
