//! Runs the commands of the documents.
#![allow(missing_docs, reason = "tests")]

mod common;

use common::{Ebb, program, until};
use std::fs;
use std::process::Command;

/// The shell blocks of a document.
fn blocks(path: &str) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    text.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

/// The shell block of a document that begins with these words.
fn block(path: &str, words: &str) -> String {
    let block = blocks(path).into_iter().find(|block| block.starts_with(words));
    block.unwrap_or_else(|| panic!("{path} has no block that begins with {words:?}"))
}

/// Runs a block in the project's directory, with this build as `ebb`, against this server.
fn run(block: &str, ebb: &Ebb, folder: &std::path::Path) -> String {
    let root = env!("CARGO_MANIFEST_DIR");
    let program = program().get_program().to_str().unwrap().to_owned();
    let block = block.replace("tests/inject/pods", &format!("{root}/tests/inject/pods"));
    let block = block.replace("127.0.0.1:7070", &ebb.data).replace("127.0.0.1:7071", &ebb.admin);
    let bench = std::path::Path::new(&program).with_file_name("ebb-bench");
    assert!(bench.is_file(), "there is no {}; `cargo build --workspace` makes it", bench.display());
    let block = block.replace("cargo run --release -p ebb-bench --", "ebb-bench");
    let bench = bench.display();
    let script = format!("set -eu\nebb() {{ '{program}' \"$@\"; }}\nebb-bench() {{ '{bench}' \"$@\"; }}\n{block}");
    let output = Command::new("bash")
        .args(["-c", &script])
        .current_dir(folder)
        .env("SERVER", ebb.child.id().to_string())
        .env("EBB_ADDR", &ebb.data)
        .env("EBB_ADMIN_ADDR", &ebb.admin)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{block}\n{said}");
    said
}

#[test]
fn commands_of_getting_started_work() {
    let blocks = blocks("docs/getting-started.md");
    let (build, rest) = blocks.split_first().unwrap();
    assert!(build.contains("cargo build --release") && build.contains("ebb serve --max-memory 256Mi"));
    let ebb = Ebb::start(&["--max-memory", "256Mi"]);
    let folder = tempfile::tempdir().unwrap();
    let said: Vec<String> = rest.iter().map(|block| run(block, &ebb, folder.path())).collect();
    let moved = ebb.metric("ebb_cleaner_freed_segments_total{reason=\"drift\"} ");
    assert!(moved > 0, "memory came back in the server whose page is open");
    let expected = said.iter().zip(["hello", "all is well", "watermarks.high", ""]);
    let missing: Vec<_> = expected.filter(|(block, words)| !block.contains(words)).map(|(_, words)| words).collect();
    assert!(missing.is_empty(), "{missing:?} is missing in\n{}", said.join("\n"));
    let injected = fs::read_to_string(folder.path().join("injected.yaml")).unwrap();
    assert!(injected.contains("initContainers"), "{injected}");
}

#[test]
fn commands_of_the_readme_work() {
    let two = block("README.md", "cargo run --release -- serve");
    assert_eq!(two.lines().map(without_comment).collect::<Vec<_>>(), ["cargo run --release -- serve", "./test"]);
    let ebb = Ebb::start(&["--max-memory", "256Mi"]);
    let folder = tempfile::tempdir().unwrap();
    // The build and the server exist already. Commands that need a terminal or take minutes run with `--help`.
    let line = |line: &str| match without_comment(line) {
        words if words.starts_with("cargo build") || words.starts_with("ebb serve") => String::new(),
        words if words.starts_with("ebb top") || words.starts_with("cargo run") => format!("{words} --help\n"),
        words => format!("{words}\n"),
    };
    let script: String = block("README.md", "cargo build").lines().map(line).collect();
    let said = run(&script, &ebb, folder.path());
    let expected = ["hello", "live", "Usage: ebb top", "Usage: ebb-bench reclaim"];
    let missing: Vec<_> = expected.into_iter().filter(|words| !said.contains(words)).collect();
    assert!(missing.is_empty(), "{missing:?} is missing in\n{said}");
}

/// A line of a shell block without its comment.
fn without_comment(line: &str) -> &str {
    line.split('#').next().unwrap().trim_end()
}

#[test]
fn commands_of_the_memory_page_work() {
    let ebb = Ebb::start(&["--max-memory", "64Mi"]);
    let folder = tempfile::tempdir().unwrap();
    for block in blocks("docs/memory.md") {
        run(&block, &ebb, folder.path());
    }
    until("the log has a line for the run", || ebb.logged("cleaner run finished") > 0);
}

