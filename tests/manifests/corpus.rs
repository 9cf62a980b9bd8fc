//! The manifests of `corpus/`.

use crate::round_trip;
use std::fs;

const FOLDER: &str = "tests/manifests/corpus";
const NOTES: &str = "tests/manifests/notes.txt";

#[test]
fn every_other_byte_of_the_corpus_stays() {
    let mut names: Vec<String> =
        fs::read_dir(FOLDER).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert!(names.len() >= 60, "{names:?}");
    let (mut wrong, mut notes) = (Vec::new(), String::new());
    for name in names {
        let text = fs::read_to_string(format!("{FOLDER}/{name}")).unwrap();
        match round_trip(&text) {
            Ok(found) => {
                notes += &format!("{name}\n");
                notes.extend(found.notes.iter().map(|note| format!("  {note}\n")));
            }
            Err(problem) => wrong.push(format!("{name}: {problem}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    if std::env::var_os("EBB_BLESS").is_some() {
        fs::write(NOTES, &notes).unwrap();
    }
    assert_eq!(fs::read_to_string(NOTES).unwrap_or_default(), notes, "EBB_BLESS=1 cargo test --test manifests");
}
