//! Selects the `ebb` program to measure: `--ebb` or `EBB_PROGRAM` if set; else under `cargo run` the program of this
//! tree, built in the same profile; else the `ebb` in the directory of this program.

use anyhow::{Context as _, anyhow};
use clap::Args;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The option that names the program.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Program {
    /// The `ebb` program to start [default: in the directory of this program; built first under `cargo run`].
    #[arg(long, value_name = "PROGRAM", env = "EBB_PROGRAM", hide_env_values = true)]
    ebb: Option<PathBuf>,
}

impl Program {
    /// The path of the program.
    ///
    /// # Errors
    /// If the program is missing or cannot be built.
    pub(crate) fn path(&self) -> anyhow::Result<PathBuf> {
        if let Some(path) = &self.ebb {
            return Ok(path.clone());
        }
        let own = std::env::current_exe().context("cannot find this program")?;
        let folder = own.parent().unwrap_or(Path::new("."));
        // Cargo sets these variables for a program that it runs, with another name in tests of other packages.
        let is_run_by_cargo = std::env::var_os("CARGO_PKG_NAME").is_some_and(|name| name == env!("CARGO_PKG_NAME"));
        if let Some(cargo) = std::env::var_os("CARGO").filter(|_| is_run_by_cargo) {
            build(Path::new(&cargo), folder)?;
        }
        let path = folder.join("ebb");
        match path.is_file() {
            true => Ok(path),
            false => Err(anyhow!("{} not found; build it with cargo build --release, or set --ebb", path.display())),
        }
    }
}

/// Builds `ebb` into `folder`, the directory of this program: `TARGET_DIR/PROFILE` or `TARGET_DIR/TRIPLE/PROFILE`.
fn build(cargo: &Path, folder: &Path) -> anyhow::Result<()> {
    let name = |path: &Path| path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    let profile = name(folder).filter(|name| name != "debug").unwrap_or_else(|| "dev".to_owned());
    let above = folder.parent().unwrap_or(folder);
    // A target directory contains the file CACHEDIR.TAG.
    let (target_dir, triple) = match above.join("CACHEDIR.TAG").is_file() {
        true => (above, None),
        false => (above.parent().unwrap_or(above), name(above)),
    };
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.toml");
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--package", "ebb", "--profile", &profile, "--manifest-path"]).arg(manifest);
    command.arg("--target-dir").arg(target_dir);
    if let Some(triple) = triple {
        command.args(["--target", &triple]);
    }
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(anyhow!("cargo could not build ebb: {status}")),
        Err(error) => Err(error).with_context(|| format!("cannot start {}", cargo.display())),
    }
}
