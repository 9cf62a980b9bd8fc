//! Counters of the frames of a connection (RFC 9113, section 4).

use super::hpack::{ENTRY_BYTES, Size, Skimmer};
use super::{FIELD_BYTES, MAX_HEADER_LIST_BYTES};
use std::time::Instant;

/// The bytes that a client sends before its first frame.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADER_BYTES: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PUSH_PROMISE: u8 = 5;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// Initial and maximum budget of control frames.
const CONTROL_BURST: u64 = 4_096;
/// Control frames allowed per second, independently of other frames.
const CONTROL_PER_SECOND: u64 = 256;
/// Control frames allowed per call: it may be reset, and each of its sides has a window.
const CONTROL_PER_CALL: u64 = 8;
/// Control frames allowed per frame of data.
const CONTROL_PER_DATA: u64 = 2;
/// Consecutive control frames, without a call or data, after which a connection is suspect.
const SUSPECT_FRAMES: u64 = 32;
/// Written bytes that allow one control frame: a client updates its windows as it reads.
const WRITTEN_BYTES_PER_CONTROL: u64 = 64;

/// The first bytes of a DATA payload count as costly, in bytes, because each frame has a cost, however short it is.
const COSTLY_DATA_BYTES: usize = 512;

/// A DATA frame smaller than this may share its read buffer with other frames, in bytes.
const SMALL_DATA_BYTES: usize = 15 << 10;

/// Counts since the last call of [`Frames::take_passed`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Passed {
    /// Bytes of DATA frames.
    pub(super) data_bytes: u64,
    /// Those of these bytes that cost little more than a copy.
    pub(super) cheap_bytes: u64,
    /// Small DATA frames.
    pub(super) small_data_frames: u64,
    /// Decoded size of finished header blocks.
    pub(super) headers: Size,
    /// Header blocks that exceed the maximum decoded list.
    pub(super) oversized_headers: u64,
}

/// The state of one connection's frames.
#[derive(Debug)]
pub(super) struct Frames {
    state: State,
    skimmer: Skimmer,
    budget: Budget,
    passed: Passed,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Preface {
        have: usize,
    },
    Header {
        have: usize,
        bytes: [u8; HEADER_BYTES],
    },
    /// The fields before a header block: the length of the padding, if it has not arrived, and a priority of `priority`
    /// bytes. `left` bytes of the frame are left.
    BeforeBlock {
        padded: bool,
        padding: usize,
        priority: usize,
        left: usize,
        ends: bool,
    },
    Block {
        left: usize,
        padding: usize,
        ends: bool,
    },
    /// Bytes to skip: first `costly`, then `cheap` ones.
    Skip {
        costly: usize,
        cheap: usize,
    },
}

impl Frames {
    /// The frames of a new connection. Authorities are rewritten if `rewrite`.
    pub(super) fn new(rewrite: bool, now: Instant) -> Self {
        Self {
            state: State::Preface { have: 0 },
            skimmer: Skimmer::new(rewrite),
            budget: Budget::new(now),
            passed: Passed::default(),
        }
    }

    /// Counts since the last call.
    pub(super) fn take_passed(&mut self) -> Passed {
        std::mem::take(&mut self.passed)
    }

    /// Whether the connection has sent more control frames than its budget. `written` bytes were sent to it.
    pub(super) fn is_flood(&mut self, written: u64, now: impl FnOnce() -> Instant) -> bool {
        self.budget.is_spent(written, now)
    }

    /// Whether the last frames were only control frames. A new connection counts as suspect.
    pub(super) fn is_suspect(&self) -> bool {
        self.budget.since_work > SUSPECT_FRAMES
    }

    /// Bytes that `h2` keeps for header blocks: the decoded fields of an unfinished block, its encoded rest and a copy,
    /// up to the maximum header list; and the frames that entries of the dynamic table pin. `u64::MAX` for an abusive
    /// block.
    pub(super) fn kept_bytes(&self) -> u64 {
        if self.skimmer.is_abusive() {
            return u64::MAX;
        }
        let Size { fields, list_bytes } = self.skimmer.unfinished();
        let most = list_bytes.min(MAX_HEADER_LIST_BYTES);
        (3 * most + fields.min(most / ENTRY_BYTES) * FIELD_BYTES + self.skimmer.kept_frame_bytes()) as u64
    }

    /// How many of the next bytes cost little more than a copy.
    pub(super) fn cheap_left(&self) -> usize {
        match self.state {
            State::Skip { costly: 0, cheap } => cheap,
            _ => 0,
        }
    }

    /// The first byte of the stream that a later byte may still change.
    pub(super) fn unsettled(&self) -> Option<u64> {
        self.skimmer.unsettled()
    }

