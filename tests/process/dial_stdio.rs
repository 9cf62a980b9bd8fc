//! `ebb dial-stdio`, which nothing but its streams can end.

use super::common::{Ebb, program, until};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A server that says what a test tells it to.
fn server() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

fn dial(address: &str) -> Command {
    let mut command = program();
    command.args(["dial-stdio", "--admin-addr", address]);
    command
}

/// Connected, after its greeting: the process, its output and the server's side.
fn connected() -> (Child, BufReader<ChildStdout>, TcpStream) {
    let (listener, address) = server();
    let mut child = dial(&address).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "ebb admin\n");
    (child, output, listener.accept().unwrap().0)
}

fn end_of(mut child: Child) -> (ExitStatus, Duration) {
    let began = Instant::now();
    until("the process ends by itself", || child.try_wait().unwrap().is_some());
    (child.wait().unwrap(), began.elapsed())
}

/// Longer than any step of the process, shorter than the patience of an operator.
const SOON: Duration = Duration::from_secs(5);

#[test]
fn it_ends_when_nobody_reads_it_though_the_server_sends_nothing() {
    let (child, output, _server) = connected();
    drop(output);
    let (status, took) = end_of(child);
    assert!(status.success() && took < SOON, "{status} after {took:?}");

    // The standard streams may be sockets, too.
    let (listener, address) = server();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let stdio = || Stdio::from(std::os::fd::OwnedFd::from(theirs.try_clone().unwrap()));
    let child = dial(&address).stdin(stdio()).stdout(stdio()).spawn().unwrap();
    drop(theirs);
    let _server = listener.accept().unwrap();
    BufReader::new(&ours).read_line(&mut String::new()).unwrap();
    drop(ours);
    assert!(end_of(child).1 < SOON);
}

#[test]
fn it_ends_when_nobody_reads_it_though_an_answer_waits() {
    let (child, output, mut server) = connected();
    // More than a pipe holds.
    server.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let _ = server.write_all(&vec![7; 4 << 20]);
    drop(output);
    assert!(end_of(child).1 < SOON);
}

#[test]
fn it_ends_with_its_input_though_the_server_keeps_the_connection() {
    let (mut child, mut output, mut server) = connected();
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"question").unwrap();
    drop(input);
    let mut asked = String::new();
    server.read_to_string(&mut asked).unwrap();
    assert_eq!(asked, "question", "what was written before the end is sent, and the end as well");
    server.write_all(b"answer").unwrap();
    let mut answer = Vec::new();
    output.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"answer");
    let (status, took) = end_of(child);
    assert!(status.success() && took < SOON, "{status} after {took:?}");
}

#[test]
fn it_ends_with_its_input_though_the_server_takes_nothing() {
    let (mut child, _output, server) = connected();
    let mut input = child.stdin.take().unwrap();
    // Written from a thread, which blocks until the process ends: the server's buffers fill up.
    let writer = std::thread::spawn(move || {
        let _ = input.write_all(&vec![7; 64 << 20]);
    });
    until("the server's buffers are full", || is_asleep(child.id()));
    assert!(child.try_wait().unwrap().is_none(), "its input has not ended");
    child.kill().unwrap();
    child.wait().unwrap();
    writer.join().unwrap();
    drop(server);

    // The same with a writer that goes in the middle of its bytes.
    let (listener, address) = self::server();
    let mut writer = Command::new("head").args(["--bytes=64M", "/dev/zero"]).stdout(Stdio::piped()).spawn().unwrap();
    let bytes = writer.stdout.take().unwrap();
    let child = dial(&address).stdin(bytes).stdout(Stdio::piped()).spawn().unwrap();
    let _server = listener.accept().unwrap();
    until("the server's buffers are full", || is_asleep(child.id()) && is_asleep(writer.id()));
    writer.kill().unwrap();
    writer.wait().unwrap();
    assert!(end_of(child).1 < SOON);
}

/// Whether a process sleeps, and still does after some milliseconds.
fn is_asleep(pid: u32) -> bool {
    let state = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let switches = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let switches = switches.lines().filter(|line| line.contains("ctxt_switches")).collect::<String>();
        stat.contains(") S ").then_some(switches)
    };
    let before = state();
    std::thread::park_timeout(Duration::from_millis(50));
    before.is_some() && before == state()
}

#[test]
fn it_ends_when_the_server_closes_the_connection() {
    let (child, mut output, mut server) = connected();
    server.write_all(b"last words").unwrap();
    drop(server);
    let mut said = String::new();
    output.read_to_string(&mut said).unwrap();
    assert_eq!(said, "last words");
    assert!(end_of(child).0.success());
}

#[test]
fn it_ends_beside_a_sidecar_that_waits_for_calls() {
    let ebb = Ebb::start(&["--max-memory", "64Mi"]);
    for closes_output in [false, true] {
        let mut child = dial(&ebb.admin).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.as_mut().unwrap().write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut greeting = [0; 19];
        output.read_exact(&mut greeting).unwrap();
        assert!(greeting.starts_with(b"ebb admin\n"), "and then the header of the server's first frame");
        match closes_output {
            true => drop(output),
            false => drop(child.stdin.take()),
        }
        let (status, took) = end_of(child);
        assert!(status.success() && took < SOON, "{status} after {took:?}");
    }
}
