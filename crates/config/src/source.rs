//! Sources that are followed while the process runs.
//!
//! ```text
//!  file          ebb.yaml
//!  volume        DIR/ebb.yaml  DIR/annotations  DIR/memory-limit  DIR/memory-request     as Kubernetes projects them
//!  watched text  a ConfigMap, read from an API server by the caller
//! ```
//! A named file must exist. In a volume every file is optional, and an invalid one does not stop the process from
//! starting: a broken ConfigMap must not stop all new pods of a namespace.

use super::{annotations, yaml};
use arc_swap::ArcSwapOption;
use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A source that is followed.
#[derive(Clone, Default)]
pub enum Source {
    /// No source.
    #[default]
    Nothing,
    /// A YAML file.
    File(PathBuf),
    /// The directory of a projected volume.
    Volume(PathBuf),
    /// A text that the caller watches; `None` while it does not exist.
    Watched {
        /// Its name in messages.
        name: String,
        /// The text, in YAML.
        text: Arc<ArcSwapOption<String>>,
    },
}

/// Why a source cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ReadError {
    /// A file that the system refuses. Holds the system's reason as text, because readings are compared.
    #[error("cannot read {}: {cause}", path.display())]
    Unreadable { path: PathBuf, cause: String },
    /// A named file that does not exist.
    #[error("cannot read {}: file not found", .0.display())]
    NotFound(PathBuf),
    /// A watched text that does not exist. Holds its name.
    #[error("{0} does not exist, or has no key ebb.yaml")]
    NotWatched(String),
}

impl fmt::Debug for Source {
    /// The name alone: a watched text may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({self})")
    }
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
    /// A directory is a volume; any other path is a file.
    pub fn at(path: PathBuf) -> Self {
        if path.is_dir() { Self::Volume(path) } else { Self::File(path) }
    }

    /// Whether the process starts even if the source is invalid.
    pub(super) fn is_lenient(&self) -> bool {
        matches!(self, Self::Volume(_))
    }

    /// Whether changes are atomic. The kubelet swaps a volume by its link `..data`; a watched text is replaced as a
    /// whole.
    pub(super) fn is_atomic(&self) -> bool {
        match self {
            Self::Nothing | Self::Watched { .. } => true,
            Self::File(_) => false,
            Self::Volume(directory) => directory.join("..data").is_symlink(),
        }
    }

    /// Reads all readable files and skips the others.
    pub(super) fn readable(&self) -> Texts {
        let Self::Volume(directory) = self else { return self.read().unwrap_or_default() };
        let named = |name: &str| {
            let path = directory.join(name);
            text(&path).ok().flatten().map(|text| (path.display().to_string(), text))
        };
        let annotations = named("annotations").map(|(_, text)| annotations::parse(&text)).unwrap_or_default();
        Texts { volume: Some(directory.clone()), file: named("ebb.yaml"), annotations }
    }

    /// Reads all files.
    ///
    /// # Errors
    /// The unreadable file or missing text.
    pub(super) fn read(&self) -> Result<Texts, ReadError> {
        match self {
            Self::Nothing => Ok(Texts::default()),
            Self::File(path) => match text(path)? {
                Some(text) => Ok(Texts { file: Some((path.display().to_string(), text)), ..Texts::default() }),
                None => Err(ReadError::NotFound(path.clone())),
            },
            Self::Volume(directory) => {
                let named = |name: &str| -> Result<_, ReadError> {
                    let path = directory.join(name);
                    Ok(text(&path)?.map(|text| (path.display().to_string(), text)))
                };
                let annotations = named("annotations")?.map(|(_, text)| annotations::parse(&text)).unwrap_or_default();
                Ok(Texts { volume: Some(directory.clone()), file: named("ebb.yaml")?, annotations })
            }
            Self::Watched { name, text } => match text.load_full() {
                Some(text) => Ok(Texts { file: Some((name.clone(), String::clone(&text))), ..Texts::default() }),
                None => Err(ReadError::NotWatched(name.clone())),
            },
        }
    }
}

/// The texts of a source, not yet parsed. Without `Debug`: they may hold secrets.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Texts {
    /// The directory, if the source is a volume.
    pub(super) volume: Option<PathBuf>,
    /// Name and text of the file.
    pub(super) file: Option<(String, String)>,
    /// Settings from annotations, with their values.
    pub(super) annotations: Vec<(String, String)>,
}

/// Reads a file; `None` if it does not exist.
fn text(path: &Path) -> Result<Option<String>, ReadError> {
    // One byte more than a configuration may have: the parser refuses it then.
    let most = yaml::MAX_CONFIGURATION as u64 + 1;
    let mut text = String::new();
    match File::open(path).and_then(|file| file.take(most).read_to_string(&mut text)) {
        Ok(_) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ReadError::Unreadable { path: path.to_owned(), cause: error.to_string() }),
    }
}
