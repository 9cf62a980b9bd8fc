//! Rules of the structure that the compiler does not check: dependencies between crates, references between modules of
//! the sidecar, the places of unsafe code, and the words of texts that people read.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Allowed dependencies between crates.
const CRATES: &[(&str, &[&str])] = &[
    ("engine", &[]),
    ("proto", &[]),
    ("terminal", &[]),
    ("listener", &[]),
    ("config", &["engine"]),
    ("manifest", &[]),
    ("injector", &["config", "listener", "manifest", "terminal"]),
    ("bench", &["config", "engine", "proto", "terminal"]),
];

/// Allowed dependencies of the engine: no runtime, no serialization.
const OF_ENGINE: &[&str] =
    &["arc-swap", "bytes", "loom", "parking_lot", "rustix", "shuttle", "siphasher", "strum", "thiserror"];

/// Allowed references between modules of the sidecar.
const MODULES: &[(&str, &[&str])] = &[
    ("wall_clock", &[]),
    ("governor", &[]),
    ("service", &[]),
    ("config_map", &[]),
    ("logging", &[]),
    ("pod_events", &["governor"]),
    ("traffic", &["service"]),
    ("settings", &["service", "governor"]),
    ("spans", &["wall_clock"]),
    ("sources", &["service", "governor", "pod_events", "spans", "traffic", "wall_clock"]),
    ("history", &["governor", "service", "sources", "traffic", "wall_clock"]),
    ("receipts", &[]),
    ("regimes", &["governor"]),
    ("doctor", &["history", "governor", "sources", "wall_clock"]),
    ("metrics", &["service", "logging", "governor", "sources", "spans", "traffic"]),
    ("messages", &["doctor", "history", "sources", "wall_clock"]),
    ("page", &["history", "messages", "sources"]),
    ("transport", &["service", "history", "messages", "sources", "spans", "traffic"]),
    (
        "server",
        &[
            "service",
            "transport",
            "history",
            "logging",
            "governor",
            "metrics",
            "page",
            "pod_events",
            "receipts",
            "regimes",
            "sources",
            "spans",
            "traffic",
            "settings",
            "wall_clock",
        ],
    ),
    ("cli", &["config_map", "logging", "server"]),
];

fn sources(path: &Path, into: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push((path.to_str().unwrap().to_owned(), fs::read_to_string(&path).unwrap()));
        }
    }
}

