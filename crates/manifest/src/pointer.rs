//! JSON pointers (RFC 6901), without the copies of keys that `Value::pointer` makes.

use serde_json::Value;
use std::borrow::Cow;

/// Escapes a key.
pub fn escaped(key: &str) -> Cow<'_, str> {
    match key.contains(['~', '/']) {
        true => key.replace('~', "~0").replace('/', "~1").into(),
        false => key.into(),
    }
}

/// A key of a pointer as it is in an object.
pub fn unescaped(key: &str) -> Cow<'_, str> {
    match key.contains('~') {
        true => key.replace("~1", "/").replace("~0", "~").into(),
        false => key.into(),
    }
}

/// The keys of a pointer.
pub(crate) fn keys(pointer: &str) -> impl Iterator<Item = Cow<'_, str>> {
    pointer.split('/').skip(1).map(unescaped)
}

/// Parent and last key.
pub fn split(pointer: &str) -> Option<(&str, Cow<'_, str>)> {
    let (parent, last) = pointer.rsplit_once('/')?;
    Some((parent, unescaped(last)))
}

/// The value at a pointer.
pub fn get<'a>(value: &'a Value, pointer: &str) -> Option<&'a Value> {
    keys(pointer).try_fold(value, |at, key| match at {
        Value::Object(fields) => fields.get(key.as_ref()),
        Value::Array(values) => values.get(key.parse::<usize>().ok()?),
        _ => None,
    })
}

/// The value at a pointer, to change it.
pub fn get_mut<'a>(value: &'a mut Value, pointer: &str) -> Option<&'a mut Value> {
    keys(pointer).try_fold(value, |at, key| match at {
        Value::Object(fields) => fields.get_mut(key.as_ref()),
        Value::Array(values) => values.get_mut(key.parse::<usize>().ok()?),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn finds_what_the_library_finds() {
        let mut value = json!({"a/b": [{"c~d": 1}], "e": {"": null}, "0": 2});
        for pointer in ["", "/a~1b", "/a~1b/0/c~0d", "/a~1b/1", "/a~1b/x", "/e/", "/0", "/e/x/y", "/a~1b/-"] {
            assert_eq!(get(&value, pointer), value.pointer(pointer), "{pointer}");
            let found = value.pointer(pointer).cloned();
            assert_eq!(get_mut(&mut value, pointer).cloned(), found, "{pointer}");
        }
        assert_eq!(split("/x/a~1b"), Some(("/x", "a/b".into())));
        assert_eq!(unescaped(&escaped("a~1/b")), "a~1/b");
    }
}
