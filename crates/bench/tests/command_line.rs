//! The command line of `ebb-bench`, as a user meets it.

use std::process::{Command, Output};

fn run(words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ebb-bench"));
    // Without it the program is not built first.
    command.args(words).env_remove("CARGO").output().unwrap()
}

#[test]
fn every_command_has_a_help_text() {
    let mut wrong = Vec::new();
    for name in ["reclaim", "serve", "trace", "storm", "overwrite", "expire", "stall", "get"] {
        let help = run(&[name, "--help"]);
        let text = String::from_utf8(help.stdout).unwrap();
        if !help.status.success() || !text.contains(&format!("Usage: ebb-bench {name}")) {
            wrong.push(format!("{name}: {}: {text}", help.status));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn bad_options_end_with_code_2() {
    let cases = [&["reclaim", "--scale", "0"][..], &["nonsense"], &["serve", "--against", "keydb"]];
    let wrong: Vec<_> = cases
        .map(|words| (words, run(words)))
        .into_iter()
        .filter(|(_, done)| done.status.code() != Some(2) || done.stderr.is_empty() || !done.stdout.is_empty())
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn a_missing_program_is_an_error_that_names_it() {
    let mut wrong = Vec::new();
    for command in ["reclaim", "serve"] {
        let done = run(&[command, "--ebb", "/nonexistent/ebb"]);
        let said = String::from_utf8(done.stderr).unwrap();
        let is_named = said.starts_with("ebb-bench: ") && said.contains("/nonexistent/ebb");
        if done.status.code() != Some(1) || !is_named {
            wrong.push(format!("{command}: {}: {said}", done.status));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
