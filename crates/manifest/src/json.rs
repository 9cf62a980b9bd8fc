//! JSON objects in a row, as `kubectl` reads them.

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::fmt;
use std::ops::Range;

/// What a text is.
#[derive(Debug)]
pub(crate) enum Json<'a> {
    /// JSON objects: the text of each with what follows it up to the next, and its value.
    Objects(Vec<(&'a str, Value)>),
    /// No object, or YAML that starts like one.
    Not,
    /// Objects, and then something else.
    Wrong { document: usize, line: usize, problem: String },
}

/// Reads JSON objects. Comments may stand between them, as in YAML.
pub(crate) fn read(text: &str) -> Json<'_> {
    let content = text.trim_start_matches('\u{feff}');
    if !content.trim_start().starts_with('{') {
        return Json::Not;
    }
    let mut found: Vec<(usize, Value)> = Vec::new();
    let mut at = text.len() - content.len();
    loop {
        at = skip(text, at);
        if at == text.len() {
            break;
        }
        let mut stream = serde_json::Deserializer::from_str(&text[at..]).into_iter::<Unique>();
        match stream.next().expect("it is not at the end") {
            Ok(Unique(value)) => {
                at += stream.byte_offset();
                found.push((at, value));
            }
            Err(error) if found.is_empty() && !is_duplicate(&error) => return Json::Not,
            Err(error) => {
                let line = text[..at].matches('\n').count() + error.line();
                let problem = error.to_string().split(" at line ").next().unwrap_or_default().to_owned();
                return Json::Wrong { document: found.len() + 1, line, problem };
            }
        }
    }
    let (ends, values): (Vec<_>, Vec<_>) = found.into_iter().unzip();
    Json::Objects(ranges(text, &ends).map(|range| &text[range]).zip(values).collect())
}

/// The ranges of JSON objects with what stands before each, without reading them; `None` if one of them is not JSON.
pub(crate) fn objects(text: &str) -> Option<Vec<Range<usize>>> {
    let (mut ends, mut at) = (Vec::new(), text.len() - text.trim_start_matches('\u{feff}').len());
    loop {
        at = skip(text, at);
        if at == text.len() {
            return Some(ranges(text, &ends).collect());
        }
        let mut stream = serde_json::Deserializer::from_str(&text[at..]).into_iter::<&RawValue>();
        stream.next()?.ok()?;
        at += stream.byte_offset();
        ends.push(at);
    }
}

/// The ranges of objects that end there. What follows the last one belongs to it.
fn ranges(text: &str, ends: &[usize]) -> impl Iterator<Item = Range<usize>> {
    let starts = std::iter::once(0).chain(ends.iter().copied());
    let is_last = |at: usize| at + 1 == ends.len();
    starts.zip(ends).enumerate().map(move |(at, (start, end))| start..if is_last(at) { text.len() } else { *end })
}

/// Where the next object starts, after spaces and lines of comments.
fn skip(text: &str, mut at: usize) -> usize {
    loop {
        let rest = &text[at..];
        let trimmed = rest.trim_start_matches([' ', '\t', '\r', '\n']);
        at = text.len() - trimmed.len();
        if !trimmed.starts_with('#') {
            return at;
        }
        at += trimmed.find('\n').unwrap_or(trimmed.len());
    }
}

const DUPLICATE: &str = "duplicate key ";

fn is_duplicate(error: &serde_json::Error) -> bool {
    error.is_data() && error.to_string().starts_with(DUPLICATE)
}

/// A value without keys that stand twice in one object: readers differ in which of them counts.
struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Seed.deserialize(deserializer).map(Self)
    }
}

struct Seed;

impl<'de> DeserializeSeed<'de> for Seed {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = items.next_element_seed(Seed)? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if fields.contains_key(&key) {
                return Err(A::Error::custom(format_args!("{DUPLICATE}`{key}`")));
            }
            fields.insert(key, entries.next_value_seed(Seed)?);
        }
        Ok(fields.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn objects_are_read_in_a_row() {
        let parts = |text| match read(text) {
            Json::Objects(objects) => objects.into_iter().map(|(text, value)| (text.to_owned(), value)).collect(),
            _ => Vec::new(),
        };
        let text = "{\"a\": 1}\n# b {\n{\"b\": 2}{\"c\": [null, true, -1, 1.5, \"x\"]} # end";
        let found: Vec<(String, Value)> = parts(text);
        let expected = [
            ("{\"a\": 1}", json!({"a": 1})),
            ("\n# b {\n{\"b\": 2}", json!({"b": 2})),
            ("{\"c\": [null, true, -1, 1.5, \"x\"]} # end", json!({"c": [null, true, -1, 1.5, "x"]})),
        ];
        assert_eq!(found, expected.map(|(text, value)| (text.to_owned(), value)));
        // kubectl prints the digits of such a number, and the API server rounds it.
        assert_eq!(parts("{\"a\": 123456789012345678901234567890}")[0].1, json!({"a": 1.2345678901234568e29}));
    }

    #[test]
    fn a_key_that_stands_twice_is_refused() {
        for (text, place) in [("{\"a\": 1,\n \"a\": 2}", (1, 2)), ("{\"b\": 1}\n[{\"a\": 1, \"a\": 1}]", (2, 2))] {
            let Json::Wrong { document, line, problem } = read(text) else { panic!("{text} is accepted") };
            assert_eq!(((document, line), problem.as_str()), (place, "duplicate key `a`"));
        }
    }
}
