//! What an operator is told: findings of a real server, keys that stand out, the map, shells and manuals.
#![allow(missing_docs, reason = "tests")]

mod common;

use common::{Ebb, program, until};
use std::fs;

/// What a command prints, and whether it succeeded.
fn run(arguments: &[&str]) -> (String, bool) {
    let output = program().args(arguments).output().unwrap();
    (String::from_utf8(output.stdout).unwrap(), output.status.success())
}

fn codes(ebb: &Ebb) -> Vec<String> {
    let (printed, _) = run(&["doctor", "--output", "json", "--admin-addr", &ebb.admin]);
    let answer: serde_json::Value = serde_json::from_str(&printed).unwrap();
    let findings = answer["findings"].as_array().unwrap();
    findings.iter().map(|finding| finding["code"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn doctor_names_each_trouble_that_was_planted() {
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
    until("each of them is named", || {
        let found = codes(&ebb);
        planted.iter().all(|code| found.iter().any(|other| other == code))
    });
    // With a limit of the cgroup alone, what the cgroup says of swap and huge pages is of this container.
    fs::remove_file(&limit).unwrap();
    until("swap and huge pages, too", || {
        let found = codes(&ebb);
        ["swap_in_use", "huge_pages_on"].iter().all(|code| found.iter().any(|other| other == code))
    });
    let (text, well) = run(&["doctor", "--admin-addr", &ebb.admin]);
    assert!(!well, "an error among the findings is an exit code of 1");
    assert!(
        text.contains("tick (ms) is 1; it must be 10 to 2000") && text.contains("docs/operations.md#oom_killed"),
        "{text}"
    );
}

#[test]
fn a_healthy_server_has_nothing_to_say_and_a_limitless_one_does() {
    let ebb = Ebb::start(&["--max-memory", "64Mi"]);
    assert_eq!(codes(&ebb), [""; 0]);
    assert_eq!(run(&["doctor", "--admin-addr", &ebb.admin]), ("all is well\n".to_owned(), true));
    let directory = tempfile::tempdir().unwrap();
    let mut command = program();
    command.env("EBB_CGROUP_ROOT", directory.path()).args(common::SERVE);
    assert_eq!(codes(&Ebb::spawn(command)), ["no_memory_limit"]);
}

#[test]
fn large_keys_are_found_and_said_only_when_asked_for() {
    let ebb = Ebb::start(&["--max-memory", "64Mi"]);
    for (key, len) in [("small", 10), ("medium", 1_000), ("large", 50_000)] {
        let stored = run(&["set", key, &"x".repeat(len), "--namespace", "shop", "--addr", &ebb.data]);
        assert!(stored.1, "{key}");
    }
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
    use ebb::proto::cache_service_client::CacheServiceClient;
    let ebb = Ebb::start(&["--max-memory", "64Mi"]);
    let mut client = CacheServiceClient::connect(format!("http://{}", ebb.data)).await.unwrap();
    let keys: Vec<bytes::Bytes> =
        (0..1_000).map(|i| if i % 2 == 0 { "hot".into() } else { format!("cold-{i}").into() }).collect();
    for _ in 0..200 {
        let request = ebb::proto::BatchGetRequest { keys: keys.clone(), ..Default::default() };
        client.batch_get(request).await.unwrap();
    }
    let (printed, _) = run(&["keys", "--hot", "--clear", "--output", "json", "--admin-addr", &ebb.admin]);
    let answer: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(answer["keys"][0]["key"], "hot", "{printed}");
    let share = answer["keys"][0]["read_share_percent"].as_f64().unwrap();
    assert!((40.0..60.0).contains(&share), "half of the reads: {share} %");
}

#[test]
fn the_memory_map_counts_segments_by_how_full_they_are() {
    let ebb = Ebb::start(&["--max-memory", "64Mi"]);
    assert!(run(&["set", "k", "v", "--addr", &ebb.data]).1);
    let (printed, _) = run(&["memory-map", "--output", "json", "--admin-addr", &ebb.admin]);
    let map: serde_json::Value = serde_json::from_str(&printed).unwrap();
    let occupancy = map["occupancy"].as_array().unwrap();
    assert_eq!(occupancy.len(), 10);
    assert!(occupancy.iter().filter_map(serde_json::Value::as_u64).sum::<u64>() >= 1, "{printed}");
}

#[test]
fn a_port_that_is_taken_is_named() {
    let ebb = Ebb::start(&["--max-memory", "64Mi"]);
    for (admin, http, taken) in [("127.0.0.1:0", &*ebb.http, &ebb.http), (&ebb.admin, "127.0.0.1:0", &ebb.admin)] {
        let mut command = program();
        command.args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", admin, "--http-listen", http]);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(64), "{said}");
        assert!(said.contains(taken.as_str()), "{said}");
    }
}

#[test]
fn shells_and_manuals_know_every_command() {
    let (completions, well) = run(&["completions", "bash"]);
    assert!(well && completions.contains("memory-map") && completions.contains("--max-memory"));
    let (page, well) = run(&["man"]);
    assert!(well && page.starts_with(".ie") || page.contains(".TH"), "{page}");
}
