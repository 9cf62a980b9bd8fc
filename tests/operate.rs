//! Commands for operators: findings of a real server, hot keys, memory map, completions and manual pages.
#![allow(missing_docs, reason = "tests")]

mod common;

use common::{Ebb, eventually, program};
use ebb_proto::cache_service_client::CacheServiceClient;
use ebb_proto::*;
use futures::StreamExt as _;
use std::fs;
use std::ops::Range;
use std::process::Command;
use tonic::Code;
use tonic::transport::Channel;

/// Runs a command; returns its output and whether it succeeded.
fn run(arguments: &[&str]) -> (String, bool) {
    let output = program().args(arguments).output().unwrap();
    (String::from_utf8(output.stdout).unwrap(), output.status.success())
}

fn codes(admin: &str) -> Vec<String> {
    let (printed, _) = run(&["doctor", "--output", "json", "--admin-addr", admin]);
    let answer: serde_json::Value = serde_json::from_str(&printed).unwrap();
    let findings = answer["findings"].as_array().unwrap();
    findings.iter().map(|finding| finding["code"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn doctor_names_each_trouble_that_was_planted() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let write = |name: &str, text: &str| fs::write(path(name), text).unwrap();
    write("memory.max", "134217728\n");
    write("memory.stat", "anon 104857600\nanon_thp 67108864\nfile 0\n");
    write("memory.swap.current", "1048576\n");
    write("memory.events", "low 0\nhigh 0\nmax 4\noom 1\noom_kill 1\n");
    write("memory.pressure", "some avg10=33.00 avg60=0.00 avg300=0.00 total=9\n");
    write("limit", "100663296");
    write("request", "33554432");
    write("ebb.yaml", "compaction: auto\n");
    let (root, limit, request, config) = (path(""), path("limit"), path("request"), path("ebb.yaml"));
    let mut command = program();
    command.env("EBB_CGROUP_ROOT", &root).env("EBB_LIMIT_FILE", &limit).env("EBB_REQUEST_FILE", &request);
    command.args(common::SERVE).args(["--config", &config]);
    let ebb = Ebb::spawn(command);
    write("ebb.yaml", "tick: 1ms\n");
    let planted = [
        "oom_killed",
        "config_rejected",
        "memory_unaccounted",
        "memory_pressure",
        "request_below_limit",
        "shrink_pending",
    ];
    named(&ebb, &planted).await;
    // A young process distinguishes the container's counts from before its start and since.
    let told = |words: &str| run(&["doctor", "--admin-addr", &ebb.admin]).0.contains(words);
    assert!(told("error: oom_killed\n  seen    the kernel killed 1 process in this container before Ebb started\n"));
    write("memory.events", "low 0\nhigh 0\nmax 4\noom 3\noom_kill 3\n");
    let since = "the kernel killed 2 processes since Ebb started (3 since the container started)\n";
    eventually("kills since the start are reported", async || told(since)).await;
    // Without the limit file, the limit is that of the cgroup, so its swap and huge pages are those of this container.
    fs::remove_file(&limit).unwrap();
    named(&ebb, &["swap_in_use", "huge_pages_on"]).await;
    let (text, well) = run(&["doctor", "--admin-addr", &ebb.admin]);
    assert!(!well, "an error among the findings is an exit code of 1");
    assert!(
        text.contains("tick: 1 is out of range (10 to 2000 ms)")
            && text.contains("more    ebb doctor --explain oom_killed\n"),
        "{text}"
    );
}

/// A preloaded library that moves the wall clock an hour ahead once the file exists.
const JUMPING_CLOCK: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) *(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
  int result = real(clock, now);
  if (result == 0 && clock == CLOCK_REALTIME && access(getenv("JUMPED"), F_OK) == 0) now->tv_sec += 3600;
  return result;
}
"#;

#[tokio::test]
async fn doctor_names_a_wall_clock_that_jumped() {
    if cfg!(target_feature = "crt-static") {
        println!("skipped: nothing comes between a static program and the clock");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (source, library, jumped) =
        (directory.path().join("clock.c"), directory.path().join("clock.so"), directory.path().join("jumped"));
    fs::write(&source, JUMPING_CLOCK).unwrap();
    let compiled = Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).status().unwrap();
    assert!(compiled.success());
    let mut command = program();
    command.env("LD_PRELOAD", &library).env("JUMPED", &jumped);
    command.args(common::SERVE).args(["--max-memory", "64Mi"]);
    let ebb = Ebb::spawn(command);
    assert_eq!(codes(&ebb.admin), [""; 0]);
    fs::write(&jumped, "").unwrap();
    named(&ebb, &["clock_jumped"]).await;
    fs::remove_file(&jumped).unwrap();
    eventually("it is not said of a clock that is right again", async || codes(&ebb.admin).is_empty()).await;
}

/// Waits until all of these are among the findings; calls continue meanwhile.
async fn named(ebb: &Ebb, planted: &[&str]) {
    eventually(&format!("each of {planted:?} is named"), async || {
        let admin = ebb.admin.clone();
        let found = tokio::task::spawn_blocking(move || codes(&admin)).await.unwrap();
        planted.iter().all(|code| found.iter().any(|other| other == code))
    })
    .await;
}

async fn connect(ebb: &Ebb) -> CacheServiceClient<Channel> {
    let client = CacheServiceClient::connect(format!("http://{}", ebb.data)).await.unwrap();
    client.max_decoding_message_size(16 << 20)
}

fn set(key: String, bytes: usize) -> SetRequest {
    SetRequest { key: key.into(), value: vec![7; bytes].into(), ..Default::default() }
}

#[tokio::test]
async fn doctor_names_what_callers_bring_about() {
    let ebb = Ebb::start(&["--max-memory", "32Mi"]);
    let mut client = connect(&ebb).await;
    assert_eq!(client.set(set("large".to_owned(), (1 << 20) + 1)).await.unwrap_err().code(), Code::InvalidArgument);
    let key = |i: u32| format!("key-{i}");
    for batch in (0..200_000).step_by(500) {
        let items = (batch..batch + 500).map(|i| set(key(i), 300)).collect();
        client.batch_set(BatchSetRequest { items, ..Default::default() }).await.unwrap();
    }
    // Reads of keys that were evicted recently find their ghosts.
    for batch in (100_000..200_000).step_by(500) {
        let keys = (batch..batch + 500).map(|i| key(i).into()).collect();
        client.batch_get(BatchGetRequest { keys, ..Default::default() }).await.unwrap();
    }
    let planted = ["values_too_large", "eviction_storm", "more_memory_would_help"];
    named(&ebb, &planted).await;
}

#[tokio::test]
async fn doctor_names_what_does_not_fit_together() {
    let mut command = program();
    command.env("EBB_COMPACTION", "off").env("EBB_WRITE_TIMEOUT", "1m");
    command.args(common::SERVE).args(["--max-memory", "64Mi"]);
    let ebb = Ebb::spawn(command);
    let mut client = connect(&ebb).await;
    for i in 0..60 {
        client.set(set(format!("wide-{i}"), 300 << 10)).await.unwrap();
    }
    named(&ebb, &["values_fill_segments"]).await;
    for i in 0..4_000 {
        client.set(set(format!("narrow-{i}"), 4 << 10)).await.unwrap();
    }
    // This growth causes a run of the cleaner. It must end before the deletions, or it would free their bytes.
    eventually("the regime is calm after the growth", async || {
        common::metric(&ebb.http, "ebb_regime{regime=\"calm\"} ") == 1
    })
    .await;
    // Keep one of four items, so that no segment becomes free without compaction.
    for i in (0..4_000).filter(|i| i % 4 > 0) {
        let request = DeleteRequest { key: format!("narrow-{i}").into(), ..Default::default() };
        client.delete(request).await.unwrap();
    }
    named(&ebb, &["compaction_off"]).await;
    // Clients that send requests and do not read the answers.
    let mut unread = Vec::new();
    for _ in 0..8 {
        let mut client = connect(&ebb).await;
        let ask = |id: u64| {
            let get = GetRequest { key: format!("wide-{}", 30 + id % 30).into(), ..Default::default() };
            PipeRequest { id, operation: Some(pipe_request::Operation::Get(get)) }
        };
        let asked = futures::stream::iter((0..64).map(ask)).chain(futures::stream::pending());
        unread.push(client.pipe(asked).await.unwrap());
    }
    named(&ebb, &["memory_held_by_connections"]).await;
}

#[tokio::test]
async fn doctor_names_what_tight_packing_costs() {
    let mut command = program();
    command.env("EBB_DRIFT_BUSY_OCCUPANCY", "98").env("EBB_DRIFT_IDLE_OCCUPANCY", "99").env("EBB_DRIFT_DEAD", "1");
    command.args(common::SERVE).args(["--max-memory", "256Mi"]);
    let ebb = Ebb::spawn(command);
    let client = connect(&ebb).await;
    fastrand::seed(1);
    let write = async |keys: Range<u32>| {
        let items = keys.map(|key| set(key.to_string(), fastrand::usize(400..1200))).collect();
        client.clone().batch_set(BatchSetRequest { items, ..Default::default() }).await.unwrap();
    };
    for start in (0..80_000).step_by(500) {
        write(start..start + 500).await;
    }
    eventually("copying costs more than writing", async || {
        for _ in 0..20 {
            let start = fastrand::u32(0..79_950);
            write(start..start + 50).await;
        }
        codes(&ebb.admin).iter().any(|code| code == "copy_ratio_high")
    })
    .await;
}

#[tokio::test]
async fn doctor_names_writes_that_come_faster_than_room_is_made() {
    let mut command = program();
    command.env("EBB_WATERMARKS_LOW", "20").env("EBB_WATERMARKS_HIGH", "21").env("EBB_WATERMARKS_CRITICAL", "22");
    command.args(common::SERVE).args(["--max-memory", "64Mi"]);
    let ebb = Ebb::spawn(command);
    let mut client = connect(&ebb).await;
    let writer = tokio::spawn(async move {
        for batch in 0.. {
            let items = (0..100).map(|i| set(format!("{batch}-{i}"), 4096)).collect();
            client.batch_set(BatchSetRequest { items, ..Default::default() }).await.unwrap();
        }
    });
    named(&ebb, &["memory_short"]).await;
    writer.abort();
}

#[tokio::test]
async fn doctor_names_a_limit_in_which_little_fits() {
    let ebb = Ebb::start(&["--max-memory", "16Mi"]);
    named(&ebb, &["limit_too_small"]).await;
}

#[test]
fn a_healthy_server_has_nothing_to_say_and_a_limitless_one_does() {
    let ebb = Ebb::start(&["--max-memory", "64Mi"]);
    assert_eq!(codes(&ebb.admin), [""; 0]);
    assert_eq!(run(&["doctor", "--admin-addr", &ebb.admin]), ("all is well\n".to_owned(), true));
    let directory = tempfile::tempdir().unwrap();
    let mut command = program();
    command.env("EBB_CGROUP_ROOT", directory.path()).args(common::SERVE);
    assert_eq!(codes(&Ebb::spawn(command).admin), ["no_memory_limit"]);
}

#[test]
fn large_keys_are_found_and_said_only_when_asked_for() {
    let ebb = Ebb::start(&["--max-memory", "64Mi"]);
    for (key, len) in [("small", 10), ("medium", 1_000), ("large", 50_000)] {
        let stored = run(&["set", key, &"x".repeat(len), "--namespace", "shop", "--addr", &ebb.data]);
        assert!(stored.1, "{key}");
    }
    let (none, _) = run(&["keys", "--hot", "--admin-addr", &ebb.admin]);
    assert_eq!(none, "no keys yet, from a sample of 0 reads\n");
    let (hashed, _) = run(&["keys", "--big", "--limit", "2", "--admin-addr", &ebb.admin]);
    assert!(!hashed.contains("large") && hashed.contains("shop") && hashed.contains("48.8 KiB"), "{hashed}");
    let (clear, _) = run(&["keys", "--big", "--limit", "2", "--clear", "--admin-addr", &ebb.admin]);
    let order = (clear.find("large").unwrap(), clear.find("medium").unwrap());
    assert!(order.0 < order.1 && !clear.contains("small") && clear.contains("a sample of 3 entries"), "{clear}");
    let refused = program().args(["keys", "--big", "--limit", "65"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
}

#[tokio::test]
async fn a_hot_key_is_found_by_its_share_of_the_reads() {
    let ebb = Ebb::start(&["--max-memory", "64Mi"]);
    let mut client = connect(&ebb).await;
    let keys: Vec<bytes::Bytes> =
        (0..1_000).map(|i| if i % 2 == 0 { "hot".into() } else { format!("cold-{i}").into() }).collect();
    for _ in 0..200 {
        let request = BatchGetRequest { keys: keys.clone(), ..Default::default() };
        client.batch_get(request).await.unwrap();
    }
    let (printed, _) = run(&["keys", "--hot", "--clear", "--output", "json", "--admin-addr", &ebb.admin]);
    let answer: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(answer["keys"][0]["key"], "hot", "{printed}");
    let share = answer["keys"][0]["read_share_percent"].as_f64().unwrap();
    assert!((40.0..60.0).contains(&share), "half of the reads: {share} %");
}

#[test]
fn diagnostics_hold_what_an_ebb_says_about_itself_and_no_key() {
    let ebb = Ebb::start(&["--max-memory", "64Mi"]);
    assert!(run(&["set", "a-telling-key", "a-telling-value", "--addr", &ebb.data]).1);
    assert!(run(&["compact", "--admin-addr", &ebb.admin]).1);
    let (printed, well) = run(&["diagnostics", "--admin-addr", &ebb.admin]);
    assert!(well && !printed.contains("telling"), "{printed}");
    let told: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(told["stats"]["receipts"][0]["reason"], "requested", "{printed}");
    assert_eq!(told["big_keys"]["keys"][0]["value_bytes"], "a-telling-value".len().to_string());
    assert!(told["findings"].is_array() && told["memory_map"]["logs"].is_array() && told["hot_keys"]["sampled"] == "0");
    let settings = told["config"]["settings"].as_array().unwrap();
    let setting = settings.iter().find(|setting| setting["key"] == "maxMemory").unwrap();
    assert!(setting["source"].as_str().unwrap().contains("--max-memory"), "{setting}");
    assert!(!run(&["diagnostics", "--admin-addr", "127.0.0.1:1"]).1, "no server answers there");
}

/// A 64-bit number, which JSON has as a string.
fn number(value: &serde_json::Value) -> u64 {
    value.as_str().unwrap().parse().unwrap()
}

#[test]
fn the_memory_map_counts_segments_by_how_full_they_are() {
    let ebb = Ebb::start(&["--max-memory", "64Mi"]);
    assert!(run(&["set", "k", "v", "--addr", &ebb.data]).1);
    let (printed, _) = run(&["memory-map", "--output", "json", "--admin-addr", &ebb.admin]);
    let map: serde_json::Value = serde_json::from_str(&printed).unwrap();
    let occupancy = map["occupancy"].as_array().unwrap();
    assert_eq!(occupancy.len(), 10);
    assert!(occupancy.iter().map(number).sum::<u64>() >= 1, "{printed}");
}

#[tokio::test]
async fn the_memory_map_has_every_segment_by_shard_and_log() {
    let mut command = program();
    // With a small limit, the governor would extrapolate these writes to an exceeded limit.
    command.env("EBB_COMPACTION", "off").args(common::SERVE).args(["--max-memory", "512Mi"]);
    let ebb = Ebb::spawn(command);
    let mut client = connect(&ebb).await;
    let keys = |batch: u32| (batch..batch + 500).map(|i| format!("key-{i}"));
    for batch in (0..20_000).step_by(500) {
        let items = keys(batch).map(|key| set(key, 500)).collect();
        client.batch_set(BatchSetRequest { items, ..Default::default() }).await.unwrap();
    }
    // Keep one of twenty of the oldest items, so that the oldest segments of each shard are nearly empty, but not free.
    for batch in (0..10_000).step_by(500) {
        let deleted = keys(batch).enumerate().filter(|(i, _)| i % 20 > 0).map(|(_, key)| key.into()).collect();
        let request = BatchDeleteRequest { keys: deleted, ..Default::default() };
        client.batch_delete(request).await.unwrap();
    }
    let (printed, _) = run(&["memory-map", "--output", "json", "--admin-addr", &ebb.admin]);
    let map: serde_json::Value = serde_json::from_str(&printed).unwrap();
    let sum = |numbers: &serde_json::Value| numbers.as_array().unwrap().iter().map(number).sum::<u64>();
    let logs = map["logs"].as_array().unwrap();
    let segments: usize = logs.iter().map(|log| log["occupancy_percent"].as_array().unwrap().len()).sum();
    assert_eq!(segments as u64, sum(&map["occupancy"]), "both count the same segments: {printed}");
    let nurseries: Vec<_> = logs.iter().filter(|log| log["name"] == "nursery").collect();
    assert!(!nurseries.is_empty(), "{printed}");
    for log in nurseries {
        let percent = log["occupancy_percent"].as_array().unwrap();
        let (first, last) = (percent[0].as_u64().unwrap(), percent[percent.len() - 1].as_u64().unwrap());
        assert!(first < 30 && last > 90, "oldest first: {log}");
    }
    let (text, _) = run(&["memory-map", "--admin-addr", &ebb.admin]);
    assert!(text.contains("one cell per segment;") && text.contains("shard 0    nursery  ·"), "{text}");
}

#[test]
fn a_port_that_is_taken_is_named() {
    let ebb = Ebb::start(&["--max-memory", "64Mi"]);
    let mut wrong = Vec::new();
    for (admin, http, taken) in [("127.0.0.1:0", &*ebb.http, &ebb.http), (&ebb.admin, "127.0.0.1:0", &ebb.admin)] {
        let mut command = program();
        command.args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", admin, "--http-listen", http]);
        // A backtrace would end the program: it has no tables for unwinding.
        let output = command.env("RUST_BACKTRACE", "1").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.code() != Some(64) || !said.contains(taken.as_str()) {
            wrong.push(format!("{taken}: {}: {said}", output.status));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn doctor_explains_findings_and_alerts_without_a_server() {
    let (runbook, well) = run(&["doctor", "--explain", "oom_killed"]);
    assert!(well && runbook.starts_with("oom_killed\nThe kernel killed a process"), "{runbook}");
    let (runbook, well) = run(&["doctor", "--explain", "EbbOutOfMemoryKill"]);
    assert!(well && runbook.contains("\n\noom_killed\nThe kernel killed a process"), "{runbook}");
    let (list, well) = run(&["doctor", "--explain"]);
    assert!(well && list.contains("\n  clock_jumped\n") && list.contains("\n  EbbSlowReads\n"), "{list}");
    let unknown = program().args(["doctor", "--explain", "oom_kiled"]).output().unwrap();
    let said = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert_eq!((unknown.status.code(), unknown.stdout.len()), (Some(2), 0), "{said}");
    assert!(said.contains("EbbSlowReads") && said.contains("similar value exists: 'oom_killed'"), "{said}");
}

#[test]
fn shells_and_manuals_know_every_command() {
    let (completions, well) = run(&["completions", "bash"]);
    assert!(well && completions.contains("memory-map") && completions.contains("--max-memory"));
    let (page, well) = run(&["man"]);
    assert!(well && page.starts_with(".ie") || page.contains(".TH"), "{page}");
}
