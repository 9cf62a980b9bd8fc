//! The arrows between modules run one way. An arrow that is not in the table fails.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Who may name whom.
const ARROWS: &[(&str, &[&str])] = &[
    ("sync", &[]),
    ("wall_clock", &[]),
    ("clock", &[]),
    ("units", &[]),
    ("proto", &[]),
    ("store", &["clock", "sync"]),
    ("cleaner", &["clock", "store"]),
    ("memory", &["cleaner", "clock", "store"]),
    ("cache", &["clock", "proto", "store", "sync"]),
    ("config", &["cleaner", "memory", "units"]),
    ("k8s", &["config", "http", "logging", "memory", "units"]),
    ("logging", &["config"]),
    ("traffic", &[]),
    ("tuning", &["cache", "cleaner", "config", "memory"]),
    ("spans", &["logging", "wall_clock"]),
    (
        "sources",
        &["cache", "cleaner", "clock", "config", "http", "k8s", "memory", "spans", "store", "traffic", "wall_clock"],
    ),
    ("history", &["cleaner", "http", "memory", "sources", "store", "traffic", "wall_clock"]),
    ("receipts", &["cleaner"]),
    ("regimes", &["memory"]),
    ("doctor", &["config", "history", "http", "memory", "sources", "store", "units", "wall_clock"]),
    (
        "metrics",
        &["cache", "cleaner", "config", "http", "k8s", "logging", "memory", "sources", "spans", "store", "traffic"],
    ),
    ("http", &["logging"]),
    ("page", &["cleaner", "doctor", "history", "sources"]),
    (
        "grpc",
        &[
            "cache",
            "cleaner",
            "doctor",
            "history",
            "logging",
            "proto",
            "sources",
            "spans",
            "store",
            "traffic",
            "wall_clock",
        ],
    ),
    (
        "server",
        &[
            "cache",
            "cleaner",
            "clock",
            "config",
            "grpc",
            "history",
            "http",
            "k8s",
            "logging",
            "memory",
            "metrics",
            "page",
            "proto",
            "receipts",
            "regimes",
            "sources",
            "spans",
            "store",
            "traffic",
            "tuning",
            "wall_clock",
        ],
    ),
    ("cli", &["cleaner", "clock", "config", "k8s", "logging", "memory", "proto", "server", "store", "units"]),
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

/// The modules a text names as `crate::module`, without what stands in its unit tests.
fn named(text: &str) -> BTreeSet<String> {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
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
fn every_arrow_is_one_that_was_decided_on() {
    let arrows: BTreeMap<_, _> = ARROWS.iter().copied().collect();
    let mut files = Vec::new();
    sources(Path::new("src"), &mut files);
    for (path, text) in files {
        let module = path.trim_start_matches("src/").split(['/', '.']).next().unwrap().to_owned();
        if ["lib", "main"].contains(&module.as_str()) || path.ends_with("tests.rs") || path.ends_with("testing.rs") {
            continue;
        }
        let allowed = arrows.get(module.as_str()).unwrap_or_else(|| panic!("{module} is not in the table"));
        for target in named(&text) {
            assert!(target == module || allowed.contains(&target.as_str()), "{path} names crate::{target}");
        }
    }
}

#[test]
fn unsafe_lives_in_one_room() {
    let mut files = Vec::new();
    sources(Path::new("src"), &mut files);
    for (path, text) in files {
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let blocks =
            code.filter(|line| line.contains("unsafe {") || line.contains("unsafe fn") || line.contains("unsafe impl"));
        assert!(path == "src/store/arena.rs" || blocks.count() == 0, "{path}");
    }
}

#[test]
fn one_symbol_is_exported_by_name() {
    let mut files = Vec::new();
    sources(Path::new("src"), &mut files);
    let exporting = files.iter().filter(|(_, text)| text.contains("#[unsafe("));
    let paths: Vec<_> = exporting.map(|(path, text)| (path.as_str(), text.matches("#[unsafe(").count())).collect();
    assert_eq!(paths, [("src/lib.rs", 1)], "jemalloc's settings alone");
}

#[test]
fn the_engine_knows_nothing_of_the_outside() {
    let mut files = Vec::new();
    for module in ["store", "cleaner"] {
        sources(Path::new("src").join(module).as_path(), &mut files);
    }
    for (path, text) in files.iter().filter(|(path, _)| !path.ends_with("tests.rs")) {
        for foreign in ["tokio", "tonic", "prost", "serde", "std::fs", "std::net", "SystemTime"] {
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            assert!(!code.into_iter().any(|line| line.contains(foreign)), "{path} names {foreign}");
        }
    }
}
