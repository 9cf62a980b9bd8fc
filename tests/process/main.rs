//! The process: start, failures at start, and end.

#[path = "../common/mod.rs"]
mod common;

mod dial_stdio;
mod drain;
mod log;
mod output;
mod signals;
mod socket;
mod start;

use common::{Ebb, SERVE, program, until};
use ebb_proto::cache_service_client::CacheServiceClient;
use ebb_proto::{BatchDeleteRequest, BatchSetRequest, SetRequest};
use std::time::Duration;

fn failure(arguments: &[&str]) -> (Option<i32>, String) {
    let output = program().args(arguments).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_port_or_a_socket_that_is_taken_is_named_and_ends_with_64() {
    let ebb = Ebb::start(&[]);
    let (code, said) = failure(&["serve", "--listen", &ebb.data]);
    assert_eq!(code, Some(64));
    assert!(said.contains(&format!("cannot listen on {}", ebb.data)), "{said}");
    let file = ebb.path("not-a-socket");
    std::fs::write(&file, "precious").unwrap();
    let (code, said) = failure(&[&SERVE[..], &["--socket", file.to_str().unwrap()]].concat());
    assert_eq!(code, Some(64));
    assert!(said.contains("is not a socket"), "{said}");
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
    let (code, said) = failure(&["serve", "--listen", "nowhere"]);
    assert_eq!((code, said.contains("\"nowhere\"")), (Some(64), true), "{said}");
    let (code, said) = failure(&["serve", "--config", "/does/not/exist.yaml"]);
    assert_eq!((code, said.contains("cannot read /does/not/exist.yaml")), (Some(64), true), "{said}");
}

#[test]
fn a_limit_in_which_no_cache_fits_is_refused_with_its_number() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("memory.max"), "8388608\n").unwrap();
    std::fs::write(directory.path().join("memory.stat"), "anon 1048576\n").unwrap();
    let output = program().args(SERVE).env("EBB_CGROUP_ROOT", directory.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(64), "{said}");
    let sentence = "memory limit (cgroup memory.max): 8Mi is too small (at least 16Mi)";
    assert!(said.contains(sentence), "{said}");
}

#[test]
fn a_dead_socket_is_replaced_and_ours_is_removed_at_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ebb.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let mut ebb = Ebb::start(&["--socket", path.to_str().unwrap()]);
    let address = format!("unix:{}", path.display());
    let set = program().args(["set", "k", "v", "--addr", &address]).status().unwrap();
    assert!(set.success());
    let got = program().args(["get", "k", "--addr", &address]).output().unwrap();
    assert_eq!(got.stdout.trim_ascii(), b"v");
    let second = failure(&[&SERVE[..], &["--socket", path.to_str().unwrap()]].concat());
    assert!(second.1.contains("another server listens there"), "{}", second.1);
    assert_eq!(ebb.terminate().1, Some(0));
    assert!(!path.exists());
}

async fn fill(ebb: &Ebb, entries: u32) -> CacheServiceClient<tonic::transport::Channel> {
    let mut client = CacheServiceClient::connect(format!("http://{}", ebb.data)).await.unwrap();
    for chunk in (0..entries).collect::<Vec<_>>().chunks(1_000) {
        let item = |i: &u32| SetRequest { key: name(*i), value: vec![7; 128].into(), ..SetRequest::default() };
        let items = chunk.iter().map(item).collect();
        client.batch_set(BatchSetRequest { items, ..Default::default() }).await.unwrap();
    }
    client
}

fn name(i: u32) -> bytes::Bytes {
    format!("{i:016}").into()
}

async fn delete(client: &mut CacheServiceClient<tonic::transport::Channel>, keys: impl Iterator<Item = u32>) {
    for chunk in keys.collect::<Vec<_>>().chunks(1_000) {
        let keys = chunk.iter().map(|i| name(*i)).collect();
        client.batch_delete(BatchDeleteRequest { keys, ..Default::default() }).await.unwrap();
    }
}

#[tokio::test]
async fn memory_shrinks_after_a_mass_delete_and_after_the_last_one() {
    const ENTRIES: u32 = 200_000;
    let ebb = Ebb::start(&["--max-memory", "256Mi"]);
    // Measure the idle server after some calls: pages of the program become resident when they are first executed.
    let mut client = fill(&ebb, 1_000).await;
    delete(&mut client, 0..1_000).await;
    let idle = ebb.rss_bytes();
    let mut client = fill(&ebb, ENTRIES).await;
    let full = ebb.rss_bytes();
    assert!(full - idle > u64::from(ENTRIES) * 144, "{} MiB", full >> 20);
    delete(&mut client, (0..ENTRIES).filter(|i| i % 10 != 0)).await;
    let live = u64::from(ENTRIES / 10) * 144;
    until("RSS over idle is near the live bytes", || ebb.rss_bytes() < idle + live * 14 / 10 + (4 << 20));
    delete(&mut client, (0..ENTRIES).step_by(10)).await;
    until("nothing is left", || ebb.rss_bytes() < idle + (4 << 20));
}

#[tokio::test]
async fn sigterm_during_compaction_ends_within_two_seconds() {
    let mut command = program();
    // So slow that the compaction cannot have ended.
    command.args(SERVE).env("EBB_PACING_CPU", "1").env("EBB_PACING_STEP_MICROS", "10");
    let mut ebb = Ebb::spawn(command);
    let mut client = fill(&ebb, 100_000).await;
    delete(&mut client, (0..100_000).filter(|i| i % 10 != 0)).await;
    let compaction =
        program().args(["compact", "--admin-addr", &ebb.admin]).stdout(std::process::Stdio::null()).spawn();
    let mut compaction = compaction.unwrap();
    let (took, code) = ebb.terminate();
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(2), "{took:?}");
    let _ = compaction.wait();
}

/// Number of runs per log line, after this many requested runs.
fn told_of_runs(level: &str, runs: usize) -> Vec<u64> {
    let mut command = program();
    command.args(SERVE).env("EBB_LOG_LEVEL", level);
    let mut ebb = Ebb::spawn(command);
    let compact =
        || assert!(program().args(["compact", "--admin-addr", &ebb.admin]).output().unwrap().status.success());
    let lines = |ebb: &Ebb| ebb.lines("cleaner run finished").into_iter().filter(|line| line.contains("requested"));
    compact();
    until("the first run is logged at once", || lines(&ebb).count() == 1);
    (1..runs).for_each(|_| compact());
    assert_eq!(ebb.terminate().1, Some(0));
    until("the log is at its end", || ebb.logged("stopped") == 1);
    let of = |line: &str, key: &str| -> Option<u64> {
        line.split_whitespace().find_map(|word| word.strip_prefix(key)?.parse().ok())
    };
    let first = lines(&ebb).next().unwrap();
    let figures = [
        "moved_bytes=",
        "evicted_items=",
        "freed_segments=",
        "rss_before_bytes=",
        "rss_after_bytes=",
        "cpu_us=",
        "longest_step_us=",
    ];
    let missing: Vec<_> = figures.into_iter().filter(|figure| of(&first, figure).is_none()).collect();
    assert!(missing.is_empty(), "{missing:?} is missing in {first}");
    lines(&ebb).map(|line| of(&line, "runs=").unwrap()).collect()
}

#[test]
fn the_log_tells_of_each_receipt_and_of_repeats_together() {
    let told = told_of_runs("info", 4);
    assert!(told[0] == 1 && told.len() < 4 && told.iter().sum::<u64>() == 4, "{told:?}");
    assert_eq!(told_of_runs("debug", 4), [1, 1, 1, 1]);
}
