//! Bytes of several frames, read as one sequence without copying them together.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::collections::VecDeque;

/// Chunks, read as one sequence of bytes.
#[derive(Default)]
pub(super) struct Chunks {
    chunks: VecDeque<Bytes>,
    left: usize,
}

impl Chunks {
    /// Adds a chunk at the end.
    pub(super) fn push(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.left += chunk.len();
            self.chunks.push_back(chunk);
        }
    }
}

impl FromIterator<Bytes> for Chunks {
    fn from_iter<T: IntoIterator<Item = Bytes>>(chunks: T) -> Self {
        let mut all = Self::default();
        chunks.into_iter().for_each(|chunk| all.push(chunk));
        all
    }
}

impl Buf for Chunks {
    fn remaining(&self) -> usize {
        self.left
    }

    fn chunk(&self) -> &[u8] {
        self.chunks.front().map_or(&[], |chunk| chunk)
    }

    fn advance(&mut self, mut n: usize) {
        assert!(n <= self.left, "{n} bytes of {}", self.left);
        self.left -= n;
        while n > 0 {
            let Some(first) = self.chunks.front_mut() else { return };
            let step = n.min(first.len());
            first.advance(step);
            n -= step;
            if first.is_empty() {
                self.chunks.pop_front();
            }
        }
    }

    /// A slice if one chunk contains all bytes; otherwise a copy.
    fn copy_to_bytes(&mut self, len: usize) -> Bytes {
        match self.chunks.front() {
            Some(first) if len <= first.len() => {
                let bytes = first.slice(..len);
                self.advance(len);
                bytes
            }
            _ => {
                let mut bytes = BytesMut::with_capacity(len);
                bytes.put(self.take(len));
                bytes.freeze()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(texts: &[&'static str]) -> Chunks {
        let mut chunks = Chunks::default();
        texts.iter().for_each(|text| chunks.push(Bytes::from_static(text.as_bytes())));
        chunks
    }

    #[test]
    fn chunks_read_as_one_sequence() {
        let mut text = chunks(&["ab", "", "cde", "f"]);
        assert_eq!((text.remaining(), text.chunk()), (6, &b"ab"[..]));
        text.advance(3);
        assert_eq!((text.remaining(), text.chunk()), (3, &b"de"[..]));
        assert_eq!(text.copy_to_bytes(3), "def");
        assert_eq!((text.remaining(), text.chunk(), text.chunks.len()), (0, &b""[..], 0));
    }

    #[test]
    fn bytes_within_a_chunk_are_not_copied() {
        let whole = Bytes::from(vec![7; 100]);
        let mut text = Chunks::default();
        text.push(whole.clone());
        assert_eq!(text.copy_to_bytes(60).as_ptr(), whole.as_ptr());
        assert_eq!(text.copy_to_bytes(40).as_ptr(), whole[60..].as_ptr());
    }
}
