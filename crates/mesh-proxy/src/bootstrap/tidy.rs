//! Gives memory back after configuration was read.
//!
//! Reading takes several times as much memory as what comes of it. mimalloc gives pages back a second
//! after they came free, but looks for them only when somebody takes new ones or a thread ends, and
//! an idle proxy does neither for as long as it idles.

use crate::reconcile::Listening;
use mesh_core::Feed;
use std::hint::black_box;
use std::thread;
use std::time::Duration;

/// More than the second that pages are kept (mimalloc's `purge_delay`).
const KEPT: Duration = Duration::from_millis(1_200);

/// Has the allocator look for free pages after each change of what is in force. Never ends but with
/// the proxy.
pub(super) async fn up(mut listening: Feed<Listening>) {
    loop {
        tokio::time::sleep(KEPT).await;
        // It has to have used memory to be asked for it at its end. A thread that cannot be made
        // is no loss: the next change makes one.
        let brief = thread::Builder::new().name("tidy".to_owned());
        let _ = brief.spawn(|| drop(black_box(vec![0_u8; 64])));
        if listening.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}
