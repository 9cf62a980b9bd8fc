//! The memory of a decoded message, computed before decoding by a walk over its wire form that allocates nothing.
//!
//! Two bytes on the wire can become an empty item of 200 bytes in memory, so the length of a message does not predict
//! its cost. The walk follows the descriptors of the contract, counts the elements of every repeated field against a
//! bound, and sums up the memory of the decoded message. It detects everything that makes decoding fail, so every
//! message that passes can be decoded.

use crate::service::{MAX_BATCH_ITEMS, MAX_TAGS, Refusal};
use bytes::Buf;
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};
use std::collections::HashMap;
use std::sync::LazyLock;

/// Maximum length of a text field, in bytes: names, tags and ids have much smaller bounds of their own.
const MAX_TEXT_BYTES: usize = 4 << 10;
/// Maximum nesting of messages, as in prost.
const MAX_DEPTH: usize = 100;

/// The request messages of all served methods.
pub(super) static SHAPES: LazyLock<Shapes> = LazyLock::new(|| {
    Shapes::new(&[
        ebb_proto::CACHE_DESCRIPTORS,
        ebb_proto::ADMIN_DESCRIPTORS,
        ebb_proto::health::DESCRIPTORS,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ])
});

/// The request messages of methods.
#[derive(Debug)]
pub(super) struct Shapes {
    messages: Vec<Shape>,
    /// Methods by path: few enough that a linear search costs less than a hash.
    methods: Vec<(String, Method)>,
}

#[derive(Debug, Default)]
struct Shape {
    fields: Vec<Field>,
    /// Size of the decoded message without memory that its fields point to, in bytes.
    bytes: usize,
}

#[derive(Clone, Copy, Debug)]
struct Field {
    number: u32,
    name: &'static str,
    kind: Kind,
    is_repeated: bool,
    max_elements: [usize; 2],
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Varint,
    Fixed32,
    Fixed64,
    Bytes,
    Text,
    Message(usize),
}

/// Maximum elements of a repeated field in one message, and in all items of a list together. These bounds limit the
/// cost of a walk and of a decoded message. An item, or an operation of a pipe, with too many elements is refused
/// separately after decoding.
fn max_elements(field: &str) -> [usize; 2] {
    match field {
        "tags" => [MAX_BATCH_ITEMS, MAX_BATCH_ITEMS * MAX_TAGS.0],
        _ => [MAX_BATCH_ITEMS; 2],
    }
}

impl Shapes {
    /// The messages of these descriptor sets.
    ///
    /// # Panics
    /// If a set cannot be decoded; the sets are compiled into the program.
    fn new(sets: &[&[u8]]) -> Self {
        let files: Vec<_> =
            sets.iter().flat_map(|set| FileDescriptorSet::decode(*set).expect("valid descriptors").file).collect();
        let mut named = Vec::new();
        for file in &files {
            collect(&format!(".{}", file.package()), &file.message_type, &mut named);
        }
        let numbers: HashMap<_, _> = named.iter().enumerate().map(|(at, (name, _))| (name.clone(), at)).collect();
        let messages = named.iter().map(|(_, message)| shape(message, &numbers)).collect();
        let mut methods = Vec::new();
        for file in &files {
            for service in &file.service {
                for method in &service.method {
                    let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                    let is_stream = method.client_streaming();
                    methods.extend(numbers.get(method.input_type()).map(|at| (path, Method { at: *at, is_stream })));
                }
            }
        }
        let mut shapes = Self { messages, methods };
        let sizes: Vec<_> = (0..shapes.messages.len()).map(|at| shapes.struct_bytes(at, 0)).collect();
        shapes.messages.iter_mut().zip(sizes).for_each(|(shape, bytes)| shape.bytes = bytes);
        shapes
    }

    /// The request of method `path`.
    pub(super) fn request(&'static self, path: &str) -> Option<Request> {
        let (_, method) = self.methods.iter().find(|(known, _)| known == path)?;
        Some(Request { shapes: self, method: *method })
    }

    /// Upper bound of the size of a message's Rust struct.
    fn struct_bytes(&self, at: usize, depth: usize) -> usize {
        let field = |field: &Field| match field.kind {
            _ if field.is_repeated => 24,
            Kind::Varint | Kind::Fixed32 | Kind::Fixed64 => 16,
            Kind::Bytes | Kind::Text => 32,
            // A recursive message is boxed.
            Kind::Message(_) if depth > 3 => 8,
            Kind::Message(at) => 8 + self.struct_bytes(at, depth + 1),
        };
        self.messages[at].fields.iter().map(field).sum()
    }
}

