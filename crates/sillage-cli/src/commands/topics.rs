//! `sillage topics`.

use crate::{
    output::Column,
    session::Session,
    text::{millis, when},
};
use anyhow::Result;
use serde::Serialize;
use sillage::{Filter, Position, Timestamp, admin::Admin};
use std::collections::{BTreeMap, BTreeSet};

/// Entries read at once.
const PAGE: usize = 1000;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Topics {
    /// What is in each, who produces and who consumes it
    List(List),
}

#[derive(Debug, clap::Args)]
pub(crate) struct List {
    /// Count in the last so many entries of the log only
    #[arg(long, default_value_t = 100_000, value_name = "N")]
    scan: u64,
}

#[derive(Default)]
struct Seen {
    messages: u64,
    last: Option<Timestamp>,
    producers: BTreeSet<String>,
    consumers: BTreeSet<String>,
}

#[derive(Serialize)]
struct Line {
    topic: String,
    messages: u64,
    last: Option<String>,
    producers: BTreeSet<String>,
    consumers: BTreeSet<String>,
    #[serde(skip)]
    shown: String,
}

const COLUMNS: [Column<Line>; 5] = [
    ("TOPIC", |line| line.topic.clone()),
    ("MESSAGES", |line| line.messages.to_string()),
    ("LAST", |line| line.shown.clone()),
    ("PRODUCERS", |line| join(&line.producers)),
    ("CONSUMERS", |line| join(&line.consumers)),
];

fn join(names: &BTreeSet<String>) -> String {
    if names.is_empty() {
        return "-".to_owned();
    }
    names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

impl Topics {
    pub(super) async fn run(self, session: &mut Session) -> Result<()> {
        let Topics::List(List { scan }) = self;
        let admin = session.admin().await?;
        let (head, now) = (admin.database().head().await?.stable, admin.database().now().await?);
        let from = Position(head.0.saturating_sub(scan));
        let mut topics = BTreeMap::<String, Seen>::new();
        declared(&admin, &mut topics).await?;
        count(&admin, from, head, &mut topics).await?;
        if from.0 > 0 {
            let note = format!("counted in positions {} to {head} only; `--scan` for more", from.0);
            session.out.note(note);
        }
        let lines: Vec<_> = topics
            .into_iter()
            .map(|(topic, seen)| Line {
                topic,
                messages: seen.messages,
                last: seen.last.map(millis),
                shown: seen.last.map_or_else(|| "-".to_owned(), |last| when(last, now)),
                producers: seen.producers,
                consumers: seen.consumers,
            })
            .collect();
        session.out.rows(&lines, &COLUMNS)
    }
}

/// What apps said they consume when they started.
async fn declared(admin: &Admin, topics: &mut BTreeMap<String, Seen>) -> Result<()> {
    for manifest in admin.manifests().await? {
        for consumer in manifest["consumers"].as_array().into_iter().flatten() {
            let name = consumer["name"].as_str().unwrap_or_default();
            for topic in consumer["topics"].as_array().into_iter().flatten() {
                let topic = topic.as_str().unwrap_or_default().to_owned();
                topics.entry(topic).or_default().consumers.insert(name.to_owned());
            }
        }
    }
    Ok(())
}

async fn count(
    admin: &Admin,
    from: Position,
    head: Position,
    topics: &mut BTreeMap<String, Seen>,
) -> Result<()> {
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
    Ok(())
}
