//! Asks by a connection, and perhaps some bytes (Envoy `tcp_health_check`).

use super::dial::Dialer;
use super::request::has_all;
use crate::upstream::secure::Offer;
use crate::upstream::transport::Stream;
use mesh_core::model::TcpProbe;
use mesh_lb::health::Answer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub(super) struct Asker {
    dialer: Dialer,
    probe: TcpProbe,
    stream: Option<Stream>,
}

/// More than this is no answer.
const MOST: usize = 64 << 10;

// === impl Asker ===

impl Asker {
    pub(super) fn new(dialer: Dialer, probe: TcpProbe) -> Self {
        Self {
            dialer,
            probe,
            stream: None,
        }
    }

    pub(super) fn hang_up(&mut self) {
        self.stream = None;
    }

    pub(super) async fn ask(&mut self) -> Answer {
        let stream = match self.stream.take() {
            Some(stream) => stream,
            None => match self.dialer.dial(Offer::Own).await {
                Ok(stream) => stream,
                Err(answer) => return answer,
            },
        };
        if self.probe.receive.is_empty() {
            // A connection is enough, and nothing is sent over it, as in Envoy.
            return Answer::Well;
        }
        match exchange(stream, &self.probe).await {
            Some(stream) => {
                self.stream = Some(stream);
                Answer::Well
            }
            None => Answer::Unreachable,
        }
    }
}

/// Sends, and waits for what has to come back; the connection, if that came.
async fn exchange(mut stream: Stream, probe: &TcpProbe) -> Option<Stream> {
    stream.write_all(&probe.send).await.ok()?;
    stream.flush().await.ok()?;
    let mut read = Vec::new();
    while !has_all(&read, &probe.receive) {
        if read.len() >= MOST || stream.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
    }
    Some(stream)
}
