//! `ebb top` on a pseudo-terminal, with real servers.
#![allow(missing_docs, reason = "tests")]

mod common;

use common::{Ebb, program, until};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};

/// The colors of curves.
const HITS: vt100::Color = vt100::Color::Idx(6);
const P99: vt100::Color = vt100::Color::Idx(13);

/// A program on a terminal.
struct Terminal {
    master: File,
    child: Child,
    screen: Arc<Mutex<vt100::Parser>>,
}

impl Terminal {
    fn start(arguments: &[&str], columns: u16, rows: u16) -> Self {
        Self::start_with(arguments, columns, rows, &[])
    }

    fn start_with(arguments: &[&str], columns: u16, rows: u16, variables: &[(&str, &str)]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = OpenOptions::new().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        tcsetwinsize(&master, size(columns, rows)).unwrap();
        let stdio = || Stdio::from(slave.try_clone().unwrap());
        let child = program()
            .env("TERM", "xterm-256color")
            .envs(variables.iter().copied())
            .args(arguments)
            .stdin(stdio())
            .stdout(stdio())
            .stderr(stdio())
            .spawn()
            .unwrap();
        drop(slave);
        let master = File::from(master);
        let screen = Arc::new(Mutex::new(vt100::Parser::new(rows, columns, 0)));
        let (mut output, into) = (master.try_clone().unwrap(), screen.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // A terminal whose program has ended reads as an error.
            while let Ok(read @ 1..) = output.read(&mut bytes) {
                into.lock().unwrap().process(&bytes[..read]);
            }
        });
        Self { master, child, screen }
    }

    /// Whether a text is on the screen, regardless of the width of spaces.
    fn shows(&self, text: &str) -> bool {
        let contents = self.screen.lock().unwrap().screen().contents();
        contents.split_whitespace().collect::<Vec<_>>().join(" ").contains(text)
    }

    /// Number of compaction marks, including that of the legend.
    fn dots(&self) -> usize {
        self.screen.lock().unwrap().screen().contents().matches('•').count()
    }

    /// Number of cells with a curve of this color.
    fn drawn(&self, color: vt100::Color) -> usize {
        let parser = self.screen.lock().unwrap();
        let (rows, columns) = parser.screen().size();
        let cells = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
        let is_drawn = |cell: &vt100::Cell| {
            cell.fgcolor() == color && cell.contents().starts_with(|c| ('\u{2801}'..='\u{28ff}').contains(&c))
        };
        cells.filter(|(row, column)| parser.screen().cell(*row, *column).is_some_and(is_drawn)).count()
    }

    fn type_in(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    /// Types a key and waits for its effect. A key that arrives with a resize is read only with the next key, so
    /// ignored keys follow.
    fn type_until(&mut self, keys: &str, what: &str, mut condition: impl FnMut(&mut Self) -> bool) {
        self.type_in(keys);
        until(what, || {
            self.type_in(".");
            condition(self)
        });
    }

    fn resize(&self, columns: u16, rows: u16) {
        self.screen.lock().unwrap().screen_mut().set_size(rows, columns);
        tcsetwinsize(&self.master, size(columns, rows)).unwrap();
        kill_process(Pid::from_child(&self.child), Signal::WINCH).unwrap();
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn size(columns: u16, rows: u16) -> Winsize {
    Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 }
}

#[test]
fn top_shows_sidecars_side_by_side_and_follows_keys_and_resizes() {
    let (one, two) = (Ebb::start(&["--max-memory", "64Mi"]), Ebb::start(&["--max-memory", "128Mi"]));
    let arguments = ["top", "--every", "100ms", "--admin-addr", &one.admin, "--admin-addr", &two.admin];
    let mut top = Terminal::start(&arguments, 120, 32);
    until("both are connected", || top.shows("2 of 2 connected"));
    until("their limits are shown", || top.shows("of 64.0 MiB") && top.shows("of 128.0 MiB"));
    assert!(top.shows(&one.admin) && top.shows(&two.admin) && top.shows("calm"));
    let stored = program().args(["set", "k", "v", "--addr", &two.data]).status().unwrap();
    assert!(stored.success());
    top.type_in("j");
    until("the entry of the second one is shown", || top.shows("entries 1 "));
    top.resize(50, 10);
    until("it reports that the terminal is too small", || top.shows("needs 60 × 12"));
    top.resize(100, 24);
    until("it shows everything again", || top.shows("2 of 2 connected"));
    top.type_until("q", "q quits", |top| top.child.try_wait().unwrap().is_some());
    assert!(top.child.wait().unwrap().success());
    until("the screen is restored", || !top.screen.lock().unwrap().screen().alternate_screen());
}

#[test]
fn top_shows_cleaner_runs_findings_and_occupancy() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("ebb.yaml");
    fs::write(&config, "compaction: auto\n").unwrap();
    let mut command = program();
    command.args(common::SERVE).args(["--max-memory", "64Mi", "--config", config.to_str().unwrap()]);
    let (ebb, other) = (Ebb::spawn(command), Ebb::start(&["--max-memory", "64Mi"]));
    let arguments = ["top", "--every", "100ms", "--admin-addr", &ebb.admin, "--admin-addr", &other.admin];
    let mut top = Terminal::start(&arguments, 120, 36);
    until("both have no findings", || top.shows("2 of 2 connected") && top.shows("all is well"));
    assert!(top.shows("the cleaner has not run yet") && top.shows("0-10 % 0"));
    assert_eq!(top.dots(), 0);

    assert!(program().args(["set", "k", "v", "--addr", &ebb.data]).status().unwrap().success());
    until("there is a segment full of live bytes", || top.shows("1 segment of") && top.shows("90-100 % 1 █"));

    let compacted = program().args(["compact", "--admin-addr", &ebb.admin]).stdout(Stdio::null()).status().unwrap();
    assert!(compacted.success());
    until("the run is a mark on the chart", || top.shows("• compaction") && top.dots() >= 2);
    assert!(top.shows("s ago #1 requested:") && top.shows("moved,") && top.shows(" freed, resident"));

    fs::write(&config, "tick: 1ms\n").unwrap();
    until("the finding is shown", || top.shows("error: tick: 1 is out of range"));
    assert!(top.shows("error ×1") && top.shows("none"), "the other sidecar has no findings");
    top.resize(80, 24);
    until("a small terminal shows receipts", || top.shows("receipts │ findings (1) │ 1 segment of"));
    until("it hides the other panels", || !top.shows("error: tick") && !top.shows("90-100 %"));
    top.type_until("\t", "tab selects findings", |top| top.shows("error: tick: 1 is out of range"));
    top.type_in("\t");
    until("tab selects segments", || top.shows("90-100 % 1 █"));
    fs::write(&config, "compaction: auto\n").unwrap();
    top.type_in("\t\t\t\t");
    until("the finding disappears once it is fixed", || top.shows("all is well"));
}