#[test]
fn commands_of_the_page_about_leases_work() {
    let ebb = Ebb::start(&["--max-memory", "64Mi"]);
    let folder = tempfile::tempdir().unwrap();
    let said = run(&block("docs/leases.md", "TOKEN="), &ebb, folder.path());
    assert!(said.ends_with("figures of today"), "{said}");
    // Each refusal and state has a sentence and an exit code.
    let again = format!("{} || echo \"ended $?\"\n", "ebb set report later --lease-token 17");
    let states = "ebb del report --hold-off 1h; ebb get report --lease 1s --wait 100ms || echo \"none $?\"\n";
    let taken = "ebb get other --lease 1h || ebb get other --lease 1h --wait 100ms || echo \"held $?\"\n";
    let said = run(&format!("{again}{states}{taken}"), &ebb, folder.path());
    let expected = [
        "not stored: the lease has ended",
        "ended 1",
        "a tombstone holds fills off",
        "none 1",
        "lease: won for",
        "another caller holds it",
        "held 1",
    ];
    let missing: Vec<_> = expected.into_iter().filter(|words| !said.contains(words)).collect();
    assert!(missing.is_empty(), "{missing:?} is missing in\n{said}");
}

#[test]
fn injection_by_example_shows_what_ebb_inject_writes() {
    const PAGE: &str = "docs/injection-by-example.md";
    let text = fs::read_to_string(PAGE).unwrap();
    let (before, rest) = text.split_once("## Before\n\n```yaml\n").unwrap().1.split_once("```").unwrap();
    let (head, after) = rest.split_once("## After\n\n```yaml\n").unwrap();
    let (after, tail) = after.split_once("```").unwrap();
    let ebb = Ebb::start(&["--max-memory", "64Mi"]);
    let folder = tempfile::tempdir().unwrap();
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    fs::write(folder.path().join("deployment.yaml"), before).unwrap();
    run(&block(PAGE, "ebb inject"), &ebb, folder.path());
    let injected = read("injected.yaml");
    if std::env::var_os("EBB_BLESS").is_some() {
        let start = text.split_once(before).unwrap().0;
        fs::write(PAGE, format!("{start}{before}```{head}## After\n\n```yaml\n{injected}```{tail}")).unwrap();
    } else {
        assert_eq!(after, injected, "EBB_BLESS=1 cargo test --test docs by_example rewrites it");
    }
    let parsed = |text: &str| ebb_config::yaml::manifests::<serde_json::Value>(text).unwrap();
    assert_eq!(parsed(&read("original.yaml")), parsed(before), "uninject reverses it");
}

/// Every shell or code block, by document and first words, with the test that runs it.
const RUN: &[(&str, &str, &str)] = &[
    ("docs/getting-started.md", "cargo build", "tests/docs.rs"),
    ("docs/getting-started.md", "ebb set", "tests/docs.rs"),
    ("docs/getting-started.md", "cargo run --release -p ebb-bench", "tests/docs.rs"),
    ("docs/getting-started.md", "cat > ebb.yaml", "tests/docs.rs"),
    ("docs/getting-started.md", "ebb inject", "tests/docs.rs"),
    ("docs/injection-by-example.md", "import json", "tests/clients/python.sh"),
    ("docs/injection-by-example.md", "apiVersion", "tests/docs.rs"),
    ("docs/injection-by-example.md", "ebb inject", "tests/docs.rs"),
    ("docs/injection-by-example.md", "apiVersion", "tests/docs.rs"),
    ("docs/leases.md", "import os, grpc", "tests/clients/python.sh"),
    ("docs/leases.md", "TOKEN=", "tests/docs.rs"),
    ("docs/memory.md", "ebb compact", "tests/docs.rs"),
    ("docs/operations.md", "kubectl ebb top", "tests/install.sh"),
    ("docs/platforms.md", "helm package", "tests/chart/test_platforms.py"),
    ("docs/platforms.md", "apiVersion: argoproj.io/v1alpha1", "tests/chart/test_platforms.py"),
    ("docs/platforms.md", "apiVersion: source.toolkit.fluxcd.io/v1", "tests/chart/test_platforms.py"),
    ("docs/platforms.md", "apiVersion: autoscaling/v2", "tests/chart/test_platforms.py"),
    ("docs/platforms.md", "apiVersion: autoscaling.k8s.io/v1", "tests/chart/test_platforms.py"),
    ("docs/platforms.md", "# values", "tests/chart/test_platforms.py"),
    ("docs/platforms.md", "apiVersion: v1", "tests/chart/test_platforms.py"),
    ("docs/platforms.md", "# values", "tests/chart/test_platforms.py"),
    ("docs/platforms.md", "apiVersion: v1", "tests/chart/test_platforms.py"),
    ("docs/platforms.md", "apiVersion: constraints.gatekeeper.sh/v1beta1", "tests/chart/test_platforms.py"),
    ("docs/platforms.md", "apiVersion: kyverno.io/v2", "tests/chart/test_platforms.py"),
    ("docs/platforms.md", "# values", "tests/chart/test_platforms.py"),
    ("docs/platforms.md", "apiVersion: v1", "tests/chart/test_platforms.py"),
    ("docs/platforms.md", "# values", "tests/chart/test_platforms.py"),
    ("docs/platforms.md", "# values", "tests/chart/test_platforms.py"),
    ("docs/platforms.md", "# values", "tests/chart/test_platforms.py"),
    ("docs/platforms.md", "# values", "tests/chart/test_platforms.py"),
    ("docs/platforms.md", "# values", "tests/chart/test_platforms.py"),
    ("docs/platforms.md", "# values", "tests/chart/test_platforms.py"),
    ("docs/platforms.md", "# values", "tests/chart/test_platforms.py"),
    ("docs/platforms.md", "# values", "tests/chart/test_platforms.py"),
    ("docs/platforms.md", "apiVersion: v1", "tests/chart/test_platforms.py"),
    ("docs/platforms.md", "helm install ebb-canary", "tests/cluster/docs.rs"),
    ("docs/platforms.md", "kubectl label namespace shop", "tests/cluster/docs.rs"),
    ("docs/platforms.md", "helm upgrade ebb", "tests/cluster/docs.rs"),
    ("docs/security.md", "# values", "tests/cluster/client_ca.rs"),
    ("docs/security.md", "apiVersion: apiserver.config.k8s.io/v1", "tests/cluster/apiserver.rs"),
    ("docs/security.md", "apiVersion: v1", "tests/cluster/apiserver.rs"),
    ("README.md", "REGISTRY=", "tests/container.sh"),
    ("README.md", "helm install", "tests/cluster/docs.rs"),
    ("README.md", "kubectl get pods", "tests/cluster/docs.rs"),
    ("README.md", "cargo run", "tests/docs.rs"),
    ("README.md", "cargo build", "tests/docs.rs"),
    ("README.md", "pip install grpcio", "tests/clients/python.sh"),
    ("README.md", "import os, grpc", "tests/clients/python.sh"),
    ("charts/ebb/README.md", "helm install", "tests/install.sh"),
    ("charts/ebb/README.md", "tests/image.sh", "tests/container.sh"),
    ("charts/ebb/README.md", "kubectl -n shop create configmap", "tests/cluster/docs.rs"),
    ("charts/ebb/README.md", "kubectl -n shop create role", "tests/cluster/docs.rs"),
];

