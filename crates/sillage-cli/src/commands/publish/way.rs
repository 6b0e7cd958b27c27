//! The two ways a message can go: through the log, or straight to a broker.

use super::Published;
use crate::{commands::topics::no_topic, session::Session};
use anyhow::Result;
use sillage::{
    Broker, Clock as _, Commit, CommitError, Error, ErrorKind, Message, Partition, Position,
    PublishError, Receipt, SystemClock, Text, Write,
    admin::{Admin, Outgoing},
};
use std::{collections::HashSet, sync::Arc};

pub(super) enum Way {
    Log(Admin),
    /// And its topics that are known to be there.
    Broker(Arc<dyn Broker>, HashSet<Text>),
}

/// What became of a message.
pub(super) enum Sent {
    Published(Option<Position>),
    Duplicate,
    Refused(String),
    /// Nobody knows; what follows need not be tried.
    Failed(Error),
}

impl Way {
    /// The log is the way wherever a database is named: the app's relay carries it on.
    pub(super) async fn find(session: &Session) -> Result<Self> {
        if session.settings.database.value.is_none()
            && let Some(broker) = session.broker().await?
        {
            let name = broker.capabilities().name;
            let note = "no database is named: straight to";
            session.out.note(format!("{note} {name}, and into no log"));
            return Ok(Way::Broker(broker, HashSet::new()));
        }
        Ok(Way::Log(session.admin().await?))
    }

    pub(super) async fn publish(self, outgoing: Outgoing) -> Result<Published> {
        match self {
            Way::Log(admin) => {
                let (message, committed) = admin.publish(outgoing).await?;
                Ok(Published { position: Some(committed.position), ..Published::of(message) })
            }
            Way::Broker(broker, mut known) => {
                let message = outgoing.message(SystemClock.now())?;
                let topic = message.topic.clone().unwrap_or_default();
                if !exists(&*broker, &topic, &mut known).await? {
                    return Err(no_topic(broker.capabilities().name, &topic).into());
                }
                let sent = broker.publish(vec![Arc::new(message.clone())]).await.pop();
                let receipt = sent.unwrap_or_else(|| Err(unanswered()));
                let Receipt { partition, offset } = receipt.map_err(|error| match error {
                    PublishError::Refused(error) | PublishError::Unknown(error) => error,
                })?;
                let partition = partition.map(|Partition { number, .. }| number);
                Ok(Published { partition, offset, ..Published::of(message) })
            }
        }
    }

    /// Each succeeds or fails on its own.
    pub(super) async fn send(&mut self, messages: Vec<Arc<Message>>) -> Result<Vec<Sent>> {
        match self {
            Way::Log(admin) => {
                let commit = |message| Commit {
                    conditions: vec![],
                    writes: vec![Write::Append { stream: None, message }],
                };
                let commits = messages.into_iter().map(commit).collect();
                let answers = admin.database().commit(commits).await;
                Ok(answers.into_iter().map(Sent::by_log).collect())
            }
            Way::Broker(broker, known) => {
                let mut sent = vec![];
                let mut there = vec![];
                for message in messages {
                    let topic = message.topic.clone().unwrap_or_default();
                    if exists(&**broker, &topic, known).await? {
                        there.push(message);
                        sent.push(None);
                    } else {
                        let missing = no_topic(broker.capabilities().name, &topic);
                        sent.push(Some(Sent::Refused(missing.what)));
                    }
                }
                let answers = broker.publish(there).await;
                let mut answers = answers.into_iter().map(Sent::by_broker);
                let mut next =
                    || answers.next().unwrap_or_else(|| Sent::by_broker(Err(unanswered())));
                Ok(sent.into_iter().map(|sent| sent.unwrap_or_else(&mut next)).collect())
            }
        }
    }
}

/// A topic is not made by a slip of the pen.
async fn exists(broker: &dyn Broker, topic: &Text, known: &mut HashSet<Text>) -> Result<bool> {
    if known.contains(topic) {
        return Ok(true);
    }
    let found = !broker.topics(std::slice::from_ref(topic)).await?.is_empty();
    if found {
        known.insert(topic.clone());
    }
    Ok(found)
}

fn unanswered() -> PublishError {
    PublishError::Unknown(Error::new(ErrorKind::Unavailable, "the broker gave no answer"))
}

impl Sent {
    fn by_log(answer: Result<sillage::Committed, CommitError>) -> Self {
        match answer {
            Ok(committed) => Sent::Published(Some(committed.position)),
            Err(CommitError::AlreadyHandled) => Sent::Duplicate,
            Err(CommitError::Failed(error)) => Sent::Failed(error),
            Err(error) => Sent::Refused(error.to_string()),
        }
    }

    fn by_broker(answer: Result<Receipt, PublishError>) -> Self {
        match answer {
            Ok(_) => Sent::Published(None),
            Err(PublishError::Refused(error)) => Sent::Refused(error.to_string()),
            Err(PublishError::Unknown(error)) => Sent::Failed(error),
        }
    }
}

impl Published {
    fn of(message: Message) -> Self {
        Published {
            id: message.id.text(),
            name: message.name,
            topic: message.topic,
            key: message.key.map(|key| key.label().into_owned()),
            correlation_id: message.correlation_id,
            position: None,
            partition: None,
            offset: None,
        }
    }
}
