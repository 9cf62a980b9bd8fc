//! The configuration: generated files are current, and every mistake is reported.

#[path = "../common/mod.rs"]
mod common;

mod running;

use common::program;
use std::fs;
use std::os::unix::fs::symlink;

/// Compares a committed file with what the code prints; `EBB_BLESS=1` rewrites it.
fn generated(path: &str, expected: &str) {
    if std::env::var_os("EBB_BLESS").is_some() {
        fs::write(path, expected).unwrap();
    }
    let committed = fs::read_to_string(path).unwrap_or_default();
    assert!(committed == expected, "{path} is stale: EBB_BLESS=1 cargo test --test config");
}

#[test]
fn reference_page_and_schema_are_current() {
    generated("docs/configuration.md", &ebb_config::reference());
    generated("docs/configuration.schema.json", &format!("{:#}\n", ebb_config::schema()));
}

fn check(text: &str) -> (i32, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ebb.yaml");
    fs::write(&path, text).unwrap();
    let output = program().args(["config", "check"]).arg(&path).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn reports_all_problems_of_a_file() {
    let (code, said) = check(
        "watermarks: { low: 95, high: 90 }\nmaxMemory: 64 bananas\nwatermark: {}\npacing: { cpu: 300 }\ncores: 0\ntick: 5\n\
         otlpEndpoint: https://collector:4317\n",
    );
    assert_eq!(code, 64);
    let sentences = [
        "watermarks.low: 95% must be below watermarks.high (90%)",
        "maxMemory (",
        "\"64 bananas\" is not a size",
        "pacing.cpu (",
        "cores: 0 is out of range (1 to 64)",
        "tick (",
        "otlpEndpoint: the value is not an http:// URL such as http://localhost:4317",
    ];
    let missing: Vec<_> = sentences.into_iter().filter(|sentence| !said.contains(sentence)).collect();
    assert!(missing.is_empty(), "{missing:?} is missing in {said}");
}

#[test]
fn refuses_unknown_keys_and_malformed_files() {
    let (code, said) = check("watermarks: { hihg: 90 }\n");
    assert_eq!(code, 64);
    assert!(said.contains("watermarks.hihg is not a setting; did you mean watermarks.high?"), "{said}");
    let (_, said) = check("watermarks: { hihg: 90 }\ncores: 0\n");
    assert!(said.contains("watermarks.hihg is not a setting") && said.contains("cores: 0 is out of range"), "{said}");
    let endless = program().args(["config", "check", "/dev/zero"]).output().unwrap();
    let said = String::from_utf8_lossy(&endless.stderr).into_owned();
    assert!(endless.status.code() == Some(64) && said.contains("the configuration is too large"), "{said}");
    assert!(check("watermarks: { low: 5").1.contains("not YAML"));
    assert!(check("- a\n- b\n").1.contains("the file must be a mapping of keys to values"));
    let (code, said) = check("watermarks: { critical: 100% }\n");
    assert!(code == 64 && said.contains("watermarks.critical: 100 is out of range (2 to 99 percent)"), "{said}");
    assert_eq!(check("").0, 0, "an empty file changes nothing");
    assert_eq!(check("watermarks:\n  low: 80%\nmaxMemory: 128Mi\n").0, 0);
}

/// The values of a file, as `config print` prints them.
fn printed(text: &str, keys: &[&str]) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ebb.yaml");
    fs::write(&path, text).unwrap();
    let output = program().args(["config", "print", "--config"]).arg(&path).output().unwrap();
    assert!(output.status.success(), "{text}: {}", String::from_utf8_lossy(&output.stderr));
    let rows = String::from_utf8(output.stdout).unwrap();
    let value = |key: &&str| {
        let row = rows.lines().find(|line| line.split_whitespace().next() == Some(key)).unwrap();
        row.split_whitespace().nth(1).unwrap_or_default().to_owned()
    };
    keys.iter().map(value).collect()
}