#[test]
fn a_test_runs_every_block_of_a_document() {
    let mut documents: Vec<_> = fs::read_dir("docs").unwrap().map(|entry| entry.unwrap().path()).collect();
    documents.sort();
    let others = [
        "README.md",
        "charts/ebb/README.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "RELIABILITY.md",
        "SECURITY.md",
    ];
    documents.extend(others.map(Into::into));
    let mut found = Vec::new();
    for document in documents.iter().filter(|path| path.extension().is_some_and(|extension| extension == "md")) {
        let text = fs::read_to_string(document).unwrap();
        // The text between two fences; diagrams are marked as `text`.
        for block in text.split("\n```").skip(1).step_by(2).filter(|block| !block.starts_with("text\n")) {
            found.push((document.to_str().unwrap().to_owned(), block.lines().nth(1).unwrap().to_owned()));
        }
    }
    for ((document, line), known) in found.iter().zip(RUN.iter().map(Some).chain(std::iter::repeat(None))) {
        let is_known = known.is_some_and(|(known, words, _)| document == known && line.starts_with(words));
        assert!(is_known, "{document}: who runs the block that begins with {line:?}?");
    }
    assert_eq!(found.len(), RUN.len());
    let mut wrong = Vec::new();
    for (document, words, test) in RUN {
        let text = fs::read_to_string(test).unwrap();
        // Scripts ask for a block of a document by its first words.
        let asks = if [".rs", ".py"].iter().any(|kind| test.ends_with(kind)) {
            text.contains(document)
        } else {
            ["", "'"].iter().any(|quote| text.contains(&format!("tests/block.sh {document} {quote}{words}")))
        };
        if !asks {
            wrong.push(format!("{test} does not run {words} of {document}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn links_between_documents_have_targets() {
    let slug = |heading: &str| -> String {
        let kept = heading
            .trim()
            .to_lowercase()
            .chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
            .collect::<String>();
        kept.replace(' ', "-")
    };
    let mut documents: Vec<_> = fs::read_dir("docs").unwrap().map(|entry| entry.unwrap().path()).collect();
    documents.extend(
        ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "RELIABILITY.md", "SECURITY.md"]
            .map(Into::into),
    );
    let mut wrong = Vec::new();
    for document in documents.iter().filter(|path| path.extension().is_some_and(|extension| extension == "md")) {
        let text = fs::read_to_string(document).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            let (file, heading) = link.split_once('#').map_or((link, None), |(file, heading)| (file, Some(heading)));
            let target = if file.is_empty() { document.clone() } else { document.parent().unwrap().join(file) };
            if !target.exists() {
                wrong.push(format!("{}: {link} leads nowhere", document.display()));
                continue;
            }
            if let Some(heading) = heading {
                let target = fs::read_to_string(&target).unwrap();
                let headings: Vec<_> = target
                    .lines()
                    .filter(|line| line.starts_with('#'))
                    .map(|line| slug(line.trim_start_matches('#')))
                    .collect();
                if !headings.iter().any(|known| known == heading) {
                    wrong.push(format!("{}: no heading {heading} among {headings:?}", document.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
