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

/// Texts that readers of YAML and JSON understand in different ways.
const DISPUTED: &[&str] = &[
    "data: {1: a, yes: b, 010: c, 1.5: d, 1.10: e, 0x10: f, 1e3: g, 2001-01-01: h, 2_000: i, 1e21: j, 1000000.5: k, 0.00001: l}",
    "a: yEs\nb: tRUE\nc: YES\nd: y\ne: nULL\nf: On\ng: 'on'\n",
    "a: 0644\nb: 08\nc: 0o17\nd: 0b11\ne: +5\ng: .5\nh: -0x10\ni: 1_0.5\nj: 5.\nk: 0_7\nl: 1__0\nm: 1e3\no: 1.0\np: 1e999\n",
    "a: 123456789012345678901234567890\nb: 18446744073709551615\nc: -9223372036854775809\nd: 1e20\ne: -0.0\nf: 1152921504606846976.0\n",
    "{\"a\": 123456789012345678901234567890, \"b\": 18446744073709551615, \"c\": -9223372036854775809}",
    "{\"a\": 1}\n# c\n{\"b\": 2}\n",
    "{\"a\": 1}\n# c {\n",
    "{\"a\": \"\\ud83d\\ude00\"}{\"b\": 1}",
    "{\"a\": 1}\n---\n{\"b\": 2}\n---\nc: 3\n",
    "a: !!str 5\nb: !!int \"5\"\nc: !own x\nd: ! 5\ne: !!float 3\nf: !!null \"\"\ng: !!bool yes\nh: !own {a: 1}\ni: !!binary aGVsbG8=\n",
    "x: &x {k: 1}\na:\n  k: 2\n  <<: *x\nb:\n  <<: *x\n  k: 2\nc:\n  \"<<\": *x\n",
    "x: &x {k: 1}\nz: &z {k: 3}\na: {<<: [*x, *z]}\nb:\n  <<: *x\n  <<: *z\n",
    "a: &a b\n*a : c\nd: *a\n",
    "a:\nb: !!str\nc: \"\"\nd: 1:30\n",
    "a: 1\rb: 2\n",
    "a: 1\nb: 2\r",
    "a: 1\r\nb: |\r\n  c\r\n  d\r\n",
    "a: 1\n...\n# c\n---\nb: 1\n...\n",
    "\u{feff}a: 1\n",
    "a: {b:\tc,\td: e}\nf:\tg\nh: [\ti\t]\n",
    "a: {\n\tb: c,\n\td: [\n\t\te,\n\t\t# f\n\t\t'g'\n\t],\n\t\"h\":\t\"i\"\n}\nj: |\n  k\n  \tl\n",
    "{\n\ta: b\n\t}\n",
    "a:\t'b'\t# c\nd:\t|\t\n  e\n  \t\n",
];

/// Texts that both refuse.
const REFUSED: &[&str] = &[
    "-\ta\n",
    "a:\n\tb: c\n",
    "a: b\n\t# c\nd: e\n",
    "a: 'b'\n\t\nc: d\n",
    "a: {\n\tb: c\n\t}\n",
    "a: |\n  b\n\tc\n",
    "a: .inf\n",
    "~: a\n",
    "18446744073709551615: a\n",
    "? [a]\n: b\n",
    "a: !!int x\n",
    "a: !!bool 1\n",
    "a: &a [*a]\n",
    "x: &x [1]\na: {<<: *x}\n",
    "a: \u{0}\n",
];

/// Texts of which Kubernetes' reader drops a part, or takes a character for a line break. Ebb refuses them.
const DROPPED: &[&str] = &[
    "a: 1\n...\nb: 1\n",
    "a: 1\na: 2\n",
    "1: a\n\"1\": b\n",
    "{\"a\": 1, \"a\": 2}",
    "{a: 1} {b: 2}\n",
    "a: x\u{2028}b: y\n",
    "a: \"x\u{85}y\"\n",
];

#[test]
fn kubernetes_reader_understands_disputed_texts_alike() {
    let Some(reader) = std::env::var_os("EBB_MANIFEST_READER").map(PathBuf::from) else {
        println!("skipped: EBB_MANIFEST_READER is not set");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    let theirs = |text: &str| {
        fs::write(&file, text).unwrap();
        let mut child =
            Command::new(&reader).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        writeln!(child.stdin.take().unwrap(), "{}", file.display()).unwrap();
        let output = child.wait_with_output().unwrap();
        output.status.success().then(|| serde_json::from_slice::<Vec<Value>>(&output.stdout).unwrap())
    };
    let ours = |text: &str| read(text).map(|values| values.into_iter().filter(|value| !value.is_null()).collect());
    let different: Vec<_> = DISPUTED
        .iter()
        .map(|text| (text, ours(text), theirs(text)))
        .filter(|(_, ours, theirs)| ours.as_ref().ok() != theirs.as_ref())
        .collect();
    assert!(different.is_empty(), "{different:#?}");
    let accepted = REFUSED.iter().map(|text| (text, ours(text), theirs(text)));
    let accepted: Vec<_> = accepted.filter(|(_, ours, theirs)| ours.is_ok() || theirs.is_some()).collect();
    assert!(accepted.is_empty(), "{accepted:#?}");
    let dropped = DROPPED.iter().map(|text| (text, ours(text), theirs(text)));
    let dropped: Vec<_> = dropped.filter(|(_, ours, theirs)| ours.is_ok() || theirs.is_none()).collect();
    assert!(dropped.is_empty(), "{dropped:#?}");
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
