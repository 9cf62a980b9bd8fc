//! Sizes, shares and spans as people write them. Each parses what Kubernetes and people write, prints the shortest exact
//! form, and refuses with a sentence. And the words for one thing and for several.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// An amount of memory: `64Mi`, `256MiB`, `1G`, `1048576`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// A share: `85`, `85%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(pub u8);

/// A length of time, to the millisecond: `250ms`, `5s`, `15m`, `2h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub u64);

const SIZES: [(&str, u64); 12] = [
    ("Ti", 1 << 40),
    ("Gi", 1 << 30),
    ("Mi", 1 << 20),
    ("Ki", 1 << 10),
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("T", 1_000_000_000_000),
    ("G", 1_000_000_000),
    ("M", 1_000_000),
    ("k", 1_000),
];

const SPANS: [(&str, u64); 4] = [("ms", 1), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];

impl Span {
    /// As the standard library's.
    pub fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

fn parse(text: &str, units: &[(&str, u64)], plain: Option<u64>) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..end].parse().ok()?;
    let unit = text[end..].trim();
    let factor = match unit {
        "" => plain?,
        unit => units.iter().find(|(name, _)| *name == unit)?.1,
    };
    number.checked_mul(factor)
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let size = parse(text, &SIZES, Some(1));
        size.map(Self).ok_or_else(|| format!("{text:?} is not a size; write it like 64Mi, 1Gi, 512k or 1048576"))
    }
}

impl FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.trim().strip_suffix('%').unwrap_or(text).trim().parse().ok();
        number.filter(|n| *n <= 100).map(Self).ok_or_else(|| format!("{text:?} is not a share; it must be 0 to 100"))
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let zero = if text.trim() == "0" { Some(1) } else { None };
        let span = parse(text, &SPANS, zero);
        span.map(Self).ok_or_else(|| format!("{text:?} is not a length of time; write it like 250ms, 5s, 15m or 2h"))
    }
}

/// The words for so many: those for one thing, or those for several and for none.
pub(crate) fn one_or_many<'a>(n: u64, one: &'a str, many: &'a str) -> &'a str {
    if n == 1 { one } else { many }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match SIZES[..4].iter().find(|(_, factor)| self.0 != 0 && self.0.is_multiple_of(*factor)) {
            Some((unit, factor)) => write!(f, "{}{unit}", self.0 / factor),
            None => write!(f, "{}", self.0),
        }
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = SPANS[1..].iter().find(|(_, factor)| self.0 != 0 && self.0.is_multiple_of(*factor));
        match exact {
            Some((unit, factor)) => write!(f, "{}{unit}", self.0 / factor),
            None => write!(f, "{}ms", self.0),
        }
    }
}

/// Serde as text, with whole numbers accepted too, and a schema that says what is written.
macro_rules! as_text {
    ($type:ident, $pattern:literal, $examples:literal) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl de::Visitor<'_> for Text {
                    type Value = $type;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($examples)
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }
                    fn visit_u64<E: de::Error>(self, number: u64) -> Result<$type, E> {
                        number.to_string().parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_any(Text)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": ["string", "integer"], "pattern": $pattern, "minimum": 0 })
            }
        }
    };
}

as_text!(ByteSize, "^[0-9]+ *([KMGT]iB?|[kMGT])?$", "a size like 64Mi");
as_text!(Percent, "^[0-9]{1,3} *%?$", "a share like 85 or 85%");
as_text!(Span, "^[0-9]+ *(ms|s|m|h)$|^0$", "a length of time like 250ms or 5s");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_and_kubernetes_write_is_understood() {
        for (text, bytes) in
            [("64Mi", 64 << 20), ("256MiB", 256 << 20), ("1G", 1_000_000_000), ("7", 7), ("1 Gi", 1 << 30)]
        {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        assert_eq!(("85%".parse(), "85".parse()), (Ok(Percent(85)), Ok(Percent(85))));
        assert_eq!(("250ms".parse(), "2h".parse(), "0".parse()), (Ok(Span(250)), Ok(Span(7_200_000)), Ok(Span(0))));
    }

    #[test]
    fn what_is_printed_is_exact_and_reads_back() {
        for bytes in [0, 1, 1023, 1024, 5 << 20, (5 << 20) + 1, 3 << 40] {
            assert_eq!(ByteSize(bytes).to_string().parse(), Ok(ByteSize(bytes)));
        }
        for ms in [0, 1, 999, 1000, 90_000, 3_600_000] {
            assert_eq!(Span(ms).to_string().parse(), Ok(Span(ms)));
        }
        assert_eq!(ByteSize(64 << 20).to_string(), "64Mi");
    }

    #[test]
    fn wrong_units_are_refused_with_the_value_and_what_would_do() {
        for text in ["64 MB!", "", "Mi", "-1", "1.5Gi", "99999999999Ti", "64mi"] {
            let error = text.parse::<ByteSize>().unwrap_err();
            assert!(error.contains(&format!("{text:?}")) && error.contains("64Mi"), "{error}");
        }
        assert!("101".parse::<Percent>().unwrap_err().contains("0 to 100"));
        assert!("5".parse::<Span>().is_err(), "a length of time needs a unit");
    }
}
