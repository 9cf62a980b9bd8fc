use super::*;
use crate::inject::{Allowed, Namespace};

/// Reads a pod with one annotation.
fn read(name: &str, value: &str) -> Wishes {
    let namespace = Namespace::default();
    let context = Context { namespace: &namespace, own_namespace: None, needs_label: false, by: "a test" };
    let pod = json!({"metadata": {"annotations": {format!("{PREFIX}{name}"): value}}});
    Wishes::read(&pod, &context, &Template::built_in())
}

#[test]
fn startup_timeout_takes_every_length_of_time() {
    let timeout = |text: &str| {
        let wishes = read("startup-timeout", text);
        (wishes.container["startupProbe"]["failureThreshold"].as_u64(), wishes.warnings)
    };
    let cases = [
        ("90", 90),
        ("90s", 90),
        ("1m30s", 90),
        ("2m", 120),
        ("1.5m", 90),
        (" 1m 30s ", 90),
        ("+1h", 3600),
        ("1s", 1),
        ("1001ms", 2),
        ("0.01d", 864),
    ];
    let found = cases.map(|(text, _)| (text, timeout(text)));
    assert_eq!(found, cases.map(|(text, failures)| (text, (Some(failures), Vec::new()))));
    let refused = ["", "0", "0s", "999ms", "-5s", "3601", "3601s", "1h1ms", "1d", "90x", "s", "99999999999999999999"];
    let sentence = "it must be 1s to 1h; a number without a unit is in seconds";
    let wrong: Vec<_> = refused
        .map(|text| (text, timeout(text)))
        .into_iter()
        .filter(|(_, (failures, warnings))| {
            *failures != Some(60) || !warnings.first().is_some_and(|warning| warning.ends_with(sentence))
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn sockets_stay_below_directories_meant_for_them() {
    let folder = |path: &str| {
        let wishes = read("unix-socket-path", path);
        let mount = list(&wishes.container["volumeMounts"]).find(|mount| mount["name"] == SOCKET_VOLUME).unwrap();
        (mount["mountPath"].as_str().unwrap().to_owned(), wishes.warnings.len())
    };
    let meant = ["/run/cache", "/run/a/b/c", "/var/run/ebb", "/tmp/x", "/var/tmp/x-1.y", "/run/secrets-of-mine"];
    let found = meant.map(|at| folder(&format!("{at}/e.sock")));
    assert_eq!(found, meant.map(|at| (at.to_owned(), 0)));
    let others = [
        "/etc/app",
        "/usr/lib",
        "/proc/self",
        "/proc/1/root",
        "/sys/fs",
        "/dev/shm",
        "/var/lib/app",
        "/var/log/app",
        "/home/app",
        "/data/app",
        "/opt/app",
        "/app/data",
        "/srv/www",
        "/bin/x",
        "/lib/x",
        "/etc/ebb",
        "/boot/x",
        "/mnt/x",
        "/run",
        "/tmp",
        "/var/run",
        "/var/tmp",
        "/run/secrets",
        "/var/run/secrets",
        "/tmp/secrets",
        "/run/secrets/kubernetes.io/serviceaccount",
        "/var/run/secrets/kubernetes.io/serviceaccount",
        "/run/./secrets",
        "/run/../etc/app",
        "/run//x",
        "/var/./run/x",
        "run/x",
        "",
        "//run/x",
        "/var/run/../secrets",
    ];
    let found = others.map(|at| folder(&format!("{at}/e.sock")));
    assert_eq!(found, others.map(|_| ("/run/ebb".to_owned(), 1)));
}

#[test]
fn additional_variables_shadow_none_of_the_template() {
    let template = Template::built_in();
    let of_template = list(&template.container["env"]).map(|own| own["name"].as_str().unwrap());
    let wrong: Vec<_> = of_template
        .filter(|name| {
            let wishes = read("additional-env", &format!("MINE=1,{name}=x"));
            wishes.container["env"] != template.container["env"] || wishes.warnings.len() != 1
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    let wishes = read("additional-env", "MINE=1, EBB_STREAMS=64");
    assert_eq!(
        (list(&wishes.container["env"]).count(), wishes.warnings.len()),
        (list(&template.container["env"]).count() + 2, 0)
    );
}

#[test]
fn annotations_need_the_administrators_permission() {
    let texts = |all: &[(&str, &str)]| -> std::collections::BTreeMap<String, String> {
        all.iter().map(|(name, value)| (format!("{PREFIX}{name}"), (*value).to_owned())).collect()
    };
    let inherited = texts(&[("image", "theirs:1"), ("memory-limit", "1Gi"), ("cpu-request", "1")]);
    let own = texts(&[("image", "own:1"), ("memory-limit", "2Gi"), ("additional-env", "A=b"), ("memory-high", "80%")]);
    let pod = json!({"metadata": {"annotations": own}});
    let read = |allowed: &Allowed, trusted: &str| {
        let labels = [(TRUSTED.to_owned(), trusted.to_owned())].into();
        let namespace = Namespace { name: "shop".to_owned(), labels, annotations: inherited.clone() };
        let context = Context { namespace: &namespace, own_namespace: None, needs_label: false, by: "a test" };
        let wishes = Wishes::read(&pod, &context, &Template::built_in().changed_by(allowed.clone()));
        let image = wishes.container["image"].as_str().unwrap().to_owned();
        (image, wishes.memory_limit, wishes.cpu_request, wishes.warnings)
    };
    let some = |text: &str| Some(text.to_owned());
    let list = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
    let by_default = Allowed::new(None, None).unwrap();
    let refused = |name: &str| {
        format!(
            "annotation config.ebb-cache.io/{name} is ignored: the namespace needs the label ebb-cache.io/trusted: true"
        )
    };
    let template = Template::built_in().container["image"].as_str().unwrap().to_owned();
    let everything = ("own:1".to_owned(), some("2Gi"), some("1"), Vec::new());
    let cases = [
        ("all are allowed offline", Allowed::default(), "", everything.clone()),
        (
            "by default",
            by_default.clone(),
            "",
            (template.clone(), some("2Gi"), some("1"), vec![refused("additional-env"), refused("image")]),
        ),
        ("by default, in a trusted namespace", by_default.clone(), "true", everything),
        (
            "a label that means nothing",
            by_default,
            "yes",
            (template.clone(), some("2Gi"), some("1"), vec![refused("additional-env"), refused("image")]),
        ),
        (
            "a pod's refused annotation leaves that of its namespace",
            Allowed::new(list(&["image", "memory-limit"]), list(&[""])).unwrap(),
            "",
            (
                "theirs:1".to_owned(),
                some("1Gi"),
                None,
                ["additional-env", "cpu-request", "image", "memory-limit"].map(refused).to_vec(),
            ),
        ),
    ];
    for (what, allowed, trusted, expected) in cases {
        assert_eq!(read(&allowed, trusted), expected, "{what}");
    }
    assert_eq!(Allowed::new(list(&["no-such"]), None), Err("no-such".to_owned()));
}

#[test]
fn additional_variable_keeps_one_from_a_secret() {
    let mut template = Template::built_in();
    let secret = json!({"name": "OTLP_TOKEN", "valueFrom": {"secretKeyRef": {"name": "otlp", "key": "token"}}});
    template.container["env"].as_array_mut().unwrap().push(secret.clone());
    let namespace = Namespace::default();
    let context = Context { namespace: &namespace, own_namespace: None, needs_label: false, by: "a test" };
    let variable = |pod: &Value| {
        let container = Wishes::read(pod, &context, &template).container;
        list(&container["env"]).find(|variable| variable["name"] == "OTLP_TOKEN").cloned()
    };
    assert_eq!(variable(&json!({})), Some(secret.clone()));
    let pod = json!({"metadata": {"annotations": {format!("{PREFIX}additional-env"): "OTLP_TOKEN=none"}}});
    assert_eq!(variable(&pod), Some(secret));
}

#[test]
fn names_of_a_namespace_are_not_checked_as_those_of_a_pod_that_are_refused() {
    let annotation = |value: &str| [(format!("{PREFIX}app-containers"), value.to_owned())].into();
    let namespace = Namespace { annotations: annotation("other"), ..Namespace::default() };
    let context = Context { namespace: &namespace, own_namespace: None, needs_label: false, by: "a test" };
    let own: std::collections::BTreeMap<String, String> = annotation("web");
    let pod = json!({"metadata": {"annotations": own}, "spec": {"containers": [{"name": "web"}]}});
    let allowed = Allowed::new(None, Some(Vec::new())).unwrap();
    let wishes = Wishes::read(&pod, &context, &Template::built_in().changed_by(allowed));
    assert_eq!(wishes.only, Some(vec!["other".to_owned()]));
    assert_eq!(wishes.warnings.len(), 1, "{:?}", wishes.warnings);
}

#[test]
fn annotation_that_is_too_long_is_named_without_its_value() {
    let warnings = [4096, 4097].map(|bytes| (bytes, read("image", &"x".repeat(bytes)).warnings.len()));
    assert_eq!(warnings, [(4096, 0), (4097, 1)]);
    let said = &read("image", &"x".repeat(4097)).warnings[0];
    assert_eq!(said, "annotation config.ebb-cache.io/image is ignored: it must have at most 4096 bytes");
}

#[test]
fn memory_annotations_take_every_form_of_a_size() {
    let cases = [
        ("64Mi", "64Mi"),
        ("64MiB", "64Mi"),
        ("64MB", "64M"),
        ("0.5Gi", "0.5Gi"),
        ("129e6", "129e6"),
        ("128974848000m", "128974848000m"),
        (" 1 GiB", "1Gi"),
    ];
    let expected = cases.map(|(text, quantity)| (text, Some(quantity.to_owned())));
    assert_eq!(cases.map(|(text, _)| (text, read("memory-limit", text).memory_limit)), expected);
    assert_eq!(cases.map(|(text, _)| (text, read("memory-request", text).memory_request)), expected);
    let refused = ["16MB", "1e7", "64mi", "-64Mi", "0", "lots", ""];
    let found = refused.map(|text| {
        let wishes = read("memory-limit", text);
        (text, wishes.memory_limit, wishes.warnings.len())
    });
    assert_eq!(found, refused.map(|text| (text, None, 1)));
}

#[test]
fn shares_and_storage_take_every_form_of_an_amount() {
    let shares = [("25%", 25), ("25", 25), (" 1 % ", 1), ("100%", 100)];
    assert_eq!(shares.map(|(text, _)| (text, crate::inject::values::share(text))), shares.map(|(t, n)| (t, Some(n))));
    let refused = ["0", "0%", "101%", "12.5%", "05", "-5%", "25%%", "%", "", "a quarter"];
    assert_eq!(refused.map(|text| (text, read("memory-share", text).warnings.len())), refused.map(|text| (text, 1)));
    let storage = [("1Mi", Some("1Mi")), ("64MiB", Some("64Mi")), ("64m", None), ("1023Ki", None), ("lots", None)];
    let found = storage.map(|(text, _)| (text, read("ephemeral-storage", text).storage));
    assert_eq!(found, storage.map(|(text, amount)| (text, amount.map(str::to_owned))));
}

#[test]
fn share_of_memory_is_within_its_bounds() {
    let limits = |limits: &[Value]| {
        let containers: Vec<Value> =
            limits.iter().map(|limit| json!({"resources": {"limits": {"memory": limit}}})).collect();
        json!({"containers": containers})
    };
    let cases = [
        (limits(&[json!("1Gi"), json!("500M"), Value::Null]), 25, Some("375Mi")),
        (limits(&[json!("129e6")]), 50, Some("61Mi")),
        (limits(&[json!(134_217_728)]), 50, Some("64Mi")),
        (limits(&[json!("64Mi")]), 25, Some("32Mi")),
        (limits(&[json!("64Gi")]), 80, Some("8192Mi")),
        (limits(&[json!("15Ei"), json!("15Ei")]), 100, Some("8192Mi")),
        (limits(&[Value::Null]), 25, None),
        (limits(&[json!("0"), json!("lots"), json!("-5")]), 25, None),
        (json!({"resources": {"limits": {"memory": "1Gi"}}, "containers": [{}]}), 10, Some("102Mi")),
    ];
    for (spec, share, expected) in cases {
        assert_eq!(resources::share_of_applications(&spec, share).as_deref(), expected, "{share} of {spec}");
    }
}

#[test]
fn limit_or_share_of_the_pod_overrides_that_of_its_namespace() {
    let pair = |(name, value): &(&str, &str)| (format!("{PREFIX}{name}"), (*value).to_owned());
    let read = |of_namespace: &[(&str, &str)], own: &[(&str, &str)]| {
        let namespace = Namespace { annotations: of_namespace.iter().map(pair).collect(), ..Namespace::default() };
        let context = Context { namespace: &namespace, own_namespace: None, needs_label: false, by: "a test" };
        let own: std::collections::BTreeMap<_, _> = own.iter().map(pair).collect();
        let app = json!({"name": "app", "resources": {"limits": {"memory": "1Gi"}}});
        let pod = json!({"metadata": {"annotations": own}, "spec": {"containers": [app]}});
        let wishes = Wishes::read(&pod, &context, &Template::built_in());
        (wishes.memory_limit.unwrap_or_default(), wishes.warnings)
    };
    let (share, limit) = (("memory-share", "25%"), ("memory-limit", "64Mi"));
    let said = "annotation config.ebb-cache.io/memory-share (\"25%\") is ignored: memory-limit is set, too";
    let found = [
        read(&[], &[share]),
        read(&[limit], &[share]),
        read(&[share], &[limit]),
        read(&[share, limit], &[]),
        read(&[], &[share, limit]),
        read(&[limit, ("memory-share", "50%")], &[share]),
    ];
    let silent = |limit: &str| (limit.to_owned(), Vec::new());
    let both = ("64Mi".to_owned(), vec![said.to_owned()]);
    assert_eq!(found, [silent("256Mi"), silent("256Mi"), silent("64Mi"), both.clone(), both, silent("256Mi")]);
}
