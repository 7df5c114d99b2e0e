//! Buffers for bytes on their way, shared by a worker's connections.

use std::sync::{Arc, Mutex, PoisonError};

/// The size of a buffer.
pub(super) const SIZE: usize = 16 << 10;

/// How many unused buffers are kept.
const KEPT: usize = 64;

/// One worker's unused buffers. Connections have one only while bytes are on their way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Buffers(Arc<Mutex<Vec<Buffer>>>);

pub(super) type Buffer = Box<[u8]>;

// === impl Buffers ===

impl Buffers {
    pub(super) fn take(&self) -> Buffer {
        let mut unused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let buffer = unused.pop();
        drop(unused);
        buffer.unwrap_or_else(|| vec![0; SIZE].into())
    }

    pub(super) fn give_back(&self, buffer: Buffer) {
        let mut unused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if unused.len() < KEPT {
            unused.push(buffer);
        }
    }

    #[cfg(test)]
    pub(super) fn unused(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}
