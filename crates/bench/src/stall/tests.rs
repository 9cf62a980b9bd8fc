use super::readers::{Readers, Roomy};
use super::runs::Awaited;
use super::waits::{Waits, medians};
use super::*;
use std::time::Duration;

fn args(words: &[&str]) -> anyhow::Result<StallArgs> {
    match crate::parsed(&[&["stall"], words].concat())? {
        crate::Command::Stall(args) => Ok(args),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_bad_option_is_refused_with_its_name_and_bound() {
    let cases = [
        (["--readers", "0"], ["--readers", "1..=64"]),
        (["--large", "2Mi"], ["--large", "4Ki to 1Mi"]),
        (["--rate", "1"], ["--rate", "100..=1000000"]),
        (["--part", "all"], ["--part", "readers, roomy, waits, run, target"]),
    ];
    crate::testing::assert_refused("stall", &cases);
    let Err(Failure::Usage(sentence)) = run(args(&["--roomy", "64Mi"]).unwrap()) else { panic!("too many keys") };
    assert_eq!(sentence, "--keys 300000: must be at most 67108 with --roomy 64Mi");
}

#[test]
fn waits_are_compared_by_their_medians() {
    let round = |cleaner, p9999_us, longest_us| Waits { cleaner, p9999_us, longest_us, ..Waits::default() };
    let waits = [
        round(true, 30.0, 900.0),
        round(false, 10.0, 100.0),
        round(true, 20.0, 100.0),
        round(false, 5.0, 90.0),
        round(true, 10.0, 200.0),
        round(false, 20.0, 3000.0),
    ];
    assert_eq!(medians(&waits), [(20.0, 200.0), (10.0, 100.0), (2.0, 2.0)]);
}

#[test]
fn every_part_is_printed_with_its_figures() {
    let results = Results {
        readers: vec![Readers { readers: 6, sets: 100, evicted: 250, full_entries: 10, ..Readers::default() }],
        roomy: vec![Roomy { cleaner: true, lost: 7_654, ..Roomy::default() }],
        waits: vec![Waits { cleaner: true, p9999_us: 12.0, ..Waits::default() }],
        run: Some(Awaited::default()),
        target: Some(Awaited { took: Some(Duration::from_millis(1234)), ..Awaited::default() }),
    };
    let text = as_text(&args(&[]).unwrap(), &results);
    let parts = ["2.50", "7,654", "on ÷ off", "did not end in 30 s", "1.23"];
    let missing: Vec<_> = parts.into_iter().filter(|part| !text.contains(part)).collect();
    assert!(missing.is_empty(), "{missing:?} is missing in\n{text}");
}

#[test]
fn a_small_roomy_store_keeps_every_key_without_a_race() {
    let args = args(&["--roomy", "64Mi", "--keys", "2000", "--readers", "1", "--large", "4Ki"]).unwrap();
    let roomy = fill_roomy(&args, true).unwrap();
    assert_eq!((roomy.lost, roomy.refused, roomy.evicted), (0, 0, 0), "{roomy:?}");
}