/// The modules that a text refers to as `crate::module`, except in unit tests.
fn named(text: &str) -> BTreeSet<String> {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let mut modules = BTreeSet::new();
    for line in code {
        for part in line.split("crate::").skip(1) {
            modules.insert(part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    modules
}

#[test]
fn modules_name_only_those_below_them() {
    let arrows: BTreeMap<_, _> = MODULES.iter().copied().collect();
    let mut files = Vec::new();
    sources(Path::new("src"), &mut files);
    let mut wrong = Vec::new();
    for (path, text) in files {
        let module = path.trim_start_matches("src/").split(['/', '.']).next().unwrap().to_owned();
        if ["lib", "main", "allocator"].contains(&module.as_str())
            || path.ends_with("tests.rs")
            || path.ends_with("testing.rs")
        {
            continue;
        }
        let allowed = arrows.get(module.as_str()).unwrap_or_else(|| panic!("{module} is not in the table"));
        let others = named(&text).into_iter().filter(|target| *target != module);
        let foreign = others.filter(|target| !allowed.contains(&target.as_str()));
        wrong.extend(foreign.map(|target| format!("{path} names crate::{target}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Checks that each entry of a table names only entries above it.
fn assert_layers(table: &[(&str, &[&str])]) {
    let mut above = BTreeSet::new();
    for (name, others) in table {
        others.iter().for_each(|other| assert!(above.contains(other), "{name} names {other}, which is not above it"));
        assert!(above.insert(*name), "{name} is in the table twice");
    }
}

#[test]
fn tables_have_no_circle_and_name_what_exists() {
    assert_layers(CRATES);
    assert_layers(MODULES);
    let crates = CRATES.iter().map(|(name, _)| Path::new("crates").join(name));
    let modules = MODULES.iter().map(|(name, _)| Path::new("src").join(name));
    let no_crates = crates.filter(|path| !path.join("Cargo.toml").is_file());
    let no_modules = modules.filter(|path| !path.is_dir() && !path.with_extension("rs").is_file());
    let missing: Vec<_> = no_crates.chain(no_modules).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// The packages in a section of a manifest.
fn dependencies(manifest: &str, wanted: impl Fn(&str) -> bool) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut is_wanted = false;
    for line in manifest.lines() {
        if let Some(section) = line.strip_prefix('[') {
            let section = section.trim_end_matches(']');
            is_wanted = wanted(section);
            assert!(!section.contains("dependencies."), "a dependency has a line, not the section {section}");
        } else if let Some((name, _)) = line.split_once(['.', ' ']).filter(|_| is_wanted && !line.starts_with('#')) {
            names.insert(name.to_owned());
        }
    }
    names
}

#[test]
fn crates_depend_only_on_those_below_them() {
    let allowed: BTreeMap<_, _> = CRATES.iter().copied().collect();
    let mut wrong = Vec::new();
    for entry in fs::read_dir("crates").unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let manifest = fs::read_to_string(path.join("Cargo.toml")).unwrap();
        let allowed = allowed.get(name).unwrap_or_else(|| panic!("crates/{name} is not in the table"));
        let all = dependencies(&manifest, |section| section.ends_with("dependencies") && !section.contains("dev"));
        if all.contains("ebb") {
            wrong.push(format!("crates/{name} depends on the sidecar"));
        }
        let others = all.iter().filter_map(|package| package.strip_prefix("ebb-"));
        let foreign = others.filter(|other| !allowed.contains(other));
        wrong.extend(foreign.map(|other| format!("ebb-{name} depends on ebb-{other}")));
        if name == "engine" && !all.iter().all(|package| OF_ENGINE.contains(&package.as_str())) {
            wrong.push(format!("ebb-engine depends on {all:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_code_stands_in_one_file() {
    let mut files = Vec::new();
    sources(Path::new("src"), &mut files);
    sources(Path::new("crates"), &mut files);
    let has_blocks = |text: &str| {
        let mut code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        code.any(|line| ["unsafe {", "unsafe fn", "unsafe impl"].iter().any(|words| line.contains(words)))
    };
    let others = files.iter().filter(|(path, _)| path != "crates/engine/src/store/arena.rs");
    let wrong: Vec<_> = others.filter(|(_, text)| has_blocks(text)).map(|(path, _)| path).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn one_symbol_is_exported_by_name() {
    let mut files = Vec::new();
    sources(Path::new("src"), &mut files);
    sources(Path::new("crates"), &mut files);
    let exporting = files.iter().filter(|(_, text)| text.contains("#[unsafe("));
    let paths: Vec<_> = exporting.map(|(path, text)| (path.as_str(), text.matches("#[unsafe(").count())).collect();
    assert_eq!(paths, [("src/allocator.rs", 1)], "jemalloc's settings alone");
}

#[test]
fn the_engine_has_no_files_and_no_wall_clock() {
    let mut files = Vec::new();
    sources(Path::new("crates/engine/src"), &mut files);
    let mut wrong = Vec::new();
    for (path, text) in files.iter().filter(|(path, _)| !path.ends_with("tests.rs")) {
        for foreign in ["std::fs", "std::net", "SystemTime"] {
            let mut code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            if code.any(|line| line.contains(foreign)) {
                wrong.push(format!("{path} names {foreign}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The words that the glossary forbids in every sense.
fn forbidden_words() -> Vec<String> {
    let glossary = fs::read_to_string("docs/glossary.md").unwrap();
    let rows = glossary.lines().filter(|line| line.starts_with("| ") && !line.contains("do not use"));
    let columns = rows.filter_map(|line| line.trim_end_matches('|').rsplit('|').next());
    let words = columns.flat_map(|column| column.split([',', ';']).map(str::trim));
    words.filter(|word| !word.is_empty() && !word.contains(['*', '-', '('])).map(str::to_owned).collect()
}

/// A text without code: words in backticks may be names of other programs.
fn without_code(text: &str) -> String {
    text.split('`').step_by(2).collect::<Vec<_>>().join(" ")
}

/// Whether a text contains these words, as whole words, ignoring case.
fn holds(text: &str, words: &str) -> bool {
    let lower = text.to_lowercase();
    let is_letter = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    lower.match_indices(words).any(|(at, found)| {
        !is_letter(lower[..at].chars().next_back()) && !is_letter(lower[at + found.len()..].chars().next())
    })
}

/// The help of a command and of those below it, each with its name.
fn help(words: &[String], into: &mut Vec<(String, String)>) {
    let output = common::program().args(words).arg("--help").output().unwrap();
    assert!(output.status.success(), "{words:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let commands = text.split("Commands:\n").nth(1).unwrap_or_default().split("\n\n").next().unwrap();
    let names = commands.lines().filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next());
    for name in names.filter(|name| *name != "help" && commands.contains(&format!("  {name} "))) {
        help(&[words, &[name.to_owned()]].concat(), into);
    }
    into.push((format!("ebb {} --help", words.join(" ")), text));
}

/// The messages of log lines in the sources: the last string of each call of a macro of `tracing`.
fn log_messages(into: &mut Vec<(String, String)>) {
    let mut files = Vec::new();
    sources(Path::new("src"), &mut files);
    sources(Path::new("crates"), &mut files);
    for (path, text) in files {
        for level in ["trace!(", "debug!(", "info!(", "warn!(", "error!("] {
            let calls = text.split(level).skip(1).filter_map(|rest| rest.split(");").next());
            into.extend(
                calls.filter_map(|call| Some((format!("a log line of {path}"), call.rsplit('"').nth(1)?.to_owned()))),
            );
        }
    }
}

#[test]
fn what_people_read_uses_the_words_of_the_glossary() {
    let mut texts = Vec::new();
    help(&[], &mut texts);
    assert!(texts.len() > 20, "{} commands", texts.len());
    log_messages(&mut texts);
    assert!(texts.len() > 80, "{} texts", texts.len());
    let documents =
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "RELIABILITY.md", "SECURITY.md", "charts/ebb/README.md"];
    let mut paths: Vec<_> = documents.map(std::path::PathBuf::from).to_vec();
    paths.extend(
        ["charts/ebb/values.yaml", "charts/ebb/files/rules.yaml", "charts/ebb/templates/NOTES.txt"].map(Into::into),
    );
    let docs = fs::read_dir("docs").unwrap().map(|entry| entry.unwrap().path());
    // The record of measurements quotes subjects of old commits and figures of old programs.
    paths.extend(docs.filter(|path| {
        path.extension().is_some_and(|extension| extension == "md")
            && !path.ends_with("glossary.md")
            && !path.ends_with("measurements.md")
    }));
    for path in paths {
        texts.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
    }
    let forbidden = forbidden_words();
    assert!(forbidden.len() > 15 && forbidden.iter().any(|word| word == "knob"), "{forbidden:?}");
    let found: Vec<String> = texts
        .iter()
        .flat_map(|(name, text)| {
            let text = without_code(text);
            forbidden.iter().filter(move |word| holds(&text, word)).map(move |word| format!("{name}: {word:?}"))
        })
        .collect();
    assert!(found.is_empty(), "words that docs/glossary.md replaces:\n{}", found.join("\n"));
}
