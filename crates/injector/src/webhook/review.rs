//! An AdmissionReview and its answer: a pure function of the bytes.
//!
//! Clients that may create pods choose their content, so everything that outlives the answer (log lines, Events) is
//! bounded.

use super::excerpt;
use crate::inject::{Context, Namespace, REVISION, SkipReason, Template, Verdict, inject};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// Maximum length of an object's name, in bytes.
const NAME_BYTES: usize = 253;
/// The API server cuts warnings at this length, in bytes.
const WARNING_BYTES: usize = 256;

/// Result of a review.
#[derive(Debug)]
pub(super) struct Admission {
    /// The AdmissionReview to return.
    pub(super) answer: Value,
    /// The outcome for the pod; `None` if the review had no pod.
    pub(super) reason: Option<Option<SkipReason>>,
    /// The message for people.
    pub(super) detail: String,
    /// Warnings about ignored annotations. The client sees them, but for a Deployment's pods the client is a
    /// controller.
    pub(super) warnings: Vec<String>,
    pub(super) namespace: String,
    pub(super) owner: Option<Owner>,
    /// Whether this is a dry run, which must have no side effects, such as Events.
    pub(super) is_dry_run: bool,
}

/// The owner of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) api_version: String,
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) uid: String,
}

/// Why a text is not an AdmissionReview.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReviewError {
    #[error("the body is not JSON: {0}")]
    Json(serde_json::Error),
    /// Another object. Holds its version and kind.
    #[error("the body is {0}; it must be \"admission.k8s.io/v1\" \"AdmissionReview\"")]
    Kind(String),
    #[error("request.uid is missing")]
    NoUid,
}

/// Answers a review. `find` returns namespaces.
///
/// # Errors
/// Why the text is not an AdmissionReview.
pub(super) fn review(
    body: &[u8],
    find: impl Fn(&str) -> Namespace,
    own_namespace: &str,
    by: &str,
    template: Option<&Template>,
) -> Result<Admission, ReviewError> {
    let variables = template.map(Template::variables).unwrap_or_default();
    let read = excerpt::review(body, &variables).map_err(ReviewError::Json)?;
    let review = read.value;
    let (version, kind) = (&review["apiVersion"], &review["kind"]);
    if version != "admission.k8s.io/v1" || kind != "AdmissionReview" {
        return Err(ReviewError::Kind(shortened(&format!("{version} {kind}"))));
    }
    let request = &review["request"];
    let uid = request["uid"].as_str().filter(|uid| !uid.is_empty()).ok_or(ReviewError::NoUid)?;
    let pod = &request["object"];
    let namespace = shortened(request["namespace"].as_str().unwrap_or_default());
    let answer = |more: Value| {
        let mut response = json!({"uid": uid, "allowed": true});
        if let (Value::Object(response), Value::Object(more)) = (&mut response, more) {
            response.extend(more);
        }
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
    };
    let mut admission = Admission {
        answer: answer(json!({})),
        reason: None,
        detail: String::new(),
        warnings: Vec::new(),
        namespace,
        owner: owner(pod),
        is_dry_run: request["dryRun"] == true,
    };
    if request["kind"]["kind"] != "Pod" || request["operation"] != "CREATE" {
        let what = format!("ignored: {} of {} is not injected", request["operation"], request["kind"]["kind"]);
        admission.detail = shortened(&what);
        return Ok(admission);
    }
    let Some(template) = template else {
        admission.detail = "the injector has no valid sidecar template".to_owned();
        admission.warnings = vec![format!("no Ebb sidecar: {}", admission.detail)];
        admission.answer = answer(json!({"warnings": admission.warnings}));
        admission.reason = Some(Some(SkipReason::NoTemplate));
        return Ok(admission);
    };
    if read.is_too_large {
        admission.detail = "the fields that injection reads are too large (at most 2 MiB)".to_owned();
        admission.warnings = vec![format!("no Ebb sidecar: {}", admission.detail)];
        admission.answer = answer(json!({"warnings": admission.warnings}));
        admission.reason = Some(Some(SkipReason::TooLarge));
        return Ok(admission);
    }
    let mut known = find(&admission.namespace);
    // The webhook's selectors have compared the namespace's revision, and the one known here may be older.
    known.labels.remove(REVISION);
    let context = Context {
        namespace: &known,
        own_namespace: Some(own_namespace),
        // The webhook's selectors have checked the label, and the namespace may not be known here yet.
        needs_label: false,
        by,
    };
    let outcome = inject(pod, &context, template);
    admission.warnings = outcome.warnings.into_iter().map(|text| shortened(&text)).collect();
    match outcome.verdict {
        Verdict::Inject(operations) => {
            let patch = serde_json::to_vec(&operations).expect("operations are JSON");
            let mut more = json!({"patchType": "JSONPatch", "patch": STANDARD.encode(patch)});
            if !admission.warnings.is_empty() {
                more["warnings"] = json!(admission.warnings);
            }
            admission.answer = answer(more);
            admission.reason = Some(None);
            "the pod gets a sidecar".clone_into(&mut admission.detail);
        }
        Verdict::Skip(reason, detail) => {
            admission.reason = Some(Some(reason));
            admission.detail = shortened(&detail);
        }
    }
    Ok(admission)
}

