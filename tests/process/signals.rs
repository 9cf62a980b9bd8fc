//! Signals to a server.

use super::common::{Ebb, page, program, until};
use rustix::process::{Pid, Signal, kill_process};

fn send(ebb: &Ebb, signal: Signal) {
    kill_process(Pid::from_child(&ebb.child), signal).unwrap();
}

fn is_live(ebb: &Ebb) -> bool {
    page(&ebb.http, "/livez").is_some_and(|(status, _)| status == 200)
}

#[test]
fn signals_without_a_meaning_end_nothing() {
    let mut ebb = Ebb::start(&[]);
    for signal in [
        Signal::USR1,
        Signal::USR2,
        Signal::PIPE,
        Signal::ALARM,
        Signal::VTALARM,
        Signal::PROF,
        Signal::IO,
        Signal::POWER,
        Signal::STKFLT,
        Signal::XFSZ,
        Signal::WINCH,
        Signal::URG,
        Signal::CHILD,
        Signal::CONT,
    ] {
        (0..3).for_each(|_| send(&ebb, signal));
        assert!(is_live(&ebb), "{signal:?}");
    }
    let real_time = std::process::Command::new("sh")
        .args(["-c", &format!("for n in $(seq 34 64); do kill -$n {} || exit 1; done", ebb.child.id())])
        .status();
    assert!(real_time.unwrap().success() && is_live(&ebb), "nor do those of real time");
    let set = program().args(["set", "k", "v", "--addr", &ebb.data]).status().unwrap();
    assert!(set.success());
    assert_eq!(ebb.terminate().1, Some(0));
}

#[test]
fn term_int_and_quit_drain_and_name_themselves() {
    let mut wrong = Vec::new();
    for (signal, name) in [(Signal::TERM, "SIGTERM"), (Signal::INT, "SIGINT"), (Signal::QUIT, "SIGQUIT")] {
        let mut ebb = Ebb::start(&[]);
        send(&ebb, signal);
        let code = ebb.child.wait().unwrap().code();
        if code != Some(0) {
            wrong.push(format!("{name}: exit code {code:?}"));
            continue;
        }
        until("the log is at its end", || ebb.logged("stopped") == 1);
        let lines = ebb.lines("stopping");
        if lines.len() != 1 || !lines[0].contains(name) {
            wrong.push(format!("{name}: {lines:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn hup_reads_the_configuration_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ebb.yaml");
    std::fs::write(&file, "logLevel: info\n").unwrap();
    let ebb = Ebb::start(&["--config", file.to_str().unwrap()]);
    send(&ebb, Signal::HUP);
    until("the reload is logged", || ebb.logged("configuration reloaded on SIGHUP") == 1);
    std::fs::write(&file, "maxMemory: 128Mi\n").unwrap();
    send(&ebb, Signal::HUP);
    until("the change is active", || super::common::metric(&ebb.http, "ebb_memory_limit_bytes ") == 128 << 20);
    std::fs::write(&file, "maxMemory: 1Mi\n").unwrap();
    send(&ebb, Signal::HUP);
    until("a bad one is refused", || ebb.logged("configuration rejected") == 1);
    assert_eq!(ebb.metric("ebb_memory_limit_bytes "), 128 << 20);
    assert!(is_live(&ebb));
}

#[test]
fn handlers_are_installed_before_a_socket_is_bound() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for _ in 0..3 {
        let mut command = program();
        command.args(["serve", "--listen", &port, "--admin-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]);
        let mut child =
            command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped()).spawn().unwrap();
        let status = format!("/proc/{}/status", child.id());
        let is_caught = || {
            let text = std::fs::read_to_string(&status).unwrap_or_default();
            let mask = text.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or("0").trim().to_owned();
            u64::from_str_radix(&mask, 16).unwrap_or(0) & (1 << 14) != 0
        };
        until("the handler of SIGTERM is installed", || {
            let is_bound = std::net::TcpStream::connect(&port).is_ok(); // read before the mask
            let is_caught = is_caught();
            assert!(is_caught || !is_bound, "it listens and would not drain");
            is_caught
        });
        // From now on the signal is not lost, however far the start is.
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        until("it ends", || child.try_wait().unwrap().is_some());
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{text}");
        assert!(text.contains("SIGTERM"), "{text}");
    }
}

#[test]
fn a_start_that_waits_for_an_api_server_can_be_stopped() {
    // A server that accepts connections and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config");
    let server = format!("http://{}", silent.local_addr().unwrap());
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: it\ncontexts: [{{name: it, context: {{cluster: it, user: it}}}}]\n\
         clusters: [{{name: it, cluster: {{server: '{server}'}}}}]\nusers: [{{name: it, user: {{}}}}]\n"
    );
    std::fs::write(&config, text).unwrap();
    let mut command = program();
    command.args(["serve", "--config-map", "shop/ebb"]).env("KUBECONFIG", &config);
    let mut child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    let _asked = silent.accept().unwrap();
    let began = std::time::Instant::now();
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    until("it ends", || child.try_wait().unwrap().is_some());
    let text = String::from_utf8(child.wait_with_output().unwrap().stderr).unwrap();
    assert!(began.elapsed() < std::time::Duration::from_secs(3), "{text}");
    assert!(text.contains("SIGTERM"), "{text}");
}
