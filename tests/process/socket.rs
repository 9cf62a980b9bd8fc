//! The file of a Unix socket, while others change its directory.

use super::common::{Ebb, program, until};
use std::path::Path;
use std::process::Output;

fn call(path: &Path, words: &[&str]) -> Output {
    program().args(words).args(["--addr", &format!("unix:{}", path.display())]).output().unwrap()
}

fn findings(ebb: &Ebb) -> String {
    let output = program().args(["doctor", "--output", "json", "--admin-addr", &ebb.admin]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn a_socket_file_that_is_removed_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ebb.sock");
    let mut ebb = Ebb::start(&["--socket", path.to_str().unwrap(), "--max-memory", "64Mi"]);
    let channel = ebb_channel(&path).await;
    let mut old = ebb_proto::cache_service_client::CacheServiceClient::new(channel);
    let get = ebb_proto::GetRequest { key: "k".into(), ..Default::default() };
    old.get(get.clone()).await.unwrap();
    for times in 1..=2 {
        std::fs::remove_file(&path).unwrap();
        let began = std::time::Instant::now();
        until("the file is recreated", || path.exists());
        assert!(began.elapsed() < std::time::Duration::from_millis(1_500), "{:?}", began.elapsed());
        until("a new client gets an answer", || call(&path, &["set", "k", "v"]).status.success());
        assert_eq!(ebb.metric("ebb_socket_files_recreated_total "), times);
    }
    old.get(get).await.unwrap(); // the old connection stays open
    assert_eq!(ebb.logged("socket file was removed"), 2);
    assert!(findings(&ebb).contains("\"socket_removed\""));
    assert_eq!(ebb.terminate().1, Some(0));
    assert!(!path.exists(), "the file is removed at the end");
}

async fn ebb_channel(path: &Path) -> tonic::transport::Channel {
    tonic::transport::Endpoint::try_from(format!("unix:{}", path.display())).unwrap().connect().await.unwrap()
}

#[test]
fn a_lost_socket_file_causes_one_warning_and_a_finding() {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("run");
    std::fs::create_dir(&inside).unwrap();
    let path = inside.join("ebb.sock");
    let mut ebb = Ebb::start(&["--socket", path.to_str().unwrap(), "--max-memory", "64Mi"]);
    std::fs::remove_dir_all(&inside).unwrap();
    until("it is a finding", || findings(&ebb).contains("\"socket_lost\""));
    std::fs::create_dir(&inside).unwrap();
    std::fs::write(&path, "precious").unwrap();
    until("a file that is not a socket is left alone", || findings(&ebb).contains("is not a socket"));
    assert_eq!(ebb.logged("cannot recreate it"), 1);
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    std::fs::remove_file(&path).unwrap();
    until("it is made again", || call(&path, &["set", "k", "v"]).status.success());
    assert!(!findings(&ebb).contains("\"socket_lost\""));
    assert_eq!(ebb.terminate().1, Some(0));
}

#[test]
fn the_admin_socket_is_made_again_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let mut ebb = {
        let mut command = program();
        command.args(["serve", "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--admin-socket"]).arg(&path);
        Ebb::spawn(command)
    };
    std::fs::rename(&path, folder.path().join("elsewhere")).unwrap();
    let at = format!("unix:{}", path.display());
    until("operators get an answer", || {
        program().args(["stats", "--admin-addr", &at]).output().unwrap().status.success()
    });
    assert_eq!(ebb.terminate().1, Some(0));
}

/// The number of TCP sockets that a server listens on.
fn listening(ebb: &Ebb) -> usize {
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", ebb.child.id())).unwrap();
    let own: Vec<String> = descriptors
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let table = std::fs::read_to_string(format!("/proc/{}/net/tcp", ebb.child.id())).unwrap();
    let rows = table.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>());
    // State 0A is LISTEN; the tenth column is the inode.
    let inodes = rows.filter(|row| row[3] == "0A").map(|row| row[9].to_owned());
    inodes.filter(|inode| own.contains(inode)).count()
}

#[test]
fn without_a_data_port_the_socket_and_the_probes_answer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ebb.sock");
    let command = |words: &[&str]| {
        let mut command = program();
        let free = ["--admin-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--max-memory", "64Mi"];
        command.args(["serve", "--listen", "off"]).args(free).args(words);
        command
    };
    let mut ebb = Ebb::spawn(command(&["--socket", path.to_str().unwrap()]));
    assert_eq!(ebb.data, "off");
    assert!(call(&path, &["set", "k", "v"]).status.success());
    assert_eq!(call(&path, &["get", "k"]).stdout, b"v");
    let stats = program().args(["stats", "--admin-addr", &ebb.admin]).output().unwrap();
    assert!(stats.status.success(), "{stats:?}");
    assert_eq!(listening(&ebb), 2, "admin and HTTP only");
    // The file of the socket is made again without a data port, too.
    std::fs::remove_file(&path).unwrap();
    until("a new client gets an answer", || call(&path, &["get", "k"]).status.success());
    assert_eq!(ebb.terminate().1, Some(0));

    let refused = command(&[]).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("listen: off needs a path in socket"), "{said}");
}
