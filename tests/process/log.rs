//! The log: format, first and last lines, colors, and quotas.

use super::common::{Ebb, SERVE, program, until};
use serde_json::Value;
use std::io::{Read as _, Write as _};

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}"))).collect()
}

#[test]
fn a_log_of_json_is_flat_from_the_first_line_to_the_last() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ebb.yaml");
    std::fs::write(&file, "maxMemory: 64Mi\nnoSuchSetting: 1\n").unwrap();
    let mut command = program();
    command.args(SERVE).arg("--config").arg(&file);
    command.env("EBB_LOG_FORMAT", "json").env("EBB_MAX_MEMROY", "1Gi").env("EBB_SERVICE_HOST", "10.0.0.1");
    let mut ebb = Ebb::spawn(command);
    until("it has started", || ebb.logged("\"started\"") == 1);
    assert_eq!(ebb.terminate().1, Some(0));
    until("the log is at its end", || ebb.logged("\"stopped\"") == 1);
    let text = ebb.lines("").join("\n");
    let lines = lines(&text);
    let is_well_formed = |line: &Value| {
        let fields = line.as_object().unwrap();
        let has_message = line["message"].as_str().is_some_and(|message| message.len() > 5);
        let is_flat = fields.values().all(|value| !value.is_object() && !value.is_array());
        has_message && is_flat && fields.contains_key("timestamp") && fields.contains_key("level")
    };
    let wrong: Vec<_> = lines.iter().filter(|line| !is_well_formed(line)).map(Value::to_string).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let of = |message: &str| -> &Value {
        let mut found = lines.iter().filter(|line| line["message"] == message);
        let (Some(line), None) = (found.next(), found.next()) else { panic!("{message} is not in one line: {text}") };
        line
    };
    let started = of("started");
    assert_eq!(started["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!((&started["data"], &started["admin"]), (&ebb.data.as_str().into(), &ebb.admin.as_str().into()));
    assert_eq!(started["http"], ebb.http.as_str());
    assert_eq!(started["config"], format!("file {}", file.display()));
    assert_eq!((&started["limit_bytes"], &started["limit_source"]), (&(64 << 20).into(), &"max_memory".into()));
    assert_eq!(of("stopping")["reason"], "SIGTERM");
    let warned =
        |text: &str| lines.iter().filter(|line| line["warning"].as_str().is_some_and(|w| w.contains(text))).count();
    assert_eq!((warned("did you mean EBB_MAX_MEMORY?"), warned("noSuchSetting"), warned("SERVICE_HOST")), (1, 1, 0));
}

#[test]
fn a_refusal_to_start_is_json_where_the_log_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ebb.yaml");
    std::fs::write(&file, "logFormat: json\ncores: 0\n").unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let file = file.to_str().unwrap();
    let json = ("EBB_LOG_FORMAT", "json");
    let mut wrong = Vec::new();
    for (arguments, variables, what) in [
        (vec!["--config", file], vec![], "cores"),
        (vec!["--config", "/does/not/exist"], vec![json], "/does/not/exist"),
        (vec!["--listen", &address], vec![json], address.as_str()),
        (vec![], vec![json, ("EBB_CORES", "nonsense")], "EBB_CORES"),
    ] {
        let output = program().arg("serve").args(&arguments).envs(variables).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        let lines = lines(&text);
        let last = lines.last().unwrap();
        let is_named = last["error"].as_str().is_some_and(|error| error.contains(what));
        if output.status.code() != Some(64) || last["exit_code"] != 64 || !is_named {
            wrong.push(format!("{arguments:?}, which must name {what}: {}: {text}", output.status));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let output = program().args(["serve", "--bogus"]).envs([json]).output().unwrap();
    let [line] = lines(&String::from_utf8(output.stderr).unwrap()).try_into().unwrap();
    assert_eq!((output.status.code(), &line["exit_code"]), (Some(2), &2.into()), "{line}");
}

/// Output of a server on a terminal.
fn on_a_terminal(variables: &[(&str, &str)]) -> String {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let slave = std::fs::File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    let mut command = program();
    command.args(SERVE).env_remove("NO_COLOR").env("TERM", "xterm").envs(variables.iter().copied());
    let mut child = command.stdout(std::process::Stdio::null()).stderr(slave).spawn().unwrap();
    drop(command); // its copy of the terminal
    let mut master = std::fs::File::from(master);
    let (mut text, mut buffer) = (String::new(), [0; 4096]);
    while !text.contains("started") {
        let read = master.read(&mut buffer).unwrap();
        text += &String::from_utf8_lossy(&buffer[..read]);
    }
    child.kill().unwrap();
    child.wait().unwrap();
    text
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    assert!(on_a_terminal(&[]).contains('\x1b'));
    assert!(on_a_terminal(&[("NO_COLOR", "")]).contains('\x1b'), "an empty variable is not given");
    let texts = [("NO_COLOR", "1"), ("TERM", "dumb")].map(|variable| (variable, on_a_terminal(&[variable])));
    let coloured: Vec<_> = texts.iter().filter(|(_, text)| text.contains('\x1b')).collect();
    assert!(coloured.is_empty(), "{coloured:?}");
    let mut ebb = Ebb::start(&[]);
    ebb.terminate();
    until("the log is at its end", || ebb.logged("stopped") == 1);
    assert!(!ebb.lines("").join("\n").contains('\x1b'), "nor are they for files");
}

#[test]
fn a_peer_cannot_flood_the_log_through_a_dependency() {
    let mut ebb = Ebb::start(&[]);
    let mut stream = std::net::TcpStream::connect(&ebb.data).unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    let ack = b"\0\0\x08\x06\x01\0\0\0\0unasked!";
    for _ in 0..100 {
        // The server may close the connection.
        if stream.write_all(&ack.repeat(1_000)).is_err() {
            break;
        }
    }
    drop(stream);
    assert!(program().args(["set", "k", "v", "--addr", &ebb.data]).status().unwrap().success());
    assert_eq!(ebb.terminate().1, Some(0));
    until("the log is at its end", || ebb.logged("stopped") == 1);
    let all = ebb.lines("");
    assert!(all.len() < 50, "{} lines, such as {:?}", all.len(), &all[..5]);
}

#[test]
fn a_full_cache_does_not_fill_its_log() {
    let mut ebb = Ebb::start(&["--max-memory", "32Mi"]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut client =
            ebb_proto::cache_service_client::CacheServiceClient::connect(format!("http://{}", ebb.data)).await.unwrap();
        let begun = std::time::Instant::now();
        let mut next = 0_u64;
        while begun.elapsed() < std::time::Duration::from_secs(6) {
            let item = |n: u64| ebb_proto::SetRequest {
                key: n.to_string().into(),
                value: vec![7; 1_000].into(),
                ..Default::default()
            };
            let items = (next..next + 200).map(item).collect();
            next += 200;
            // A full cache refuses some of them.
            let _ = client.batch_set(ebb_proto::BatchSetRequest { items, ..Default::default() }).await;
        }
    });
    assert_eq!(ebb.terminate().1, Some(0));
    until("the log is at its end", || ebb.logged("stopped") == 1);
    let changes = ebb.lines("memory regime changed");
    assert!((1..=3).contains(&changes.len()), "{changes:?}");
}