#[test]
fn null_and_empty_sections_are_not_given() {
    let texts = [
        "watermarks:\nmaxMemory: 64Mi\n",
        "watermarks: {}\nmaxMemory: 64Mi\n",
        "watermarks: ~\nmaxMemory: 64Mi",
        "watermarks: { low: null }\npacing:\n  cpu:\nmaxMemory: 64Mi\n",
        "watermarks: null\nmaxMemory: 64Mi\nlogLevel:\n",
    ];
    let checked = texts.map(|text| (text, check(text)));
    assert_eq!(checked, texts.map(|text| (text, (0, String::new()))));
    let values = texts.map(|text| (text, printed(text, &["watermarks.low", "maxMemory"])));
    assert_eq!(values, texts.map(|text| (text, vec!["88%".to_owned(), "64Mi".to_owned()])));
    assert!(
        check("watermark:\n").1.contains("watermark is not a setting"),
        "a name that is wrong is wrong without a value"
    );
    let (code, said) = check("watermarks: 90\n");
    assert_eq!(code, 64);
    assert!(said.contains("watermarks (") && said.contains("is not a section (keys: critical, high, low)"), "{said}");
}

#[test]
fn duplicate_keys_are_an_error() {
    let texts = [
        "maxMemory: 64Mi\nmaxMemory: 128Mi\n",
        "watermarks: { low: 70, low: 80 }\n",
        "pacing:\n  cpu: 1\npacing:\n  cpu: 2\n",
    ];
    let wrong: Vec<_> = texts
        .map(|text| (text, check(text)))
        .into_iter()
        .filter(|(_, (code, said))| *code != 64 || !said.contains("duplicate"))
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn converts_booleans_and_numbers() {
    let cases = [
        ("compaction: false", "compaction", "off"),
        ("compaction: off", "compaction", "off"),
        ("compaction: true", "compaction", "auto"),
        ("compaction: on", "compaction", "auto"),
        ("evictionAware: on", "evictionAware", "true"),
        ("evictionAware: yes", "evictionAware", "true"),
        ("evictionAware: No", "evictionAware", "false"),
        ("evictionAware: \"true\"", "evictionAware", "true"),
        ("cores: \"2\"", "cores", "2"),
        ("cores: 010", "cores", "10"),
        ("maxMemory: 0100000000", "maxMemory", "100000000"),
        ("watermarks: { low: 070 }", "watermarks.low", "70%"),
        ("pod: { name: 0644, namespace: 1_000 }", "pod.namespace", "1_000"),
        ("pod: { name: 7 }", "pod.name", "7"),
    ];
    let found = cases.map(|(text, key, _)| (text, printed(text, &[key])));
    assert_eq!(found, cases.map(|(text, _, value)| (text, vec![value.to_owned()])));
    let refused = [
        (
            "logLevel: false\n",
            "false is a boolean (some YAML parsers read on, off, yes and no as booleans); quote it if you mean the word",
        ),
        ("logLevel: off\n", "expected one of `error`, `warn`, `info`, `debug`, `trace`"),
        ("pod: { name: true }\n", "true is a boolean"),
        ("maxMemory: true\n", "expected a size such as 64Mi"),
        ("evictionAware: maybe\n", "expected a boolean"),
    ];
    let wrong: Vec<_> = refused
        .map(|(text, expected)| (text, expected, check(text)))
        .into_iter()
        .filter(|(_, expected, (code, said))| *code != 64 || !said.contains(expected))
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn all_sources_accept_the_same_sizes_durations_and_percentages() {
    let sizes = [
        ("0.5Gi", "512Mi"),
        ("129e6", "129000000"),
        ("128974848000m", "123Mi"),
        ("64MiB", "64Mi"),
        ("64MB", "62500Ki"),
    ];
    let spans = [("7d", "168h"), ("1h30m", "90m"), ("1.5h", "90m"), ("2000us", "2ms"), ("0", "0ms")];
    let shares = [("60%", "60%"), ("60", "60%"), ("60.0%", "60%")];
    let keys = [
        ("maxMemory", "EBB_MAX_MEMORY", "max-memory", &sizes[..]),
        ("defaults.ttl", "EBB_DEFAULTS_TTL", "default-ttl", &spans),
        ("watermarks.low", "EBB_WATERMARKS_LOW", "memory-low", &shares),
    ];
    let mut wrong = Vec::new();
    let mut compare = |given: String, found: Option<String>, value: &str| {
        if found.as_deref() != Some(value) {
            wrong.push(format!("{given}: {found:?} instead of {value}"));
        }
    };
    for (key, variable, annotation, values) in keys {
        for (text, value) in values {
            let yaml = key.split('.').fold(String::new(), |yaml, part| yaml + "{ " + part + ": ") + text + " } }";
            let yaml = &yaml[..yaml.len() - if key.contains('.') { 0 } else { 2 }];
            compare(yaml.to_owned(), printed(yaml, &[key]).pop(), value);
            let row = |output: std::process::Output| {
                let rows = String::from_utf8(output.stdout).unwrap();
                rows.lines()
                    .find(|line| line.split_whitespace().next() == Some(key))
                    .map(|line| line.split_whitespace().nth(1).unwrap().to_owned())
            };
            let given = program().args(["config", "print"]).env(variable, text).output().unwrap();
            compare(format!("{variable}={text}"), row(given), value);
            let volume = Volume::new(&[("annotations", &format!("config.ebb-cache.io/{annotation}=\"{text}\"\n"))]);
            let given = program().args(["config", "print", "--config", volume.path()]).output().unwrap();
            compare(format!("{annotation}: {text}"), row(given), value);
            if key == "maxMemory" {
                let given = program().args(["config", "print", "--max-memory", text]).output().unwrap();
                compare(format!("--max-memory {text}"), row(given), value);
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What `ebb config check --env` and `ebb config print` say with these variables.
fn with_variables(variables: &[(&str, &str)]) -> (i32, String, String) {
    let checked = program().args(["config", "check", "--env"]).envs(variables.iter().copied()).output().unwrap();
    let printed = program().args(["config", "print"]).envs(variables.iter().copied()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (checked.status.code().unwrap(), text(checked.stderr), text(printed.stdout))
}

#[test]
fn the_environment_is_checked_as_the_start_reads_it() {
    let bad: &[(&[(&str, &str)], &str)] = &[
        (&[("EBB_TICK", "5ms")], "tick: 5 is out of range (10 to 2000 ms)"),
        (&[("EBB_PACING_CPU", "0%")], "pacing.cpu: 0 is out of range (1 to 100 percent)"),
        (&[("EBB_MAX_MEMORY", "1Mi")], "maxMemory: 1048576 bytes are too few (0 or at least 16Mi)"),
        (&[("EBB_MAX_VALUE", "4Mi")], "maxValue: 4194304 is out of range (1 to 3670016 bytes)"),
        (&[("EBB_OTLP_ENDPOINT", "x y")], "otlpEndpoint: the value is not an http:// URL"),
        (&[("EBB_LISTEN", "localhost")], "listen: \"localhost\" is not an address such as 127.0.0.1:7070"),
        (&[("EBB_HTTP_LISTEN", "0.0.0.0:7070")], "httpListen: 0.0.0.0:7070 collides with listen (127.0.0.1:7070)"),
        (&[("EBB_WATERMARKS_LOW", "98%")], "watermarks.low: 98 is out of range (0 to 97 percent)"),
        (&[("EBB_LOG_LEVEL", "loud")], "logLevel (EBB_LOG_LEVEL): "),
        (&[("EBB_CONFIG", "/no/such/file")], "cannot read /no/such/file"),
    ];
    let mut wrong = Vec::new();
    for (variables, sentence) in bad {
        let (code, said, _) = with_variables(variables);
        if code != 1 || !said.contains(sentence) {
            wrong.push(format!("{variables:?}: {code} {said}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let (code, said, _) = with_variables(&[("EBB_TICK", "5ms"), ("EBB_CORES", "0"), ("EBB_STREAMS", "x")]);
    let all = ["tick: 5 is", "cores: 0 is", "streams (EBB_STREAMS)"];
    assert!(code == 1 && all.iter().all(|part| said.contains(part)), "all problems in one run: {said}");
    assert_eq!(with_variables(&[("EBB_WATERMARKS_HIGH", "80%"), ("EBB_MAX_MEMORY", "0")]).0, 0);
    let volume = Volume::new(&[("ebb.yaml", "tick: 9ms\n")]);
    let (code, said, _) = with_variables(&[("EBB_CONFIG", volume.path())]);
    assert!(code == 1 && said.contains("tick: 9 is out of range"), "{said}");
}

#[test]
fn a_lone_watermark_pulls_the_others_along_from_every_source() {
    let marks = |rows: &str| {
        let value = |key: &str| {
            let row = rows.lines().find(|line| line.split_whitespace().next() == Some(key)).unwrap();
            row.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
        };
        ["watermarks.low", "watermarks.high", "watermarks.critical"].map(value)
    };
    let file = |files: &[(&str, &str)], variables: &[(&str, &str)]| {
        let volume = Volume::new(files);
        let print = program()
            .args(["config", "print", "--config", volume.path()])
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        marks(&String::from_utf8(print.stdout).unwrap().replace(volume.path(), "DIR"))
    };
    let (_, _, printed) = with_variables(&[("EBB_WATERMARKS_HIGH", "80%")]);
    assert_eq!(marks(&printed), ["74% follows EBB_WATERMARKS_HIGH", "80% EBB_WATERMARKS_HIGH", "98% default"]);
    assert_eq!(
        file(&[("ebb.yaml", "watermarks: { critical: 80% }\n")], &[]),
        ["70% follows DIR/ebb.yaml", "76% follows DIR/ebb.yaml", "80% DIR/ebb.yaml"]
    );
    // The chart sets all three as variables, and a pod overrides one.
    let all = [("EBB_WATERMARKS_LOW", "88%"), ("EBB_WATERMARKS_HIGH", "94%"), ("EBB_WATERMARKS_CRITICAL", "98%")];
    let high = "annotation config.ebb-cache.io/memory-high";
    assert_eq!(
        file(&[("annotations", "config.ebb-cache.io/memory-high=\"80%\"\n")], &all),
        [format!("74% follows {high}"), format!("80% {high}"), "98% EBB_WATERMARKS_CRITICAL".to_owned()]
    );
}

#[test]
fn a_file_caught_half_written_changes_nothing() {
    use ebb_config::{Flags, Live, Reload, Source};
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ebb.yaml");
    let full = "watermarks: { low: 70 }\nmaxMemory: 128Mi\n";
    fs::write(&path, full).unwrap();
    let mut live = Live::start(Source::File(path.clone()), Vec::new(), Flags::new()).unwrap();
    for half in ["", "watermarks: { low: 70 }\n", "watermarks: { low: 70 }\nmaxMemory: 12", "watermarks: { lo"] {
        fs::write(&path, half).unwrap();
        assert_eq!(live.poll(), Reload::Unchanged, "{half:?}");
        fs::write(&path, full).unwrap();
        assert_eq!((live.poll(), live.problem()), (Reload::Unchanged, None), "{half:?}");
    }
    fs::write(&path, "maxMemory: 6").unwrap();
    assert_eq!(live.poll(), Reload::Unchanged);
    fs::write(&path, "maxMemory: 64Mi\n").unwrap();
    assert_eq!(live.poll(), Reload::Unchanged, "the text differs from the previous poll");
    let Reload::Applied { changes, .. } = live.poll() else { panic!("two polls read the same text") };
    assert!(changes.contains(&"maxMemory: 128Mi → 64Mi".to_owned()), "{changes:?}");
}

#[test]
fn print_shows_the_source_of_each_value() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ebb.yaml");
    fs::write(&path, "watermarks: { low: 70 }\nmaxMemory: 100Mi\n").unwrap();
    let mut command = program();
    command.args(["config", "print", "--max-memory", "64Mi", "--config"]).arg(&path);
    command.env("EBB_WATERMARKS_LOW", "60").env("EBB_PACING_CPU", "10%");
    let printed = String::from_utf8(command.output().unwrap().stdout).unwrap();
    let row = |key: &str| {
        let line = printed.lines().find(|line| line.split_whitespace().next() == Some(key)).unwrap();
        line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(row("maxMemory"), "64Mi flag --max-memory");
    assert_eq!(row("watermarks.low"), format!("70% {}", path.display()), "the file wins over the environment");
    assert_eq!(row("pacing.cpu"), "10% EBB_PACING_CPU");
    assert_eq!(row("watermarks.high"), "94% default");
}

/// A projected volume, swapped like the kubelet does: all files at once, by one link.
struct Volume {
    root: tempfile::TempDir,
    generation: std::cell::Cell<u32>,
}

impl Volume {
    fn new(files: &[(&str, &str)]) -> Self {
        let volume = Self { root: tempfile::tempdir().unwrap(), generation: std::cell::Cell::new(0) };
        for name in ["ebb.yaml", "annotations", "memory-limit", "memory-request"] {
            symlink(format!("..data/{name}"), volume.root.path().join(name)).unwrap();
        }
        volume.swap(files);
        volume
    }

    fn swap(&self, files: &[(&str, &str)]) {
        let (root, next) = (self.root.path(), self.generation.get() + 1);
        let directory = format!("..{next}");
        fs::create_dir(root.join(&directory)).unwrap();
        for (name, text) in files {
            fs::write(root.join(&directory).join(name), text).unwrap();
        }
        symlink(&directory, root.join("..data_tmp")).unwrap();
        fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
        self.generation.set(next);
    }

    fn path(&self) -> &str {
        self.root.path().to_str().unwrap()
    }
}

#[test]
fn every_documented_annotation_sets_its_setting() {
    let written = [
        ("compaction", "compaction", "off"),
        ("default-ttl", "defaults.ttl", "1h"),
        ("drift-ratio", "drift.dead", "20%"),
        ("eviction-aware", "evictionAware", "true"),
        ("log-level", "logLevel", "debug"),
        ("max-memory", "maxMemory", "64Mi"),
        ("memory-critical", "watermarks.critical", "99%"),
        ("memory-high", "watermarks.high", "91%"),
        ("memory-low", "watermarks.low", "81%"),
    ];
    assert_eq!(written.map(|(name, key, _)| (name, key)), *ebb_config::annotations::SETTINGS);
    let lines: String = written.map(|(name, _, value)| format!("config.ebb-cache.io/{name}=\"{value}\"\n")).concat();
    let volume = Volume::new(&[("annotations", &lines)]);
    let printed = program().args(["config", "print", "--config", volume.path()]).output().unwrap();
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    let printed = String::from_utf8(printed.stdout).unwrap();
    let rows = written.map(|(_, key, _)| {
        let row = printed.lines().find(|line| line.starts_with(&format!("{key} "))).unwrap();
        row.split_whitespace().collect::<Vec<_>>().join(" ")
    });
    let expected = written.map(|(name, key, value)| format!("{key} {value} annotation config.ebb-cache.io/{name}"));
    assert_eq!(rows, expected);
}

#[test]
fn a_switch_is_set_by_a_variable() {
    let output = program().args(["config", "print"]).env("EBB_EVICTION_AWARE", "true").output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let row = printed.lines().find(|line| line.starts_with("evictionAware ")).unwrap();
    assert_eq!(row.split_whitespace().collect::<Vec<_>>()[1..], ["true", "EBB_EVICTION_AWARE"]);
}
