//! No output of a program or endpoint contains a credential, whatever source it comes from.

mod common;

use common::{Ebb, events, page, program, until};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Parts of every credential in this file.
const SECRET: &str = "s3cr3t";
/// A value of each form.
const URLS: [&str; 3] = [
    "http://user:s3cr3t@127.0.0.1:1/",
    "http://s3cr3t@127.0.0.1:1/v1/traces",
    "http://127.0.0.1:1/?token=s3cr3t&user=s3cr3t",
];
/// Values that are refused.
const WRONG: [&str; 4] =
    ["https://user:s3cr3t@collector:4317", "user:s3cr3t@collector:4317", "http://u:s3cr3t@host:0", "s3cr3t"];

fn serve(urls: [&str; 2], level: &str, config: &Path) -> Command {
    let mut command = program();
    fs::write(config, format!("otlpEndpoint: {:?}\nlogLevel: {level}\ntraceSample: 100%\n", urls[0])).unwrap();
    command.env("EBB_OTLP_ENDPOINT", urls[1]).args(common::SERVE).arg("--config").arg(config);
    command
}

/// Everything that a command writes.
fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Output of every client command and every endpoint.
fn everything(ebb: &Ebb) -> Vec<String> {
    let admin = ["stats", "doctor", "diagnostics", "memory-map", "keys --big", "keys --hot", "compact"];
    let words =
        admin.map(|words| program().args(words.split(' ')).args(["--admin-addr", &ebb.admin]).output().unwrap());
    let mut found: Vec<_> = words.iter().map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).collect();
    found.extend(["/", "/page.js", "/metrics", "/readyz", "/livez"].map(|path| page(&ebb.http, path).unwrap().1));
    found.push(events(&ebb.http));
    found
}

fn leaks(outputs: &[String]) -> Vec<&str> {
    outputs.iter().flat_map(|text| text.lines()).filter(|line| line.contains(SECRET)).collect()
}

#[test]
fn a_running_server_shows_no_credentials() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("ebb.yaml");
    for (at, url) in URLS.iter().enumerate() {
        let level = ["debug", "trace", "debug"][at];
        let ebb = Ebb::spawn(serve([url, URLS[(at + 1) % 3]], level, &config));
        output(program().args(["set", "k", "v", "--addr", &ebb.data]));
        until("the collector is reported as unavailable", || ebb.logged("the trace collector") > 0);
        fs::write(&config, format!("otlpEndpoint: {:?}\nlogLevel: {level}\ntick: 50ms\n", URLS[(at + 2) % 3])).unwrap();
        until("the change is reported", || ebb.logged("applies at the next start") > 0);
        fs::write(&config, format!("otlpEndpoint: {:?}\npod: {url:?}\n", WRONG[at])).unwrap();
        until("the wrong value is reported", || ebb.logged("configuration rejected") > 0);
        let mut outputs = everything(&ebb);
        assert!(outputs.iter().any(|text| text.contains("http://***@127.0.0.1:1/") || text.contains("1/?***")));
        outputs.extend(ebb.lines(""));
        assert_eq!(leaks(&outputs), [""; 0], "{url}");
    }
}

#[test]
fn no_command_quotes_credentials() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("ebb.yaml");
    let mut outputs = Vec::new();
    for url in URLS.iter().chain(&WRONG) {
        let texts = [
            format!("otlpEndpoint: {url:?}\n"),
            format!("otlpEndpoint: [{url:?}]\n"),
            format!("otlpEndpoint: {{ url: {url:?} }}\n"),
            format!("otlpEndpoint:{url}\ncores: 0\n"),
            format!("otlpEndpoint: \"{url}\n"),
        ];
        for text in texts {
            fs::write(&config, &text).unwrap();
            outputs.push(output(program().args(["config", "check"]).arg(&config)));
            outputs.push(output(program().args(["config", "print", "--config"]).arg(&config)));
            // A server that starts would not end.
            outputs.push(output(program().env("EBB_CORES", "0").args(["serve", "--config"]).arg(&config)));
        }
        for format in ["text", "json"] {
            outputs.push(output(program().env("EBB_OTLP_ENDPOINT", url).args(["config", "check", "--env"])));
            outputs.push(output(program().env("EBB_OTLP_ENDPOINT", url).args(["config", "print"])));
            outputs.push(output(program().env("EBB_OTLP_ENDPONT", url).args(["config", "check", "--env"])));
            let with = |name: &str| {
                let mut command = program();
                command.env("EBB_LOG_FORMAT", format).env("EBB_CORES", "0").env(name, url).arg("serve");
                command
            };
            outputs.push(output(&mut with("EBB_OTLP_ENDPOINT")));
            outputs.push(output(with("EBB_X").args(["--otlp-endpoint", url])));
            outputs.push(output(with("EBB_X").arg(format!("--otlp-endpoint={url}"))));
            if url.contains("://") {
                outputs.push(output(with("EBB_X").args(["--listen", url])));
                outputs.push(output(&mut with("EBB_HTTP_LISTEN")));
            }
        }
        if url.contains(['@', '?']) {
            outputs.push(output(program().args(["get", "k", "--addr", url])));
            outputs.push(output(program().env("EBB_ADMIN_ADDR", url).arg("stats")));
        }
    }
    assert!(outputs.len() > 100 && outputs.iter().any(|text| text.contains("otlpEndpoint: the value is not")));
    assert_eq!(leaks(&outputs), [""; 0]);
}

#[test]
fn types_of_the_configuration_show_no_credentials() {
    use ebb_config::{Environment, Flags, Live, Source};
    let variables = [("EBB_OTLP_ENDPOINT".into(), URLS[0].into())];
    let environment = Environment::read(variables.into_iter()).unwrap();
    let text = std::sync::Arc::new(format!("otlpEndpoint: {:?}\n", URLS[2]));
    let text = std::sync::Arc::new(arc_swap::ArcSwapOption::new(Some(text)));
    let source = Source::Watched { name: "ConfigMap a/b".to_owned(), text };
    let live = Live::start(source.clone(), environment.variables.clone(), Flags::new()).unwrap();
    let shown = [
        format!("{environment:?}"),
        format!("{source:?}"),
        format!("{live:?} {:?}", live.effective()),
        format!("{:#?}", live.active()),
        serde_json::to_string(live.config()).unwrap(),
    ];
    assert_eq!(leaks(&shown), [""; 0]);
    assert!(shown[2].contains("127.0.0.1:1/?***"), "{}", shown[2]);
}
