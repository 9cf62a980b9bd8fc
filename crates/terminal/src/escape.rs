//! Escapes for texts of others: keys, namespaces, values and messages of servers.
//!
//! A terminal obeys control characters. Line breaks, characters without a width, and characters that change the
//! direction of text deceive a reader. Each of them is written as a JSON escape such as `\u001b`, so an escaped JSON
//! text keeps its meaning.

use std::borrow::Cow;

/// A text in one line: line breaks and tabs are escaped, too.
pub fn escaped(text: &str) -> Cow<'_, str> {
    replaced(text, is_unsafe)
}

/// A text of several lines, or JSON: keeps line breaks and tabs.
pub fn escaped_lines(text: &str) -> Cow<'_, str> {
    replaced(text, |c| is_unsafe(c) && c != '\n' && c != '\t')
}

/// A log line with colors: keeps the escape character, which the formatter of the line replaces in values.
pub fn escaped_colored(text: &str) -> Cow<'_, str> {
    replaced(text, |c| is_unsafe(c) && c != '\u{1b}')
}

/// A name in one line, without ambiguity: backslashes are escaped, too.
pub fn escaped_name(name: &str) -> Cow<'_, str> {
    replaced(name, |c| is_unsafe(c) || c == '\\')
}

/// A name that may not be UTF-8, without ambiguity: other bytes are `\xff`.
pub fn escaped_bytes(name: &[u8]) -> String {
    utf8_or_hex(name, escaped_name)
}

/// A value in lines: keeps line breaks and tabs, and writes bytes that are not UTF-8 as `\xff`.
pub fn escaped_value(value: &[u8]) -> String {
    utf8_or_hex(value, escaped_lines)
}

fn utf8_or_hex(bytes: &[u8], escape: fn(&str) -> Cow<'_, str>) -> String {
    let mut out = String::new();
    for chunk in bytes.utf8_chunks() {
        out += &escape(chunk.valid());
        chunk.invalid().iter().for_each(|byte| out += &format!("\\x{byte:02x}"));
    }
    out
}

/// Whether a terminal may obey the character, or a reader cannot see it: Unicode's categories Cc, Cf, Zl and Zp.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}' | '\u{8e2}'
            | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e007f}')
}

fn replaced(text: &str, is_replaced: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_replaced) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            c if !is_replaced(c) => out.push(c),
            '\\' => out += "\\\\",
            '\n' => out += "\\n",
            '\r' => out += "\\r",
            '\t' => out += "\\t",
            c => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out += &format!("\\u{unit:04x}")),
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_a_terminal_obeys_or_hides_is_escaped() {
        let cases = [
            ("a\u{1b}]0;title\u{7}b", "a\\u001b]0;title\\u0007b"),
            ("\u{9b}2J\u{7f}", "\\u009b2J\\u007f"),
            ("one\r\ntwo\tthree", "one\\r\\ntwo\\tthree"),
            ("\u{202e}gpj.\u{2066}\u{61c}\u{200f}", "\\u202egpj.\\u2066\\u061c\\u200f"),
            ("a\u{2028}b\u{2029}c\u{200b}d\u{feff}", "a\\u2028b\\u2029c\\u200bd\\ufeff"),
            ("\u{e0041}", "\\udb40\\udc41"),
            ("plain, café, 日本, 🌊, a\\b", "plain, café, 日本, 🌊, a\\b"),
        ];
        let found = cases.map(|(text, _)| (text, escaped(text).into_owned()));
        assert_eq!(found, cases.map(|(text, expected)| (text, expected.to_owned())));
        assert!(matches!(escaped("plain"), Cow::Borrowed(_)));
        assert_eq!(escaped_lines("a\n\tb\r\u{1b}"), "a\n\tb\\r\\u001b");
        assert_eq!(escaped_bytes(b"caf\xc3\xa9 \\n \xff\x1b"), "café \\\\n \\xff\\u001b");
        assert_eq!(escaped_value(b"a\\n\n\xff"), "a\\n\n\\xff");
        assert_eq!(escaped_colored("\u{1b}[1mINFO\u{202e}\n"), "\u{1b}[1mINFO\\u202e\\n");
    }

    proptest! {
        #[test]
        fn escaped_texts_hold_nothing_unsafe(text in any::<String>(), mixed in "[a\\\\\\x00-\\x1f\\x7f-\\x9f\\u{2000}-\\u{206f}]*") {
            for text in [text, mixed] {
                prop_assert!(!escaped(&text).contains(is_unsafe));
                prop_assert!(!escaped_name(&text).contains(is_unsafe));
                prop_assert!(!escaped_lines(&text).replace(['\n', '\t'], "").contains(is_unsafe));
                // A name is escaped without ambiguity: JSON reads it back.
                let json = format!("\"{}\"", escaped_name(&text).replace('"', "\\\""));
                prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text.clone());
                let json = serde_json::to_string(&text).unwrap();
                prop_assert_eq!(serde_json::from_str::<String>(&escaped_lines(&json)).unwrap(), text);
            }
        }

        #[test]
        fn escaped_bytes_hold_nothing_unsafe(bytes in any::<Vec<u8>>()) {
            prop_assert!(!escaped_bytes(&bytes).contains(is_unsafe));
            prop_assert!(!escaped_value(&bytes).replace(['\n', '\t'], "").contains(is_unsafe));
        }
    }
}
