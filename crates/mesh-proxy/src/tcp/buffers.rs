//! Buffers and pipes for bytes on their way, shared by a worker's connections.

use super::splice::Pipe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The size of a buffer.
pub(super) const SIZE: usize = 16 << 10;

/// How many unused buffers are kept.
const KEPT: usize = 64;

/// How many unused pipes are kept. Each is two descriptors.
const KEPT_PIPES: usize = 4;

/// One worker's unused buffers and pipes. Connections have one only while bytes are on their way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Buffers(Arc<Mutex<Unused>>);

#[derive(Debug, Default)]
struct Unused {
    buffers: Vec<Buffer>,
    pipes: Vec<Pipe>,
}

pub(super) type Buffer = Box<[u8]>;

// === impl Buffers ===

impl Buffers {
    pub(super) fn take(&self) -> Buffer {
        let buffer = self.unused().buffers.pop();
        buffer.unwrap_or_else(|| vec![0; SIZE].into())
    }

    pub(super) fn give_back(&self, buffer: Buffer) {
        let mut unused = self.unused();
        if unused.buffers.len() < KEPT {
            unused.buffers.push(buffer);
        }
    }

    /// An empty pipe. None where the system has none.
    pub(super) fn take_pipe(&self) -> Option<Pipe> {
        let pipe = self.unused().pipes.pop();
        pipe.or_else(|| Pipe::new().ok())
    }

    pub(super) fn give_back_pipe(&self, pipe: Pipe) {
        let mut unused = self.unused();
        if pipe.held() == 0 && unused.pipes.len() < KEPT_PIPES {
            unused.pipes.push(pipe);
        }
    }

    fn unused(&self) -> MutexGuard<'_, Unused> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn unused_buffers(&self) -> usize {
        self.unused().buffers.len()
    }

    #[cfg(test)]
    pub(super) fn unused_pipes(&self) -> usize {
        self.unused().pipes.len()
    }
}
