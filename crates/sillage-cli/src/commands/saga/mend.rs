//! `sillage saga retry`, `skip`, `cancel`.

use super::resolve;
use crate::{session::Session, text::printable};
use anyhow::Result;
use serde::Serialize;
use sillage::Text;

/// An instance, and why something is asked of it.
#[derive(Debug, clap::Args)]
pub(crate) struct Ask {
    /// The instance's id, or a part that no other has
    id: String,
    /// Why: it is kept with the act
    #[arg(long)]
    why: String,
}

#[derive(Serialize)]
struct Told {
    id: Text,
    outcome: &'static str,
}

fn say(session: &mut Session, id: Text, outcome: &'static str) -> Result<()> {
    let told = Told { id, outcome };
    session.out.one(&told, |told| format!("{} {}", printable(&told.id), told.outcome))
}

impl Ask {
    pub(super) async fn retry(self, session: &mut Session) -> Result<()> {
        let admin = session.admin().await?;
        let id = resolve(&admin, &self.id).await?;
        admin.retry_saga(&id, &self.why).await?;
        say(session, id, "is asked again")
    }

    pub(super) async fn skip(self, session: &mut Session) -> Result<()> {
        let admin = session.admin().await?;
        let id = resolve(&admin, &self.id).await?;
        admin.skip_saga(&id, &self.why).await?;
        say(session, id, "goes on without what was stuck")
    }

    pub(super) async fn cancel(self, session: &mut Session) -> Result<()> {
        let admin = session.admin().await?;
        let id = resolve(&admin, &self.id).await?;
        admin.cancel_saga(&id, &self.why).await?;
        say(session, id, "is being undone")
    }
}
