//! The command line of `ebb-bench`, as a user meets it.

use std::process::{Command, Output};

fn run(words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ebb-bench"));
    // Without it the program is not built first.
    command.args(words).env_remove("CARGO").output().unwrap()
}

#[test]
fn every_command_has_a_help_text() {
    for name in ["reclaim", "serve", "trace", "storm", "overwrite", "expire", "stall", "get"] {
        let help = run(&[name, "--help"]);
        let text = String::from_utf8(help.stdout).unwrap();
        assert!(help.status.success() && text.contains(&format!("Usage: ebb-bench {name}")), "{text}");
    }
}

#[test]
fn bad_options_end_with_code_2() {
    for words in [&["reclaim", "--scale", "0"][..], &["nonsense"], &["serve", "--against", "keydb"]] {
        let done = run(words);
        assert_eq!(done.status.code(), Some(2), "{words:?}");
        assert!(!done.stderr.is_empty() && done.stdout.is_empty(), "{words:?}");
    }
}

#[test]
fn a_missing_program_is_an_error_that_names_it() {
    for command in ["reclaim", "serve"] {
        let done = run(&[command, "--ebb", "/nonexistent/ebb"]);
        let said = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(1), "{said}");
        assert!(said.starts_with("ebb-bench: ") && said.contains("/nonexistent/ebb"), "{said}");
    }
}
