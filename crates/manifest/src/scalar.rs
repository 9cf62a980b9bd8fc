//! Scalars as `kubectl` reads them: YAML 1.1, in the form of the Go library that it uses.
//!
//! S1. A scalar in quotes or in a block is text. A plain one is a word or a number if it looks like one.
//! S2. `yes`, `on` and `y` are booleans in three spellings (`yes`, `Yes`, `YES`), and text in any other.
//! S3. `0644` and `0o644` are octal, and `_` in a number counts for nothing. `08` is no octal number, so it is 8.
//! S4. A number with a fraction of zero is an integer, as JSON prints it there.

use base64::Engine as _;
use granit_parser::Tag;
use serde_json::{Number, Value};
use std::borrow::Cow;

/// The content of a scalar.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Scalar<'a> {
    Null,
    Bool(bool),
    Number(Number),
    Text(Cow<'a, str>),
}

/// The names of YAML's own tags start with this.
const OWN_TAGS: &str = "tag:yaml.org,2002:";

impl<'a> Scalar<'a> {
    /// The content of a scalar with this text.
    ///
    /// # Errors
    /// The text does not fit its tag, or JSON has no such number.
    pub(crate) fn read(text: Cow<'a, str>, is_plain: bool, tag: Option<&Tag>) -> Result<Self, String> {
        let Some(tag) = tag else {
            return if is_plain { Self::plain(text) } else { Ok(Self::Text(text)) };
        };
        let Some(name) = tag.suffix_in_namespace(OWN_TAGS) else { return Ok(Self::Text(text)) };
        let misfit = |text: &str| format!("{text:?} is not of the type of its tag !!{name}");
        let read = match name.as_ref() {
            "null" | "bool" | "int" | "float" => Self::plain(text.clone())?,
            "binary" => {
                let digits: String = text.split_whitespace().collect();
                let bytes = base64::prelude::BASE64_STANDARD.decode(digits).ok();
                let decoded = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
                return decoded.map(|text| Self::Text(text.into())).ok_or_else(|| misfit(&text));
            }
            _ => return Ok(Self::Text(text)),
        };
        match (name.as_ref(), &read) {
            ("null", Self::Null) | ("bool", Self::Bool(_)) | ("float", Self::Number(_)) => Ok(read),
            ("int", Self::Number(number)) if !number.is_f64() && !text.contains('.') => Ok(read),
            _ => Err(misfit(&text)),
        }
    }

    fn plain(text: Cow<'a, str>) -> Result<Self, String> {
        let scalar = match text.as_ref() {
            "" | "~" | "null" | "Null" | "NULL" => Self::Null,
            "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Self::Bool(true),
            "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Self::Bool(false),
            ".nan" | ".NaN" | ".NAN" | ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" | "-.inf" | "-.Inf"
            | "-.INF" => return Err(format!("JSON has no number {text}")),
            _ => match number(&text) {
                Some(number) => Self::Number(number),
                None => Self::Text(text),
            },
        };
        Ok(scalar)
    }

    /// The key of a JSON object for a scalar.
    ///
    /// # Errors
    /// A null, or a number that is no key there.
    pub(crate) fn into_key(self) -> Result<Cow<'a, str>, String> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Bool(is_true) => Ok(if is_true { "true" } else { "false" }.into()),
            Self::Number(number) => match (number.as_i64(), number.as_f64().filter(|_| number.is_f64())) {
                (Some(number), _) => Ok(number.to_string().into()),
                (None, Some(number)) => Ok(key_of(number).into()),
                (None, None) => Err(format!("the number {number} cannot be a key; put it in quotes")),
            },
            Self::Null => Err("null cannot be a key; put it in quotes".to_owned()),
        }
    }

    /// The same without borrowing from a text.
    pub(crate) fn into_owned<'b>(self) -> Scalar<'b> {
        match self {
            Self::Null => Scalar::Null,
            Self::Bool(is_true) => Scalar::Bool(is_true),
            Self::Number(number) => Scalar::Number(number),
            Self::Text(text) => Scalar::Text(text.into_owned().into()),
        }
    }

    pub(crate) fn to_value(&self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(is_true) => Value::Bool(*is_true),
            Self::Number(number) => Value::Number(number.clone()),
            Self::Text(text) => Value::String(text.as_ref().to_owned()),
        }
    }

    /// Length of the text.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            _ => 0,
        }
    }

    pub(crate) fn is(&self, expected: &Value) -> bool {
        match (self, expected) {
            (Self::Null, Value::Null) => true,
            (Self::Bool(a), Value::Bool(b)) => a == b,
            (Self::Number(a), Value::Number(b)) => a == b,
            (Self::Text(a), Value::String(b)) => a == b,
            _ => false,
        }
    }
}

