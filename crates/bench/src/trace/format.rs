//! EBT1: the format of recorded traces, in columns.
//!
//! ```text
//!   "EBT1"  flags u32  requests u64  objects u64  0 u64      32 bytes, little-endian as everything
//!   time u32[n]   id u32[n]   size u32[n]   opttl u32[n]     ids are dense, numbered by first appearance
//! ```
//! The whole file is one zstd stream. `size` is key and value in bytes, 0 if unknown; flag 1 means that the sizes are
//! real. Times, operations and times to live are ignored: every request is a get, and a miss inserts.

use std::io::Read;
use std::path::Path;

use ruzstd::decoding::StreamingDecoder;

const HEADER_BYTES: usize = 32;
const SIZES_ARE_REAL: u32 = 1;
/// Maximum number of requests; a header with more is corrupt, and nothing is allocated for it.
const MAX_REQUESTS: u64 = 200_000_000;

/// One request: the object, and its size with the key, 0 if unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) id: u32,
    pub(super) size: u32,
}

/// A recorded trace.
#[derive(Debug)]
pub(super) struct Trace {
    pub(super) requests: Vec<Request>,
    /// Number of distinct objects.
    pub(super) objects: usize,
    /// Whether the sizes are real.
    pub(super) sizes_are_real: bool,
}

/// Why a file is not a trace.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Bad {
    #[error("cannot be read: {0}")]
    Unreadable(String),
    #[error("is not an EBT1 trace")]
    NotATrace,
    #[error("has an impossible header: {requests} requests for {objects} objects")]
    Counts { requests: u64, objects: u64 },
    #[error("is truncated: {have} of {need} bytes")]
    Short { have: usize, need: usize },
    #[error("has a request {at} for object {id} of {objects}")]
    Id { at: usize, id: u32, objects: usize },
}

impl Trace {
    /// Reads a compressed trace.
    pub(super) fn open(path: &Path) -> Result<Self, Bad> {
        let unreadable = |error: &dyn std::fmt::Display| Bad::Unreadable(error.to_string());
        let file = std::fs::File::open(path).map_err(|e| unreadable(&e))?;
        let mut decoder = StreamingDecoder::new(std::io::BufReader::new(file)).map_err(|e| unreadable(&e))?;
        let mut bytes = Vec::new();
        decoder.read_to_end(&mut bytes).map_err(|e| unreadable(&e))?;
        Self::parse(&bytes)
    }

    /// Reads an uncompressed trace.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Bad> {
        if bytes.len() < HEADER_BYTES || &bytes[..4] != b"EBT1" {
            return Err(Bad::NotATrace);
        }
        let flags = u32_at(bytes, 4);
        let long = |at: usize| u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32;
        let (requests, objects) = (long(8), long(16));
        if requests == 0 || requests > MAX_REQUESTS || objects == 0 || objects > requests {
            return Err(Bad::Counts { requests, objects });
        }
        let (n, objects) = (requests as usize, objects as usize);
        let need = HEADER_BYTES + 4 * 4 * n;
        if bytes.len() < need {
            return Err(Bad::Short { have: bytes.len(), need });
        }
        let column = |number: usize, at: usize| u32_at(bytes, HEADER_BYTES + 4 * (number * n + at));
        let requests: Vec<Request> = (0..n).map(|at| Request { id: column(1, at), size: column(2, at) }).collect();
        if let Some(at) = requests.iter().position(|request| request.id as usize >= objects) {
            return Err(Bad::Id { at, id: requests[at].id, objects });
        }
        Ok(Self { requests, objects, sizes_are_real: flags & SIZES_ARE_REAL != 0 })
    }

    /// The sum of the objects' sizes at their first requests.
    pub(super) fn footprint_bytes(&self) -> u64 {
        let mut seen = vec![false; self.objects];
        let fresh = |request: &&Request| !std::mem::replace(&mut seen[request.id as usize], true);
        self.requests.iter().filter(fresh).map(|request| u64::from(request.size)).sum()
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A trace with these IDs, all of one size.
    pub(in super::super) fn encode(ids: &[u32], size: u32) -> Vec<u8> {
        let objects = ids.iter().max().map_or(0, |id| id + 1);
        let mut bytes = b"EBT1".to_vec();
        bytes.extend(1_u32.to_le_bytes());
        bytes.extend((ids.len() as u64).to_le_bytes());
        bytes.extend(u64::from(objects).to_le_bytes());
        bytes.extend(0_u64.to_le_bytes());
        let columns: [&dyn Fn(u32) -> u32; 4] = [&|_| 0, &|id| id, &|_| size, &|_| 0];
        for column in columns {
            ids.iter().for_each(|&id| bytes.extend(column(id).to_le_bytes()));
        }
        bytes
    }

    #[test]
    fn columns_become_requests() {
        let trace = Trace::parse(&encode(&[0, 1, 0, 2], 100)).unwrap();
        assert_eq!(trace.requests[3], Request { id: 2, size: 100 });
        assert_eq!((trace.objects, trace.sizes_are_real, trace.footprint_bytes()), (3, true, 300));
    }

    #[test]
    fn a_damaged_file_is_refused_in_a_sentence() {
        let good = encode(&[0, 1, 0, 2], 100);
        assert_eq!(Trace::parse(b"").unwrap_err(), Bad::NotATrace);
        assert_eq!(Trace::parse(&[0; 64]).unwrap_err(), Bad::NotATrace);
        assert_eq!(Trace::parse(&good[..95]).unwrap_err(), Bad::Short { have: 95, need: 96 });
        let mut absurd = good.clone();
        absurd[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(Trace::parse(&absurd).unwrap_err(), Bad::Counts { requests: u64::MAX, objects: 3 });
        let mut stranger = good;
        stranger[48] = 9;
        assert_eq!(Trace::parse(&stranger).unwrap_err(), Bad::Id { at: 0, id: 9, objects: 3 });
    }

    #[test]
    fn a_file_that_is_not_zstd_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "not a trace").unwrap();
        assert!(matches!(Trace::open(file.path()), Err(Bad::Unreadable(_))));
        assert!(matches!(Trace::open(Path::new("/nonexistent")), Err(Bad::Unreadable(_))));
    }
}
