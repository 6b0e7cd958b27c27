//! `sillage topics create`.

use crate::{
    failure::{Exit, Refusal},
    session::Session,
    text::{count, printable},
};
use anyhow::Result;
use serde::Serialize;
use sillage::{Broker, Text, TopicSpec};
use std::sync::Arc;

#[derive(Debug, clap::Args)]
pub(crate) struct Create {
    name: Text,
    /// How many partitions; else as many as the broker's URL says, or the broker makes by itself
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    partitions: Option<u32>,
}

#[derive(Serialize)]
struct Made {
    topic: Text,
    /// False: it was there.
    created: bool,
    /// None of its own in the log.
    partitions: Option<usize>,
    /// Sentences about what is otherwise than wanted, and was left.
    differs: Vec<String>,
}

impl Create {
    pub(super) async fn run(
        self,
        broker: Option<Arc<dyn Broker>>,
        session: &mut Session,
    ) -> Result<()> {
        let Some(broker) = broker else { return self.within(session).await };
        let Create { name, partitions } = self;
        let diff = broker.ensure(&[TopicSpec { name: name.clone(), partitions }]).await?;
        let found = broker.topics(std::slice::from_ref(&name)).await?.pop();
        let created = Made {
            created: diff.created.contains(&name),
            partitions: found.map(|topic| topic.partitions.len()),
            differs: diff.differs,
            topic: name,
        };
        session.out.one(&created, Made::describe)?;
        if created.differs.is_empty() {
            return Ok(());
        }
        let next = "leave it as it is, or make another; `sillage topics show` tells what it has";
        Err(Refusal::new(Exit::Conflict, created.differs.join("; "), next).into())
    }

    /// There is nothing to make: with partitions, a broker was meant.
    async fn within(self, session: &mut Session) -> Result<()> {
        session.admin().await?;
        if self.partitions.is_some() {
            return Err(Refusal::usage(
                "a topic of the log has no partitions of its own",
                "name a broker: `--broker URL`, or SILLAGE_BROKER; or leave `--partitions` out",
            )
            .into());
        }
        let (partitions, differs) = (None, vec![]);
        let created = Made { topic: self.name, created: false, partitions, differs };
        session.out.one(&created, |created| {
            let name = printable(&created.topic);
            format!("{name} need not be made: in the log, a topic begins with its first message")
        })?;
        session.out.note("`--broker URL` makes it at a broker");
        Ok(())
    }
}

impl Made {
    fn describe(&self) -> String {
        let name = printable(&self.topic);
        let partitions = count(self.partitions.unwrap_or_default(), "partition");
        let what = if self.created { "is made" } else { "was there already" };
        format!("{name} {what}, with {partitions}")
    }
}