fn collect<'a>(scope: &str, messages: &'a [DescriptorProto], into: &mut Vec<(String, &'a DescriptorProto)>) {
    for message in messages {
        let name = format!("{scope}.{}", message.name());
        collect(&name, &message.nested_type, into);
        into.push((name, message));
    }
}

fn shape(message: &DescriptorProto, numbers: &HashMap<String, usize>) -> Shape {
    let field = |field: &FieldDescriptorProto| Field {
        number: field.number() as u32,
        // Leak the names: errors contain them as `&'static str`.
        name: Box::leak(field.name().to_owned().into_boxed_str()),
        kind: match field.r#type() {
            Type::Fixed32 | Type::Sfixed32 | Type::Float => Kind::Fixed32,
            Type::Fixed64 | Type::Sfixed64 | Type::Double => Kind::Fixed64,
            Type::String => Kind::Text,
            Type::Bytes => Kind::Bytes,
            Type::Message | Type::Group => numbers.get(field.type_name()).map_or(Kind::Bytes, |at| Kind::Message(*at)),
            _ => Kind::Varint,
        },
        is_repeated: field.label() == Label::Repeated,
        max_elements: max_elements(field.name()),
    };
    Shape { fields: message.field.iter().map(field).collect(), bytes: 0 }
}

#[derive(Clone, Copy, Debug)]
struct Method {
    /// The number of its request message.
    at: usize,
    is_stream: bool,
}

/// The request of a method: a message, or a stream of messages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    shapes: &'static Shapes,
    method: Method,
}

impl Request {
    /// Whether the request is a stream, which may stay open between two messages without bound.
    pub(super) fn is_stream(self) -> bool {
        self.method.is_stream
    }

    /// Memory of the message in `wire` after decoding, without the bytes it is decoded from.
    ///
    /// # Errors
    /// [`Refusal::TooMany`] or [`Refusal::Length`] with the field and its bound; [`Refusal::Malformed`] if it cannot be
    /// decoded.
    pub(super) fn decoded_bytes(self, wire: &mut impl Buf) -> Result<u64, Refusal> {
        let mut walk = Walk { shapes: self.shapes, elements: Vec::new(), in_items: 0, bytes: 0 };
        walk.message(self.method.at, wire, 0, 0)?;
        Ok(walk.bytes as u64)
    }
}

struct Walk<'a> {
    shapes: &'a Shapes,
    /// Number of elements by message and field.
    elements: Vec<((usize, u32), usize)>,
    /// Nesting depth of list elements.
    in_items: usize,
    bytes: usize,
}

