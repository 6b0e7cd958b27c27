//! `sillage saga`: instances of sagas, and pictures of their definitions.

mod diagram;
mod list;
mod mend;
mod show;

use super::unique;
use crate::{failure::Refusal, session::Session};
use anyhow::Result;
use sillage::{Text, admin::Admin};

#[derive(Debug, clap::Subcommand)]
#[command(after_help = "An ID may be abbreviated to any part of it that no other has.")]
pub(crate) enum Saga {
    /// Instances, those that are stuck first
    List(list::List),
    /// One instance: what was done, what is under way, what remains
    Show(show::Show),
    /// Ask again what is stuck, with the operation id it has
    Retry(mend::Ask),
    /// Let what is stuck count as done, or as undone
    Skip(mend::Ask),
    /// Undo what was done, unless the pivot was asked already
    Cancel(mend::Ask),
    /// The definition as a picture: Mermaid or SVG
    Diagram(diagram::Diagram),
}

impl Saga {
    pub(super) async fn run(self, session: &mut Session) -> Result<()> {
        match self {
            Saga::List(list) => list.run(session).await,
            Saga::Show(show) => show.run(session).await,
            Saga::Retry(ask) => ask.retry(session).await,
            Saga::Skip(ask) => ask.skip(session).await,
            Saga::Cancel(ask) => ask.cancel(session).await,
            Saga::Diagram(diagram) => diagram.run(session).await,
        }
    }
}

/// How many instances an abbreviation is looked for in.
const SEARCHED: usize = 10_000;

/// The instance of this id, or of the one that has it in it.
async fn resolve(admin: &Admin, given: &str) -> Result<Text> {
    if admin.saga(given).await.is_ok() {
        return Ok(given.into());
    }
    let sagas = admin.sagas(None, None, SEARCHED).await?;
    let found: Result<Text, Refusal> =
        unique("saga", given, sagas.iter().map(|saga| &saga.id), "sillage saga list");
    Ok(found?)
}
