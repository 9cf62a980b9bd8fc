//! Commands whose output cannot be written.

use super::common::{Ebb, page, program, until};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// Commands that print, without and with a server.
const ALONE: &[&[&str]] = &[
    &["--help"],
    &["--version"],
    &["serve", "--help"],
    &["config", "schema"],
    &["config", "print"],
    &["config", "check", "tests/process/good.yaml"],
    &["completions", "bash"],
    &["man"],
    &["doctor", "--explain"],
    &["inject", "-f", "tests/inject/pods/plain.yaml"],
    &["uninject", "-f", "tests/inject/injected/plain.yaml"],
];
const OF_DATA: &[&[&str]] = &[
    &["get", "k"],
    &["get", "k", "--output", "json"],
    &["del", "k0"],
    &["incr", "n"],
    &["scan"],
    &["scan", "--output", "json"],
];
const OF_ADMIN: &[&[&str]] = &[
    &["stats"],
    &["stats", "--watch", "--every", "100ms"],
    &["stats", "--watch", "--every", "100ms", "--output", "json"],
    &["keys", "--big"],
    &["memory-map"],
    &["diagnostics"],
    &["compact"],
    &["release", "--to", "1Gi"],
];

/// Runs every command with the standard output that `stdout` returns. Reports all that are not `well` together.
fn each(ebb: &Ebb, stdout: impl Fn() -> Stdio, well: impl Fn(&str, &Output) -> bool) {
    let mut wrong = Vec::new();
    for (arguments, at) in
        [(ALONE, [].as_slice()), (OF_DATA, &["--addr", &ebb.data]), (OF_ADMIN, &["--admin-addr", &ebb.admin])]
    {
        for words in arguments {
            assert!(program().args(["set", "k", "v", "--addr", &ebb.data]).status().unwrap().success());
            assert!(program().args(["set", "k0", "v", "--addr", &ebb.data]).status().unwrap().success());
            let output = program().args(*words).args(at).stdout(stdout()).stderr(Stdio::piped()).output().unwrap();
            let words = words.join(" ");
            if !well(&words, &output) {
                wrong.push(format!("{words}: {}: {}", output.status, said(&output)));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_command_whose_reader_has_gone_ends_quietly() {
    let ebb = Ebb::start(&[]);
    let gone = || std::io::pipe().unwrap().1.into();
    each(&ebb, gone, |words, output| {
        let quiet = said(output).is_empty() || words.contains("inject");
        output.status.code() == Some(0) && quiet && !said(output).contains("panicked")
    });
}

#[test]
fn a_full_disk_ends_a_command_with_a_sentence() {
    let ebb = Ebb::start(&[]);
    let full = || File::options().write(true).open("/dev/full").unwrap().into();
    each(&ebb, full, |_, output| {
        output.status.code() == Some(1) && said(output).contains("cannot write to standard output: No space left")
    });
}

#[test]
fn a_limit_of_file_sizes_is_a_full_disk() {
    let folder = tempfile::tempdir().unwrap();
    let program = program().get_program().to_str().unwrap().to_owned();
    let script = format!("ulimit -f 1; exec '{program}' config schema > schema.json");
    let output = Command::new("sh").args(["-c", &script]).current_dir(&folder).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("File too large"), "{}", said(&output));
}

#[test]
fn a_closed_standard_error_changes_no_exit_code() {
    let ebb = Ebb::start(&[]);
    let cases = [
        (vec!["get", "nothing", "--addr", &ebb.data], 1),
        (vec!["serve", "--listen", "nowhere"], 64),
        (vec!["nonsense"], 2),
    ];
    let found = cases.each_ref().map(|(words, _)| {
        let code = |stderr: Stdio| program().args(words).stderr(stderr).status().unwrap().code();
        let gone = std::io::pipe().unwrap().1;
        let full = File::options().write(true).open("/dev/full").unwrap();
        (words.clone(), code(gone.into()), code(full.into()))
    });
    assert_eq!(found, cases.map(|(words, code)| (words, Some(code), Some(code))), "gone, full");
}

#[test]
fn an_endless_value_is_refused_with_its_bound() {
    let ebb = Ebb::start(&["--max-memory", "64Mi"]);
    let mut wrong = Vec::new();
    for arguments in [vec!["set", "k", "-", "--addr", &ebb.data], vec!["inject", "-f", "-"]] {
        let endless = File::open("/dev/zero").unwrap();
        let output = program().args(&arguments).stdin(endless).output().unwrap();
        if output.status.code() != Some(1) || !said(&output).contains("too large (at most ") {
            wrong.push(format!("{arguments:?}: {}: {}", output.status, said(&output)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let mut set = program().args(["set", "k", "-", "--addr", &ebb.data]).stdin(Stdio::piped()).spawn().unwrap();
    let largest = vec![7; 1 << 20];
    set.stdin.take().unwrap().write_all(&largest).unwrap();
    assert!(set.wait().unwrap().success(), "the largest value is taken");
}

/// Three free ports.
fn ports() -> [String; 3] {
    let bound = [(); 3].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    bound.map(|listener| listener.local_addr().unwrap().to_string())
}

/// A full pipe.
fn full_pipe() -> (std::io::PipeReader, std::io::PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(&vec![b'\n'; 64 << 10]).unwrap();
    (reader, writer)
}

#[test]
fn serving_does_not_depend_on_its_output() {
    type Make = fn() -> (Option<std::io::PipeReader>, Stdio);
    let outputs: [(&str, Make); 4] = [
        ("gone", || (None, std::io::pipe().unwrap().1.into())),
        ("full disk", || (None, File::options().write(true).open("/dev/full").unwrap().into())),
        ("nobody reads", || {
            let (reader, writer) = full_pipe();
            (Some(reader), writer.into())
        }),
        ("null", || (None, Stdio::null())),
    ];
    for (what, make) in outputs {
        let [data, admin, http] = ports();
        let ((_reader, stdout), (_log, stderr)) = (make(), make());
        let mut child = program()
            .args(["serve", "--listen", &data, "--admin-listen", &admin, "--http-listen", &http])
            .env("EBB_LOG_LEVEL", "trace")
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .unwrap();
        until(what, || page(&http, "/readyz").is_some_and(|(status, _)| status == 200));
        for n in 0..50 {
            let key = n.to_string();
            assert!(program().args(["set", &key, "v", "--addr", &data]).status().unwrap().success(), "{what}");
        }
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        until(&format!("{what}: it ends"), || child.try_wait().unwrap().is_some());
        assert_eq!(child.wait().unwrap().code(), Some(0), "{what}");
    }
}

#[test]
fn a_log_that_recovers_says_what_it_dropped() {
    let [data, admin, http] = ports();
    let (mut log, stderr) = full_pipe();
    let mut child = program()
        .args(["serve", "--listen", &data, "--admin-listen", &admin, "--http-listen", &http])
        .env("EBB_LOG_FORMAT", "json")
        // At this level, each run of the cleaner has a line.
        .env("EBB_LOG_LEVEL", "debug")
        .stdout(Stdio::null())
        .stderr(stderr)
        .spawn()
        .unwrap();
    until("it serves", || page(&http, "/readyz").is_some_and(|(status, _)| status == 200));
    let dropped = || super::common::metric(&http, "ebb_log_lines_dropped_total ");
    // Each signal reloads the configuration and logs a line.
    let pid = rustix::process::Pid::from_child(&child);
    until("lines are dropped", || {
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
        dropped() > 10
    });
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        log.read_to_string(&mut text).map(|_| text)
    });
    until("lines are logged again", || {
        let before = dropped();
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
        std::thread::park_timeout(Duration::from_millis(20));
        dropped() == before
    });
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let text = reader.join().unwrap().unwrap();
    let lines = text.lines().filter(|line| !line.is_empty());
    let lines: Vec<serde_json::Value> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
    let reports = lines.iter().filter(|line| line["message"] == "log lines dropped");
    assert!(reports.map(|line| line["lines"].as_u64().unwrap()).sum::<u64>() > 10, "{text}");
    assert_eq!(lines.last().unwrap()["message"], "stopped");
}
