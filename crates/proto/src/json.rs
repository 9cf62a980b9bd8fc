//! The JSON mapping of protobuf: 64-bit numbers are strings, because many JSON parsers store numbers in doubles; bytes
//! that are not text are base64.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Serialize, Serializer};
use serde_json::Value;
use std::fmt::Display;

/// A 64-bit number as a JSON string.
pub fn number(n: impl Display) -> Value {
    n.to_string().into()
}

/// Serializes a 64-bit number.
pub(crate) fn serialize_number<S: Serializer>(n: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(n)
}

/// Serializes a list of 64-bit numbers.
pub(crate) fn serialize_numbers<S: Serializer>(list: &[u64], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(list.iter().map(u64::to_string))
}

/// Serializes a 64-bit number that may be absent.
pub(crate) fn serialize_perhaps<S: Serializer>(n: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
    match n {
        Some(n) => serializer.collect_str(n),
        None => serializer.serialize_none(),
    }
}

/// A message as JSON, with every field.
pub fn of(message: &impl Serialize) -> Value {
    serde_json::to_value(message).expect("every message has a JSON form")
}

/// Adds bytes to an object: as `name` if they are UTF-8, else as `name_base64`.
pub fn put_bytes(object: &mut Value, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object[name] = text.into(),
        Err(_) => object[format!("{name}_base64")] = BASE64_STANDARD.encode(bytes).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn bytes_are_text_or_base64_and_numbers_are_exact() {
        let mut object = json!({ "version": number(u64::MAX), "by": number(i64::MIN) });
        put_bytes(&mut object, "key", "caf\u{e9}".as_bytes());
        put_bytes(&mut object, "value", b"\xff\x00a");
        let (version, by) = ("18446744073709551615", "-9223372036854775808");
        assert_eq!(object, json!({ "version": version, "by": by, "key": "caf\u{e9}", "value_base64": "/wBh" }));
    }

    #[test]
    fn messages_have_all_fields_under_their_names_in_the_contract() {
        let receipt = crate::Receipt { id: u64::MAX, started_at_ms: -1, reason: "drift".into(), ..Default::default() };
        let json = of(&receipt);
        assert_eq!((&json["id"], &json["started_at_ms"]), (&json!("18446744073709551615"), &json!("-1")));
        assert_eq!((&json["reason"], &json["steps"], &json["before"]), (&json!("drift"), &json!("0"), &Value::Null));
        let map = crate::GetMemoryMapResponse { occupancy: vec![1, 2], ..Default::default() };
        assert_eq!(of(&map)["occupancy"], json!(["1", "2"]));
        let info = crate::NamespaceInfo { hits: Some(3), ..Default::default() };
        assert_eq!((&of(&info)["hits"], &of(&info)["sets"]), (&json!("3"), &Value::Null));
    }
}
