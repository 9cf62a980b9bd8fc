//! Start of a server with limited system resources.

use super::common::{Ebb, SERVE, program, until};
use std::process::{Command, Output, Stdio};

/// The program behind `ulimit`.
fn limited(limit: &str, arguments: &[&str]) -> Command {
    let program = program().get_program().to_str().unwrap().to_owned();
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{limit} && exec '{program}' \"$@\""), "ebb"]).args(SERVE).args(arguments);
    command
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_limit_of_address_space_shrinks_the_reservation() {
    let mut wrong = Vec::new();
    for (limit, memory) in [
        ("ulimit -v 400000", "64Mi"),
        ("ulimit -v 1000000", "64Mi"),
        ("ulimit -v 8000000", "1Gi"),
        ("ulimit -d 600000", "128Mi"),
        ("ulimit -v 400000", "1Gi"),
    ] {
        let mut ebb = Ebb::spawn(limited(limit, &["--max-memory", memory]));
        until(limit, || ebb.logged("started") == 1);
        let lines = ebb.lines("refused address space");
        let is_named = lines.len() == 1 && lines[0].contains("refused_bytes=") && lines[0].contains("reserved_bytes=");
        let stored = (0..20).filter(|n| {
            let set = program().args(["set", &n.to_string(), "v", "--addr", &ebb.data]).status().unwrap();
            set.success()
        });
        let (stored, code) = (stored.count(), ebb.terminate().1);
        if !is_named || stored != 20 || code != Some(0) {
            wrong.push(format!("{limit}, {memory}: {lines:?}, {stored} of 20 stored, {code:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn address_space_for_nothing_is_refused_with_the_sizes_tried() {
    let output = limited("ulimit -v 140000", &["--max-memory", "64Mi"]).output().unwrap();
    assert_eq!(output.status.code(), Some(64), "{}", said(&output));
    assert!(said(&output).contains("the system refuses address space; tried "), "{}", said(&output));
}

#[test]
fn a_server_disables_huge_pages_for_all_its_memory() {
    let ebb = Ebb::start(&[]);
    let status = std::fs::read_to_string(format!("/proc/{}/status", ebb.child.id())).unwrap();
    let enabled = status.lines().find(|line| line.starts_with("THP_enabled:"));
    assert_eq!(enabled, Some("THP_enabled:\t0"), "{status}");
}

/// Runs the program with `madvise` failing with this error.
fn without_madvise(errno: i32, arguments: &[&str]) -> Output {
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
    const MADVISE: i64 = if cfg!(target_arch = "x86_64") { 28 } else { 233 };
    let filter = SeccompFilter::new(
        [(MADVISE, vec![])].into_iter().collect(),
        SeccompAction::Allow,
        SeccompAction::Errno(errno as u32),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let filter: BpfProgram = filter.unwrap().try_into().unwrap();
    let mut command = program();
    command.args(SERVE).args(arguments).stdout(Stdio::null()).stderr(Stdio::piped());
    // A filter applies to its thread and the processes that the thread starts.
    let thread = std::thread::spawn(move || {
        seccompiler::apply_filter(&filter).unwrap();
        command.output().unwrap()
    });
    thread.join().unwrap()
}

#[test]
fn a_kernel_that_takes_no_page_back_is_refused_at_the_start() {
    let mut wrong = Vec::new();
    for errno in [1, 38, 22] {
        let output = without_madvise(errno, &["--max-memory", "64Mi"]);
        let is_named = said(&output).contains("the kernel takes no page back, madvise(MADV_DONTNEED)");
        if output.status.code() != Some(64) || !is_named {
            wrong.push(format!("errno {errno}: {}: {}", output.status, said(&output)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_variable_that_is_not_text_does_not_stop_the_start() {
    use std::os::unix::ffi::OsStringExt as _;
    let odd = std::ffi::OsString::from_vec(b"caf\xe9".to_vec());
    let mut command = program();
    command.args(SERVE).env("LESSCHARDEF", &odd).env(&odd, "1").env("EBB_SOMETHING", &odd);
    for name in ["EBB_MAX_MEMORY", "EBB_SOCKET", "EBB_CONFIG", "EBB_CORES", "EBB_LOG_FORMAT", "EBB_CONFIG_MAP"] {
        command.env(name, "");
    }
    let mut ebb = Ebb::spawn(command);
    let mut set = program();
    set.args(["set", "k", "v", "--addr", &ebb.data]).env("EBB_NAMESPACE", "").env("EBB_ADDR", "").env("X", &odd);
    assert!(set.status().unwrap().success());
    let stats = program().args(["stats", "--admin-addr", &ebb.admin]).env("EBB_ADMIN_ADDR", "").status().unwrap();
    assert!(stats.success());
    assert_eq!(ebb.terminate().1, Some(0));

    let refused = program().args(SERVE).env("EBB_MAX_MEMORY", &odd).output().unwrap();
    assert_eq!(refused.status.code(), Some(64));
    assert!(said(&refused).contains("EBB_MAX_MEMORY: the value is not UTF-8 text"), "{}", said(&refused));
}

#[test]
fn a_live_socket_without_room_for_a_client_is_not_waited_for() {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, listen, socket};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ebb.sock");
    let live = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    bind(&live, &SocketAddrUnix::new(&path).unwrap()).unwrap();
    listen(&live, 0).unwrap();
    let _first = std::os::unix::net::UnixStream::connect(&path).unwrap();
    let mut command = program();
    command.args(SERVE).arg("--socket").arg(&path).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    until("it refuses", || child.try_wait().unwrap().is_some());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert!(said(&output).contains("another server listens there"), "{}", said(&output));
}
