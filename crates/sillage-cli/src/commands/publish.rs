//! `sillage publish`: through the log, or straight to a broker where no database is named.

mod way;

use crate::{
    data::Payload,
    failure::{Exit, Refusal},
    input::{self, Lines},
    output::say,
    session::Session,
    text::{count, printable},
};
use anyhow::Result;
use serde::Serialize;
use serde_json::value::RawValue;
use sillage::{Message, Offset, Position, Text, admin::Outgoing, from_json};
use std::sync::Arc;
use way::{Sent, Way};

/// Messages published in one durable write, where they come quickly.
const BATCH: usize = 256;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "A message goes into the log of the database, and from there to the broker, if \
    the app has one. Where only a broker is named, it goes straight there.\n\n\
    An event's topic is the first word of its name, a command's has `.commands` \
    behind it.\n\nExamples:\n  \
    sillage publish order.commands --name order.create --key o-1 --data @order.json --set \
    note=now\n  sillage tail order --until-end -o jsonl > kept.jsonl\n  \
    sillage publish - < kept.jsonl"
)]
pub(crate) struct Publish {
    /// The topic; with CloudEvents from standard input, for those that name none. `-` for none
    topic: Option<String>,
    /// What the message is: `order.created`. Without it, CloudEvents are read from standard input
    /// and published as they are, with their own ids: one a line, or a JSON list
    #[arg(long)]
    name: Option<String>,
    /// The version of its payload
    #[arg(long, value_name = "N", default_value_t = 1, requires = "name")]
    version: u32,
    /// What orders it: usually an entity's id
    #[arg(long, requires = "name")]
    key: Option<String>,
    #[command(flatten)]
    payload: Payload,
}

#[derive(Serialize)]
struct Published {
    id: Text,
    name: Text,
    topic: Option<Text>,
    key: Option<String>,
    correlation_id: Text,
    /// In the log.
    position: Option<Position>,
    /// At the broker, as far as it tells.
    partition: Option<u32>,
    offset: Option<Offset>,
}

/// What became of many.
#[derive(Default, Serialize)]
struct Summary {
    published: usize,
    duplicates: usize,
    failed: usize,
    position: Option<Position>,
    not_published: Vec<NotPublished>,
}

#[derive(Serialize)]
struct NotPublished {
    /// Its line, or its place in the list; from 1.
    line: usize,
    id: Option<Text>,
    duplicate: bool,
    why: String,
}

impl Published {
    fn place(&self) -> String {
        match (self.position, self.partition, self.offset) {
            (Some(position), ..) => format!(" at position {position}"),
            (None, Some(partition), Some(Offset(offset))) => {
                let topic = printable(self.topic.as_deref().unwrap_or_default());
                format!(" to {topic}/{partition}@{offset}")
            }
            _ => format!(" to {}", printable(self.topic.as_deref().unwrap_or_default())),
        }
    }
}

impl Publish {
    pub(super) async fn run(self, session: &mut Session) -> Result<()> {
        let topic = self.topic.clone().filter(|topic| topic != "-");
        match (self.name.clone(), topic) {
            (Some(name), Some(topic)) => self.one(name, topic, session).await,
            (Some(name), None) => {
                let first = name.split('.').next().unwrap_or_default();
                let next = format!(
                    "`sillage publish {first} --name {name}` for an event, \
                     `sillage publish {first}.commands …` for a command"
                );
                Err(Refusal::usage("no topic is named", next).into())
            }
            (None, topic) => self.many(topic, session).await,
        }
    }

    async fn one(self, name: String, topic: String, session: &mut Session) -> Result<()> {
        if !self.payload.is_given() {
            return Err(Refusal::usage(
                "the message has no payload",
                "give it with `--data`, `--set` or `--edit`; `--data '{}'` for an empty one",
            )
            .into());
        }
        let way = Way::find(session).await?;
        let payload = self.payload.make(b"{}").await?.to_vec();
        let outgoing = Outgoing { name, version: self.version, topic, key: self.key, payload };
        let published = way.publish(outgoing).await?;
        session.out.one(&published, |published| {
            let Published { id, name, .. } = published;
            format!("{} is published{}: {id}", printable(name), published.place())
        })?;
        if session.out.is_table() && published.position.is_some() {
            session.out.note(format!("`sillage trace {}` shows what follows", published.id));
        }
        Ok(())
    }

