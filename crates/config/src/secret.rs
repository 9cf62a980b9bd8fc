//! URLs that may hold credentials. They are shown without them, from the parser on.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderValue, Uri};
use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;

/// Replaces a secret.
const HIDDEN: &str = "***";

/// An `http://` URL that may hold credentials in its user information or query. `Display`, `Debug` and `Serialize`
/// hide them; [`Self::expose`] is the way to connect.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SecretUrl(String);

/// A URL with its credentials, for the code that connects.
#[derive(Clone, Debug)]
pub struct Exposed {
    /// Scheme, host and port.
    pub uri: Uri,
    /// Value of the header `authorization`, if the URL has user information. It is marked as sensitive.
    pub authorization: Option<HeaderValue>,
}

impl SecretUrl {
    /// Whether no URL is set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Where to connect and with which credentials; `None` if the text is not an `http://` URL.
    pub fn expose(&self) -> Option<Exposed> {
        let uri: Uri = self.0.parse().ok()?;
        let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http"))?.as_str();
        let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
        let port = host.rsplit_once(':').map(|(_, port)| port).filter(|port| !port.contains(']'));
        if port.is_some_and(|port| !port.parse::<u16>().is_ok_and(|port| port > 0)) {
            return None;
        }
        let authorization = match user.filter(|user| !user.is_empty()) {
            None => None,
            Some(user) => Some(basic(user)?),
        };
        Some(Exposed { uri: format!("http://{host}").parse().ok()?, authorization })
    }
}

/// The header value of basic authentication (RFC 7617).
fn basic(user: &str) -> Option<HeaderValue> {
    let mut bytes = unescaped(user)?;
    if !user.contains(':') {
        bytes.push(b':');
    }
    let mut value = HeaderValue::try_from(format!("Basic {}", BASE64_STANDARD.encode(bytes))).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Replaces `%41` by its byte.
fn unescaped(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                (digit()? * 16 + digit()?) as u8
            }
            byte => byte,
        });
    }
    Some(bytes)
}

impl From<&str> for SecretUrl {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.split_once("://") {
            Some((scheme, rest)) if scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
                write!(f, "{scheme}://{}", without_credentials(rest))
            }
            _ if self.0.is_empty() => Ok(()),
            _ => f.write_str(HIDDEN),
        }
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

impl Serialize for SecretUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SecretUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = SecretUrl;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a URL")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<SecretUrl, E> {
                Ok(text.into())
            }
        }
        // serde's own message would quote a value of another type.
        deserializer.deserialize_str(Text).map_err(|_| D::Error::custom("the value is not a URL"))
    }
}

/// What follows `://`, without user information, query and fragment. A raw `/` or `?` in a password belongs to it.
fn without_credentials(rest: &str) -> String {
    let (mark, rest) = rest.rsplit_once('@').map_or(("", rest), |(_, rest)| ("***@", rest));
    match rest.find(['?', '#']) {
        Some(at) => format!("{mark}{}{}{HIDDEN}", &rest[..at], &rest[at..=at]),
        None => format!("{mark}{rest}"),
    }
}

/// A text in which no URL has credentials: a URL may stand where none belongs, and errors and logs quote it.
pub fn redacted(text: &str) -> Cow<'_, str> {
    if !text.contains("://") {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        let is_end = |c: char| c.is_whitespace() || c.is_control() || "\"'`<>".contains(c);
        let (url, behind) = after.split_at(after.find(is_end).unwrap_or(after.len()));
        out += &format!("{before}://{}", without_credentials(url));
        rest = behind;
    }
    Cow::Owned(out + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "s3cr3t";

    #[test]
    fn no_form_of_a_url_shows_its_credentials() {
        let shown = [
            ("http://user:s3cr3t@host:4317/", "http://***@host:4317/"),
            ("http://s3cr3t@host:4317", "http://***@host:4317"),
            ("http://user:s3cr3t@[::1]:4317/v1", "http://***@[::1]:4317/v1"),
            ("http://user:a@b/s3cr3t@host", "http://***@host"),
            ("http://host:4317/v1?token=s3cr3t", "http://host:4317/v1?***"),
            ("http://host/#s3cr3t", "http://host/#***"),
            ("https://user:s3cr3t@host?s3cr3t", "https://***@host?***"),
            ("user:s3cr3t@host", "***"),
            ("s3cr3t", "***"),
            ("http://localhost:4317", "http://localhost:4317"),
            ("", ""),
        ];
        let found = shown.map(|(text, _)| (text, SecretUrl::from(text).to_string()));
        assert_eq!(found, shown.map(|(text, expected)| (text, expected.to_owned())));
        let leaks = shown.map(|(text, _)| {
            let url = SecretUrl::from(text);
            format!("{url:?} {:?} {}", url.expose(), serde_json::to_value(&url).unwrap()).contains(SECRET)
        });
        assert_eq!(leaks, [false; 11]);
        let list = serde_json::from_value::<SecretUrl>(serde_json::json!([SECRET])).unwrap_err();
        assert_eq!(list.to_string(), "the value is not a URL");
    }

    #[test]
    fn texts_that_quote_urls_lose_their_credentials() {
        let cases = [
            ("listen: \"http://user:s3cr3t@host\" is not an address", "listen: \"http://***@host\" is not an address"),
            ("a://b?s3cr3t, c://d:s3cr3t@e f", "a://b?*** c://***@e f"),
            ("repo/image:1@sha256:12 of http://docs.example/", "repo/image:1@sha256:12 of http://docs.example/"),
        ];
        let found = cases.map(|(text, _)| (text, redacted(text).into_owned()));
        assert_eq!(found, cases.map(|(text, expected)| (text, expected.to_owned())));
    }

    #[test]
    fn credentials_become_basic_authentication() {
        let header = |text: &str| SecretUrl::from(text).expose().map(|url| (url.uri.to_string(), url.authorization));
        let basic = |text: &str| Some(HeaderValue::try_from(text).unwrap());
        let uri = || "http://host:4317/".to_owned();
        assert_eq!(header("http://user:p%40ss@host:4317/v1?a=b"), Some((uri(), basic("Basic dXNlcjpwQHNz"))));
        assert_eq!(header("http://user@host:4317"), Some((uri(), basic("Basic dXNlcjo="))));
        assert_eq!(header("http://host:4317"), Some((uri(), None)));
        let wrong = ["host:4317", "https://host", "http://", "http://u:p@host:0", "http://u:p@host:x", "http://u%4@h"];
        assert_eq!(wrong.map(|text| header(text).is_none()), [true; 6]);
    }
}