/// The number that a plain scalar is; `None` if it is text.
fn number(text: &str) -> Option<Number> {
    let first = text.as_bytes().first()?;
    if *first == b'.' {
        return fraction(text);
    }
    if !first.is_ascii_digit() && !b"+-".contains(first) {
        return None;
    }
    let plain: Cow<'_, str> = if text.contains('_') { text.replace('_', "").into() } else { text.into() };
    integer(&plain).or_else(|| fraction(&plain))
}

/// An integer of 64 bits with an optional prefix for its base.
fn integer(text: &str) -> Option<Number> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (base, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    // The parser of numbers takes a second sign.
    if !digits.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    let size = u64::from_str_radix(digits, base).ok()?;
    match text.as_bytes()[0] {
        b'-' => 0_i64.checked_sub_unsigned(size).map(Number::from),
        b'+' => i64::try_from(size).ok().map(Number::from),
        _ => Some(size.into()),
    }
}

/// A number in decimal digits, perhaps with a fraction and an exponent.
fn fraction(text: &str) -> Option<Number> {
    let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte));
    let number: f64 = text.parse().ok().filter(|number: &f64| is_decimal && number.is_finite())?;
    if number == 0.0 && number.is_sign_negative() {
        return Number::from_f64(number);
    }
    // These are the shortest digits of the number, and of a large one not its exact value.
    let digits = number.to_string();
    let whole = digits.parse::<u64>().map(Number::from).or_else(|_| digits.parse::<i64>().map(Number::from));
    whole.ok().or_else(|| Number::from_f64(number))
}

/// A number with a fraction as a key: the shortest digits of 32 bits, with an exponent below 1e-4 and from 1e6 on.
fn key_of(number: f64) -> String {
    #[expect(clippy::cast_possible_truncation, reason = "kubectl rounds, too")]
    let number = number as f32;
    let text = format!("{number:e}");
    let (digits, exponent) = text.split_once('e').expect("the format has an exponent");
    let exponent: i32 = exponent.parse().expect("the format has an exponent");
    match (-4..6).contains(&exponent) {
        true => number.to_string(),
        false => format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn plain(text: &str) -> Result<Value, String> {
        Scalar::read(text.into(), true, None).map(|scalar| scalar.to_value())
    }

    #[test]
    fn words_and_numbers_are_those_of_kubectl() {
        let rows = [
            ("yes", json!(true)),
            ("y", json!(true)),
            ("Off", json!(false)),
            ("yEs", json!("yEs")),
            ("tRUE", json!("tRUE")),
            ("~", json!(null)),
            ("nULL", json!("nULL")),
            ("0644", json!(420)),
            ("-0x10", json!(-16)),
            ("0b11", json!(3)),
            ("08", json!(8)),
            ("0_7", json!(7)),
            ("1__0", json!(10)),
            ("+5", json!(5)),
            ("--5", json!("--5")),
            ("0x", json!("0x")),
            ("0x+5", json!("0x+5")),
            ("1.0", json!(1)),
            ("1e3", json!(1000)),
            (".5", json!(0.5)),
            (".5_0", json!(".5_0")),
            ("1_0.5", json!(10.5)),
            ("5.", json!(5)),
            (".", json!(".")),
            ("-", json!("-")),
            ("1e999", json!("1e999")),
            ("+inf", json!("+inf")),
            ("1:30", json!("1:30")),
            ("2001-01-01", json!("2001-01-01")),
            ("-9223372036854775808", json!(i64::MIN)),
            ("18446744073709551615", json!(u64::MAX)),
            ("1152921504606846976.0", json!(1_152_921_504_606_847_000_u64)),
            ("-0.0", json!(-0.0)),
            ("123456789012345678901234567890", json!(1.2345678901234568e29)),
        ];
        let found = rows.clone().map(|(text, _)| (text, plain(text)));
        assert_eq!(found, rows.map(|(text, value)| (text, Ok(value))));
        assert_eq!(plain("-.inf"), Err("JSON has no number -.inf".to_owned()));
    }

    #[test]
    fn keys_are_those_of_kubectl() {
        let rows = [
            ("1", "1"),
            ("yes", "true"),
            ("off", "false"),
            ("010", "8"),
            ("0x10", "16"),
            ("1.5", "1.5"),
            ("1.10", "1.1"),
            ("1e3", "1000"),
            ("1_000", "1000"),
            ("1e21", "1e+21"),
            ("1000000.5", "1.0000005e+06"),
            ("0.00001", "1e-05"),
            ("-0", "0"),
            ("2001-01-01", "2001-01-01"),
        ];
        let key = |text: &'static str| Scalar::read(text.into(), true, None).and_then(Scalar::into_key);
        assert_eq!(rows.map(|(text, _)| key(text)), rows.map(|(_, key)| Ok(key.into())));
        let wrong = ["~", "18446744073709551615"].map(|text| key(text).is_err());
        assert_eq!(wrong, [true, true]);
    }
}