impl Walk<'_> {
    /// Walks over `wire` until `end` bytes are left.
    fn message(&mut self, at: usize, wire: &mut impl Buf, end: usize, depth: usize) -> Result<(), Refusal> {
        let malformed = Refusal::Malformed;
        if depth > MAX_DEPTH {
            return Err(malformed("messages nest too deeply"));
        }
        let shape = &self.shapes.messages[at];
        while wire.remaining() > end {
            let (number, wire_type) = decode_key(wire).map_err(|_| malformed("a field has no valid key"))?;
            let Some(field) = shape.fields.iter().find(|field| field.number == number) else {
                skip_field(wire_type, number, wire, DecodeContext::default())
                    .map_err(|_| malformed("an unknown field is cut off"))?;
                continue;
            };
            match (field.kind, wire_type) {
                (Kind::Varint, WireType::Varint) => {
                    decode_varint(wire).map_err(|_| malformed("a number is cut off"))?;
                    self.element(at, field, 8)?;
                }
                (Kind::Fixed32, WireType::ThirtyTwoBit) => self.fixed(at, field, wire, 4)?,
                (Kind::Fixed64, WireType::SixtyFourBit) => self.fixed(at, field, wire, 8)?,
                (kind, WireType::LengthDelimited) => {
                    let len = decode_varint(wire).map_err(|_| malformed("a length is cut off"))?;
                    let Some(rest) = wire.remaining().checked_sub(end).filter(|rest| *rest as u64 >= len) else {
                        return Err(malformed("a field is longer than its message"));
                    };
                    let after = end + rest - len as usize;
                    self.delimited(at, field, kind, wire, (len as usize, after), depth)?;
                }
                _ => return Err(malformed("a field has another type than the contract's")),
            }
        }
        if wire.remaining() < end {
            return Err(malformed("a field is longer than its message"));
        }
        Ok(())
    }

    fn fixed(&mut self, at: usize, field: &Field, wire: &mut impl Buf, len: usize) -> Result<(), Refusal> {
        if wire.remaining() < len {
            return Err(Refusal::Malformed("a number is cut off"));
        }
        wire.advance(len);
        self.element(at, field, 8)
    }

    /// A field of `len` bytes, after which `after` bytes are left.
    fn delimited(
        &mut self,
        at: usize,
        field: &Field,
        kind: Kind,
        wire: &mut impl Buf,
        (len, after): (usize, usize),
        depth: usize,
    ) -> Result<(), Refusal> {
        match kind {
            Kind::Message(of) => {
                self.element(at, field, self.shapes.messages[of].bytes)?;
                self.in_items += usize::from(field.is_repeated);
                self.message(of, wire, after, depth + 1)?;
                self.in_items -= usize::from(field.is_repeated);
                Ok(())
            }
            Kind::Text => {
                Refusal::length(field.name, len, 0, MAX_TEXT_BYTES)?;
                check_text(wire, len)?;
                // For a singular field, a second value replaces the first.
                self.bytes += if field.is_repeated { len } else { 0 };
                self.element(at, field, 24)
            }
            Kind::Bytes => {
                wire.advance(len);
                self.element(at, field, 32)
            }
            // Packed numbers: at least one byte each.
            Kind::Varint | Kind::Fixed32 | Kind::Fixed64 if field.is_repeated => {
                let smallest = match kind {
                    Kind::Fixed32 => 4,
                    Kind::Fixed64 => 8,
                    _ => 1,
                };
                for _ in 0..len / smallest {
                    self.element(at, field, 8)?;
                }
                wire.advance(len);
                Ok(())
            }
            _ => Err(Refusal::Malformed("a field has another type than the contract's")),
        }
    }

    /// Counts an element of `field`, of `bytes`. A singular field is already included in its message.
    fn element(&mut self, at: usize, field: &Field, bytes: usize) -> Result<(), Refusal> {
        if !field.is_repeated {
            return Ok(());
        }
        // A list grows by doubling.
        self.bytes += 2 * bytes;
        let key = (at, field.number);
        let count = match self.elements.iter_mut().find(|(known, _)| *known == key) {
            Some((_, count)) => {
                *count += 1;
                *count
            }
            None => {
                self.elements.push((key, 1));
                1
            }
        };
        Refusal::too_many(field.name, count, field.max_elements[usize::from(self.in_items > 0)])
    }
}

