//! Kubernetes manifests as text: reads their documents as `kubectl` does, finds the pods in them, and edits them so that
//! every other byte stays as it is.
//!
//! ```text
//!  text ──► documents ──► tree (spans, scalars) ──► value (JSON) ──► kinds: where the pods are
//!                             │                                        │ additions or removals, by JSON pointer
//!                             └──► insert or remove ──► edits ──► text, read again and compared
//! ```
//! An edit is accepted only if the edited text reads as the expected value. Otherwise the document is reprinted.

mod documents;
mod edit;
mod edited;
mod insert;
mod json;
mod kinds;
mod lists;
pub mod pointer;
mod print;
mod remove;
mod scalar;
mod shape;
mod tabs;
mod tree;
mod value;

pub use documents::{Chunk, Document, Format, ReadError, chunks, documents};
pub use edit::Text;
pub use edited::{Edited, Editor, may_replace};
pub use insert::Addition;
pub use kinds::{Found, PodPath, PodPathError, Pods};
pub use lists::Part;
pub use remove::{Removal, pruned};
pub use shape::must_be;
