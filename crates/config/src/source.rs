//! Where the layers stand that are followed while the process runs.
//!
//! ```text
//!  a file          ebb.yaml
//!  a volume        DIR/ebb.yaml  DIR/annotations  DIR/memory-limit  DIR/memory-request     as Kubernetes projects them
//!  a watched text  what somebody else reads from an API server
//! ```
//! A file that was named must be there. In a volume everything is optional, and nothing in it keeps the process from
//! starting: a ConfigMap that somebody broke must not keep the pods of a whole namespace from starting.

use super::annotations;
use arc_swap::ArcSwapOption;
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The layers that are followed.
#[derive(Clone, Debug, Default)]
pub enum Source {
    /// There are none.
    #[default]
    Nothing,
    /// One file, in YAML.
    File(PathBuf),
    /// The directory of a projected volume.
    Volume(PathBuf),
    /// A text that somebody else watches; `None` while there is none.
    Watched {
        /// What it is, for people.
        name: String,
        /// The text, in YAML.
        text: Arc<ArcSwapOption<String>>,
    },
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("no file"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Volume(directory) => write!(f, "volume {}", directory.display()),
            Self::Watched { name, .. } => f.write_str(name),
        }
    }
}

impl Source {
    /// A directory is a volume, everything else a file.
    pub fn at(path: PathBuf) -> Self {
        if path.is_dir() { Self::Volume(path) } else { Self::File(path) }
    }

    /// Whether the process starts although there is something wrong with it.
    pub(super) fn is_lenient(&self) -> bool {
        matches!(self, Self::Volume(_))
    }

    /// Whether a change shows up whole: the kubelet swaps a volume by its link `..data`, and a watched text is never seen in
    /// part.
    pub(super) fn is_atomic(&self) -> bool {
        match self {
            Self::Nothing | Self::Watched { .. } => true,
            Self::File(_) => false,
            Self::Volume(directory) => directory.join("..data").is_symlink(),
        }
    }

    /// What can be read, where one of several files cannot be.
    pub(super) fn readable(&self) -> Texts {
        let Self::Volume(directory) = self else { return self.read().unwrap_or_default() };
        let named = |name: &str| {
            let path = directory.join(name);
            text(&path).ok().flatten().map(|text| (path.display().to_string(), text))
        };
        let annotations = named("annotations").map(|(_, text)| annotations::parse(&text)).unwrap_or_default();
        Texts { volume: Some(directory.clone()), file: named("ebb.yaml"), annotations }
    }

    /// Reads everything once.
    ///
    /// # Errors
    /// A sentence that names what cannot be read.
    pub(super) fn read(&self) -> Result<Texts, String> {
        match self {
            Self::Nothing => Ok(Texts::default()),
            Self::File(path) => match text(path)? {
                Some(text) => Ok(Texts { file: Some((path.display().to_string(), text)), ..Texts::default() }),
                None => Err(format!("cannot read {}: there is no such file", path.display())),
            },
            Self::Volume(directory) => {
                let named = |name: &str| -> Result<_, String> {
                    let path = directory.join(name);
                    Ok(text(&path)?.map(|text| (path.display().to_string(), text)))
                };
                let annotations = named("annotations")?.map(|(_, text)| annotations::parse(&text)).unwrap_or_default();
                Ok(Texts { volume: Some(directory.clone()), file: named("ebb.yaml")?, annotations })
            }
            Self::Watched { name, text } => match text.load_full() {
                Some(text) => Ok(Texts { file: Some((name.clone(), String::clone(&text))), ..Texts::default() }),
                None => Err(format!("{name} does not exist, or has no key ebb.yaml")),
            },
        }
    }
}

/// What the layers say, not yet looked into.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Texts {
    /// The volume they stand in, if they stand in one.
    pub(super) volume: Option<PathBuf>,
    /// Name and text of the file.
    pub(super) file: Option<(String, String)>,
    /// The annotations that are settings, and their values.
    pub(super) annotations: Vec<(String, String)>,
}

/// The text of a file; `None` when there is no such file.
fn text(path: &Path) -> Result<Option<String>, String> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("cannot read {}: {error}", path.display())),
    }
}