/// Skips `len` bytes, which must be UTF-8 and may span chunks.
fn check_text(wire: &mut impl Buf, len: usize) -> Result<(), Refusal> {
    let not_text = |_| Refusal::Malformed("a text is not UTF-8");
    if let Some(text) = wire.chunk().get(..len) {
        std::str::from_utf8(text).map_err(not_text)?;
        wire.advance(len);
        return Ok(());
    }
    let mut copy = [0; MAX_TEXT_BYTES];
    wire.copy_to_slice(&mut copy[..len]);
    std::str::from_utf8(&copy[..len]).map(drop).map_err(not_text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use ebb_proto::{BatchSetRequest, IncrementRequest, PipeRequest, SetRequest, pipe_request, set_request};

    fn measure(path: &str, wire: &[u8]) -> Result<u64, Refusal> {
        let request = SHAPES.request(path).expect("the contract has the method");
        let whole = request.decoded_bytes(&mut &wire[..]);
        for cut in [1, 3, wire.len() / 2] {
            let (first, rest) = wire.split_at(cut.min(wire.len()));
            assert_eq!(request.decoded_bytes(&mut first.chain(rest)), whole, "cut at {cut}");
        }
        whole
    }

    const BATCH_SET: &str = "/ebb.v1.CacheService/BatchSet";

    #[test]
    fn empty_elements_count_against_the_bound_of_their_field() {
        let cases = [
            (BATCH_SET, "items", 0x0a, 1_000),
            ("/ebb.v1.CacheService/BatchGet", "keys", 0x0a, 1_000),
            ("/ebb.v1.CacheService/BatchDelete", "keys", 0x0a, 1_000),
            ("/ebb.v1.CacheService/Set", "tags", 0x62, 1_000),
        ];
        let found = cases.map(|(path, _, key, max)| {
            let [fits, exceeds] = [max, max + 1].map(|count| measure(path, &[key, 0].repeat(count)));
            (path, fits.is_ok(), exceeds)
        });
        let refused = |field: &'static str, max: usize| Err(Refusal::TooMany { field, count: max + 1, max });
        assert_eq!(found, cases.map(|(path, field, _, max)| (path, true, refused(field, max))));
    }

    #[test]
    fn elements_of_items_are_counted_together() {
        let item = [&[0x0a, 20][..], &[0x62, 0].repeat(10)].concat();
        assert!(measure(BATCH_SET, &item.repeat(1_000)).is_ok());
        let large = [&[0x0a, 64][..], &[0x62, 0].repeat(32)].concat();
        let refused = measure(BATCH_SET, &large.repeat(1_000));
        assert_eq!(refused, Err(Refusal::TooMany { field: "tags", count: 16_001, max: 16_000 }));
        let piped = [&[0x1a, 0x80, 0x80, 0x04][..], &[0x62, 0].repeat(32 << 10)].concat();
        assert!(matches!(measure("/ebb.v1.CacheService/Pipe", &piped), Err(Refusal::TooMany { field: "tags", .. })));
    }

    #[test]
    fn the_measure_is_an_upper_bound_of_decoded_memory() {
        let item = SetRequest { key: Bytes::from_static(b"k"), tags: vec![String::new(); 16], ..Default::default() };
        let batch = BatchSetRequest { items: vec![item; 1_000], namespace: String::new() };
        let decoded = 1_000 * (size_of::<SetRequest>() + 16 * size_of::<String>()) as u64;
        let measured = measure(BATCH_SET, &batch.encode_to_vec()).unwrap();
        assert!((decoded..6 * decoded).contains(&measured), "{measured} for {decoded}");
    }

    #[test]
    fn a_message_passes_exactly_if_it_decodes() {
        let set = SetRequest {
            key: "key".into(),
            value: vec![7; 20].into(),
            namespace: "näm".into(),
            ttl_ms: 5,
            condition: Some(set_request::Condition::IfVersion(7)),
            tags: vec!["a".into(), "b".into()],
            ..SetRequest::default()
        };
        let increment = IncrementRequest { key: "n".into(), initial: Some(-4), ..Default::default() };
        let operation = |operation| PipeRequest { id: 300, operation: Some(operation) }.encode_to_vec();
        let seeds = [
            (BATCH_SET, BatchSetRequest { items: vec![set.clone(); 3], namespace: "x".into() }.encode_to_vec()),
            ("/ebb.v1.CacheService/Pipe", operation(pipe_request::Operation::Set(set))),
            ("/ebb.v1.CacheService/Pipe", operation(pipe_request::Operation::Increment(increment))),
        ];
        let mut random = 5_u64;
        let mut next = move |below: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) as usize % below
        };
        let mut both = [0; 2];
        for (path, seed) in seeds {
            for _ in 0..20_000 {
                let mut wire = seed.clone();
                for _ in 0..next(4) {
                    let at = next(wire.len());
                    wire[at] = next(256) as u8;
                }
                wire.truncate(wire.len() - next(3).min(wire.len()));
                let decodes = match path {
                    BATCH_SET => BatchSetRequest::decode(&wire[..]).is_ok(),
                    _ => PipeRequest::decode(&wire[..]).is_ok(),
                };
                let passes = measure(path, &wire);
                assert_eq!(passes.is_ok(), decodes, "{passes:?} {wire:?}");
                both[usize::from(decodes)] += 1;
            }
        }
        assert!(both[0] > 5_000 && both[1] > 5_000, "{both:?}");
    }

    #[test]
    fn every_served_method_has_a_shape() {
        let paths = [
            "/grpc.health.v1.Health/Check",
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            "/ebb.v1.AdminService/GetStats",
        ];
        let unknown: Vec<_> = paths.into_iter().filter(|path| SHAPES.request(path).is_none()).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }
}
