//! Texts of clients that a terminal would obey or that deceive a reader: no output contains them unescaped.

mod common;

use common::{Ebb, events, page, program};
use ebb_proto::cache_service_client::CacheServiceClient;
use ebb_proto::{BatchGetRequest, SetRequest};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::process::Stdio;

/// A window title, a clear screen in C1, a fake line, a reversed file name, marks without a width.
const HOSTILE: [&str; 6] = [
    "\u{1b}]0;owned\u{7}\u{1b}[2J",
    "\u{9b}2J\u{7f}\u{8}",
    "a\r\nebb: all is well\n",
    "\u{202e}gnp.exe\u{2066}\u{2069}\u{61c}",
    "a\u{200b}b\u{200e}c\u{feff}d",
    "one\u{2028}two\u{2029}three\u{85}",
];

fn is_unsafe(c: char) -> bool {
    c.is_control() && c != '\n' && c != '\t'
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// What a command writes, which has nothing unsafe.
fn output(words: &[&str]) -> String {
    let output = program().args(words).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap() + std::str::from_utf8(&output.stderr).unwrap();
    let found: Vec<_> = text.lines().filter(|line| line.contains(is_unsafe)).collect();
    assert!(found.is_empty(), "{words:?}: {found:?}");
    text
}

async fn filled(ebb: &Ebb) {
    let mut client = CacheServiceClient::connect(format!("http://{}", ebb.data)).await.unwrap();
    for namespace in HOSTILE.into_iter().chain([""]) {
        for text in HOSTILE {
            let (key, namespace) = (text.into(), namespace.to_owned());
            let request = SetRequest { key, namespace, value: text.into(), ..Default::default() };
            client.set(request).await.unwrap();
        }
        let keys = vec![HOSTILE[0].into(); 1_000];
        client
            .batch_get(BatchGetRequest { keys, namespace: namespace.to_owned(), ..Default::default() })
            .await
            .unwrap();
    }
    // Refused, with a name that an error or a log line might quote.
    let request = SetRequest { namespace: HOSTILE.concat().repeat(20), key: "k".into(), ..Default::default() };
    client.set(request).await.unwrap_err();
}

#[tokio::test]
async fn no_output_has_unescaped_texts_of_clients() {
    for format in ["text", "json"] {
        let mut command = program();
        command.env("EBB_LOG_FORMAT", format).env("EBB_LOG_LEVEL", "trace").args(common::SERVE);
        let ebb = Ebb::spawn(command);
        filled(&ebb).await;
        let scanned = output(&["scan", "--addr", &ebb.data]);
        assert_eq!(scanned.lines().count(), HOSTILE.len(), "one line per key: {scanned}");
        assert!(scanned.contains("\\u001b]0;owned\\u0007\\u001b[2J"), "{scanned}");
        let with_values = output(&["scan", "--values", "--namespace", HOSTILE[2], "--addr", &ebb.data]);
        assert_eq!(with_values.lines().count(), HOSTILE.len(), "{with_values}");
        for line in output(&["scan", "--values", "--output", "json", "--addr", &ebb.data]).lines() {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(HOSTILE.contains(&row["value"].as_str().unwrap()) && row["key"] == row["value"], "{row}");
        }
        let got = output(&["get", HOSTILE[3], "--output", "json", "--addr", &ebb.data]);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&got).unwrap()["value"], HOSTILE[3]);
        for words in [
            "stats",
            "doctor",
            "memory-map",
            "diagnostics",
            "compact",
            "keys --big --clear --limit 64",
            "keys --hot --clear --limit 64",
            "keys --big --clear --output json",
            "keys --hot",
            "stats --output json",
        ] {
            output(&words.split(' ').chain(["--admin-addr", &ebb.admin]).collect::<Vec<_>>());
        }
        let big = output(&["keys", "--big", "--clear", "--limit", "64", "--admin-addr", &ebb.admin]);
        assert!(big.lines().all(|line| !line.starts_with("ebb: all is well")), "{big}");
        let wrong = format!("x{}", HOSTILE[0]);
        output(&["get", "k", "--namespace", &HOSTILE.concat().repeat(20), "--addr", &ebb.data]);
        output(&["get", "k", "--addr", &wrong]);
        let mut shown = vec![events(&ebb.http)];
        shown.extend(["/", "/metrics", "/readyz"].map(|path| page(&ebb.http, path).unwrap().1.replace('\r', "")));
        shown.extend(ebb.lines(""));
        let found: Vec<_> =
            shown.iter().flat_map(|text| text.lines()).filter(|line| line.contains(is_unsafe)).collect();
        assert!(found.is_empty(), "{found:?}");
    }
}

/// What a command writes to a terminal.
fn on_a_terminal(words: &[&str]) -> String {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let slave = OpenOptions::new().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    let (stdout, stderr) = (Stdio::from(slave.try_clone().unwrap()), Stdio::from(slave));
    let mut command = program();
    let mut child = command.args(words).stdin(Stdio::null()).stdout(stdout).stderr(stderr).spawn().unwrap();
    drop(command);
    let (mut bytes, mut buffer, mut master) = (Vec::new(), [0; 4096], File::from(master));
    while let Ok(read @ 1..) = master.read(&mut buffer) {
        bytes.extend_from_slice(&buffer[..read]);
    }
    child.wait().unwrap();
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn a_value_is_escaped_on_a_terminal_unless_raw() {
    let ebb = Ebb::start(&[]);
    filled(&ebb).await;
    let get = ["get", HOSTILE[0], "--addr", &ebb.data];
    let shown = on_a_terminal(&get);
    assert!(shown.starts_with("\\u001b]0;owned\\u0007\\u001b[2J"), "{shown:?}");
    assert!(shown.contains("--raw prints the value unchanged") && !shown.contains('\u{1b}'), "{shown:?}");
    assert_eq!(on_a_terminal(&[&get[..], &["--raw"]].concat()), HOSTILE[0]);
    let piped = program().args(get).output().unwrap();
    assert_eq!((piped.stdout, piped.stderr), (HOSTILE[0].as_bytes().to_vec(), Vec::new()));
    let raw = program().args(["scan", "--raw", "--addr", &ebb.data]).output().unwrap();
    assert!(String::from_utf8(raw.stdout).unwrap().contains(HOSTILE[0]));
}
