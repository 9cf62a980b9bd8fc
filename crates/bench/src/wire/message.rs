//! A hand-written codec for the few messages of `ebb.v1` that the benchmarks use.
//!
//! Field numbers are those of `proto/`; a test compares them with the generated code.

use super::{Kind, Reply, Request};
use anyhow::Context as _;

/// Appends the message of a request.
pub(super) fn encode(request: &Request, out: &mut Vec<u8>) {
    match (request.kind, request.batch) {
        (Kind::Empty, _) => {}
        (Kind::Get | Kind::Delete, _) => request.keys.iter().for_each(|key| field(1, key, out)),
        (Kind::Set, false) => request.pairs().for_each(|(key, value)| {
            field(1, key, out);
            field(2, value, out);
        }),
        (Kind::Set, true) => request.pairs().for_each(|(key, value)| {
            out.push(1 << 3 | 2);
            varint((field_len(key.len()) + field_len(value.len())) as u64, out);
            field(1, key, out);
            field(2, value, out);
        }),
    }
}

/// Appends a PipeRequest.
pub(super) fn encode_piped(id: u64, request: &Request, scratch: &mut Vec<u8>, out: &mut Vec<u8>) {
    scratch.clear();
    encode(request, scratch);
    out.push(1 << 3);
    varint(id, out);
    let operation = match request.kind {
        Kind::Empty | Kind::Get => 2, // a pipe has no empty operation; a get without a key is refused
        Kind::Set => 3,
        Kind::Delete => 4,
    };
    field(operation, scratch, out);
}

/// Reads the answer to a request.
pub(super) fn decode<'a>(kind: Kind, batch: bool, message: &'a [u8]) -> anyhow::Result<Reply<'a>> {
    if batch {
        let mut found = 0;
        for part in Fields(message) {
            if let (1, Value::Bytes(result)) = part? {
                match decode(kind, false, result)? {
                    Reply::Done | Reply::Value(_) => found += 1,
                    Reply::Refused(why) => return Ok(Reply::Refused(why)),
                    _ => {}
                }
            }
        }
        return Ok(Reply::Many { found });
    }
    let (mut outcome, mut value) = (0, &[][..]);
    for part in Fields(message) {
        match part? {
            (1, Value::Number(n)) => outcome = n,
            (2, Value::Bytes(bytes)) => value = bytes,
            _ => {}
        }
    }
    Ok(match (kind, outcome) {
        (Kind::Empty, _) | (Kind::Set | Kind::Delete, 1) => Reply::Done,
        (Kind::Get, 1 | 2) => Reply::Value(value),
        (Kind::Get, _) | (Kind::Delete, 2) => Reply::Miss,
        (kind, outcome) => Reply::Refused(format!("{kind:?} ended with outcome {outcome}")),
    })
}

/// A PipeResponse.
pub(super) struct Piped<'a> {
    pub(super) id: u64,
    pub(super) window: Option<u64>,
    pub(super) reply: Reply<'a>,
}

/// Reads a PipeResponse.
pub(super) fn decode_piped(message: &[u8]) -> anyhow::Result<Piped<'_>> {
    let mut piped = Piped { id: 0, window: None, reply: Reply::Refused("no result".into()) };
    for part in Fields(message) {
        match part? {
            (1, Value::Number(id)) => piped.id = id,
            (2, Value::Bytes(get)) => piped.reply = decode(Kind::Get, false, get)?,
            (3, Value::Bytes(set)) => piped.reply = decode(Kind::Set, false, set)?,
            (4, Value::Bytes(delete)) => piped.reply = decode(Kind::Delete, false, delete)?,
            (7, Value::Bytes(error)) => piped.reply = Reply::Refused(refusal(error)?),
            (8, Value::Number(window)) => piped.window = Some(window),
            _ => {}
        }
    }
    Ok(piped)
}

