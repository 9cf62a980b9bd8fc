//! A skimmer of the header blocks of a connection (RFC 7541): computes their decoded size, and rewrites every
//! `:authority` that `h2` rejects.
//!
//! Stock clients send the percent-encoded path of a Unix socket as `:authority`, and `h2` ends every such call with
//! PROTOCOL_ERROR. Such an authority is replaced by one with as many octets and as many characters ([`authority`]). In
//! plain text this happens octet by octet. A Huffman-coded authority is replaced at its end, and its octets are held
//! back until then. An authority without a replacement stays, and `h2` rejects the call.
//!
//! Of the dynamic table, the skimmer keeps only lengths, and which names are `:authority`.

use super::{authority, huffman};
use std::collections::VecDeque;

/// HTTP/2's initial size of the dynamic table, which `h2` never raises, in bytes.
const MAX_TABLE_BYTES: usize = 4096;
/// Overhead of an entry of a table or of a header list in addition to its name and value, in bytes.
pub(super) const ENTRY_BYTES: usize = 32;
/// Maximum table size updates at the beginning of a block.
const MAX_RESIZES: usize = 2;
const AUTHORITY: &[u8] = b":authority";
/// Maximum length of a Huffman-coded authority to replace, in octets. The path of a socket has at most 108 bytes, which
/// percent-encoding triples.
const MAX_REPLACED_OCTETS: usize = 512;

/// A field's name: its length, and whether it is `:authority`.
#[derive(Clone, Copy, Debug, Default)]
struct Name {
    len: usize,
    is_authority: bool,
}

/// The size of a decoded header block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Size {
    /// Fields.
    pub(super) fields: usize,
    /// Bytes of names and values, plus 32 per field, as HTTP/2 counts a header list.
    pub(super) list_bytes: usize,
}

/// The state of one connection's header blocks.
#[derive(Debug)]
pub(super) struct Skimmer {
    rewrite: bool,
    table: Table,
    state: State,
    block: Size,
    /// Length of the current frame.
    frame_bytes: usize,
    /// Table size updates in this block.
    resizes: usize,
    authority: Octets,
}

/// The octets of an unfinished Huffman-coded authority.
#[derive(Debug, Default)]
struct Octets {
    /// Position of the first octet in the stream.
    first: u64,
    /// Offset of each octet from the first: frame headers may be between them.
    offsets: Vec<u32>,
    /// Whether the authority has to be replaced.
    is_refused: bool,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// The next byte begins a field.
    Field,
    /// The next byte continues an integer.
    Integer { value: usize, shift: u32, next: Next },
    /// The next byte begins the length of a string.
    Length { of: Text },
    /// A string of `len` encoded bytes, of which `left` have not arrived.
    Text { of: Text, huffman: bool, len: usize, left: usize, decoded: usize, decoder: huffman::Decoder },
    /// The block is malformed. `h2` ends the connection when it decodes it.
    Broken,
}

/// The meaning of an integer.
#[derive(Clone, Copy, Debug)]
enum Next {
    Indexed,
    Name { indexing: bool },
    TableSize,
    Length { of: Text, huffman: bool },
}

/// The meaning of a string.
#[derive(Clone, Copy, Debug)]
enum Text {
    /// A name; `matches` while it may be `:authority`.
    Name {
        indexing: bool,
        matches: bool,
    },
    Value {
        indexing: bool,
        name: Name,
    },
}

impl Skimmer {
    /// The skimmer of a new connection. Authorities are rewritten if `rewrite`.
    pub(super) fn new(rewrite: bool) -> Self {
        Self {
            rewrite,
            table: Table::new(),
            state: State::Field,
            block: Size::default(),
            frame_bytes: 0,
            resizes: 0,
            authority: Octets::default(),
        }
    }

    /// The size of the block that ends here.
    pub(super) fn end_block(&mut self) -> Size {
        if !matches!(self.state, State::Field) {
            self.state = State::Broken;
        }
        if !self.is_abusive() {
            self.resizes = 0;
        }
        std::mem::take(&mut self.block)
    }

    /// Begins a frame of `bytes`.
    pub(super) fn begin_frame(&mut self, bytes: usize) {
        self.frame_bytes = bytes;
    }

