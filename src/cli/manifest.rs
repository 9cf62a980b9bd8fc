//! Reads the files of manifests: files, directories and standard input.

use ebb_terminal::Failure;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Maximum size of a file or of standard input, far more than an API server accepts.
const MAX_BYTES: u64 = 64 << 20;

/// Names and texts of files.
pub(super) type Texts = Vec<(String, String)>;

/// Reads every file of every path; `-` is standard input. A file that is named twice is read twice, as kubectl does. Returns
/// names and texts, and what is wrong with the files that cannot be read.
pub(super) fn read(paths: &[PathBuf]) -> (Texts, Vec<String>) {
    let (mut texts, mut wrong) = (Vec::new(), Vec::new());
    for path in paths {
        match files(path) {
            Ok(files) => {
                for read in files.iter().map(|file| text(file)) {
                    match read {
                        Ok(text) => texts.push(text),
                        Err(problem) => wrong.push(problem),
                    }
                }
            }
            Err(problem) => wrong.push(problem),
        }
    }
    (texts, wrong)
}

/// Refuses a second path of standard input, which can be read once only. The paths have the names of their arguments.
pub(super) fn check_input<'a>(paths: impl Iterator<Item = (&'a str, &'a Path)>) -> Result<(), Failure> {
    const NAMES: [&str; 4] = ["-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"];
    let names: Vec<String> = paths
        .filter(|(_, path)| NAMES.iter().any(|name| *path == Path::new(name)))
        .map(|(argument, path)| format!("{argument} {}", path.display()))
        .collect();
    match names.as_slice() {
        [] | [_] => Ok(()),
        _ => Err(Failure::Usage(format!("{}: standard input can be read once only; name it once", names.join(", ")))),
    }
}

/// The file itself, or the manifests below the directory.
fn files(path: &Path) -> Result<Vec<PathBuf>, String> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    collect(path, &mut files).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    files.sort();
    match files.is_empty() {
        true => Err(format!("{} contains no .yaml, .yml or .json files", path.display())),
        false => Ok(files),
    }
}

/// Links to directories are not followed: they may form circles.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if entry.file_type()?.is_dir() {
            collect(&path, files)?;
        } else if ["yaml", "yml", "json"].contains(&extension) && path.is_file() {
            files.push(path);
        }
    }
    Ok(())
}

/// Reads a file, or standard input for `-`. Returns its name and its text.
pub(super) fn text(path: &Path) -> Result<(String, String), String> {
    let mut bytes = Vec::new();
    let (name, read) = match path.to_str() {
        Some("-") => ("standard input".to_owned(), std::io::stdin().take(MAX_BYTES + 1).read_to_end(&mut bytes)),
        _ => {
            let file = File::open(path);
            let read = file.and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes));
            (path.display().to_string(), read)
        }
    };
    read.map_err(|error| format!("cannot read {name}: {error}"))?;
    let failed = |problem: String| Err(format!("{name}: {problem}"));
    if bytes.len() as u64 > MAX_BYTES {
        return failed(format!("the text is too large (at most {} MiB)", MAX_BYTES >> 20));
    }
    // kubectl reads some UTF-16 texts and refuses others, by their last line break.
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return failed("the text is in UTF-16; save it in UTF-8".to_owned());
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok((name, text)),
        Err(error) => {
            let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
            failed(format!("line {line}: the text is not in UTF-8"))
        }
    }
}
