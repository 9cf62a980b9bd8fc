//! Kubernetes' own reader sees what Ebb's sees, before and after an injection.
//!
//! EBB_MANIFEST_READER names the program of tests/cluster/reader (tests/cluster/build.sh builds it). Without it the test
//! is skipped, with a message.

use crate::{generated, read, round_trip, without_status};
use serde_json::Value;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const GENERATED: u64 = 500;

/// Reads files with Kubernetes' reader.
fn by_kubernetes(reader: &Path, files: &[PathBuf]) -> Vec<Vec<Value>> {
    let mut command = Command::new(reader);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let names: String = files.iter().map(|file| format!("{}\n", file.display())).collect();
    let writer = std::thread::spawn(move || input.write_all(names.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn kubernetes_reader_sees_the_same() {
    let Some(reader) = std::env::var_os("EBB_MANIFEST_READER").map(PathBuf::from) else {
        println!("skipped: EBB_MANIFEST_READER is not set");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let seed = generated::seed();
    let mut texts: Vec<(String, String)> = fs::read_dir("tests/manifests/corpus")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        // kubectl splits a text at its markers before it reads it, and reads no directives.
        .filter(|path| !path.ends_with("deployment-with-directive.yaml"))
        .map(|path| (path.display().to_string(), fs::read_to_string(&path).unwrap()))
        .collect();
    texts.extend((0..GENERATED).map(|case| {
        let seed = seed.wrapping_add(case);
        (format!("EBB_SEED={seed}"), generated::manifest(seed))
    }));
    let (mut files, mut expected) = (Vec::new(), Vec::new());
    for (name, text) in texts {
        let injected = round_trip(&text).unwrap_or_else(|problem| panic!("{name}: {problem}")).injected;
        for (when, text) in [("before", text), ("after", injected)] {
            let file = folder.path().join(format!("{}.yaml", files.len()));
            fs::write(&file, &text).unwrap();
            files.push(file);
            let values = read(&text).unwrap().into_iter().filter(|value| !value.is_null());
            expected.push((
                format!("{name}, {when}"),
                values.map(|value| without_status(&value)).collect::<Vec<_>>(),
                text,
            ));
        }
    }
    let found = by_kubernetes(&reader, &files);
    assert_eq!(found.len(), expected.len());
    let found = found.into_iter().map(|values| values.iter().map(without_status).collect::<Vec<_>>());
    let wrong: Vec<String> = found
        .zip(&expected)
        .filter(|(found, (_, values, _))| found != values)
        .map(|(found, (name, values, text))| format!("{name}: {found:?} instead of {values:?}\n{text}"))
        .collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), expected.len(), wrong[..wrong.len().min(2)].join("\n"));
}
