//! A running server follows its sources.

use super::{Volume, with_variables};
use crate::common::{Ebb, SERVE, program, until};
use std::fs;
use std::os::unix::fs::symlink;

#[test]
fn a_pod_starts_with_the_valid_keys_of_an_invalid_file() {
    let mut wrong = Vec::new();
    for (text, annotations, limit_mib, problem) in [
        ("maxMemory: 64Mi\nlogLevel: DEBUG\n", "", 64, "logLevel ("),
        ("tick: 4 bananas\nmaxMemory: 64Mi\n", "", 64, "tick ("),
        ("maxMemory: 64Mi\nwatermarks: { low: 95, high: 90 }\n", "", 64, "watermarks."),
        ("maxMemory: 64Mi\npacing: { cpu: 300 }\nstep: 1\n", "", 64, "pacing.cpu ("),
        ("maxMemory: 64Mi\nwatermarks: 7\n", "", 64, "watermarks ("),
        ("maxMemory: 64Mi\n", "config.ebb-cache.io/max-memory=\"fifty\"\n", 64, "maxMemory (annotation"),
        ("maxMemory: [", "config.ebb-cache.io/max-memory=\"48Mi\"\n", 48, "not YAML"),
        (
            "maxMemory: 8Mi\n",
            "config.ebb-cache.io/max-memory=\"48Mi\"\nconfig.ebb-cache.io/log-level=\"loud\"\n",
            48,
            "logLevel (",
        ),
    ] {
        let volume = Volume::new(&[("ebb.yaml", text), ("annotations", annotations)]);
        let ebb = Ebb::start(&["--config", volume.path()]);
        let found = (metric(&ebb, "ebb_config_good "), limit(&ebb));
        if found != (0, limit_mib << 20) {
            wrong.push(format!("{text}: {found:?} instead of a bad file and {limit_mib} MiB"));
        }
        until(&format!("{problem:?} is logged"), || ebb.logged(problem) > 0);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_bad_variable_of_a_dynamic_setting_is_reported_and_the_default_holds() {
    let volume = Volume::new(&[]);
    let variables = [("EBB_TICK", "5ms"), ("EBB_LOG_LEVEL", "loud"), ("EBB_MAX_MEMORY", "64Mi")];
    let mut command = program();
    command.args(SERVE).args(["--config", volume.path()]).envs(variables);
    let ebb = Ebb::spawn(command);
    assert_eq!((metric(&ebb, "ebb_config_good "), limit(&ebb)), (0, 64 << 20));
    until("both are named", || {
        ebb.logged("tick (EBB_TICK) is skipped: tick: 5 is out of range (10 to 2000 ms)") == 1
            && ebb.logged("logLevel (EBB_LOG_LEVEL): ") == 1
    });
    volume.swap(&[("ebb.yaml", "maxMemory: 32Mi\n")]);
    until("a valid file applies", || limit(&ebb) == 32 << 20);
    assert_eq!(metric(&ebb, "ebb_config_good "), 0, "a file does not mend a variable");
    let (_, _, printed) = with_variables(&variables);
    let row = |row: &str| row.split_whitespace().eq(["tick", "100ms", "default"]);
    assert!(printed.lines().any(row), "{printed}");
    let static_one = program().args(SERVE).env("EBB_CORES", "0").output().unwrap();
    assert_eq!(static_one.status.code(), Some(64), "no cache can be served without threads");
}

#[test]
fn a_pod_starts_with_the_files_that_can_be_read() {
    let annotations = "config.ebb-cache.io/log-level=\"warn\"\n";
    let volume = Volume::new(&[("annotations", annotations), ("memory-limit", "67108864")]);
    fs::write(volume.root.path().join("..data/ebb.yaml"), b"maxMemory: \xff\n").unwrap();
    let ebb = Ebb::start(&["--config", volume.path()]);
    assert_eq!((metric(&ebb, "ebb_config_good "), limit(&ebb)), (0, 64 << 20), "the limit file holds");
    let printed = program().args(["config", "print", "--config", volume.path()]).output().unwrap();
    let printed = String::from_utf8(printed.stdout).unwrap();
    assert!(printed.lines().any(|row| row.starts_with("logLevel ") && row.contains("warn")), "{printed}");
}

fn limit(ebb: &Ebb) -> u64 {
    metric(ebb, "ebb_memory_limit_bytes ")
}

fn metric(ebb: &Ebb, name: &str) -> u64 {
    ebb.metric(name)
}

#[test]
fn applies_a_valid_change_and_keeps_the_last_valid_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ebb.yaml");
    fs::write(&path, "maxMemory: 100Mi\n").unwrap();
    let ebb = Ebb::start(&["--config", path.to_str().unwrap()]);
    until("the first limit is active", || limit(&ebb) == 100 << 20);
    fs::write(&path, "maxMemory: 50Mi\n").unwrap();
    until("the second limit is active", || limit(&ebb) == 50 << 20);
    for bad in ["maxMemory: 4 bananas\n", "maxMemory: [", "watermarks: { low: 99 }\nmaxMemory: 70Mi\n"] {
        fs::write(&path, bad).unwrap();
        until("the gauge is 0", || metric(&ebb, "ebb_config_good ") == 0);
        assert_eq!(limit(&ebb), 50 << 20, "{bad:?} changes nothing");
        fs::write(&path, "maxMemory: 50Mi\n").unwrap();
        until("all is good again", || metric(&ebb, "ebb_config_good ") == 1);
    }
    fs::remove_file(&path).unwrap();
    until("a file that is gone is a problem", || metric(&ebb, "ebb_config_good ") == 0);
    assert_eq!(limit(&ebb), 50 << 20);
}

#[test]
fn annotations_set_the_settings_of_one_pod() {
    let config = ("ebb.yaml", "maxMemory: 100Mi\n");
    let volume = Volume::new(&[config]);
    let ebb = Ebb::start(&["--config", volume.path()]);
    until("the ConfigMap is active", || limit(&ebb) == 100 << 20);
    let annotated = |value: &str| format!("kubernetes.io/x=\"y\"\nconfig.ebb-cache.io/max-memory=\"{value}\"\n");
    volume.swap(&[config, ("annotations", &annotated("50Mi"))]);
    until("the annotation wins", || limit(&ebb) == 50 << 20);
    volume.swap(&[config, ("annotations", &annotated("fifty"))]);
    until("a bad one is a problem", || metric(&ebb, "ebb_config_good ") == 0);
    assert_eq!(limit(&ebb), 50 << 20, "and the last good stays");
    let named = "maxMemory (annotation config.ebb-cache.io/max-memory): \\\"fifty\\\" is not a size";
    until("and is named", || ebb.logged(named) == 1);
    volume.swap(&[config]);
    until("without it the ConfigMap holds again", || limit(&ebb) == 100 << 20);
}

#[test]
fn values_of_a_deleted_configmap_stay_active() {
    let volume = Volume::new(&[("ebb.yaml", "maxMemory: 100Mi\n")]);
    let ebb = Ebb::start(&["--config", volume.path()]);
    until("the ConfigMap is active", || limit(&ebb) == 100 << 20);
    volume.swap(&[("annotations", "config.ebb-cache.io/log-level=\"debug\"\n")]);
    until("its end is a problem", || metric(&ebb, "ebb_config_good ") == 0);
    until("the missing file is logged", || ebb.logged("ebb.yaml is missing") == 1);
    assert_eq!(limit(&ebb), 100 << 20, "the last good stays");
    volume.swap(&[("ebb.yaml", "")]);
    until("an empty one takes it back", || limit(&ebb) != 100 << 20);
    assert_eq!(metric(&ebb, "ebb_config_good "), 1);
    let without = Volume::new(&[]);
    let ebb = Ebb::start(&["--config", without.path()]);
    assert_eq!(metric(&ebb, "ebb_config_good "), 1, "the file is optional");
}

#[test]
fn a_broken_configmap_does_not_keep_a_pod_from_starting() {
    let annotations = ("annotations", "config.ebb-cache.io/max-memory=\"50Mi\"\n");
    let volume = Volume::new(&[("ebb.yaml", "tick: 4 bananas\n"), annotations]);
    let ebb = Ebb::start(&["--config", volume.path()]);
    assert_eq!((metric(&ebb, "ebb_config_good "), limit(&ebb)), (0, 50 << 20), "its valid settings are active");
    volume.swap(&[("ebb.yaml", "maxMemory: 40Mi\n")]);
    until("it is repaired", || limit(&ebb) == 40 << 20);
    assert_eq!(metric(&ebb, "ebb_config_good "), 1);
}

#[test]
fn a_pods_limit_file_is_found_in_the_volume_and_followed() {
    let volume = Volume::new(&[("memory-limit", "67108864")]);
    let ebb = Ebb::start(&["--config", volume.path()]);
    until("the limit is that of the file", || limit(&ebb) == 64 << 20);
    volume.swap(&[("memory-limit", "33554432")]);
    until("a resize is followed", || limit(&ebb) == 32 << 20);
    let printed = program().args(["config", "print", "--config", volume.path()]).output().unwrap();
    let printed = String::from_utf8(printed.stdout).unwrap();
    let row = printed.lines().find(|line| line.starts_with("requestFile")).unwrap();
    assert!(row.ends_with(&format!("volume {}", volume.path())), "{row}");
}

#[test]
fn an_annotation_asks_for_a_compaction() {
    let volume = Volume::new(&[]);
    let ebb = Ebb::start(&["--config", volume.path()]);
    let runs = || metric(&ebb, "ebb_cleaner_runs_total{reason=\"requested\"} ");
    volume.swap(&[("annotations", "config.ebb-cache.io/compaction=\"now\"\n")]);
    until("one run is asked for", || runs() == 1);
}

#[test]
fn the_swap_of_a_projected_volume_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let write = |name: &str, text: &str| {
        fs::create_dir(root.join(name)).unwrap();
        fs::write(root.join(name).join("ebb.yaml"), text).unwrap();
    };
    write("..one", "maxMemory: 80Mi\n");
    symlink("..one", root.join("..data")).unwrap();
    symlink("..data/ebb.yaml", root.join("ebb.yaml")).unwrap();
    let path = root.join("ebb.yaml");
    let ebb = Ebb::start(&["--config", path.to_str().unwrap()]);
    until("the first limit is active", || limit(&ebb) == 80 << 20);
    write("..two", "maxMemory: 40Mi\n");
    symlink("..two", root.join("..data_tmp")).unwrap();
    fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
    until("the second limit is active", || limit(&ebb) == 40 << 20);
}
