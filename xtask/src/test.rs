//! All tests: those of every target, then those in the docs.

use crate::process;
use anyhow::{Result, bail};

/// Runs both, the second also when the first failed.
pub(crate) fn run() -> Result<()> {
    match (targets(), docs()) {
        (Ok(()), Ok(())) => Ok(()),
        (Err(error), Ok(())) | (Ok(()), Err(error)) => Err(error),
        (Err(targets), Err(docs)) => bail!("{targets:#}\n{docs:#}"),
    }
}

/// Unit and integration tests, and that examples and benches build.
pub(crate) fn targets() -> Result<()> {
    process::run(process::cargo("test --workspace --all-targets --no-fail-fast"))
}

/// The examples in the docs.
pub(crate) fn docs() -> Result<()> {
    process::run(process::cargo("test --workspace --doc --no-fail-fast"))
}