/// The owner of the pod.
pub(super) fn owner(pod: &Value) -> Option<Owner> {
    let owners = pod["metadata"]["ownerReferences"].as_array()?;
    let owner = owners.iter().find(|owner| owner["controller"] == true)?;
    let text = |key: &str| owner[key].as_str().filter(|text| text.len() <= NAME_BYTES).map(str::to_owned);
    Some(Owner { api_version: text("apiVersion")?, kind: text("kind")?, name: text("name")?, uid: text("uid")? })
}

pub(super) fn shortened(text: &str) -> String {
    match text.char_indices().map(|(at, _)| at).take_while(|at| *at <= WARNING_BYTES - 4).last() {
        Some(end) if text.len() > WARNING_BYTES => format!("{}…", &text[..end]),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(body: &Value) -> Result<Admission, ReviewError> {
        let find = |name: &str| Namespace { name: name.to_owned(), ..Namespace::default() };
        review(body.to_string().as_bytes(), find, "ebb-system", "a test", Some(&Template::built_in()))
    }

    fn with(object: Value) -> Value {
        json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {
                "uid": "7", "kind": {"kind": "Pod"}, "operation": "CREATE", "namespace": "shop", "object": object,
            },
        })
    }

    fn patch(admission: &Admission) -> Vec<Value> {
        let patch = admission.answer["response"]["patch"].as_str().expect("there is a patch");
        serde_json::from_slice(&STANDARD.decode(patch).unwrap()).unwrap()
    }

    #[test]
    fn a_pod_gets_a_patch_that_only_adds() {
        let admission = ask(&with(json!({"spec": {"containers": [{"name": "app"}]}}))).unwrap();
        assert_eq!(admission.answer["response"]["uid"], "7");
        assert_eq!(admission.answer["response"]["allowed"], true);
        assert!(patch(&admission).iter().all(|operation| operation["op"] == "add"));
        assert_eq!(admission.answer["response"].get("warnings"), None);
    }

    #[test]
    fn without_a_template_a_pod_passes_with_a_warning() {
        let body = with(json!({"spec": {"containers": [{"name": "app"}]}})).to_string();
        let find = |_: &str| Namespace::default();
        let admission = review(body.as_bytes(), find, "ebb-system", "a test", None).unwrap();
        let warning = "no Ebb sidecar: the injector has no valid sidecar template";
        assert_eq!(
            admission.answer["response"],
            json!({"uid": "7", "allowed": true, "warnings": [warning]}),
            "nothing is patched and nobody is refused"
        );
        assert_eq!(admission.reason, Some(Some(SkipReason::NoTemplate)));
    }

    #[test]
    fn a_skipped_pod_is_allowed_with_a_reason() {
        let admission = ask(&with(json!({"spec": {"hostNetwork": true, "containers": [{"name": "app"}]}}))).unwrap();
        assert_eq!(admission.answer["response"], json!({"uid": "7", "allowed": true}));
        assert_eq!(admission.reason, Some(Some(SkipReason::HostNetwork)));
    }

    #[test]
    fn a_wrong_annotation_is_a_warning_of_bounded_length() {
        let annotations = json!({"config.ebb-cache.io/image": "ä ".repeat(1000)});
        let pod = json!({"metadata": {"annotations": annotations}, "spec": {"containers": [{"name": "app"}]}});
        let admission = ask(&with(pod)).unwrap();
        let warning = admission.answer["response"]["warnings"][0].as_str().unwrap();
        assert!(warning.starts_with("annotation config.ebb-cache.io/image"), "{warning}");
        assert!(warning.len() <= WARNING_BYTES && warning.ends_with('…'));
    }

    #[test]
    fn what_is_no_review_is_refused_with_a_sentence() {
        let said = |body: &[u8]| {
            let refused = review(body, |_| Namespace::default(), "", "", Some(&Template::built_in()));
            refused.expect_err("it is refused").to_string()
        };
        assert!(said(b"{").contains("not JSON"));
        assert!(said(b"[]").contains("it must be \"admission.k8s.io/v1\""));
        let mut body = with(json!({}));
        body["request"]["uid"] = json!("");
        assert_eq!(said(body.to_string().as_bytes()), "request.uid is missing");
        body["apiVersion"] = json!("admission.k8s.io/v1beta1");
        assert!(said(body.to_string().as_bytes()).starts_with("the body is \"admission.k8s.io/v1beta1\""));
    }

    #[test]
    fn a_pod_too_large_to_read_is_allowed_with_a_warning() {
        let numbers = [501, 48_000];
        let found = numbers.map(|containers| {
            let pod = json!({"spec": {"containers": vec![json!({"name": "a"}); containers]}});
            let admission = ask(&with(pod)).unwrap();
            (containers, admission.answer["response"]["allowed"].as_bool(), admission.reason)
        });
        let too_large = Some(Some(SkipReason::TooLarge));
        assert_eq!(found, numbers.map(|containers| (containers, Some(true), too_large)));
    }

    #[test]
    fn what_outlives_the_answer_is_bounded() {
        let long = "x".repeat(1 << 20);
        let annotations: serde_json::Map<_, _> =
            (0..5_000).map(|n| (format!("config.ebb-cache.io/a{n}"), json!("x"))).collect();
        let owner = json!({"apiVersion": "v1", "kind": "Job", "name": long, "uid": "1", "controller": true});
        let metadata = json!({"annotations": annotations, "ownerReferences": [owner]});
        let ports = json!([{"containerPort": 7070}]);
        let containers = json!([{"name": long, "ports": ports}]);
        let mut wrong = Vec::new();
        for (what, spec) in [
            ("a long name", json!({"containers": containers})),
            ("a short name", json!({"containers": [{"name": "app"}]})),
        ] {
            let mut body = with(json!({"metadata": metadata, "spec": spec}));
            body["request"]["namespace"] = json!(long);
            let admission = ask(&body).unwrap();
            let warnings: usize = admission.warnings.iter().map(String::len).sum();
            let bytes = warnings + admission.detail.len() + admission.namespace.len();
            // No object has such a name.
            if admission.owner.is_some() || bytes >= 8 << 10 {
                wrong.push(format!("{what}: {bytes} bytes, with an owner: {}", admission.owner.is_some()));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn what_is_no_new_pod_passes() {
        let mut body = with(json!({"spec": {"containers": [{"name": "app"}]}}));
        body["request"]["operation"] = json!("UPDATE");
        assert_eq!(ask(&body).unwrap().answer["response"], json!({"uid": "7", "allowed": true}));
        let nothing = ask(&with(Value::Null)).unwrap();
        assert_eq!(nothing.reason, Some(Some(SkipReason::Malformed)), "a pod that is none never ends in a panic");
    }

    #[test]
    fn the_owner_is_the_controller() {
        let owners = json!([
            {"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "1"},
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-1", "uid": "2", "controller": true},
        ]);
        let found = owner(&json!({"metadata": {"ownerReferences": owners}})).unwrap();
        assert_eq!((found.kind.as_str(), found.uid.as_str()), ("ReplicaSet", "2"));
        assert_eq!(owner(&json!({})), None);
    }
}
