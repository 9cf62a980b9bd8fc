//! Links the program so that it is small and touches few pages at its start.
//!
//! - Packed relocations (`DT_RELR` of the generic ABI of ELF): their table shrinks from 520 to 7 KiB, all of which a start
//!   reads. glibc reads them from 2.36 on; a linker that does not know the option ignores it. The program then needs that
//!   glibc where it runs, too, unless it is static.
//! - A static program, as in the image, has no tables for unwinding: 0.9 MB less. A release ends on a panic without
//!   unwinding, and a backtrace of a program without symbols shows no names. The message of a panic names file and line.

use std::env::var;
use std::process::Command;

/// The first glibc that reads packed relocations.
const FIRST: (u32, u32) = (2, 36);

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=src/no-unwinding.ld");
    if var("CARGO_CFG_TARGET_ENV").as_deref() != Ok("gnu") {
        return;
    }
    let is_for_this_machine = var("TARGET") == var("HOST");
    // The C library of another machine is unknown. A static program brings it along.
    let is_static =
        var("CARGO_CFG_TARGET_FEATURE").is_ok_and(|features| features.split(',').any(|f| f == "crt-static"));
    let reads_packed = if is_for_this_machine { glibc().is_some_and(|version| version >= FIRST) } else { is_static };
    if reads_packed {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
    if is_static {
        let script = var("CARGO_MANIFEST_DIR").expect("cargo sets it") + "/src/no-unwinding.ld";
        println!("cargo:rustc-link-arg-bins=-Wl,--no-eh-frame-hdr");
        println!("cargo:rustc-link-arg-bins=-Wl,-T,{script}");
    }
}

/// The version of this machine's glibc; `None` if it has another C library.
fn glibc() -> Option<(u32, u32)> {
    let output = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (major, minor) = text.strip_prefix("glibc ")?.trim().split_once('.')?;
    let minor = minor.split('.').next()?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