    /// Whether a block has more table size updates than an encoder needs (section 4.2). An update adds nothing to the
    /// header list, so a frame full of them would cost nothing and still be pinned by one field.
    pub(super) fn is_abusive(&self) -> bool {
        self.resizes > MAX_RESIZES
    }

    /// Bytes of the frames that entries of the dynamic table pin. `h2` copies most strings but keeps some pseudo-header
    /// fields as slices of their frame. Every entry counts, so that this holds whichever fields it copies.
    pub(super) fn kept_frame_bytes(&self) -> usize {
        self.table.frame_bytes
    }

    /// Size of the unfinished block so far.
    pub(super) fn unfinished(&self) -> Size {
        let text = match self.state {
            State::Text { len, left, .. } => len - left,
            _ => 0,
        };
        Size { list_bytes: self.block.list_bytes + text, ..self.block }
    }

    /// The first byte of the stream that a later byte may still change.
    pub(super) fn unsettled(&self) -> Option<u64> {
        let is_within = matches!(self.state, State::Text { huffman: true, .. });
        (is_within && !self.authority.offsets.is_empty()).then_some(self.authority.first)
    }

    fn rewrites(&self, text: Text) -> bool {
        self.rewrite && matches!(text, Text::Value { name: Name { is_authority: true, .. }, .. })
    }

    /// Processes `stream[from..to]`, bytes of a header block. `stream` begins at byte `at` of the connection and may
    /// contain earlier bytes that are not passed on yet.
    pub(super) fn skim(&mut self, stream: &mut [u8], from: usize, to: usize, at: u64) {
        let mut i = from;
        while i < to {
            let byte = stream[i];
            match self.state {
                State::Broken => return,
                State::Field => {
                    self.begin_field(byte);
                    i += 1;
                }
                State::Integer { value, shift, next } => {
                    i += 1;
                    let value = value.saturating_add(usize::from(byte & 0x7f) << shift);
                    self.state = match byte & 0x80 {
                        0 => self.integer(value, next),
                        _ if shift >= 21 => State::Broken,
                        _ => State::Integer { value, shift: shift + 7, next },
                    };
                }
                State::Length { of } => {
                    i += 1;
                    let huffman = byte & 0x80 != 0;
                    self.state = self.prefixed(byte, 7, Next::Length { of, huffman });
                }
                State::Text { of, huffman: false, len, left, decoded, decoder } => {
                    let take = left.min(to - i);
                    let of = self.plain(of, decoded, &mut stream[i..i + take]);
                    let (left, decoded) = (left - take, decoded + take);
                    i += take;
                    self.state = match left {
                        0 => self.end_text(of, decoded),
                        _ => State::Text { of, huffman: false, len, left, decoded, decoder },
                    };
                }
                State::Text { huffman: true, .. } => {
                    self.state = self.huffman_byte(stream, i, at);
                    i += 1;
                }
            }
        }
    }

    fn begin_field(&mut self, byte: u8) {
        self.state = match byte {
            0x80.. => self.prefixed(byte, 7, Next::Indexed),
            0x40..=0x7f => self.prefixed(byte, 6, Next::Name { indexing: true }),
            0x20..=0x3f => self.prefixed(byte, 5, Next::TableSize),
            0x00..=0x1f => self.prefixed(byte, 4, Next::Name { indexing: false }),
        };
    }

    /// The first byte of an integer with a prefix of `bits` (section 5.1).
    fn prefixed(&mut self, byte: u8, bits: u32, next: Next) -> State {
        let most = (1_usize << bits) - 1;
        match usize::from(byte) & most {
            value if value < most => self.integer(value, next),
            value => State::Integer { value, shift: 0, next },
        }
    }