    async fn many(self, topic: Option<String>, session: &mut Session) -> Result<()> {
        if self.payload.is_given() {
            let next = "say what the message is with `--name`";
            return Err(Refusal::usage("a payload is given, but no name", next).into());
        }
        if input::is_terminal() {
            return Err(Refusal::usage(
                "standard input is a terminal",
                "pipe CloudEvents into it, or say what to publish with `--name` and `--data`",
            )
            .into());
        }
        let way = Way::find(session).await?;
        let mut many = Many { way, topic: topic.map(Text::from), summary: Summary::default() };
        many.publish_all(Lines::start()).await?;
        let summary = many.summary;
        session.out.one(&summary, |summary| {
            let Summary { published, duplicates, failed, .. } = summary;
            format!("{published} published, {duplicates} were there already, {failed} failed")
        })?;
        let left = summary.duplicates + summary.failed;
        if left == 0 {
            return Ok(());
        }
        let what = format!("{} not published", count(left, "message"));
        let next = "mend and send those again; a message that was there already is not doubled";
        Err(Refusal::new(Exit::PartlyFailed, what, next).into())
    }
}

struct Many {
    way: Way,
    topic: Option<Text>,
    summary: Summary,
}

impl Many {
    async fn publish_all(&mut self, mut lines: Lines) -> Result<()> {
        let mut number = 0;
        while let Some(line) = lines.next().await {
            let first = line?;
            if number == 0 && first.trim_ascii_start().starts_with(b"[") {
                return self.publish_list(first, lines).await;
            }
            let mut batch = vec![first];
            while batch.len() < BATCH {
                let Some(line) = lines.ready() else { break };
                batch.push(line?);
            }
            let numbered = batch.iter().map(|line| {
                number += 1;
                (number, line.trim_ascii())
            });
            let numbered: Vec<_> = numbered.filter(|(_, line)| !line.is_empty()).collect();
            self.publish(&numbered).await?;
        }
        Ok(())
    }

    async fn publish_list(&mut self, mut json: Vec<u8>, mut lines: Lines) -> Result<()> {
        json.extend(lines.rest().await?);
        let list: Vec<&RawValue> = serde_json::from_slice(&json).map_err(|error| {
            let what = format!("standard input is no list of CloudEvents: {error}");
            Refusal::usage(what, "`sillage tail -o json` writes one")
        })?;
        let numbered: Vec<_> = (1..).zip(list.iter().map(|item| item.get().as_bytes())).collect();
        for batch in numbered.chunks(BATCH) {
            self.publish(batch).await?;
        }
        Ok(())
    }

    /// Each succeeds or fails on its own; one durable write for all.
    async fn publish(&mut self, events: &[(usize, &[u8])]) -> Result<()> {
        let (mut messages, mut sent) = (vec![], vec![]);
        for (line, json) in events {
            match self.read(json) {
                Ok(message) => {
                    sent.push((*line, message.id.text()));
                    messages.push(Arc::new(message));
                }
                Err(error) => self.not_published(*line, None, false, error.to_string()),
            }
        }
        if messages.is_empty() {
            return Ok(());
        }
        let outcomes = self.way.send(messages).await?;
        for ((line, id), outcome) in sent.into_iter().zip(outcomes) {
            match outcome {
                Sent::Published(position) => {
                    self.summary.published += 1;
                    self.summary.position = self.summary.position.max(position);
                }
                Sent::Duplicate => {
                    let why = "a message of this source and id is in the log already".to_owned();
                    self.not_published(line, Some(id), true, why);
                }
                Sent::Refused(why) => self.not_published(line, Some(id), false, why),
                Sent::Failed(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn read(&self, json: &[u8]) -> sillage::Result<Message> {
        let mut message = from_json(json)?;
        message.topic = message.topic.or_else(|| self.topic.clone());
        match message.topic {
            Some(_) => Ok(message),
            None => Err(sillage::Error::invalid(
                "it names no `topic`, so nobody would get it: say `sillage publish TOPIC`",
            )),
        }
    }

    fn not_published(&mut self, line: usize, id: Option<Text>, duplicate: bool, why: String) {
        if duplicate {
            self.summary.duplicates += 1;
        } else {
            self.summary.failed += 1;
        }
        say(format!("line {line}: {why}"));
        self.summary.not_published.push(NotPublished { line, id, duplicate, why });
    }
}
