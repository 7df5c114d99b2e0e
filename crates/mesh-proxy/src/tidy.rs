//! Gives memory back after configuration was read.
//!
//! Reading takes several times as much memory as what comes of it. mimalloc keeps much of that for
//! the thread that had it, and gives free pages back a second later at the earliest, for which it
//! looks only when somebody takes new ones or a thread ends: an idle proxy does neither for as long
//! as it idles. So configuration is read on threads that end, and one more ends afterwards.

use crate::reconcile::Listening;
use mesh_core::Feed;
use std::hint::black_box;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// More than the second that pages are kept (mimalloc's `purge_delay`).
const KEPT: Duration = Duration::from_millis(1_100);
/// How often is looked after a change: the second counts from when the first page came free.
const LOOKS: u32 = 3;

/// Does something on a thread of its own, and waits for it.
pub(crate) fn apart<T: Send>(read: impl FnOnce() -> T + Send) -> T {
    let read = Mutex::new(Some(read));
    let take = || read.lock().unwrap_or_else(PoisonError::into_inner).take();
    let done = thread::scope(|scope| {
        let reading = thread::Builder::new()
            .name("read".to_owned())
            .spawn_scoped(scope, || take().map(|read| read()))
            .ok()?;
        reading
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    // Where there can be no more threads it is done here.
    done.or_else(|| take().map(|read| read()))
        .expect("it was taken by nobody else")
}

/// Has the allocator look for free pages after each change of what is in force. Ends with the
/// proxy.
pub(crate) async fn up(mut listening: Feed<Listening>) {
    loop {
        for _ in 0..LOOKS {
            tokio::time::sleep(KEPT).await;
            // It has to have used memory to be asked for it at its end. That one cannot be made is
            // no loss.
            let brief = thread::Builder::new().name("tidy".to_owned());
            let _ = brief.spawn(|| drop(black_box(vec![0_u8; 64])));
        }
        if listening.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_apart_is_handed_back() {
        let text = String::from("a");
        let (length, thread) = apart(|| (text.len(), thread::current().id()));
        assert_eq!(length, 1);
        assert_ne!(thread, thread::current().id());
    }

    #[test]
    #[should_panic(expected = "as it was said")]
    fn a_panic_goes_on_where_it_was_waited_for() {
        apart(|| panic!("as it was said"));
    }
}