    /// Processes `stream[from..]`; `stream` begins at byte `at` of the connection.
    pub(super) fn pass(&mut self, stream: &mut [u8], from: usize, at: u64) {
        let mut i = from;
        while i < stream.len() {
            let rest = stream.len() - i;
            self.state = match self.state {
                State::Preface { have } => {
                    let take = rest.min(PREFACE.len() - have);
                    i += take;
                    match have + take {
                        have if have == PREFACE.len() => State::Header { have: 0, bytes: [0; HEADER_BYTES] },
                        have => State::Preface { have },
                    }
                }
                State::Header { have, mut bytes } => {
                    let take = rest.min(HEADER_BYTES - have);
                    bytes[have..have + take].copy_from_slice(&stream[i..i + take]);
                    i += take;
                    match have + take {
                        HEADER_BYTES => self.begin_frame(bytes),
                        have => State::Header { have, bytes },
                    }
                }
                State::BeforeBlock { padded: true, priority, left, ends, .. } => {
                    let padding = usize::from(stream[i]);
                    i += 1;
                    self.before_block(padding, priority, left - 1, ends)
                }
                State::BeforeBlock { padding, priority, left, ends, .. } => {
                    i += 1;
                    self.before_block(padding, priority - 1, left - 1, ends)
                }
                State::Block { left, padding, ends } => {
                    let take = rest.min(left);
                    self.skimmer.skim(stream, i, i + take, at);
                    i += take;
                    self.block(left - take, padding, ends)
                }
                State::Skip { costly, cheap } => {
                    let costly_bytes = rest.min(costly);
                    let cheap_bytes = (rest - costly_bytes).min(cheap);
                    i += costly_bytes + cheap_bytes;
                    self.passed.cheap_bytes += cheap_bytes as u64;
                    Self::skipped(costly - costly_bytes, cheap - cheap_bytes)
                }
            };
        }
    }

    fn begin_frame(&mut self, header: [u8; HEADER_BYTES]) -> State {
        let [a, b, c, kind, flags, ..] = header;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        match kind {
            DATA => {
                self.passed.data_bytes += length as u64;
                self.passed.small_data_frames += u64::from(length < SMALL_DATA_BYTES);
                if length > 0 {
                    self.budget.work(CONTROL_PER_DATA);
                }
                let costly = length.min(COSTLY_DATA_BYTES);
                Self::skipped(costly, length - costly)
            }
            HEADERS => {
                self.skimmer.begin_frame(length);
                self.budget.work(CONTROL_PER_CALL);
                let (padded, ends) = (flags & PADDED != 0, flags & END_HEADERS != 0);
                let priority = if flags & PRIORITY == 0 { 0 } else { 5 };
                match padded {
                    _ if length < usize::from(padded) + priority => Self::skip(length),
                    true => State::BeforeBlock { padded, padding: 0, priority, left: length, ends },
                    false => self.before_block(0, priority, length, ends),
                }
            }
            CONTINUATION => {
                self.skimmer.begin_frame(length);
                self.block(length, 0, flags & END_HEADERS != 0)
            }
            // A client must not send this frame, and `h2` decodes its header block before it reports the error.
            PUSH_PROMISE => {
                self.budget.is_spent = true;
                Self::skip(length)
            }
            _ => {
                self.budget.spend();
                Self::skip(length)
            }
        }
    }

    fn before_block(&mut self, padding: usize, priority: usize, left: usize, ends: bool) -> State {
        match priority {
            // The padding exceeds the payload: h2 ends the connection.
            0 if padding > left => Self::skip(left),
            0 => self.block(left - padding, padding, ends),
            _ => State::BeforeBlock { padded: false, padding, priority, left, ends },
        }
    }

    fn block(&mut self, left: usize, padding: usize, ends: bool) -> State {
        if left > 0 {
            return State::Block { left, padding, ends };
        }
        if ends {
            let size = self.skimmer.end_block();
            self.passed.headers.fields += size.fields;
            self.passed.headers.list_bytes += size.list_bytes;
            self.passed.oversized_headers += u64::from(size.list_bytes > MAX_HEADER_LIST_BYTES);
        }
        Self::skip(padding)
    }

    fn skip(length: usize) -> State {
        Self::skipped(length, 0)
    }

    fn skipped(costly: usize, cheap: usize) -> State {
        match (costly, cheap) {
            (0, 0) => State::Header { have: 0, bytes: [0; HEADER_BYTES] },
            (costly, cheap) => State::Skip { costly, cheap },
        }
    }
}

/// The budget of control frames (PING, SETTINGS, WINDOW_UPDATE, PRIORITY, RST_STREAM, unknown ones): a few for each
/// frame that does work, and some per second.
#[derive(Debug)]
struct Budget {
    left: u64,
    /// Frames spent since the last frame that did work.
    since_work: u64,
    is_spent: bool,
    written: u64,
    refilled_at: Instant,
}

