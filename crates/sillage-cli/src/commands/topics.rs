//! `sillage topics`: of the broker where one is named, else of the log.

mod create;
pub(super) mod outside;
mod within;

use super::unique;
use crate::{
    failure::{Exit, Refusal},
    output::{Column, UNKNOWN},
    session::Session,
    text::printable,
};
use anyhow::Result;
use serde::Serialize;
use sillage::{PartitionStatus, Text, admin::Admin};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Topics {
    /// What is in each, who produces and who consumes it
    List(List),
    /// One of them: its partitions and what they hold
    Show(Show),
    /// Make one at the broker, unless it is there
    Create(create::Create),
}

#[derive(Debug, clap::Args)]
pub(crate) struct List {
    #[command(flatten)]
    scan: Scan,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Show {
    name: String,
    #[command(flatten)]
    scan: Scan,
}

#[derive(Debug, clap::Args)]
struct Scan {
    /// Count in the last so many entries of the log only; a broker knows by itself
    #[arg(long = "scan", default_value_t = 100_000, value_name = "N")]
    entries: u64,
}

/// A topic; `None`: whoever was asked does not tell.
#[derive(Serialize)]
struct Line {
    topic: String,
    messages: Option<u64>,
    last: Option<String>,
    producers: Option<BTreeSet<String>>,
    consumers: Option<BTreeSet<String>>,
    /// None of its own in the log.
    partitions: Option<Vec<PartitionStatus>>,
    #[serde(skip)]
    shown: String,
}

/// What all columns have that both know.
const TOPIC: Column<Line> = ("TOPIC", |topic| topic.topic.clone());
const MESSAGES: Column<Line> = ("MESSAGES", |topic| told(topic.messages));
const CONSUMERS: Column<Line> = ("CONSUMERS", |topic| join(topic.consumers.as_ref()));

/// Who consumes each topic, as apps said when they started.
type Consumers = BTreeMap<String, BTreeSet<String>>;

impl Topics {
    pub(super) async fn run(self, session: &mut Session) -> Result<()> {
        let broker = session.broker().await?;
        match (self, broker) {
            (Topics::List(_), Some(broker)) => outside::list(&*broker, session).await,
            (Topics::List(List { scan }), None) => within::list(scan.entries, session).await,
            (Topics::Show(show), Some(broker)) => {
                let topic = outside::show(&*broker, &show.name, session).await?;
                session.out.one(&topic, Line::describe)
            }
            (Topics::Show(show), None) => {
                let topic = within::show(&show, session).await?;
                session.out.one(&topic, Line::describe)
            }
            (Topics::Create(create), broker) => create.run(broker, session).await,
        }
    }
}

impl Line {
    fn describe(&self) -> String {
        let mut text = format!("{}\n", printable(&self.topic));
        let mut say = |what: &str, value: String| {
            let _ = writeln!(text, "  {what:<12} {}", printable(&value));
        };
        say("messages", told(self.messages));
        if self.producers.is_some() {
            say("last", self.shown.clone());
            say("producers", join(self.producers.as_ref()));
        }
        say("consumers", join(self.consumers.as_ref()));
        let Some(partitions) = &self.partitions else { return text };
        say("partitions", partitions.len().to_string());
        let _ = writeln!(text, "\n  PARTITION  {:>12}  {:>12}", "FIRST", "NEXT");
        for PartitionStatus { number, first, next } in partitions {
            let [first, next] = [first, next].map(|offset| told(offset.map(|offset| offset.0)));
            let _ = writeln!(text, "  {number:<9}  {first:>12}  {next:>12}");
        }
        text
    }
}

fn told(number: Option<u64>) -> String {
    number.map_or_else(|| UNKNOWN.to_owned(), |number| number.to_string())
}

fn join(names: Option<&BTreeSet<String>>) -> String {
    match names {
        None => UNKNOWN.to_owned(),
        Some(names) if names.is_empty() => "-".to_owned(),
        Some(names) => names.iter().map(String::as_str).collect::<Vec<_>>().join(", "),
    }
}

/// A broker has no topic of that name.
pub(super) fn no_topic(broker: &str, topic: &str) -> Refusal {
    Refusal::new(
        Exit::NotFound,
        format!("{broker} has no topic `{topic}`"),
        format!("`sillage topics list` shows them, `sillage topics create {topic}` makes it"),
    )
}

/// The one topic of that name, or that has it in it.
fn resolve(given: &str, names: &[Text]) -> Result<Text> {
    Ok(unique("topic", given, names.iter(), "sillage topics list")?)
}

async fn consumers(admin: &Admin) -> Result<Consumers> {
    let mut consumers = Consumers::new();
    for manifest in admin.manifests().await? {
        for consumer in manifest["consumers"].as_array().into_iter().flatten() {
            let name = consumer["name"].as_str().unwrap_or_default();
            for topic in consumer["topics"].as_array().into_iter().flatten() {
                let topic = topic.as_str().unwrap_or_default().to_owned();
                consumers.entry(topic).or_default().insert(name.to_owned());
            }
        }
    }
    Ok(consumers)
}
