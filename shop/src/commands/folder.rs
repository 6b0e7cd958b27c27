//! The folder in which a shop keeps everything.

use anyhow::Context as _;
use std::path::{Path, PathBuf};

/// The folder in which a shop keeps everything.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Folder {
    /// The folder for the database, the gateway's ledger and the letters.
    #[arg(long = "data", value_name = "DIR", default_value = "shop-data")]
    path: PathBuf,
}

impl Folder {
    pub(super) fn at(path: impl Into<PathBuf>) -> Self {
        Folder { path: path.into() }
    }

    /// Makes it, if it is missing.
    pub(super) fn make(&self) -> anyhow::Result<()> {
        std::fs::create_dir_all(self.letters())
            .with_context(|| format!("{} cannot be made", self.path.display()))
    }

    /// Removes what a shop has left in it, and nothing else.
    pub(super) fn empty(&self) -> anyhow::Result<()> {
        for name in ["shop.db", "shop.db-wal", "shop.db-shm", "ledger.jsonl"] {
            remove(&self.path.join(name))?;
        }
        let Ok(letters) = std::fs::read_dir(self.letters()) else { return Ok(()) };
        for letter in letters {
            let path = letter?.path();
            if path.extension().is_some_and(|extension| extension == "eml") {
                remove(&path)?;
            }
        }
        Ok(())
    }

    /// The URL of its database.
    pub(super) fn database(&self) -> String {
        format!("sqlite:{}", self.path.join("shop.db").display())
    }

    /// The gateway's ledger.
    pub(super) fn ledger(&self) -> PathBuf {
        self.path.join("ledger.jsonl")
    }

    /// Where letters go.
    pub(super) fn letters(&self) -> PathBuf {
        self.path.join("mail")
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

fn remove(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("{} cannot be removed", path.display()))
        }
        _ => Ok(()),
    }
}
