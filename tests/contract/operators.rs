//! Output for operators: JSON, hot keys, a limit above the machine's memory.

use crate::common::{self, Ebb, program, until};
use crate::{connect, set};
use bytes::Bytes;
use ebb_proto::*;

fn run(arguments: &[&str], input: &[u8]) -> serde_json::Value {
    use std::io::Write as _;
    use std::process::Stdio;
    let mut command = program();
    let mut child = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {:?}", String::from_utf8_lossy(&output.stdout)))
}

#[tokio::test]
async fn json_output_keeps_bytes_and_numbers_exact() {
    let ebb = Ebb::start(&[]);
    let json = ["--output", "json", "--addr", &ebb.data];
    let stored = run(&[&["set", "k", "-"][..], &json].concat(), b"\xff\x00\xfe");
    let version: u64 = stored["version"].as_str().expect("a 64-bit number is a string").parse().unwrap();
    let read = run(&[&["get", "k"][..], &json].concat(), b"");
    assert_eq!((&read["value_base64"], read.get("value")), (&"/wD+".into(), None));
    assert_eq!((&read["version"], &read["size"]), (&version.to_string().into(), &"3".into()));
    run(&[&["set", "k", "-"][..], &json].concat(), "caf\u{e9}".as_bytes());
    let read = run(&[&["get", "k"][..], &json].concat(), b"");
    assert_eq!((&read["value"], read.get("value_base64")), (&"caf\u{e9}".into(), None));
    let mut client = connect(&ebb).await;
    client.delete(DeleteRequest { key: "k".into(), ..Default::default() }).await.unwrap();
    client.set(set(&b"\x80key"[..], &b"\xffvalue"[..])).await.unwrap();
    let row = run(&[&["scan", "--values"][..], &json].concat(), b"");
    assert_eq!((&row["key_base64"], &row["value_base64"]), (&"gGtleQ==".into(), &"/3ZhbHVl".into()));
    let stats = run(&["stats", "--output", "json", "--admin-addr", &ebb.admin], b"");
    assert_eq!((&stats["entries"], stats["memory"]["limit_bytes"].is_string()), (&"1".into(), true));
}

#[tokio::test]
async fn evenly_read_keys_are_not_hot() {
    let ebb = Ebb::start(&[]);
    let mut client = connect(&ebb).await;
    let hot = ["keys", "--hot", "--output", "json", "--clear", "--admin-addr", &ebb.admin];
    let keys = |round: usize| (0..1_000).map(move |i| Bytes::from(format!("key-{}", round % 20 * 1_000 + i)));
    for round in 0..1_000 {
        let request = BatchGetRequest { keys: keys(round).collect(), ..Default::default() };
        client.batch_get(request).await.unwrap();
    }
    let even = run(&hot, b"");
    assert!(even["sampled"].as_str().unwrap().parse::<u64>().unwrap() > 2_000, "{even}");
    assert_eq!(even["keys"], serde_json::json!([]), "20,000 keys read equally");
    let output = program().args(["keys", "--hot", "--admin-addr", &ebb.admin]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        said.starts_with("no hot keys: no key was read significantly more often than others in a sample of "),
        "{said}"
    );
    for round in 0..400 {
        let request = BatchGetRequest {
            keys: keys(round).take(700).chain(vec!["hot".into(); 300]).collect(),
            ..Default::default()
        };
        client.batch_get(request).await.unwrap();
    }
    let found = run(&hot, b"");
    assert_eq!((found["keys"].as_array().unwrap().len(), &found["keys"][0]["key"]), (1, &"hot".into()), "{found}");
    let share = found["keys"][0]["read_share_percent"].as_f64().unwrap();
    assert!((4.0..=11.0).contains(&share), "120,000 of 1,400,000 reads, and certainly no more: {share}");
}

