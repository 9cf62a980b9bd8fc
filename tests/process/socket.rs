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
