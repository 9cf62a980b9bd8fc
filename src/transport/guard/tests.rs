//! The guard between a client's encoder and h2's decoder.

use super::*;
use futures::FutureExt as _;
use hpack::Skimmer;

/// A client's header encoder: literals in plain text or Huffman code, names by index or in full, and its dynamic table.
struct Encoder {
    table: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A decoder of header blocks that shares no code with the skimmer: it decodes whole blocks and keeps only the table.
struct Decoder {
    table: Vec<(Vec<u8>, Vec<u8>)>,
}

type Field = (Vec<u8>, Vec<u8>);

const MAX_TABLE_BYTES: usize = 4096;

fn insert(table: &mut Vec<Field>, field: Field) {
    table.insert(0, field);
    while table.iter().map(|(name, value)| name.len() + value.len() + 32).sum::<usize>() > MAX_TABLE_BYTES {
        table.pop();
    }
}

fn integer(first: u8, bits: u32, value: usize, into: &mut Vec<u8>) {
    let most = (1 << bits) - 1;
    if value < most {
        return into.push(first | value as u8);
    }
    into.push(first | most as u8);
    let mut rest = value - most;
    while rest >= 0x80 {
        into.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    into.push(rest as u8);
}

fn string(text: &[u8], huffman: bool, into: &mut Vec<u8>) {
    if !huffman {
        integer(0, 7, text.len(), into);
        return into.extend_from_slice(text);
    }
    let bits: String = text
        .iter()
        .map(|byte| format!("{:0width$b}", huffman::code(*byte), width = usize::from(huffman::length(*byte))))
        .collect();
    let padded = format!("{bits:1<width$}", width = bits.len().div_ceil(8) * 8);
    integer(0x80, 7, padded.len() / 8, into);
    into.extend(padded.as_bytes().chunks(8).map(|bits| bits.iter().fold(0, |byte, bit| byte << 1 | bit & 1)));
}

impl Encoder {
    /// A block with one field; `form` chooses its encoding.
    fn field(&mut self, name: &[u8], value: &[u8], form: u64, into: &mut Vec<u8>) {
        let huffman = form & 1 != 0;
        let at = self.table.iter().position(|(other, _)| other == name).map(|at| at + 62);
        let by_index = if form & 2 != 0 { at.or((name == b":authority").then_some(1)) } else { None };
        let (first, bits) = [(0x40, 6), (0x00, 4), (0x10, 4)][(form >> 2) as usize % 3];
        integer(first, bits, by_index.unwrap_or(0), into);
        if by_index.is_none() {
            string(name, form & 32 != 0, into);
        }
        string(value, huffman, into);
        if first == 0x40 {
            insert(&mut self.table, (name.to_vec(), value.to_vec()));
        }
    }

    /// A field of the dynamic table by its number.
    fn indexed(&self, at: usize, into: &mut Vec<u8>) -> Field {
        integer(0x80, 7, at + 62, into);
        self.table[at].clone()
    }
}

impl Decoder {
    fn block(&mut self, mut block: &[u8]) -> Vec<Field> {
        let mut fields = Vec::new();
        while let Some(first) = block.first().copied() {
            let indexing = first & 0xc0 == 0x40;
            let bits = if first & 0x80 != 0 {
                7
            } else if indexing {
                6
            } else {
                4
            };
            let index = Self::integer(&mut block, bits);
            if first & 0x80 != 0 {
                fields.push(self.table[index - 62].clone());
                continue;
            }
            let name = match index {
                0 => Self::string(&mut block),
                1 => b":authority".to_vec(),
                _ => self.table[index - 62].0.clone(),
            };
            let field = (name, Self::string(&mut block));
            if indexing {
                insert(&mut self.table, field.clone());
            }
            fields.push(field);
        }
        fields
    }

    fn integer(block: &mut &[u8], bits: u32) -> usize {
        let most = (1 << bits) - 1;
        let mut value = usize::from(block[0]) & most;
        *block = &block[1..];
        let mut shift = 0;
        while value >= most {
            let byte = block[0];
            *block = &block[1..];
            value += usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        value
    }

    fn string(block: &mut &[u8]) -> Vec<u8> {
        let huffman = block[0] & 0x80 != 0;
        let len = Self::integer(block, 7);
        let (text, rest) = block.split_at(len);
        *block = rest;
        if !huffman {
            return text.to_vec();
        }
        let bits: String = text.iter().map(|byte| format!("{byte:08b}")).collect();
        let mut codes: Vec<(String, u8)> = (0..=255)
            .map(|byte| (format!("{:0width$b}", huffman::code(byte), width = usize::from(huffman::length(byte))), byte))
            .collect();
        codes.sort_by_key(|(code, _)| code.len());
        let (mut out, mut rest) = (Vec::new(), &bits[..]);
        while let Some((code, byte)) = codes.iter().find(|(code, _)| rest.starts_with(code.as_str())) {
            out.push(*byte);
            rest = &rest[code.len()..];
        }
        assert!(rest.len() < 8 && rest.bytes().all(|bit| bit == b'1'), "padding {rest:?}");
        out
    }
}

/// The bytes that h2 would read through the guard, from a socket that returns `cut` bytes at a time, until the
/// connection is rejected. `max` bytes may be in flight.
fn through(bytes: &[u8], cut: usize, max: u64) -> (Vec<u8>, Option<Rejection>) {
    let chunks = Chunks(bytes.chunks(cut).map(<[u8]>::to_vec).collect());
    let activity = Arc::new(Activity::default());
    let mut guarded = Guarded::new(chunks, b"", true, activity.clone(), header_block(max));
    let mut out = Vec::new();
    let mut space = [0; 3_000];
    while activity.refused().is_none() {
        activity.begin_turn(u64::MAX);
        activity.headers_taken();
        match guarded.read(&mut space).now_or_never() {
            Some(Ok(0)) => break,
            Some(read) => out.extend_from_slice(&space[..read.expect("memory does not fail")]),
            None => {} // end of the turn
        }
    }
    (out, activity.refused())
}

/// The header block of a connection, with `max` bytes in flight.
fn header_block(max: u64) -> HeaderBlock {
    let ledger = Arc::new(ebb_engine::store::Ledger::new(1 << 30));
    let all = crate::transport::quota::InFlight::new(ledger, move || max, max, || {});
    HeaderBlock::new(crate::transport::quota::Quota::new(all, crate::traffic::Traffic::default()))
}

#[test]
fn frames_pinned_by_the_dynamic_table_are_counted() {
    let now = Instant::now();
    // `:path: /x` enters the table; the rest of the frame is a long value that does not.
    let block = [&[0x44, 2, b'/', b'x', 0x10, 1, b'a', 0x7f, 0xff, 0x74][..], &[b'a'; 15_102]].concat();
    let mut frames = Frames::new(false, now);
    frames.pass(&mut PREFACE.to_vec(), 0, 0);
    for calls in 1..=3 {
        frames.pass(&mut frame(1, 4, &block), 0, 0);
        assert_eq!(frames.kept_bytes(), calls * block.len() as u64);
    }
    // An empty table pins no frames.
    frames.pass(&mut frame(1, 4, &[0x20]), 0, 0);
    assert_eq!(frames.kept_bytes(), 0);
    frames.pass(&mut frame(1, 0, &[0x20, 0x20]), 0, 0);
    assert_eq!(frames.kept_bytes(), 0, "an encoder may change the size twice");
    frames.pass(&mut frame(9, 0, &[0x20]), 0, 0);
    assert_eq!(frames.kept_bytes(), u64::MAX);
}

#[test]
fn push_promise_is_rejected_before_its_block_is_decoded() {
    let mut frames = Frames::new(false, Instant::now());
    frames.pass(&mut [PREFACE, &frame(5, 0, &[0x20; 100])].concat(), 0, 0);
    assert!(frames.is_flood(0, Instant::now));
}

#[test]
fn an_unfinished_header_block_is_passed_only_up_to_its_quota() {
    // A literal field, then repeated references to it of one byte each.
    let fields = [&[0x40, 1, b'a', 1, b'b'][..], &[0xbe; 900]].concat();
    let text = [&[0x40, 1, b'a', 0x7f, 0xff, 0x7f][..], &[b'a'; 15_000]].concat();
    let mut wrong = Vec::new();
    for (what, block) in [("fields", fields), ("text", text)] {
        let stream = [PREFACE, &frame(1, 0, &block)].concat();
        if through(&stream, 100, 16 << 20) != (stream.clone(), None) {
            wrong.push(format!("{what}: stopped within the quota"));
        }
        let (handed_on, refused) = through(&stream, 100, 64 << 10);
        if handed_on.len() >= stream.len() || refused != Some(Rejection::HeaderList) {
            wrong.push(format!("{what}: {} of {} bytes passed on, {refused:?}", handed_on.len(), stream.len()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A socket that returns one chunk per read.
struct Chunks(std::collections::VecDeque<Vec<u8>>);

impl AsyncRead for Chunks {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(mut chunk) = self.0.pop_front() {
            let n = chunk.len().min(into.remaining());
            into.put_slice(&chunk[..n]);
            if n < chunk.len() {
                self.0.push_front(chunk.split_off(n));
            }
        }
        Poll::Ready(Ok(()))
    }
}

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    [&(payload.len() as u32).to_be_bytes()[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
}

/// A header block as HEADERS and CONTINUATION frames; `form` chooses cuts, padding and priority.
fn framed(block: &[u8], form: u64) -> Vec<u8> {
    let first = if form & 1 == 0 { block.len() } else { block.len() / 2 };
    let second = if form & 2 == 0 { block.len() } else { first + (block.len() - first) / 2 };
    let (mut payload, mut flags) = (Vec::new(), if first == block.len() { 4 } else { 0 });
    let padding = if form & 4 == 0 { 0 } else { 200 };
    if padding > 0 {
        payload.push(padding);
        flags |= 8;
    }
    if form & 8 != 0 {
        payload.extend([0, 0, 0, 0, 9]);
        flags |= 0x20;
    }
    payload.extend_from_slice(&block[..first]);
    payload.extend(vec![0; usize::from(padding)]);
    let mut out = frame(1, flags, &payload);
    if first < block.len() {
        out.extend(frame(9, if second == block.len() { 4 } else { 0 }, &block[first..second]));
        if second < block.len() {
            out.extend(frame(9, 0, &[]));
            out.extend(frame(9, 4, &block[second..]));
        }
    }
    out
}

/// The header blocks of a stream of frames.
fn blocks(mut stream: &[u8]) -> Vec<Vec<u8>> {
    stream = &stream[PREFACE.len()..];
    let (mut blocks, mut block) = (Vec::new(), Vec::new());
    while let Some(([a, b, c, kind, flags, ..], _)) = stream.split_first_chunk::<9>() {
        let (kind, flags) = (*kind, *flags);
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let mut payload = &stream[9..9 + length];
        stream = &stream[9 + length..];
        if kind == 1 {
            if flags & 8 != 0 {
                payload = &payload[1..payload.len() - usize::from(payload[0])];
            }
            if flags & 0x20 != 0 {
                payload = &payload[5..];
            }
        }
        if kind == 1 || kind == 9 {
            block.extend_from_slice(payload);
            if flags & 4 != 0 {
                blocks.push(std::mem::take(&mut block));
            }
        }
    }
    blocks
}

struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

fn is_allowed(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte)
}

/// Whether no permitted authority has as many characters and octets as `text` in Huffman code.
fn is_beyond_replacement(text: &[u8]) -> bool {
    let bits: usize = text.iter().map(|byte| usize::from(huffman::length(*byte))).sum();
    text.len() * 13 + 7 < bits.div_ceil(8) * 8
}

/// An authority: a path with some arbitrary bytes.
fn any_authority(random: &mut Random) -> Vec<u8> {
    let odd = random.next(8);
    (0..random.next(60))
        .map(|_| if random.next(8) < odd { random.next(256) as u8 } else { b"az/_.:09%"[random.next(9) as usize] })
        .collect()
}

/// A client that repeats calls with other deadlines, as both ends of the guard decode it.
#[test]
fn both_ends_decode_the_same_except_authorities() {
    let paths: [&[u8]; 5] = [b"run%2Febb%2Febb.sock", b"/run/ebb.sock", b"localhost", b"a b?c@d\"e", b""];
    for seed in 0..60 {
        let mut random = Random(seed);
        let (mut encoder, mut sent) = (Encoder { table: Vec::new() }, Vec::new());
        let mut stream = [PREFACE, &frame(4, 0, &[])].concat();
        for call in 0..200_u64 {
            let (mut block, mut fields) = (Vec::new(), Vec::new());
            let mut add = |encoder: &mut Encoder, name: &[u8], value: &[u8], form: u64| {
                encoder.field(name, value, form, &mut block);
                fields.push((name.to_vec(), value.to_vec()));
            };
            let authority = match random.next(10) {
                path @ 0..5 => paths[path as usize].to_vec(),
                _ => any_authority(&mut random),
            };
            add(&mut encoder, b":authority", &authority, random.next(64));
            add(
                &mut encoder,
                b"grpc-timeout",
                format!("{call}{}%2F", "7".repeat(call as usize % 90)).as_bytes(),
                random.next(64),
            );
            if !encoder.table.is_empty() && random.next(2) == 0 {
                let at = random.next(encoder.table.len() as u64) as usize;
                let field = encoder.indexed(at, &mut block);
                fields.push(field);
            }
            sent.push(fields);
            stream.extend(framed(&block, random.next(16)));
            stream.extend(frame(0, 1, b"\0\0\0\0\x05%2F%/"));
        }
        let cut = [1, 2, 3, 7, 50, 3_000, 100_000][seed as usize % 7];
        let (received, _) = through(&stream, cut, 16 << 20);
        assert_eq!(received.len(), stream.len(), "the length of the stream does not change");
        let (mut client, mut server) = (Decoder { table: Vec::new() }, Decoder { table: Vec::new() });
        let both = blocks(&stream).into_iter().zip(blocks(&received));
        for ((of_client, of_server), fields) in both.zip(&sent) {
            assert_eq!(&client.block(&of_client), fields);
            let decoded = server.block(&of_server);
            for ((name, value), (sent_name, sent_value)) in decoded.iter().zip(fields) {
                assert_eq!((name, value.len()), (sent_name, sent_value.len()), "seed {seed} cut {cut}");
                if name == b":authority" {
                    let accepted = value.is_empty() || http::uri::Authority::try_from(&value[..]).is_ok();
                    let stays = value == sent_value && is_beyond_replacement(sent_value);
                    assert!(accepted || stays, "{} of {}", value.escape_ascii(), sent_value.escape_ascii());
                    if paths.contains(&&sent_value[..]) {
                        let kept = value.iter().zip(sent_value).filter(|(_, sent)| is_allowed(**sent));
                        kept.for_each(|(byte, sent)| assert_eq!(byte, sent));
                    }
                } else {
                    assert_eq!(value, sent_value);
                }
            }
            let sizes =
                |table: &[Field]| table.iter().map(|(name, value)| (name.len(), value.len())).collect::<Vec<_>>();
            assert_eq!(sizes(&client.table), sizes(&server.table), "both tables stay equal");
        }
    }
}

#[test]
fn random_bytes_pass_without_loss_or_panic() {
    let (mut random, mut whole) = (Random(7), 0);
    for round in 0..2_000 {
        let mut bytes = PREFACE.to_vec();
        for _ in 0..random.next(200) {
            // Mostly bytes of a frame header or a header block.
            bytes.push(match random.next(4) {
                0 => 0,
                1 => 1,
                _ => random.next(256) as u8,
            });
        }
        let (handed_on, refused) = through(&bytes, 1 + round % 13, 16 << 20);
        assert!(handed_on.len() == bytes.len() || refused.is_some(), "{bytes:?}");
        whole += usize::from(refused.is_none());
    }
    assert!(whole > 1_000, "{whole}");
}

#[test]
fn the_skimmer_keeps_its_state_small() {
    let mut skimmer = Skimmer::new(true);
    let mut random = Random(3);
    for _ in 0..100_000 {
        let mut block = Vec::new();
        string(b"x", random.next(2) == 0, &mut block);
        block.insert(0, 0x40);
        string(b"", false, &mut block);
        let to = block.len();
        skimmer.skim(&mut block, 0, to, 0);
        assert_eq!(skimmer.end_block().fields, 1);
    }
    assert!(format!("{skimmer:?}").len() < 20_000, "a table of 4 KiB has at most 128 entries");
}

#[tokio::test]
async fn the_first_bytes_determine_the_protocol() {
    let cases: [(&[u8], Option<Protocol>); 12] = [
        (PREFACE, Some(Protocol::Http2)),
        (b"GET / HTTP/1.1\r\n\r\n", Some(Protocol::Http1)),
        (b"POST /ebb.v1.CacheService/Get HTTP/1.1\r\n", Some(Protocol::Http1)),
        (b"PUT / HTTP/1.1\r\n", Some(Protocol::Http1)),
        (&[0x16, 3, 1, 2, 0, 1, 0], Some(Protocol::Tls)),
        (b"*1\r\n$4\r\nPING\r\n", Some(Protocol::Redis)),
        (b"PING\r\n", Some(Protocol::Redis)),
        (b"\0\0\0\x04\0\0\0\0\0", Some(Protocol::Unknown)),
        (b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", Some(Protocol::Unknown)),
        (b"hello there", Some(Protocol::Unknown)),
        (b"PRI * HT", None),
        (b"", None),
    ];
    let mut wrong = Vec::new();
    for (bytes, expected) in cases {
        for cut in [1, 4, 100] {
            let mut chunks = Chunks(bytes.chunks(cut).map(<[u8]>::to_vec).collect());
            let known = first_bytes(&mut chunks).await.unwrap().map(|(protocol, _)| protocol);
            if known != expected {
                let text = String::from_utf8_lossy(bytes);
                wrong.push(format!("{text:?} cut at {cut}: {known:?} instead of {expected:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
