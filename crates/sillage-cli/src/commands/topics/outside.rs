//! Topics of a broker outside the database.

use super::{CONSUMERS, Consumers, Line, MESSAGES, TOPIC, consumers, resolve};
use crate::{failure::words, output::Column, session::Session};
use anyhow::Result;
use sillage::{Broker, PartitionStatus, Text, TopicStatus};

const COLUMNS: [Column<Line>; 4] = [
    TOPIC,
    ("PARTITIONS", |topic| topic.partitions.as_ref().map_or(0, Vec::len).to_string()),
    MESSAGES,
    CONSUMERS,
];

pub(super) async fn list(broker: &dyn Broker, session: &mut Session) -> Result<()> {
    let consumers = declared(session).await;
    let topics = known(broker, consumers.as_ref()).await?;
    if topics.is_empty() {
        let name = broker.capabilities().name;
        session
            .out
            .note(format!("{name} tells of no topics; `sillage topics create NAME` makes one"));
    }
    let topics = topics.into_iter().map(|topic| Line::at_broker(topic, consumers.as_ref()));
    let topics: Vec<_> = topics.collect();
    session.out.rows(&topics, &COLUMNS)
}

pub(super) async fn show(broker: &dyn Broker, given: &str, session: &Session) -> Result<Line> {
    let consumers = declared(session).await;
    let named = broker.topics(&[Text::from(given)]).await?.pop();
    let topic = match named {
        Some(topic) => topic,
        None => abbreviated(broker, given, consumers.as_ref()).await?,
    };
    Ok(Line::at_broker(topic, consumers.as_ref()))
}

/// All that the broker lists. Not every broker lists any: so also those that apps read.
async fn known(broker: &dyn Broker, consumers: Option<&Consumers>) -> Result<Vec<TopicStatus>> {
    let mut topics = broker.topics(&[]).await?;
    let read = consumers.into_iter().flat_map(Consumers::keys);
    let unlisted = read.filter(|read| !topics.iter().any(|topic| *topic.name == ***read));
    let unlisted: Vec<_> = unlisted.map(|read| Text::from(read.as_str())).collect();
    if !unlisted.is_empty() {
        topics.extend(broker.topics(&unlisted).await?);
    }
    topics.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(topics)
}

/// The same, for who wants to read them.
pub(in crate::commands) async fn all(
    broker: &dyn Broker,
    session: &Session,
) -> Result<Vec<TopicStatus>> {
    known(broker, declared(session).await.as_ref()).await
}

async fn abbreviated(
    broker: &dyn Broker,
    given: &str,
    consumers: Option<&Consumers>,
) -> Result<TopicStatus> {
    let mut topics = known(broker, consumers).await?;
    let names: Vec<_> = topics.iter().map(|topic| topic.name.clone()).collect();
    let name = resolve(given, &names)?;
    topics.retain(|topic| topic.name == name);
    topics.pop().ok_or_else(|| sillage::Error::unavailable("the topic is gone").into())
}

/// Who consumes what, where a database knows it. The topics are the broker's: a database that
/// cannot be had is no failure.
async fn declared(session: &Session) -> Option<Consumers> {
    session.settings.database.value.as_ref()?;
    let known = async { consumers(&session.admin().await?).await };
    match known.await {
        Ok(known) => Some(known),
        Err(error) => {
            session.out.note(format!("consumers are not known: {}", words(&error)));
            None
        }
    }
}

impl Line {
    fn at_broker(status: TopicStatus, known: Option<&Consumers>) -> Self {
        let messages = status.partitions.iter().map(messages).sum();
        Line {
            messages,
            last: None,
            producers: None,
            consumers: known.map(|known| known.get(&*status.name).cloned().unwrap_or_default()),
            partitions: Some(status.partitions),
            topic: status.name.to_string(),
            shown: String::new(),
        }
    }
}

/// What a partition holds; where it was compacted, fewer.
fn messages(partition: &PartitionStatus) -> Option<u64> {
    Some(partition.next?.0.saturating_sub(partition.first?.0))
}