impl Budget {
    fn new(now: Instant) -> Self {
        Self { left: CONTROL_BURST, since_work: SUSPECT_FRAMES + 1, is_spent: false, written: 0, refilled_at: now }
    }

    fn earn(&mut self, frames: u64) {
        self.left = (self.left + frames).min(CONTROL_BURST);
    }

    /// Records a frame that did work, which allows `frames` control frames.
    fn work(&mut self, frames: u64) {
        self.since_work = 0;
        self.earn(frames);
    }

    fn spend(&mut self) {
        self.since_work += 1;
        match self.left.checked_sub(1) {
            Some(left) => self.left = left,
            None => self.is_spent = true,
        }
    }

    /// Whether the budget is exceeded. Reads the clock only if little is left.
    fn is_spent(&mut self, written: u64, now: impl FnOnce() -> Instant) -> bool {
        let frames = written.saturating_sub(self.written) / WRITTEN_BYTES_PER_CONTROL;
        self.written += frames * WRITTEN_BYTES_PER_CONTROL;
        self.earn(frames);
        if self.left < CONTROL_BURST / 2 {
            let now = now();
            let earned = now.duration_since(self.refilled_at).as_millis() as u64 * CONTROL_PER_SECOND / 1_000;
            if earned > 0 {
                self.refilled_at = now;
                self.earn(earned);
            }
        }
        self.is_spent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        [&(payload.len() as u32).to_be_bytes()[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn pass(frames: &mut Frames, bytes: &[u8]) -> Passed {
        frames.pass(&mut bytes.to_vec(), 0, 0);
        frames.take_passed()
    }

    #[test]
    fn header_blocks_are_measured_however_they_are_framed() {
        // :method POST, and a literal field of 1 + 2 bytes.
        let block = [0x83, 0x40, 1, b'a', 2, b'b', b'c'];
        let size = Size { fields: 2, list_bytes: 7 + 4 + 32 + 3 + 32 };
        let padded = [&[3], &block[..], &[0; 3]].concat();
        let all = [&[2, 0, 0, 0, 0, 9], &block[..], &[0; 2]].concat();
        let split = [frame(HEADERS, 0, &block[..3]), frame(CONTINUATION, 0, &[]), frame(CONTINUATION, 4, &block[3..])];
        let mut wrong = Vec::new();
        for (what, stream) in [
            ("plain", frame(HEADERS, END_HEADERS, &block)),
            ("padded", frame(HEADERS, END_HEADERS | PADDED, &padded)),
            ("padded, with a priority", frame(HEADERS, END_HEADERS | PADDED | PRIORITY, &all)),
            ("split", split.concat()),
        ] {
            let stream = [PREFACE, &frame(4, 0, &[]), &stream, &frame(DATA, 1, b"12345")].concat();
            for cut in [1, 2, 5, 100] {
                let mut frames = Frames::new(false, Instant::now());
                let mut sum = Passed::default();
                for piece in stream.chunks(cut) {
                    let passed = pass(&mut frames, piece);
                    sum.data_bytes += passed.data_bytes;
                    sum.headers.fields += passed.headers.fields;
                    sum.headers.list_bytes += passed.headers.list_bytes;
                }
                if (sum.headers, sum.data_bytes) != (size, 5) {
                    wrong.push(format!("{what}, cut at {cut}: {sum:?} in {stream:?}"));
                }
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn control_frames_beyond_the_budget_are_a_flood() {
        let start = Instant::now();
        let kinds = [2, 3, 4, 6, 8, 0x77];
        let found = kinds.map(|kind| {
            let mut frames = Frames::new(false, start);
            pass(&mut frames, PREFACE);
            for _ in 0..CONTROL_BURST {
                pass(&mut frames, &frame(kind, 0, &[0; 8]));
            }
            let within = frames.is_flood(0, || start);
            pass(&mut frames, &frame(kind, 0, &[0; 8]));
            (kind, within, frames.is_flood(0, || start))
        });
        assert_eq!(found, kinds.map(|kind| (kind, false, true)), "type of the frames, within the budget, beyond it");
    }

    #[test]
    fn control_frames_within_the_budget_of_work_are_no_flood() {
        let start = Instant::now();
        let mut frames = Frames::new(false, start);
        pass(&mut frames, PREFACE);
        for round in 0..10 * CONTROL_BURST {
            pass(&mut frames, &frame(HEADERS, END_HEADERS, &[0x83]));
            pass(&mut frames, &frame(DATA, 1, &[0; 5]));
            for _ in 0..4 {
                pass(&mut frames, &frame(8, 0, &[0; 4]));
            }
            assert!(!frames.is_flood(round * 100, || start));
        }
        for second in 1..100 {
            for _ in 0..CONTROL_PER_SECOND {
                pass(&mut frames, &frame(6, 0, &[0; 8]));
            }
            assert!(!frames.is_flood(0, || start + Duration::from_secs(second)), "second {second}");
        }
    }
}
