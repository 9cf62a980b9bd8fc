//! The keys of the next operations of a pipe, read from the frame that contains them.
//!
//! They are only a prefetch hint. So this module reads only contiguous, well-formed messages, keeps nothing, and leaves
//! every check to the decoder.

use super::request::PREFIX_BYTES;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

/// Field number of the key in every operation.
const KEY: u32 = 1;
/// Field number of `set` among the operations.
const SET: u32 = 3;

/// The namespace and the key of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Named<'a> {
    pub(super) namespace: &'a str,
    pub(super) key: &'a [u8],
}

/// The keys of the first messages in `frame`, at most `most`, up to a message that is incomplete or has no operation.
pub(super) fn keys(mut frame: &[u8], most: usize) -> impl Iterator<Item = Named<'_>> {
    std::iter::from_fn(move || operation(message(&mut frame)?)).take(most)
}

/// Takes the next message off the front.
fn message<'a>(frame: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (prefix, rest) = frame.split_at_checked(PREFIX_BYTES)?;
    let len = u32::from_be_bytes(prefix[1..].try_into().ok()?);
    let (message, rest) = rest.split_at_checked(len as usize)?;
    *frame = rest;
    Some(message)
}

fn operation(message: &[u8]) -> Option<Named<'_>> {
    let (number, operation) = fields(message).find(|(number, _)| *number > 1)?;
    let namespace = if number == SET { 3 } else { 2 };
    let mut named = Named { namespace: "", key: &[] };
    for (field, bytes) in fields(operation) {
        match field {
            KEY => named.key = bytes,
            _ if field == namespace => named.namespace = std::str::from_utf8(bytes).ok()?,
            _ => {}
        }
    }
    Some(named)
}

/// Numbers and contents of a message's length-delimited fields.
fn fields(mut message: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    std::iter::from_fn(move || {
        loop {
            if message.is_empty() {
                return None;
            }
            let (number, kind) = decode_key(&mut message).ok()?;
            if kind == WireType::LengthDelimited {
                let len = decode_varint(&mut message).ok()?;
                let (content, rest) = message.split_at_checked(usize::try_from(len).ok()?)?;
                message = rest;
                return Some((number, content));
            }
            skip_field(kind, number, &mut message, DecodeContext::default()).ok()?;
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ebb_proto::{self as proto, pipe_request::Operation};
    use prost::Message;

    fn frame(operations: &[Operation]) -> Vec<u8> {
        let mut frame = Vec::new();
        for (operation, id) in operations.iter().zip(1..) {
            let message = proto::PipeRequest { id, operation: Some(operation.clone()) };
            frame.push(0);
            frame.extend((message.encoded_len() as u32).to_be_bytes());
            message.encode(&mut frame).unwrap();
        }
        frame
    }

    fn operations() -> Vec<Operation> {
        let (namespace, value) = ("shop".to_owned(), b"value".to_vec().into());
        let tags = vec!["a tag".to_owned()];
        vec![
            Operation::Get(proto::GetRequest { key: "get".into(), peek: true, ..Default::default() }),
            Operation::Set(proto::SetRequest { key: "set".into(), value, namespace, tags, ..Default::default() }),
            Operation::Delete(proto::DeleteRequest {
                key: "delete".into(),
                namespace: "shop".to_owned(),
                if_version: Some(7),
                ..Default::default()
            }),
            Operation::Touch(proto::TouchRequest {
                key: "touch".into(),
                namespace: "shop".to_owned(),
                ..Default::default()
            }),
            Operation::Increment(proto::IncrementRequest {
                key: "increment".into(),
                namespace: "shop".to_owned(),
                request_id: "id".to_owned(),
                ..Default::default()
            }),
        ]
    }

    #[test]
    fn keys_and_namespaces_of_every_operation_are_found() {
        let frame = frame(&operations());
        let found: Vec<_> = keys(&frame, 32).map(|named| (named.namespace, named.key)).collect();
        let expected: [(&str, &[u8]); 5] =
            [("", b"get"), ("shop", b"set"), ("shop", b"delete"), ("shop", b"touch"), ("shop", b"increment")];
        assert_eq!(found, expected);
        assert_eq!(keys(&frame, 2).count(), 2);
    }

    #[test]
    fn an_incomplete_or_malformed_message_ends_the_keys() {
        let frame = frame(&operations());
        let counts: Vec<_> = (0..=frame.len()).map(|len| keys(&frame[..len], 32).count()).collect();
        assert!(counts.is_sorted() && counts[0] == 0 && counts[frame.len()] == 5, "{counts:?}");
        for at in 0..frame.len() {
            let mut wrong = frame.clone();
            wrong[at] = 0xff;
            assert!(keys(&wrong, 32).count() <= 5, "ends for any bytes");
        }
        assert_eq!(keys(&[0, 0xff, 0xff, 0xff, 0xff, 1], 32).count(), 0);
    }
}
