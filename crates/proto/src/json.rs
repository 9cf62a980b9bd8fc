//! JSON as protobuf maps it: 64-bit numbers are strings, since many readers of JSON hold numbers in doubles; bytes that
//! are not text are base64.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use std::fmt::Display;

/// A 64-bit number.
pub fn number(n: impl Display) -> Value {
    n.to_string().into()
}

/// Adds bytes to an object: as `name` where they are UTF-8, else as `name_base64`.
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
}