#[test]
fn top_draws_the_hit_ratio_and_latency_once_calls_are_made() {
    let ebb = Ebb::start(&["--max-memory", "64Mi"]);
    let mut top = Terminal::start(&["top", "--every", "100ms", "--admin-addr", &ebb.admin], 120, 40);
    until("both charts are shown", || top.shows("hit ratio no reads") && top.shows("latency: p99, p50"));
    until("their axes are shown", || {
        let labels = ["100 %│", "50 % │", "│0 % │", "µs", "ago"];
        labels.iter().all(|label| top.shows(label))
    });
    assert_eq!(top.drawn(HITS), 0, "without reads there is no curve");

    let call = |words: &[&str]| {
        let mut command = program();
        command.args(words).args(["--addr", &ebb.data]).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().unwrap().success()
    };
    assert!(call(&["set", "k", "v"]));
    until("the curve of the hit ratio is drawn while reads hit", || {
        assert!(call(&["get", "k"]));
        top.drawn(HITS) > 3
    });
    until("the chart shows the p99 latency", || top.drawn(P99) > 0);
    assert!(!top.shows("no reads") && !top.shows("no requests"));

    top.resize(80, 24);
    until("on a small terminal, they are a panel", || top.shows("│ curves") && top.drawn(HITS) == 0);
    let drawn = |top: &mut Terminal| top.shows("hit ratio") && top.drawn(HITS) > 0 && top.drawn(P99) > 0;
    top.type_until("\t\t\t", "tab selects the curves", drawn);
}

