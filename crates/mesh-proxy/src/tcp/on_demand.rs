//! Waiting for a cluster that does not exist yet (Envoy's `TcpProxy.on_demand`).

use super::buffers::{Buffer, Buffers};
use super::meter::Meter;
use mesh_core::demand::{Missing, Outcome};
use mesh_core::stats::TcpStat;
use mesh_core::{Demand, Name};
use std::future::pending;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

/// What a caller says while it waits: no more than one buffer.
pub(super) struct Early {
    /// None once it is handed on.
    buffer: Option<Buffer>,
    buffers: Buffers,
    length: usize,
    ended: bool,
}

// === impl Early ===

impl Early {
    pub(super) fn new(buffers: &Buffers) -> Self {
        Self {
            buffer: Some(buffers.take()),
            buffers: buffers.clone(),
            length: 0,
            ended: false,
        }
    }

    /// Waits until the caller has gone: its connection broke, or it ended without a word. One that
    /// said something and then no more may be waiting for the answer (RFC 9293 §3.6).
    ///
    /// # Cancel safety
    /// What was said is kept.
    pub(super) async fn gone(&mut self, caller: &mut (impl AsyncRead + Unpin)) {
        let buffer = self.buffer.as_deref_mut().unwrap_or_default();
        while !self.ended && self.length < buffer.len() {
            match caller.read(&mut buffer[self.length..]).await {
                Ok(0) if self.length == 0 => return,
                Ok(0) => self.ended = true,
                Ok(count) => self.length += count,
                Err(_) => return,
            }
        }
        pending().await
    }

    /// What was said, in a buffer with its length, and whether that is all.
    pub(super) fn into_parts(mut self) -> (Option<(Buffer, usize)>, bool) {
        let said = match self.length {
            0 => None,
            length => self.buffer.take().map(|buffer| (buffer, length)),
        };
        (said, self.ended)
    }
}

impl Drop for Early {
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            self.buffers.give_back(buffer);
        }
    }
}

/// Asks for a cluster and waits for the answer. Whether it came.
pub(super) async fn wait(name: &Name, limit: Duration, demand: &Demand, meter: &Meter) -> bool {
    meter.count(TcpStat::OnDemandAttempt);
    let answered = demand.ask(Missing::Cluster(name.clone()));
    let outcome = timeout(limit, answered).await;
    meter.count(match outcome {
        Ok(Outcome::Came) => TcpStat::OnDemandSuccess,
        Ok(Outcome::Refused) => TcpStat::OnDemandRefused,
        Ok(_) => TcpStat::OnDemandMissing,
        Err(_) => TcpStat::OnDemandTimeout,
    });
    outcome == Ok(Outcome::Came)
}