fn refusal(error: &[u8]) -> anyhow::Result<String> {
    for part in Fields(error) {
        if let (2, Value::Bytes(text)) = part? {
            return Ok(String::from_utf8_lossy(text).into_owned());
        }
    }
    Ok("without a reason".into())
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message, by number.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn read(&mut self) -> Option<(u64, Value<'a>)> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => Value::Number(u64::from_le_bytes(self.take(8)?.try_into().ok()?)),
            2 => {
                let len = self.varint()?;
                Value::Bytes(self.take(usize::try_from(len).ok()?)?)
            }
            5 => Value::Number(u32::from_le_bytes(self.take(4)?.try_into().ok()?).into()),
            _ => return None,
        };
        Some((tag >> 3, value))
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut n = 0;
        for at in 0..10 {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            n |= u64::from(byte & 127) << (7 * at);
            if byte < 128 {
                return Some(n);
            }
        }
        None
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = anyhow::Result<(u64, Value<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.read();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field.context("a message could not be read"))
    }
}

fn field(number: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(number << 3 | 2);
    varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn field_len(bytes: usize) -> usize {
    1 + (64 - (bytes as u64 | 1).leading_zeros() as usize).div_ceil(7) + bytes
}

fn varint(mut n: u64, out: &mut Vec<u8>) {
    while n >= 128 {
        out.push(n as u8 | 128);
        n >>= 7;
    }
    out.push(n as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use ebb_proto as proto;
    use prost::Message as _;

    fn request(kind: Kind, batch: bool, keys: &[u8]) -> Request {
        let mut request = Request::default();
        request.begin(kind, batch, 0);
        for &key in keys {
            match kind {
                Kind::Set => request.pair([key; 16], |value| value.extend([key; 300])),
                _ => request.key([key; 16]),
            }
        }
        request
    }

    fn encoded(request: &Request) -> Vec<u8> {
        let mut out = Vec::new();
        encode(request, &mut out);
        out
    }

    #[test]
    fn requests_are_what_the_contract_says() {
        let get = proto::GetRequest::decode(&*encoded(&request(Kind::Get, false, b"a"))).unwrap();
        assert_eq!(get.key, vec![b'a'; 16]);
        let set = proto::BatchSetRequest::decode(&*encoded(&request(Kind::Set, true, b"ab"))).unwrap();
        assert_eq!((set.items.len(), &set.items[1].key[..], set.items[1].value.len()), (2, &[b'b'; 16][..], 300));
        let mut piped = Vec::new();
        encode_piped(300, &request(Kind::Delete, false, b"c"), &mut Vec::new(), &mut piped);
        let piped = proto::PipeRequest::decode(&*piped).unwrap();
        assert_eq!(piped.id, 300);
        assert!(matches!(piped.operation, Some(proto::pipe_request::Operation::Delete(d)) if d.key == vec![b'c'; 16]));
    }

    #[test]
    fn answers_are_what_the_contract_says() {
        let hit = proto::GetResponse { outcome: 1, value: b"v"[..].into(), version: 7, flags: 9, ..Default::default() };
        let miss = proto::GetResponse { outcome: 3, ..Default::default() };
        assert_eq!(decode(Kind::Get, false, &hit.encode_to_vec()).unwrap(), Reply::Value(b"v"));
        assert_eq!(decode(Kind::Get, false, &miss.encode_to_vec()).unwrap(), Reply::Miss);
        let batch = proto::BatchGetResponse { results: vec![hit.clone(), miss, hit] }.encode_to_vec();
        assert_eq!(decode(Kind::Get, true, &batch).unwrap(), Reply::Many { found: 2 });
        let error = proto::Refusal { code: 8, message: "no room".into(), retry_after_ms: 5, ..Default::default() };
        let result = Some(proto::pipe_response::Result::Error(error));
        let piped = proto::PipeResponse { id: 3, result, window: 64 }.encode_to_vec();
        let piped = decode_piped(&piped).unwrap();
        assert_eq!((piped.id, piped.window, piped.reply), (3, Some(64), Reply::Refused("no room".into())));
    }

    #[test]
    fn bytes_that_are_no_message_are_refused() {
        let bad = [&[0x0a][..], &[0x0a, 5, 1], &[0xff; 12], &[0x0b, 1], &[0x09, 1, 2]];
        let taken: Vec<_> = bad.into_iter().filter(|bad| decode(Kind::Get, false, bad).is_ok()).collect();
        assert!(taken.is_empty(), "{taken:?}");
    }
}
