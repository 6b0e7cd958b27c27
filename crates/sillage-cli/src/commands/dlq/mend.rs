//! `sillage dlq edit`, `skip`, `restore`.

use super::{Acted, select::resolve};
use crate::{
    data::Payload,
    failure::{Exit, Refusal},
    session::Session,
    text::{payload, printable},
};
use anyhow::Result;
use sillage::{Text, admin::Admin};

#[derive(Debug, clap::Args)]
#[command(after_help = "The original never runs again; the copy has an id of its own, and the \
    original's operation id, so that calls to the outside stay idempotent.")]
pub(crate) struct Edit {
    /// The key's id, or a part that no other has
    id: String,
    #[command(flatten)]
    payload: Payload,
    /// Give the copy an operation id of its own: calls to the outside are made again
    #[arg(long)]
    new_operation: bool,
    /// Only show the payload that would be sent
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Skip {
    /// The key's id, or a part that no other has
    id: String,
    /// Why: it is kept with the act
    #[arg(long)]
    why: String,
    /// Only say what would be skipped
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Restore {
    /// The key's id, or, while it is parked still, a part that no other has
    id: String,
}

fn say(session: &mut Session, outcome: &Acted) -> Result<()> {
    session.out.one(outcome, |Acted { id, outcome, why }| {
        let why = why.as_ref().map(|why| format!(": {}", printable(why))).unwrap_or_default();
        format!("{} {outcome}{why}", printable(id))
    })
}

impl Edit {
    pub(super) async fn run(self, session: &mut Session) -> Result<()> {
        if !self.payload.is_given() {
            return Err(Refusal::usage(
                "no change is given",
                "say it with `--set`, `--data` or `--edit`",
            )
            .into());
        }
        let admin = session.admin().await?;
        let id = resolve(&admin, &self.id).await?.id;
        let (_, head) = admin.dead_letter(&id, 1).await?;
        let head = head.first().map(|head| head.message.payload.clone()).unwrap_or_default();
        let edited = self.payload.make(&head).await?;
        if self.dry_run {
            let why = Some(payload(&edited, false).into_owned());
            return say(session, &Acted { id, outcome: "would be sent back with", why });
        }
        let copy = admin.edit(&id, edited, self.new_operation).await?;
        let why = Some(copy.to_string());
        say(session, &Acted { id, outcome: "is sent back as", why })
    }
}

impl Skip {
    pub(super) async fn run(self, session: &mut Session) -> Result<()> {
        let admin = session.admin().await?;
        let letter = resolve(&admin, &self.id).await?;
        let (id, key) = (letter.id, letter.key);
        let why = Some(format!("{} ({})", key.name, key.failure));
        if self.dry_run {
            return say(session, &Acted { id, outcome: "would be skipped", why });
        }
        admin.skip(&id, &self.why).await?;
        say(session, &Acted { id: id.clone(), outcome: "skipped", why })?;
        session.out.note(format!("`sillage dlq restore '{id}'` takes it back"));
        Ok(())
    }
}

impl Restore {
    pub(super) async fn run(self, session: &mut Session) -> Result<()> {
        let admin = session.admin().await?;
        let id = self.resolve(&admin).await?;
        admin.restore(&id).await?;
        let why = Some("it is the key's head again, as a dead letter".to_owned());
        say(session, &Acted { id, outcome: "restored", why })
    }

    /// A key whose last delivery was skipped is parked no more: its id is taken as it is.
    async fn resolve(&self, admin: &Admin) -> Result<Text> {
        let found = resolve(admin, &self.id).await.map(|letter| letter.id);
        match found.map_err(|error| Refusal::of(&error).ok_or(error)) {
            Err(Ok(refusal)) if refusal.exit == Exit::NotFound => Ok(self.id.as_str().into()),
            Err(Ok(refusal)) => Err(refusal.into()),
            Err(Err(error)) => Err(error),
            Ok(id) => Ok(id),
        }
    }
}
