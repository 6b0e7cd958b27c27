//! `sillage dlq redrive`.

use super::{
    Acted,
    select::{Select, resolve_all},
};
use crate::{
    args::Rate,
    failure::{Exit, Refusal},
    output::Column,
    session::Session,
    text::{count, printable, shorten},
};
use anyhow::Result;
use sillage::{
    Clock as _, SystemClock,
    admin::{Admin, DeadLetter},
};
use std::collections::BTreeMap;

#[derive(Debug, clap::Args)]
#[command(after_help = "It goes to the consumer that failed and to no other; what waits behind a \
    dead letter follows it, in order. Pressing twice is harmless.")]
pub(crate) struct Redrive {
    /// The keys' ids, or parts that no others have
    #[arg(required_unless_present = "all")]
    id: Vec<String>,
    /// All that match
    #[arg(long, conflicts_with = "id")]
    all: bool,
    #[command(flatten)]
    select: Select,
    /// At most so many keys, those that failed first
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// No faster than that: `50/s`, `10/m`
    #[arg(long, value_name = "N/s")]
    rate: Option<Rate>,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Also what was sent back five times already
    #[arg(long)]
    force: bool,
}

const COLUMNS: [Column<Acted>; 3] = [
    ("ID", |outcome| outcome.id.to_string()),
    ("OUTCOME", |outcome| outcome.outcome.to_owned()),
    ("WHY", |outcome| outcome.why.clone().unwrap_or_default()),
];

impl Redrive {
    pub(super) async fn run(self, session: &mut Session) -> Result<()> {
        let admin = session.admin().await?;
        let mut letters = if self.all {
            self.select.find(&admin).await?
        } else {
            resolve_all(&admin, &self.id).await?
        };
        letters.truncate(self.limit.unwrap_or(usize::MAX));
        if letters.is_empty() {
            session.out.note("nothing to send back: no dead letter matches");
        } else {
            for line in plan(&letters) {
                session.out.note(line);
            }
            if !self.dry_run {
                let keys = count(letters.len(), "key");
                session.confirm(&format!("Send {keys} back?")).await?;
            }
        }
        let outcomes = self.send(&admin, &letters, session).await?;
        session.out.rows(&outcomes, &COLUMNS)?;
        conclude(&outcomes)
    }

    async fn send(
        &self,
        admin: &Admin,
        letters: &[DeadLetter],
        session: &Session,
    ) -> Result<Vec<Acted>> {
        let started = SystemClock.elapsed();
        let mut outcomes = Vec::with_capacity(letters.len());
        let mut cut_off = false;
        for (done, letter) in letters.iter().enumerate() {
            let id = letter.id.clone();
            if cut_off {
                outcomes.push(Acted { id, outcome: "not tried", why: None });
                continue;
            }
            if let (Some(Rate(between)), false) = (self.rate, self.dry_run) {
                let due = started + between * u32::try_from(done).unwrap_or(u32::MAX);
                session.sleep(due.saturating_sub(SystemClock.elapsed())).await;
            }
            let (outcome, why) = match admin.redrive(&id, self.dry_run, self.force).await {
                Ok(redriven) => match (redriven.refused, self.dry_run) {
                    (Some(why), _) => ("refused", Some(why)),
                    (None, true) => ("would be redriven", None),
                    (None, false) => ("redriven", None),
                },
                Err(error) => {
                    cut_off = error.is_transient();
                    ("failed", Some(error.to_string()))
                }
            };
            outcomes.push(Acted { id, outcome, why });
            session.out.progress(done + 1, letters.len());
        }
        Ok(outcomes)
    }
}

/// What would be sent back, a line a group.
fn plan(letters: &[DeadLetter]) -> Vec<String> {
    let mut groups = BTreeMap::<_, (usize, u64, &str)>::new();
    for letter in letters {
        let key = &letter.key;
        let group = groups.entry((&key.consumer, &key.name)).or_default();
        *group = (group.0 + 1, group.1 + letter.deliveries, &key.failure);
    }
    let line = |((consumer, name), (keys, deliveries, failure)): (_, (usize, u64, &str))| {
        let failure = printable(failure).into_owned();
        let (keys, failure) = (count(keys, "key"), shorten(&failure, 80));
        format!("{consumer}: {keys} at {name} with {deliveries} deliveries ({failure})")
    };
    groups.into_iter().map(line).collect()
}

fn conclude(outcomes: &[Acted]) -> Result<()> {
    let left = |outcome: &&Acted| !outcome.outcome.ends_with("redriven");
    let not: Vec<_> = outcomes.iter().filter(left).collect();
    let next = "`sillage dlq show ID` says why; mend the cause, then redrive those again";
    match (not.as_slice(), outcomes.len()) {
        ([], _) => Ok(()),
        ([one], 1) => {
            let why = one.why.as_deref().unwrap_or("it could not be sent back");
            Err(Refusal::new(Exit::Conflict, format!("{}: {why}", one.id), next).into())
        }
        (not, all) => {
            let what = format!("{} of {} not sent back", not.len(), count(all, "key"));
            Err(Refusal::new(Exit::PartlyFailed, what, next).into())
        }
    }
}
