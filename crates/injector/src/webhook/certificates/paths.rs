//! The paths of reviews. Each ends with a secret that only the webhook's configuration and the injector have.
//!
//! The secret is defence in depth, not a border: the API server puts the URL of a failed call into its errors, and whoever
//! may read the configuration reads the path.

use std::fmt::{self, Write as _};

/// Where reviews go without a secret.
pub(super) const PLAIN: &str = "/inject";
/// Random bytes of a secret.
const BYTES: usize = 32;
/// Bounds of a secret that a user chooses.
const CHARACTERS: std::ops::RangeInclusive<usize> = 16..=128;

/// The secret part of a path.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// A random one.
    pub(super) fn random() -> Self {
        let mut bytes = [0; BYTES];
        let random = rustls::crypto::ring::default_provider().secure_random;
        random.fill(&mut bytes).expect("the system has random bytes");
        let mut text = String::with_capacity(2 * BYTES);
        for byte in bytes {
            let _ = write!(text, "{byte:02x}");
        }
        Self(text)
    }

    /// Reads one; `None` if it is too short or too long, or if the API server would refuse it in a path: it takes small
    /// letters, digits and, between them, `-`.
    pub(super) fn read(text: &str) -> Option<Self> {
        let is_plain = text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        let is_plain = is_plain && !text.starts_with('-') && !text.ends_with('-');
        (is_plain && CHARACTERS.contains(&text.len())).then(|| Self(text.to_owned()))
    }

    pub(super) fn text(&self) -> &str {
        &self.0
    }

    /// The path with it.
    pub(super) fn path(&self) -> String {
        format!("{PLAIN}/{}", self.0)
    }
}

/// The secrets of a rotation, which follow the CAs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Secrets {
    /// In the webhook's configuration.
    pub(super) current: Option<Secret>,
    /// Every replica knows it before it is published.
    pub(super) next: Option<Secret>,
    /// API servers may use it yet.
    pub(super) old: Option<Secret>,
}

impl Secrets {
    /// The paths that replicas accept.
    pub(super) fn paths(&self) -> Vec<String> {
        [&self.current, &self.next, &self.old].into_iter().flatten().map(Secret::path).collect()
    }
}

/// Whether the path is one of these. The time of the comparison does not depend on where they differ.
pub(super) fn is_among(path: &str, paths: &[String]) -> bool {
    let is_equal = |other: &String| {
        let bytes = path.bytes().zip(other.bytes());
        path.len() == other.len() && bytes.fold(0, |different, (one, two)| different | (one ^ two)) == 0
    };
    paths.iter().fold(false, |found, other| found | is_equal(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_long_random_and_not_shown() {
        let (one, two) = (Secret::random(), Secret::random());
        assert!(one != two && one.text().len() == 64, "{}", one.text());
        assert_eq!(Secret::read(one.text()).as_ref(), Some(&one));
        assert!(!format!("{one:?}").contains(one.text()));
        let refused = [
            "",
            "short",
            "fifteen-letters",
            "with/slash/and/more",
            "with space and more",
            "a%2Fbbbbbbbbbbbbbbb",
            "With-Capital-Letters",
            "with_an_underscore_",
            "-begins-with-a-dash",
        ];
        assert_eq!(refused.map(Secret::read), refused.map(|_| None));
        assert_eq!(Secret::read(&"x".repeat(129)), None);
    }

    #[test]
    fn only_whole_paths_are_accepted() {
        let paths = ["/inject/sixteen-letters1", "/inject/another-secret-2"].map(str::to_owned);
        assert!(paths.iter().all(|path| is_among(path, &paths)));
        let others = ["/inject", "/inject/", "/inject/sixteen-letters", "/inject/sixteen-letters12", "/", "", "/livez"];
        assert!(!others.iter().any(|path| is_among(path, &paths)));
    }
}
