//! Links the program with packed relocations where the C library reads them.
//!
//! Packed, the table of relocations has 7 KiB instead of 520, and the start touches as many pages less (`DT_RELR`, in the
//! generic ABI of ELF; glibc 2.36 and newer). A linker that does not know the option ignores it.

use std::env::var;
use std::process::Command;

/// The first glibc that reads packed relocations.
const FIRST: (u32, u32) = (2, 36);

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if is_for_this_machine() && glibc().is_some_and(|version| version >= FIRST) {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// The C library of another machine is unknown.
fn is_for_this_machine() -> bool {
    var("TARGET") == var("HOST") && var("CARGO_CFG_TARGET_ENV").is_ok_and(|env| env == "gnu")
}

/// The version of this machine's glibc; `None` if it has another C library.
fn glibc() -> Option<(u32, u32)> {
    let output = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (major, minor) = text.strip_prefix("glibc ")?.trim().split_once('.')?;
    let minor = minor.split('.').next()?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
