//! Buffers that connections have in common.
//!
//! A connection needs one only while it has bytes to read or to write that it cannot get rid of at
//! once. So a worker with thousands of connections gets by with a few, and the one that is used
//! next is usually still in the processor's cache.

use crate::date::Dates;
use crate::head::Names;
use bytes::BytesMut;
use http::{Extensions, HeaderMap};
use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;

/// Bytes of a buffer.
pub(crate) const SIZE: usize = 16 << 10;

/// Fields that a header map may have room for to be kept.
const MOST_FIELDS: usize = 64;

/// One worker's buffers. Clones share them.
///
/// Connections on different threads may share them too, but then wait for each other's lock: give
/// each worker its own.
#[derive(Clone, Debug)]
pub struct Buffers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    free: Mutex<Free>,
    most: usize,
}

/// What nobody uses.
#[derive(Debug, Default)]
struct Free {
    inputs: Vec<BytesMut>,
    outputs: Vec<Vec<u8>>,
    maps: Vec<HeaderMap>,
    extensions: Vec<Extensions>,
    dates: Dates,
    /// Of the last requests' heads, and of the last responses'.
    names: [Names; 2],
}

// === impl Buffers ===

impl Buffers {
    /// Keeps up to `most` unused buffers of each kind, of 16 KiB each.
    pub fn keeping(most: usize) -> Self {
        Self(Arc::new(Inner {
            free: Mutex::default(),
            most,
        }))
    }

    fn free(&self) -> MutexGuard<'_, Free> {
        self.0.free.lock()
    }

    pub(crate) fn input(&self) -> BytesMut {
        let kept = self.free().inputs.pop();
        kept.unwrap_or_else(|| BytesMut::with_capacity(SIZE))
    }

    /// Takes a buffer back. One that is of another size, or that somebody still holds a part of, is
    /// given up.
    pub(crate) fn keep_input(&self, mut buffer: BytesMut) {
        buffer.clear();
        let whole = buffer.capacity() == SIZE || buffer.try_reclaim(SIZE);
        let mut free = self.free();
        if whole && buffer.capacity() < 2 * SIZE && free.inputs.len() < self.0.most {
            free.inputs.push(buffer);
        }
    }

    pub(crate) fn output(&self) -> Vec<u8> {
        let kept = self.free().outputs.pop();
        kept.unwrap_or_else(|| Vec::with_capacity(SIZE))
    }

    pub(crate) fn keep_output(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let mut free = self.free();
        // Larger ones are from heads that were: one is as rare as the next.
        if (SIZE..2 * SIZE).contains(&buffer.capacity()) && free.outputs.len() < self.0.most {
            free.outputs.push(buffer);
        }
    }

    pub(crate) fn keep_map(&self, mut map: HeaderMap) {
        if !(1..=MOST_FIELDS).contains(&map.capacity()) {
            return;
        }
        // Values are dropped before the lock is taken: they may be anybody's.
        map.clear();
        let mut free = self.free();
        if free.maps.len() < self.0.most {
            free.maps.push(map);
        }
    }

    /// An empty map, with room if there is one, for a head of a response or of a request, and the names
    /// of the head before.
    pub(crate) fn head(&self, response: bool) -> (HeaderMap, Names) {
        let mut free = self.free();
        let names = std::mem::take(&mut free.names[usize::from(response)]);
        (free.maps.pop().unwrap_or_default(), names)
    }

    pub(crate) fn keep_names(&self, names: Names, response: bool) {
        // Those of another thread are as good.
        let old = std::mem::replace(&mut self.free().names[usize::from(response)], names);
        drop(old);
    }

    /// No extensions, with room for some if there is one.
    pub(crate) fn extensions(&self) -> Extensions {
        self.free().extensions.pop().unwrap_or_default()
    }

    pub(crate) fn keep_extensions(&self, mut extensions: Extensions) {
        if extensions.is_empty() {
            return;
        }
        // As with maps.
        extensions.clear();
        let mut free = self.free();
        if free.extensions.len() < self.0.most {
            free.extensions.push(extensions);
        }
    }

    /// Appends the present date (RFC 9110 §5.6.7).
    pub(crate) fn date(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(self.free().dates.now());
    }

    #[cfg(test)]
    pub(crate) fn kept(&self) -> (usize, usize) {
        let free = self.free();
        (free.inputs.len(), free.outputs.len())
    }
}

impl Default for Buffers {
    /// Keeps 64 of each kind.
    fn default() -> Self {
        Self::keeping(64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_whole_or_not_at_all() {
        let buffers = Buffers::keeping(2);
        let mut buffer = buffers.input();
        buffer.extend_from_slice(b"abcdef");
        let part = buffer.split_to(3).freeze();
        buffers.keep_input(buffer);
        assert_eq!(buffers.kept().0, 0, "somebody holds a part of it");
        assert_eq!(part, "abc");
        let mut buffer = buffers.input();
        buffer.extend_from_slice(b"abcdef");
        drop(buffer.split_to(3));
        buffers.keep_input(buffer);
        let buffer = buffers.input();
        assert!(buffer.is_empty() && buffer.capacity() >= SIZE);
    }

    #[test]
    fn no_more_are_kept_than_was_said() {
        let buffers = Buffers::keeping(2);
        let taken = [buffers.input(), buffers.input(), buffers.input()];
        taken
            .into_iter()
            .for_each(|buffer| buffers.keep_input(buffer));
        let taken = [buffers.output(), buffers.output(), buffers.output()];
        taken
            .into_iter()
            .for_each(|buffer| buffers.keep_output(buffer));
        assert_eq!(buffers.kept(), (2, 2));
        buffers.keep_output(Vec::with_capacity(10 * SIZE));
        buffers.keep_output(Vec::new());
        assert_eq!(buffers.kept(), (2, 2));
    }
}
