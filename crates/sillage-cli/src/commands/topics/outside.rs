//! Topics of a broker outside the database.

use super::{CONSUMERS, Consumers, Line, MESSAGES, TOPIC, consumers, resolve};
use crate::{output::Column, session::Session};
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
    let mut topics: Vec<_> = broker.topics(&[]).await?;
    topics.sort_by(|one, other| one.name.cmp(&other.name));
    if topics.is_empty() {
        let name = broker.capabilities().name;
        session.out.note(format!("{name} has no topics; `sillage topics create NAME` makes one"));
    }
    let topics = topics.into_iter().map(|topic| Line::at_broker(topic, consumers.as_ref()));
    let topics: Vec<_> = topics.collect();
    session.out.rows(&topics, &COLUMNS)
}

pub(super) async fn show(broker: &dyn Broker, given: &str, session: &Session) -> Result<Line> {
    let named = broker.topics(&[Text::from(given)]).await?.pop();
    let topic = match named {
        Some(topic) => topic,
        None => abbreviated(broker, given).await?,
    };
    Ok(Line::at_broker(topic, declared(session).await.as_ref()))
}

async fn abbreviated(broker: &dyn Broker, given: &str) -> Result<TopicStatus> {
    let mut topics = broker.topics(&[]).await?;
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
            session.out.note(format!("consumers are not known: {error:#}"));
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
