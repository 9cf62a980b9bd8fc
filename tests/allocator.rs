//! The allocator uses the program's settings, regardless of the build environment.

mod common;

use common::program;

#[test]
fn jemalloc_runs_with_the_settings_of_the_program() {
    let elsewhere = tempfile::tempdir().unwrap();
    let output = program()
        .arg("--version")
        .current_dir(elsewhere.path())
        .env("_RJEM_MALLOC_CONF", "stats_print:true")
        .output()
        .unwrap();
    let report = String::from_utf8_lossy(&output.stderr).into_owned();
    let expected = [
        ("opt.background_thread", "true"),
        ("opt.dirty_decay_ms", "1000"),
        ("opt.muzzy_decay_ms", "0"),
        ("opt.narenas", "2"),
    ];
    let found = expected.map(|(option, _)| {
        let line = report.lines().map(str::trim).find(|line| line.starts_with(&format!("{option}:")));
        (option, line.and_then(|line| line.split_whitespace().nth(1)).unwrap_or("not reported"))
    });
    assert_eq!(found, expected, "{report}");
}