#[test]
fn top_shows_the_configuration_with_sources() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("ebb.yaml");
    let path = config.to_str().unwrap();
    fs::write(&config, "watermarks: { high: 90 }\n").unwrap();
    let mut command = program();
    command.env("EBB_PACING_CPU", "10%").args(common::SERVE).args(["--max-memory", "64Mi", "--config", path]);
    let ebb = Ebb::spawn(command);
    let mut top = Terminal::start(&["top", "--every", "100ms", "--admin-addr", &ebb.admin], 80, 24);
    until("there is a tab for it", || top.shows("│ configuration"));
    top.type_in("\t\t\t\t");
    until("it is shown to its end", || top.shows("adminSocket default") && top.shows("generation 1, active for"));
    assert!(top.shows("maxMemory 64Mi flag --max-memory") && top.shows("pacing.cpu 10% EBB_PACING_CPU"));
    assert!(top.shows(&format!("watermarks.high 90% {path}")));
    let contents = top.screen.lock().unwrap().screen().contents();
    assert!(
        contents.find("watermarks.high") < contents.find("adminSocket"),
        "settings that are not defaults come first:\n{contents}"
    );

    fs::write(&config, "watermarks: { high: 91 }\n").unwrap();
    until("a changed value is shown", || {
        top.shows(&format!("watermarks.high 91% {path}")) && top.shows("generation 2, active for")
    });
    fs::write(&config, "tick: 1ms\n").unwrap();
    until("the reason of the rejection is shown", || {
        top.shows("configuration on disk rejected: tick: 1 is out of range")
    });
    assert!(top.shows("watermarks.high 91%"));
    fs::write(&config, "watermarks: { high: 91 }\n").unwrap();
    until("the reason disappears once the file is valid", || {
        !top.shows("rejected") && top.shows("watermarks.high 91%")
    });

    assert!(!top.shows("writeTimeout"));
    (0..9).for_each(|_| top.type_in("\u{1b}[6~"));
    until("page down scrolls to the end", || top.shows("writeTimeout 5s default") && !top.shows("maxMemory"));
    (0..9).for_each(|_| top.type_in("\u{1b}[5~"));
    until("page up scrolls back", || top.shows("maxMemory") && !top.shows("writeTimeout"));

    top.resize(120, 40);
    until("a large terminal shows it below the charts", || top.shows("tab back") && top.shows("watermarks.high 91%"));
    assert!(top.shows("hit ratio") && !top.shows("the cleaner has not run yet"));
    top.type_until("\t", "tab selects the other panels", |top| {
        top.shows("the cleaner has not run yet") && !top.shows("watermarks.high") && top.shows("tab configuration")
    });
    assert!(top.shows("all is well") && top.shows("segments of"));
}

#[test]
fn top_shows_an_offline_sidecar_and_reconnects() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("admin.sock");
    let address = format!("unix:{}", socket.display());
    let mut top = Terminal::start(&["top", "--every", "100ms", "--admin-addr", &address], 120, 24);
    until("the sidecar is offline", || top.shows("0 of 1 connected") && top.shows("Retrying"));
    let ebb = Ebb::start(&["--admin-socket", socket.to_str().unwrap()]);
    until("it connects once the sidecar has started", || top.shows("1 of 1 connected"));
    let pid = Pid::from_child(&ebb.child);
    kill_process(pid, Signal::STOP).unwrap();
    until("it is offline when it hangs", || top.shows("0 of 1 connected"));
    kill_process(pid, Signal::CONT).unwrap();
    until("it is online when it continues", || top.shows("1 of 1 connected"));
    drop(ebb);
    until("it is offline when it has ended", || top.shows("0 of 1 connected"));
    top.type_in("\u{3}");
    until("ctrl-c quits", || top.child.try_wait().unwrap().is_some());
}