#[tokio::test]
async fn namespaces_are_listed_with_what_they_use() {
    let ebb = Ebb::start(&[]);
    let mut cache = connect(&ebb).await;
    let mut set = async |namespace: &str, key: String, len: usize| {
        let value = vec![b'x'; len].into();
        let request = SetRequest { namespace: namespace.into(), key: key.into(), value, ..Default::default() };
        cache.set(request).await.unwrap();
    };
    for i in 0..30 {
        set("large", format!("key-{i:02}"), 1_000).await;
        set("", format!("key-{i:02}"), 10).await;
    }
    // With the default one, 40 namespaces: more than are counted one by one.
    for i in 0..38 {
        set(&format!("team-{i:02}"), "key-00".into(), 1).await;
    }
    cache
        .delete(DeleteRequest { namespace: "team-37".into(), key: "key-00".into(), ..Default::default() })
        .await
        .unwrap();
    cache.get(GetRequest { namespace: "large".into(), key: "key-00".into(), ..Default::default() }).await.unwrap();
    let list = |more: &[&str]| run(&[&["namespaces", "-o", "json", "--admin-addr", &ebb.admin], more].concat(), b"");
    let listed = list(&[]);
    assert_eq!((&listed["total"], listed["namespaces"].as_array().unwrap().len()), (&39.into(), 39), "{listed}");
    let large = serde_json::json!({
        "name": "large", "entries": "30", "live_bytes": "30180", "evictions": "0", "hits": "1", "misses": "0", "sets": "30",
    });
    assert_eq!(listed["namespaces"][0], large);
    assert_eq!(listed["namespaces"][1]["name"], "default");
    assert_eq!(
        (&listed["namespaces"][1]["entries"], &listed["namespaces"][1]["live_bytes"]),
        (&"30".into(), &"480".into())
    );
    let last = &listed["namespaces"][38];
    assert_eq!((&last["name"], &last["hits"]), (&"team-36".into(), &serde_json::Value::Null), "{last}");
    assert_eq!(list(&["--limit", "1"])["namespaces"].as_array().unwrap().len(), 1);
    let output = program().args(["namespaces", "--limit", "2", "--admin-addr", &ebb.admin]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("29.5 KiB") && said.ends_with("and 37 other namespaces\n"), "{said}");
    let (_, metrics) = common::page(&ebb.http, "/metrics").unwrap();
    let others = "ebb_namespace_entries{cache_namespace=\"<others>\"} 7";
    assert!(
        metrics.contains(others) && metrics.contains("ebb_namespace_live_bytes{cache_namespace=\"large\"} 30180"),
        "{metrics}"
    );
}

fn doctor(ebb: &Ebb) -> String {
    let output = program().args(["doctor", "--admin-addr", &ebb.admin]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn a_limit_beyond_the_machine_is_named() {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap();
    let kib = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")).unwrap();
    let machine = kib.trim().parse::<u64>().unwrap() << 10;
    let files = tempfile::tempdir().unwrap();
    for (name, text) in [("memory.max", (machine + 4096).to_string()), ("memory.stat", "anon 1\n".to_owned())] {
        std::fs::write(files.path().join(name), text).unwrap();
    }
    std::fs::create_dir(files.path().join("memory")).unwrap();
    for (name, text) in [("limit_in_bytes", (machine + 4096).to_string()), ("stat", "rss 1\n".to_owned())] {
        std::fs::write(files.path().join(format!("memory/memory.{name}")), text).unwrap();
    }
    let mut wrong = Vec::new();
    for (root, arguments, named) in [
        ("/does/not/exist", &["--max-memory", "1Ti"][..], "max_memory"),
        (files.path().to_str().unwrap(), &[], "cgroup memory."),
    ] {
        let mut command = program();
        command.env("EBB_CGROUP_ROOT", root).args(common::SERVE).args(arguments);
        let ebb = Ebb::spawn(command);
        until("a warning is logged", || ebb.logged("memory limit exceeds the machine's memory") == 1);
        let source = ebb.metric("ebb_memory_limit_source{source=\"machine memory\"} ");
        let limit = (ebb.metric("ebb_memory_limit_bytes "), source);
        if limit != (machine, 1) {
            wrong.push(format!("{named}: limit and its source are {limit:?} instead of {:?}", (machine, 1)));
        }
        let found = doctor(&ebb);
        let is_named = found.contains("limit_beyond_machine") && found.contains(named);
        if !is_named || found.contains("no_memory_limit") {
            wrong.push(format!("{named}: {found}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
