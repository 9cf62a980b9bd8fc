//! Replays a trace through the engine at a given capacity, and counts the misses.
//!
//! The capacity is exactly that of FIFO, so that both can be compared:
//!
//! ```text
//!   objects:  every item has one footprint (header, key, value), chosen so that a segment holds exactly `per_segment`
//!             of them;  log = objects / per_segment segments  ⇒  room for at most as many objects as FIFO
//!   bytes:    an item's footprint is the size the trace states (at least a header and a key);
//!             log = capacity / segment segments
//!   in both:  about 128 segments or more if the capacity allows it, including open and nursery segments
//! ```
//! E1. Index memory is added on top: the reference policies do not count their index either. Before each request the
//!     ledger's capacity is set to log + index in use + the space missing for one more segment, so that the index can grow
//!     and the log cannot.
//! E2. One shard by default, since the reference policies have one queue, too.
//! E3. There is no cleaner thread: a write evicts if the ledger is full.

use anyhow::Context as _;
use ebb_engine::store::{Account, Attributes, Condition, Error, Key, Lookup, Options, Store, Use};

use super::format::{Request, Trace};

const KEY_BYTES: usize = 8;
const SEGMENTS: u64 = 128;
const LEAST_SEGMENT_BYTES: u64 = 4 << 10;
const LARGEST_SEGMENT_BYTES: u64 = 2 << 20;
/// Large compared with a slot, so that a second index during a migration is small compared with the log.
const LEAST_FOOTPRINT: u64 = 256;

/// Unit of a capacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Capacity {
    /// Number of objects, all of one size.
    Objects(u64),
    /// Bytes, with the sizes of the trace.
    Bytes(u64),
}

/// Layout of the log for a capacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    segment_bytes: u64,
    segments: u64,
    /// The footprint of every item; `None` if the trace has sizes.
    footprint: Option<u64>,
}

fn shape(capacity: Capacity) -> Shape {
    match capacity {
        Capacity::Objects(objects) => {
            // With few objects, each gets its own segment. The engine would store two or three per segment separately,
            // too, because they are large, and leave the rest of their segments unused.
            let wanted = match objects / SEGMENTS {
                0..4 => 1,
                several => several,
            };
            let segment_bytes = power_of_two(wanted * LEAST_FOOTPRINT);
            let footprint = (segment_bytes / wanted) & !7; // items begin at multiples of eight
            let per_segment = segment_bytes / footprint;
            Shape { segment_bytes, segments: (objects / per_segment).max(2), footprint: Some(footprint) }
        }
        Capacity::Bytes(bytes) => {
            let segment_bytes = power_of_two(bytes / SEGMENTS / 2 + 1);
            Shape { segment_bytes, segments: (bytes / segment_bytes).max(2), footprint: None }
        }
    }
}

fn power_of_two(at_least: u64) -> u64 {
    at_least.next_power_of_two().clamp(LEAST_SEGMENT_BYTES, LARGEST_SEGMENT_BYTES)
}

/// Size of an item's header, measured with the engine.
pub(super) fn header_bytes() -> u64 {
    const VALUE: [u8; 40] = [0; 40];
    let store = Store::new(Options::new(4 << 20)).expect("4 MiB can be had");
    let attributes = Attributes::default();
    let stored = store.set(key(&[0; KEY_BYTES]), &VALUE, &attributes, Condition::Always, false, 1);
    stored.expect("an empty store has room");
    store.stats().appended_bytes.saturating_sub((KEY_BYTES + VALUE.len()) as u64)
}

/// Result of a replay.
#[derive(Clone, Copy, Debug)]
pub(super) struct Replay {
    pub(super) misses: u64,
    /// Bytes copied by eviction per byte written.
    pub(super) copied_per_written: f64,
    /// Refused writes; 0 unless E1 is violated or an object exceeds the capacity.
    pub(super) refused: u64,
}

