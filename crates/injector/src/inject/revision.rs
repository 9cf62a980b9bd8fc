//! Revisions: injectors side by side in a cluster, and the version of Ebb that each gives to pods.
//!
//! The label [`REVISION`] of a pod chooses the revision, then that of its namespace. The selectors of the chart's webhooks
//! and the chart's policy implement the same.

use super::Context;
use super::pod::list;
use super::template::Template;
use serde_json::Value;

/// The label of pods and namespaces that chooses a revision, and of pods and objects of one.
pub const REVISION: &str = "ebb-cache.io/rev";
/// The revision for pods and namespaces without the label.
pub const DEFAULT_REVISION: &str = "default";

/// Maximum length of a label, and so of a revision's name.
const LABEL_LENGTH: usize = 63;
/// Maximum length of a tag.
const TAG_LENGTH: usize = 128;
/// Number of digits of a digest in a version.
const DIGITS: usize = 12;

/// The revision that a label names; without a text it is the default one.
pub fn revision_of(label: Option<&str>) -> &str {
    label.filter(|text| !text.is_empty()).unwrap_or(DEFAULT_REVISION)
}

/// Whether a text can be the name of a revision: a DNS label.
pub fn is_revision(text: &str) -> bool {
    text.len() <= LABEL_LENGTH && !text.contains('.') && super::is_object_name(text)
}

/// The other revision that the pod belongs to, if it belongs to another one than the template. Without a label a pod
/// belongs to the default revision, if labels are needed.
pub(super) fn other<'a>(pod: &'a Value, context: &'a Context<'_>, template: &Template) -> Option<&'a str> {
    let inherited = || context.namespace.labels.get(REVISION).map(String::as_str);
    let label = pod["metadata"]["labels"][REVISION].as_str().or_else(inherited);
    let is_named = label.is_some() || context.needs_label;
    Some(revision_of(label)).filter(|named| is_named && *named != template.revision())
}

/// Ebb's version in the pod: the template's, or that of the image that an annotation or the declared container chooses.
pub(super) fn version(pod: &Value, container: &Value, template: &Template) -> String {
    let declared = list(&pod["spec"]["initContainers"]).find(|container| container["name"] == "ebb");
    let declared = declared.and_then(|container| container["image"].as_str()).filter(|image| !image.is_empty());
    let image = declared.or(container["image"].as_str()).unwrap_or_default();
    if image == template.image() { template.version.clone() } else { version_of(image) }
}

/// The version that an image names: its tag, or the begin of its digest.
pub(super) fn version_of(image: &str) -> String {
    let (name, digest) = image.split_once('@').unwrap_or((image, ""));
    let tag = name.rsplit_once(':').map(|(_, tag)| tag).filter(|tag| !tag.contains('/')).unwrap_or_default();
    let is_first = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let tag = tag.trim_start_matches(|c| !is_first(c)).split(|c| !is_first(c) && c != '.' && c != '-').next();
    let tag: String = tag.unwrap_or_default().chars().take(TAG_LENGTH).collect();
    match tag.is_empty() {
        false => tag,
        true => short(digest).unwrap_or_else(|| "latest".to_owned()),
    }
}

/// `sha256-` and the first digits of a digest.
fn short(digest: &str) -> Option<String> {
    let (algorithm, digits) = digest.split_once(':')?;
    let digits = digits.get(..DIGITS)?;
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let is_word = |byte: u8| byte.is_ascii_digit() || byte.is_ascii_lowercase();
    let fits = !algorithm.is_empty() && algorithm.bytes().all(is_word) && digits.bytes().all(is_hex);
    fits.then(|| format!("{algorithm}-{digits}"))
}

/// A text as the value of a label: its first part that is one.
pub(super) fn label_text(text: &str) -> String {
    let text: String = text.chars().take(LABEL_LENGTH).collect();
    let begun = text.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    let part = begun.split(|c: char| !c.is_ascii_alphanumeric() && !"._-".contains(c)).next().unwrap_or_default();
    let part = part.trim_end_matches(['.', '_', '-']);
    if part.is_empty() { "unknown".to_owned() } else { part.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::super::{Namespace, Verdict, inject};
    use super::*;
    use serde_json::json;

    #[test]
    fn the_version_is_the_tag_or_the_begin_of_the_digest() {
        let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
        let at_digest = |name: &str| format!("{name}@{digest}");
        for (image, expected) in [
            ("ebb:0.1.0".to_owned(), "0.1.0"),
            ("registry.example.com:5000/team/ebb:0.2.0-rc.1".to_owned(), "0.2.0-rc.1"),
            ("registry.example.com:5000/team/ebb".to_owned(), "latest"),
            ("ebb".to_owned(), "latest"),
            (at_digest("registry.example.com:5000/ebb"), "sha256-0123456789ab"),
            (at_digest("ebb:0.3.0"), "0.3.0"),
            ("ebb@sha256:01".to_owned(), "latest"),
            ("ebb:\"}$x".to_owned(), "x"),
            (format!("ebb:{}", "v".repeat(500)), "v".repeat(TAG_LENGTH).as_str()),
        ] {
            assert_eq!(version_of(&image), expected, "{image}");
        }
    }

    #[test]
    fn any_text_becomes_a_label() {
        let found = ["0.1.0", "_v1_", "a/b", "", "é", ".-_"].map(label_text);
        assert_eq!(found, ["0.1.0", "v1", "a", "unknown", "unknown", "unknown"]);
        assert_eq!(label_text(&format!("{}.1", "v".repeat(62))), "v".repeat(62), "no dot at the end");
    }

    #[test]
    fn a_revision_is_a_dns_label() {
        let long = "a".repeat(64);
        let found = ["canary", "1-2", &long[..63], "", "a.b", "A", "-a", "a-", &long].map(is_revision);
        assert_eq!(found, [true, true, true, false, false, false, false, false, false]);
    }

    #[test]
    fn the_label_of_the_pod_wins_over_that_of_its_namespace() {
        let of = |label: Option<&str>| label.map(|text| (REVISION.to_owned(), text.to_owned())).into_iter().collect();
        let is_injected = |revision: &str, own: Option<&str>, inherited: Option<&str>, needs_label| {
            let template = Template::built_in().of_revision(revision).unwrap();
            let namespace = Namespace { labels: of(inherited), ..Namespace::default() };
            let context = Context { namespace: &namespace, own_namespace: None, needs_label, by: "a test" };
            let mut pod = json!({
                "metadata": {"labels": {"ebb-cache.io/inject": "enabled"}}, "spec": {"containers": [{"name": "app"}]},
            });
            if let Some(own) = own {
                pod["metadata"]["labels"][REVISION] = json!(own);
            }
            matches!(inject(&pod, &context, &template).verdict, Verdict::Inject(_))
        };
        let labels = [None, Some(""), Some("default"), Some("canary"), Some("other")];
        let mut wrong = Vec::new();
        for own in labels {
            for inherited in labels {
                let named = revision_of(own.or(inherited));
                for revision in ["default", "canary"] {
                    for needs_label in [false, true] {
                        let is_anybodys = !needs_label && own.or(inherited).is_none();
                        let expected = named == revision || is_anybodys;
                        if is_injected(revision, own, inherited, needs_label) != expected {
                            wrong.push((revision, own, inherited, needs_label));
                        }
                    }
                }
            }
        }
        assert_eq!(wrong, []);
    }
}