    fn integer(&mut self, value: usize, next: Next) -> State {
        match next {
            Next::TableSize if value <= MAX_TABLE_BYTES => {
                self.resizes += 1;
                self.table.resize(value);
                State::Field
            }
            Next::TableSize => State::Broken,
            Next::Indexed => match self.table.get(value) {
                Some((name, value_len)) => {
                    self.count(name.len, value_len);
                    State::Field
                }
                None => State::Broken,
            },
            Next::Name { indexing } if value == 0 => State::Length { of: Text::Name { indexing, matches: true } },
            Next::Name { indexing } => match self.table.get(value) {
                Some((name, _)) => State::Length { of: Text::Value { indexing, name } },
                None => State::Broken,
            },
            Next::Length { of, .. } if value == 0 => self.end_text(of, 0),
            Next::Length { of, huffman } => {
                self.authority.offsets.clear();
                self.authority.is_refused = false;
                State::Text { of, huffman, len: value, left: value, decoded: 0, decoder: huffman::Decoder::default() }
            }
        }
    }

    /// Processes bytes of a plain string.
    fn plain(&mut self, of: Text, decoded: usize, bytes: &mut [u8]) -> Text {
        match of {
            Text::Name { indexing, matches } => {
                let expected = AUTHORITY.get(decoded..decoded + bytes.len());
                Text::Name { indexing, matches: matches && expected == Some(&*bytes) }
            }
            Text::Value { .. } => {
                if self.rewrites(of) {
                    let refused = bytes.iter_mut().filter(|byte| !authority::is_permitted(**byte));
                    refused.for_each(|byte| *byte = authority::PLAIN_STAND_IN);
                }
                of
            }
        }
    }

    /// Processes one byte of a Huffman-coded string.
    fn huffman_byte(&mut self, stream: &mut [u8], i: usize, at: u64) -> State {
        let State::Text { mut of, len, left, mut decoded, mut decoder, .. } = self.state else { return State::Broken };
        let rewrites = self.rewrites(of) && len <= MAX_REPLACED_OCTETS;
        if rewrites {
            let position = at + i as u64;
            if self.authority.offsets.is_empty() {
                self.authority.first = position;
            }
            self.authority.offsets.push((position - self.authority.first) as u32);
        }
        for bit in (0..8).rev() {
            match decoder.bit(stream[i] >> bit & 1 == 1) {
                Ok(None) => {}
                Ok(Some(byte)) => {
                    if let Text::Name { matches, .. } = &mut of {
                        *matches &= AUTHORITY.get(decoded) == Some(&byte);
                    }
                    self.authority.is_refused |= rewrites && !authority::is_permitted(byte);
                    decoded += 1;
                }
                Err(huffman::Invalid) => return State::Broken,
            }
        }
        match left - 1 {
            0 => {
                if self.authority.is_refused && decoder.is_padding() {
                    self.authority.replace(stream, at);
                }
                self.end_text(of, decoded)
            }
            left => State::Text { of, huffman: true, len, left, decoded, decoder },
        }
    }

    fn end_text(&mut self, of: Text, len: usize) -> State {
        match of {
            Text::Name { indexing, matches } => {
                let is_authority = matches && len == AUTHORITY.len();
                State::Length { of: Text::Value { indexing, name: Name { len, is_authority } } }
            }
            Text::Value { indexing, name } => {
                self.count(name.len, len);
                if indexing {
                    self.table.insert(name, len, self.frame_bytes);
                }
                State::Field
            }
        }
    }

    fn count(&mut self, name_len: usize, value_len: usize) {
        self.block.fields += 1;
        self.block.list_bytes += name_len + value_len + ENTRY_BYTES;
    }
}

impl Octets {
    /// Replaces the authority in `stream`, which begins at byte `at` of the connection, unless a part of it was already
    /// passed on.
    fn replace(&self, stream: &mut [u8], at: u64) {
        let Some(first) = self.first.checked_sub(at) else { return };
        let places = || self.offsets.iter().map(|offset| first as usize + *offset as usize);
        let (mut text, mut decoder) = (Vec::new(), huffman::Decoder::default());
        for place in places() {
            let octet = stream[place];
            text.extend((0..8).rev().filter_map(|bit| decoder.bit(octet >> bit & 1 == 1).ok().flatten()));
        }
        let Some(replacement) = authority::replacement(&text, self.offsets.len()) else { return };
        let codes = replacement.iter().flat_map(|byte| {
            let code = huffman::code(*byte);
            (0..huffman::length(*byte)).rev().map(move |bit| (code >> bit & 1) as u8)
        });
        // The padding is ones.
        let mut bits = codes.chain(std::iter::repeat(1));
        for place in places() {
            stream[place] = bits.by_ref().take(8).fold(0, |octet, bit| octet << 1 | bit);
        }
    }
}