/// Replays a trace through the engine.
pub(super) fn replay(trace: &Trace, capacity: Capacity, header: u64, shards: usize) -> anyhow::Result<Replay> {
    let shape = shape(capacity);
    let log_bytes = shape.segments * shape.segment_bytes;
    let mut options = Options::new(log_bytes);
    options.segment_bytes = Some(shape.segment_bytes as usize);
    options.shards = Some(shards);
    options.max_value_bytes = 4 << 20;
    // The arena is reserved for the first capacity, so that one has room for the index, too.
    options.capacity_bytes = log_bytes + 64 * trace.objects as u64 + (1 << 20);
    options.seed = [0x9e37_79b9_7f4a_7c15, 0xd1b5_4a32_d192_ed03]; // the same run twice gives the same misses
    let store = Store::new(options).context("cannot create a store")?;
    let filler = vec![0_u8; 4 << 20];
    let mut result = Replay { misses: 0, copied_per_written: 0.0, refused: 0 };
    for (at, &request) in trace.requests.iter().enumerate() {
        grant(&store, log_bytes, shape.segment_bytes);
        let now_ms = 1 + at as u64 / 1000;
        let name = spread(request.id).to_le_bytes();
        match store.get(key(&name), now_ms, Use::Read)? {
            Lookup::Found(_) => continue,
            Lookup::Miss(_) => result.misses += 1,
        }
        let value = &filler[..value_bytes(request, shape.footprint, header).min(filler.len())];
        match store.set(key(&name), value, &Attributes::default(), Condition::Always, false, now_ms) {
            Ok(_) => {}
            Err(Error::NoSpace { .. } | Error::ValueTooLarge { .. }) => result.refused += 1,
            Err(error) => return Err(error.into()),
        }
    }
    let stats = store.stats();
    result.copied_per_written = stats.copied_bytes as f64 / stats.appended_bytes.max(1) as f64;
    Ok(result)
}

/// E1.
fn grant(store: &Store, log_bytes: u64, segment_bytes: u64) {
    let ledger = store.ledger();
    ledger.set_capacity(log_bytes + ledger.used(Account::Index) + segment_bytes - 1);
}

fn value_bytes(request: Request, footprint: Option<u64>, header: u64) -> usize {
    let total = footprint.unwrap_or(request.size.into());
    total.saturating_sub(header + KEY_BYTES as u64) as usize
}

fn key(bytes: &[u8]) -> Key<'_> {
    Key { namespace: 0, bytes }
}

/// The key of an object: its dense number, hashed to 64 bits.
fn spread(id: u32) -> u64 {
    super::super::workload::mix(u64::from(id))
}

#[cfg(test)]
mod tests {
    use super::super::format::tests::encode;
    use super::*;

    #[test]
    fn a_log_holds_at_most_as_many_objects_as_were_asked_for() {
        let mut wrong = Vec::new();
        for objects in [74, 290, 1000, 5039, 46_720, 125_984] {
            let Shape { segment_bytes, segments, footprint } = shape(Capacity::Objects(objects));
            let footprint = footprint.unwrap();
            let held = segments * (segment_bytes / footprint);
            let is_full = held <= objects && held >= objects - objects / 64 - 1;
            let is_cut = objects < 256 || segments >= 120;
            if !is_full || !is_cut || footprint < LEAST_FOOTPRINT {
                wrong.push(format!("{objects}: {held} held, {segments} segments, {footprint} bytes each"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn a_log_of_bytes_is_cut_into_128_segments_or_more() {
        let mut wrong = Vec::new();
        for bytes in [1 << 20, 20 << 20, 500 << 20] {
            let Shape { segment_bytes, segments, .. } = shape(Capacity::Bytes(bytes));
            if segments < 128 || segments * segment_bytes > bytes {
                wrong.push(format!("{bytes}: {segments} segments of {segment_bytes}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn what_was_stored_is_not_missed_again() {
        let trace = Trace::parse(&encode(&[0, 1, 2, 0, 1, 2, 0, 1, 2], 100)).unwrap();
        let replay = replay(&trace, Capacity::Objects(1000), header_bytes(), 1).unwrap();
        assert_eq!((replay.misses, replay.refused), (3, 0));
    }
}