/// An API server with one Deployment, whose pods a test changes. It executes nothing in them.
struct ApiServer {
    pods: Arc<Mutex<Vec<serde_json::Value>>>,
    config: tempfile::NamedTempFile,
}

impl ApiServer {
    fn start() -> Self {
        let pods = Arc::new(Mutex::new(Vec::new()));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        let config = tempfile::NamedTempFile::new().unwrap();
        let context = serde_json::json!({"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "shop"}});
        let text = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c", "contexts": [context],
            "clusters": [{"name": "c", "cluster": {"server": server}}], "users": [{"name": "u", "user": {}}],
        });
        fs::write(&config, text.to_string()).unwrap();
        let served = pods.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let served = served.clone();
                std::thread::spawn(move || answer(stream, &served));
            }
        });
        Self { pods, config }
    }

    /// Replaces the pods, given as name, UID and phase.
    fn set(&self, pods: &[(&str, &str, &str)]) {
        let pod = |(name, uid, phase): &(&str, &str, &str)| {
            serde_json::json!({
                "metadata": {"name": name, "uid": uid, "namespace": "shop"}, "status": {"phase": phase},
                "spec": {"containers": [{"name": "app"}], "initContainers": [{"name": "ebb"}]},
            })
        };
        *self.pods.lock().unwrap() = pods.iter().map(pod).collect();
    }
}

/// Answers requests of one connection.
fn answer(stream: std::net::TcpStream, pods: &Mutex<Vec<serde_json::Value>>) {
    use std::io::{BufRead, BufReader};
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    while let Some(request) = lines.next() {
        lines.by_ref().take_while(|line| !line.is_empty()).for_each(drop);
        let path = request.split(' ').nth(1).unwrap_or_default().split('?').next().unwrap_or_default().to_owned();
        let not_found = serde_json::json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404});
        let (status, body) = match path.as_str() {
            "/apis/apps/v1/namespaces/shop/deployments/web" => {
                let spec = serde_json::json!({"selector": {"matchLabels": {"app": "web"}}});
                (200, serde_json::json!({"metadata": {"name": "web"}, "spec": spec}))
            }
            "/api/v1/namespaces/shop/pods" => {
                (200, serde_json::json!({"metadata": {}, "items": pods.lock().unwrap().clone()}))
            }
            _ => (404, not_found),
        };
        let body = body.to_string();
        let head =
            format!("HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
        if (&stream).write_all(format!("{head}{body}").as_bytes()).is_err() {
            return;
        }
    }
}

#[test]
fn top_follows_the_pods_of_a_workload_through_a_rollout() {
    let server = ApiServer::start();
    server.set(&[("web-old-1", "1", "Running"), ("web-old-2", "2", "Running")]);
    let config = server.config.path().to_str().unwrap();
    let mut top = Terminal::start_with(&["top", "deploy/web"], 140, 32, &[("KUBECONFIG", config)]);
    until("it shows the pods of the start", || top.shows("pod/web-old-1") && top.shows("pod/web-old-2"));
    assert!(top.shows("0 of 2 connected · deployment/web in namespace shop"));
    server.set(&[("web-old-2", "2", "Running"), ("web-new-1", "3", "Pending")]);
    until("the new pod is there, the old one is gone", || {
        top.shows("0 of 2 connected · deployment/web in namespace shop · new: pod/web-new-1, gone: pod/web-old-1")
    });
    until("a pod that starts says so", || top.shows("its sidecar is not running (the pod is Pending)"));
    server.set(&[]);
    until("a workload of no pods has none", || top.shows("0 of 0 connected") && top.shows("There are no pods."));
    for keys in ["\t", "j", "k", "h", "l", "\u{1b}[6~"] {
        top.type_in(keys);
    }
    server.set(&[("web-new-2", "4", "Running")]);
    until("scaled up again", || top.shows("0 of 1 connected") && top.shows("pod/web-new-2"));
    top.type_until("q", "q quits", |top| top.child.try_wait().unwrap().is_some());
    assert!(top.child.wait().unwrap().success());
}

#[test]
fn without_a_terminal_top_suggests_another_command() {
    let output = program().arg("top").stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("ebb stats --watch"));
}
