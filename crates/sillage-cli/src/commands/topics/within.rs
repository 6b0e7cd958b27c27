//! Topics of the log: a topic is there with its first message, or with its first consumer.

use super::{CONSUMERS, Consumers, Line, MESSAGES, Show, TOPIC, consumers, join, resolve};
use crate::{
    failure::{Exit, Refusal},
    output::Column,
    session::Session,
    text::{millis, when},
};
use anyhow::Result;
use sillage::{Filter, Position, Text, Timestamp, admin::Admin};
use std::collections::{BTreeMap, BTreeSet};

/// Entries read at once.
const PAGE: usize = 1000;

#[derive(Default)]
struct Seen {
    messages: u64,
    last: Option<Timestamp>,
    producers: BTreeSet<String>,
}

const COLUMNS: [Column<Line>; 5] = [
    TOPIC,
    MESSAGES,
    ("LAST", |topic| topic.shown.clone()),
    ("PRODUCERS", |topic| join(topic.producers.as_ref())),
    CONSUMERS,
];

pub(super) async fn list(scan: u64, session: &mut Session) -> Result<()> {
    let topics = topics(scan, session).await?;
    session.out.rows(&topics, &COLUMNS)
}

pub(super) async fn show(show: &Show, session: &mut Session) -> Result<Line> {
    let topics = topics(show.scan.entries, session).await?;
    let names: Vec<_> = topics.iter().map(|topic| Text::from(topic.topic.as_str())).collect();
    let name = resolve(&show.name, &names)?;
    let mut topics = topics.into_iter();
    let found = topics.find(|topic| *topic.topic == *name);
    let next = "`sillage topics list` shows them";
    Ok(found.ok_or_else(|| Refusal::new(Exit::NotFound, "it is gone", next))?)
}

async fn topics(scan: u64, session: &mut Session) -> Result<Vec<Line>> {
    let admin = session.admin().await?;
    let (head, now) = (admin.database().head().await?.stable, admin.database().now().await?);
    let from = Position(head.0.saturating_sub(scan));
    let mut consumers = consumers(&admin).await?;
    let seen = count(&admin, from, head, &consumers).await?;
    if from.0 > 0 {
        let note = format!("counted in positions {} to {head} only; `--scan` for more", from.0);
        session.out.note(note);
    }
    let topic = |(topic, seen): (String, Seen)| Line {
        messages: Some(seen.messages),
        last: seen.last.map(millis),
        shown: seen.last.map_or_else(|| "-".to_owned(), |last| when(last, now)),
        producers: Some(seen.producers),
        consumers: Some(consumers.remove(&topic).unwrap_or_default()),
        partitions: None,
        topic,
    };
    Ok(seen.into_iter().map(topic).collect())
}

async fn count(
    admin: &Admin,
    from: Position,
    head: Position,
    consumers: &Consumers,
) -> Result<BTreeMap<String, Seen>> {
    let declared = consumers.keys().map(|topic| (topic.clone(), Seen::default()));
    let mut topics: BTreeMap<_, _> = declared.collect();
    let (filter, mut at) = (Filter::default(), from);
    while at < head {
        let page = admin.database().log(at, &filter, PAGE).await?;
        for entry in &page.entries {
            let Some(topic) = entry.topic.as_deref() else { continue };
            if !topics.contains_key(topic) {
                topics.insert(topic.to_owned(), Seen::default());
            }
            let Some(seen) = topics.get_mut(topic) else { continue };
            seen.messages += 1;
            seen.last = seen.last.max(Some(entry.time));
            if !seen.producers.contains(&*entry.source) {
                seen.producers.insert(entry.source.to_string());
            }
        }
        if page.through <= at {
            break;
        }
        at = page.through;
    }
    Ok(topics)
}
