//! Connections that go on in another protocol.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_connection_is_handed_over_with_what_was_read() {
    let mut served = serve(|mut request: Request<Body>| async move {
        let upgrade = crate::upgrade::on(request.extensions_mut()).unwrap();
        tokio::spawn(async move {
            let mut io = upgrade.await.unwrap();
            let mut seen = [0; 8];
            io.read_exact(&mut seen).await.unwrap();
            io.write_all(&seen).await.unwrap();
        });
        let mut response = text("");
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response
    });
    let head = "GET / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
    served.send(&format!("{head}left")).await;
    served
        .expect("HTTP/1.1 101 Switching Protocols\r\n\r\n")
        .await;
    served.task.await.unwrap().unwrap();
    served.stream.write_all(b"over").await.unwrap();
    let mut rest = String::new();
    served.stream.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "leftover");
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_that_is_refused_is_an_answer_like_others() {
    let mut served = serve(|mut request: Request<Body>| async move {
        drop(crate::upgrade::on(request.extensions_mut()));
        text("no")
    });
    served
        .send("GET / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n")
        .await;
    served
        .expect("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nno")
        .await;
    served.send(GET).await;
    served.expect("HTTP/1.1 200 OK\r\n").await;
}
