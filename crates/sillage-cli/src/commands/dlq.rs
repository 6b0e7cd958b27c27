//! `sillage dlq`: dead letters and parked keys.

mod list;
mod mend;
mod redrive;
mod select;
mod show;

use crate::session::Session;
use anyhow::Result;
use serde::Serialize;
use sillage::Text;

#[derive(Debug, clap::Subcommand)]
#[command(after_help = "An ID may be abbreviated to any part of it that no other has.")]
pub(crate) enum Dlq {
    /// Groups of dead letters: consumer, message, class of failure
    List(list::List),
    /// One key: why it failed, and what waits in it
    Show(show::Show),
    /// Send dead letters back to the consumer that failed, in key order
    Redrive(redrive::Redrive),
    /// Put another payload into the head's place, and send it back
    Edit(mend::Edit),
    /// Pass over the head of a key, so that what is behind it goes on
    Skip(mend::Skip),
    /// Take back the last skip of a key
    Restore(mend::Restore),
}

impl Dlq {
    pub(super) async fn run(self, session: &mut Session) -> Result<()> {
        match self {
            Dlq::List(list) => list.run(session).await,
            Dlq::Show(show) => show.run(session).await,
            Dlq::Redrive(redrive) => redrive.run(session).await,
            Dlq::Edit(edit) => edit.run(session).await,
            Dlq::Skip(skip) => skip.run(session).await,
            Dlq::Restore(restore) => restore.run(session).await,
        }
    }
}

/// What became of one key.
#[derive(Serialize)]
struct Acted {
    id: Text,
    outcome: &'static str,
    why: Option<String>,
}
