//! Values that identify their write.
//!
//! ```text
//!  word 0: writer, key · word 1: base, the sequence number of the write · then a pattern that key and base determine
//! ```
//! The pattern covers the whole length, so a value that is torn, foreign, stale or of another length differs from the
//! expected one. An appended value keeps its base: it is the same pattern, only longer.

use crate::random::mix;

/// The write that a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) writer: u32,
    pub(crate) key: u32,
    pub(crate) base: u64,
}

impl Origin {
    fn hash(self) -> u64 {
        mix(self.base.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(self.key) << 32 ^ u64::from(self.writer))
    }

    fn word(self, hash: u64, number: usize) -> u64 {
        match number {
            0 => u64::from(self.writer) << 32 | u64::from(self.key),
            1 => self.base,
            _ => {
                let word = hash.wrapping_add(number as u64).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                word ^ word >> 29
            }
        }
    }

    /// The value of this length.
    pub(crate) fn value(self, len: usize) -> Vec<u8> {
        let hash = self.hash();
        let mut value = Vec::with_capacity(len + 8);
        for number in 0..len.div_ceil(8) {
            value.extend_from_slice(&self.word(hash, number).to_le_bytes());
        }
        value.truncate(len);
        value
    }

    /// Offset of the first word that differs from this origin's pattern.
    pub(crate) fn difference(self, value: &[u8]) -> Option<usize> {
        let hash = self.hash();
        value.chunks(8).enumerate().find_map(|(number, bytes)| {
            let expected = self.word(hash, number).to_le_bytes();
            (*bytes != expected[..bytes.len()]).then_some(number * 8)
        })
    }
}

/// A description of a value, for messages.
pub(crate) fn describe(value: &[u8]) -> String {
    let word = |at: usize| value.get(at..at + 8).map(|bytes| u64::from_le_bytes(bytes.try_into().expect("8 bytes")));
    let (Some(first), Some(base)) = (word(0), word(8)) else { return format!("{value:?}") };
    let origin = Origin { writer: (first >> 32) as u32, key: first as u32, base };
    match origin.difference(value) {
        None => format!("{} whole bytes of {origin:?}", value.len()),
        Some(at) => format!("{} bytes that begin as {origin:?} and differ from byte {at} on", value.len()),
    }
}
