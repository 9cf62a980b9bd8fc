//! Exhausted resources: file descriptors, connections, an unreadable memory limit.

use super::*;

#[tokio::test]
async fn accepts_connections_again_once_descriptors_are_free() {
    let ebb = start(&[], &[]);
    let mut before = connect(&ebb.data).await;
    assert!(is_answered(&mut before).await);
    leave_descriptors(&ebb, 4);
    let storm = storm(&ebb);
    let (since, already) = (Instant::now(), refused(&ebb));
    eventually("accepting is tried again", async || {
        get(&mut before.clone()).await.expect("who is connected is answered");
        refused(&ebb) >= already + 5
    })
    .await;
    let tries = (refused(&ebb) - already) as u128;
    // About twenty per second, reported late on a busy machine; a busy loop would reach thousands.
    let most = (since.elapsed().as_millis() / 50 + 2) * 10;
    assert!(tries <= most, "it does not spin: {tries} tries, at most {most}");
    drop(storm);
    assert!(is_answered(&mut connect(&ebb.data).await).await, "descriptors are free again");
    assert!(is_answered(&mut before).await);
}

#[tokio::test]
async fn without_descriptors_the_limit_that_was_read_last_holds() {
    let cgroup = Cgroup::new(&(64 * MIB).to_string());
    let ebb = start(&[("EBB_CGROUP_ROOT", &cgroup.root()), ("EBB_DEFAULT_MEMORY", "128Mi")], &[]);
    let admin = admin(&ebb).await;
    assert_eq!(memory(&admin).await.limit_bytes, 64 * MIB);
    leave_descriptors(&ebb, 4);
    let _storm = storm(&ebb);
    eventually("accepting is tried again", async || {
        assert_eq!(memory(&admin).await.limit_bytes, 64 * MIB);
        refused(&ebb) > 10
    })
    .await;
}

#[tokio::test]
async fn a_connection_beyond_the_cap_waits_for_a_free_place() {
    let ebb = start(&[("EBB_CONNECTIONS", "2")], &["--cores", "2"]);
    let (mut first, mut second) = (connect(&ebb.data).await, connect(&ebb.data).await);
    assert!(is_answered(&mut first).await && is_answered(&mut second).await);
    let mut third = connect(&ebb.data).await;
    let waiting = tokio::spawn(async move { is_answered(&mut third).await });
    for _ in 0..200 {
        assert!(is_answered(&mut first).await && is_answered(&mut second).await, "those before it work on");
    }
    assert!(!waiting.is_finished(), "it waits");
    drop(first);
    assert!(waiting.await.unwrap(), "it is let in");
    assert!(is_answered(&mut second).await);
}

#[tokio::test]
async fn every_listener_is_served_whatever_the_cap() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("ebb.sock");
    let ebb = start(&[("EBB_CONNECTIONS", "1")], &["--socket", socket.to_str().unwrap(), "--cores", "2"]);
    let unix = format!("unix:{}", socket.display());
    for address in [&unix, &unix, &ebb.data, &ebb.data] {
        let set = program().args(["set", "k", "v", "--addr", address]).status().unwrap();
        assert!(set.success(), "{address}");
    }
}

#[tokio::test]
async fn assumes_the_default_limit_if_the_cgroup_is_unreadable() {
    let (unreadable, nonsense) = (Cgroup::unreadable(), Cgroup::new("lots"));
    let mut wrong = Vec::new();
    for root in ["/does/not/exist", "/dev/null", &unreadable.root(), &nonsense.root()] {
        let settings = [("EBB_CGROUP_ROOT", root), ("EBB_DEFAULT_MEMORY", "48Mi")];
        let ebb = start(&settings, &[]);
        let by_default = limit(&ebb).await;
        until(&format!("it warns of {root}"), || ebb.logged("no memory limit found") == 1);
        let is_answered = is_answered(&mut connect(&ebb.data).await).await;
        let ebb = start(&settings, &["--max-memory", "32Mi"]);
        let by_setting = limit(&ebb).await;
        until(&format!("it logs the source of its limit at {root}"), || ebb.logged("max_memory") == 1);
        let warnings = ebb.logged("no memory limit found");
        let limits = [(48, "default_memory".to_owned()), (32, "max_memory".to_owned())];
        if [&by_default, &by_setting] != [&limits[0], &limits[1]] || !is_answered || warnings > 0 {
            let found = format!("{by_default:?}, answered: {is_answered}, {by_setting:?}, {warnings} warnings");
            wrong.push(format!("{root}: {found}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