/// The static table (RFC 7541, appendix A): names and the lengths of their values. `:authority` is the first.
const STATIC: [(&str, usize); 61] = [
    (":authority", 0),
    (":method", 3),
    (":method", 4),
    (":path", 1),
    (":path", 11),
    (":scheme", 4),
    (":scheme", 5),
    (":status", 3),
    (":status", 3),
    (":status", 3),
    (":status", 3),
    (":status", 3),
    (":status", 3),
    (":status", 3),
    ("accept-charset", 0),
    ("accept-encoding", 13),
    ("accept-language", 0),
    ("accept-ranges", 0),
    ("accept", 0),
    ("access-control-allow-origin", 0),
    ("age", 0),
    ("allow", 0),
    ("authorization", 0),
    ("cache-control", 0),
    ("content-disposition", 0),
    ("content-encoding", 0),
    ("content-language", 0),
    ("content-length", 0),
    ("content-location", 0),
    ("content-range", 0),
    ("content-type", 0),
    ("cookie", 0),
    ("date", 0),
    ("etag", 0),
    ("expect", 0),
    ("expires", 0),
    ("from", 0),
    ("host", 0),
    ("if-match", 0),
    ("if-modified-since", 0),
    ("if-none-match", 0),
    ("if-range", 0),
    ("if-unmodified-since", 0),
    ("last-modified", 0),
    ("link", 0),
    ("location", 0),
    ("max-forwards", 0),
    ("proxy-authenticate", 0),
    ("proxy-authorization", 0),
    ("range", 0),
    ("referer", 0),
    ("refresh", 0),
    ("retry-after", 0),
    ("server", 0),
    ("set-cookie", 0),
    ("strict-transport-security", 0),
    ("transfer-encoding", 0),
    ("user-agent", 0),
    ("vary", 0),
    ("via", 0),
    ("www-authenticate", 0),
];

/// An entry of the dynamic table, with the length of its frame.
#[derive(Clone, Copy, Debug)]
struct Entry {
    name: Name,
    value_len: usize,
    frame_bytes: usize,
}

/// The dynamic table, newest entry first, without its texts.
#[derive(Debug)]
struct Table {
    entries: VecDeque<Entry>,
    bytes: usize,
    frame_bytes: usize,
    max_bytes: usize,
}

impl Table {
    fn new() -> Self {
        Self { entries: VecDeque::new(), bytes: 0, frame_bytes: 0, max_bytes: MAX_TABLE_BYTES }
    }

    /// Name and length of the value at an index of the combined tables.
    fn get(&self, index: usize) -> Option<(Name, usize)> {
        let at = index.checked_sub(1)?;
        match STATIC.get(at) {
            Some((name, value_len)) => Some((Name { len: name.len(), is_authority: at == 0 }, *value_len)),
            None => self.entries.get(at - STATIC.len()).map(|entry| (entry.name, entry.value_len)),
        }
    }

    fn insert(&mut self, name: Name, value_len: usize, frame_bytes: usize) {
        let bytes = name.len + value_len + ENTRY_BYTES;
        self.shrink_to(self.max_bytes.saturating_sub(bytes));
        // An entry larger than the table empties it (section 4.4).
        if bytes <= self.max_bytes {
            self.entries.push_front(Entry { name, value_len, frame_bytes });
            self.bytes += bytes;
            self.frame_bytes += frame_bytes;
        }
    }

    fn resize(&mut self, max_bytes: usize) {
        self.max_bytes = max_bytes;
        self.shrink_to(max_bytes);
    }

    fn shrink_to(&mut self, bytes: usize) {
        while self.bytes > bytes {
            let Some(Entry { name, value_len, frame_bytes }) = self.entries.pop_back() else { break };
            self.bytes -= name.len + value_len + ENTRY_BYTES;
            self.frame_bytes -= frame_bytes;
        }
    }
}
