//! Connections that switch protocols, or might have.

use super::*;

#[tokio::test(start_paused = true)]
async fn an_upgrade_that_is_answered_with_anything_else_ends_the_connection() {
    let served = ok();
    let upgrade = "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: foo\r\n\r\n";
    let plain = "GET / HTTP/1.1\r\nhost: a\r\nupgrade: foo\r\n\r\n";
    let h2c = "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n";
    for (request, closes) in [(upgrade, true), (plain, false), (h2c, false)] {
        let mut connection = served.connect();
        connection.send(request).await;
        // It would be a request of a caller who went on in HTTP.
        connection.send(GET).await;
        let head = connection.head().await;
        assert_eq!(head.contains("connection: close\r\n"), closes, "{head}");
        if closes {
            assert_eq!(connection.rest().await, "");
        } else {
            assert!(connection.head().await.starts_with("HTTP/1.1 200"));
        }
        assert_eq!(served.stat(HttpStat::CxUpgradesActive), 0);
        drop(connection.stream);
        connection.task.await.unwrap();
    }
    served.assert_quiet();
}

/// An upstream that speaks HTTP/1 in memory and switches protocols: its end of each connection.
fn switching() -> (Served, Arc<Mutex<Option<DuplexStream>>>) {
    let upgraded = Arc::new(Mutex::new(None::<DuplexStream>));
    let theirs = upgraded.clone();
    let served = Served::new(move |request: Request<Body>| {
        let (ours, mut upstream) = tokio::io::duplex(1 << 10);
        let theirs = theirs.clone();
        async move {
            let client = mesh_http1::Client::with_buffers(Buffers::default());
            let (mut sender, connection) = client.handshake(ours);
            tokio::spawn(connection);
            let answering = tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(upstream.read_u8().await.unwrap());
                }
                let answer =
                    b"HTTP/1.1 101 Go\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
                upstream.write_all(answer).await.unwrap();
                *theirs.lock().unwrap() = Some(upstream);
            });
            let response = sender.send_request(request).await.unwrap();
            answering.await.unwrap();
            response.map(Body::new)
        }
    });
    (served, upgraded)
}

const UPGRADE: &str =
    "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn a_tunnel_is_a_task_that_a_drain_waits_for() {
    let (served, upgraded) = switching();
    let mut connection = served.connect();
    connection.send(UPGRADE).await;
    assert!(connection.head().await.starts_with("HTTP/1.1 101"));
    connection.task.await.unwrap();
    let mut upstream = upgraded.lock().unwrap().take().unwrap();
    connection.stream.write_all(b"ping").await.unwrap();
    let mut seen = [0; 4];
    upstream.read_exact(&mut seen).await.unwrap();
    assert_eq!(&seen, b"ping");
    assert_eq!(served.tasks.len(), 1);
    assert_eq!(served.stat(HttpStat::CxUpgradesActive), 1);
    assert_eq!(served.stat(HttpStat::RqActive), 1);
    drop((connection.stream, upstream));
    served.tasks.close();
    served.tasks.wait().await;
    assert_eq!(served.stat(HttpStat::CxUpgradesActive), 0);
    served.assert_quiet();
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_is_in_the_log_when_it_has_ended_and_who_ended_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let (mut served, upgraded) = switching();
    served.manager.access_log = vec![mesh_core::model::AccessLog {
        path: path.to_str().unwrap().into(),
        format: "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %BYTES_RECEIVED% \
                 %BYTES_SENT%\n"
            .into(),
    }];
    for caller_leaves in [true, false] {
        let mut connection = served.connect();
        connection.send(UPGRADE).await;
        connection.head().await;
        connection.task.await.unwrap();
        let mut upstream = upgraded.lock().unwrap().take().unwrap();
        connection.stream.write_all(b"hello").await.unwrap();
        upstream.write_all(b"hi").await.unwrap();
        settle().await;
        served.telemetry.flush().unwrap();
        let lines = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(lines.lines().count(), usize::from(!caller_leaves));
        if caller_leaves {
            drop(connection.stream);
            settle().await;
            drop(upstream);
        } else {
            drop(upstream);
            settle().await;
            drop(connection.stream);
        }
        served.tasks.close();
        served.tasks.wait().await;
        served.tasks.reopen();
    }
    served.assert_quiet();
    assert_eq!(served.stat(HttpStat::Rq1xx), 2);
    served.telemetry.flush().unwrap();
    let told = "101 DC downstream_remote_disconnect 5 2\n101 - via_upstream 5 2\n";
    assert_eq!(std::fs::read_to_string(path).unwrap(), told);
}
