//! `sillage tail`: a broker's topics where one is named, else the log, as they grow.

mod condition;
mod from;
mod last;
mod outside;
mod reader;
mod template;
mod within;

use crate::{
    output::Format,
    session::Session,
    text::{millis, payload, printable},
};
use anyhow::Result;
use condition::Condition;
use from::From;
use sillage::{Message, Offset, Partition, Position, Text, Timestamp, to_json};
use std::fmt;
use template::Template;

#[derive(Debug, clap::Args)]
#[command(after_help = "Times are those that messages carry, which need not rise with their \
    positions; so `@` reads the whole log, to miss nothing: slow where it is long. A broker finds \
    the place by the time it took a message.\n\n\
    Where a broker is named, its topics are followed, those that are there or those named; \
    `--broker embedded` follows the log. `-N` looks at the last N of each partition. Where a \
    broker tells no offsets (RabbitMQ), the end is there when for a second nothing has come that \
    is older than the command.\n\n\
    Examples:\n  sillage tail order payment --key o-1041\n  \
    sillage tail --from @-10m --until-end -o jsonl | sillage publish - --database sqlite:copy.db\n  \
    sillage tail --name order.created --where 'data.total.minor>=10000' --fmt '{time} {key} \
    {data.total}'")]
pub(crate) struct Tail {
    /// Only these topics
    topic: Vec<Text>,
    /// Where to begin: `start`, `end`, `-N` (the last N that match), `N` (a position of the log),
    /// `@TIME` or `@TIME:TIME` (from, and before), a time being `-10m`, a day, or RFC 3339. Else
    /// the end, or the start with `--until-end`
    #[arg(long, value_name = "WHERE", allow_hyphen_values = true)]
    from: Option<From>,
    /// Only messages of these names
    #[arg(long)]
    name: Vec<Text>,
    /// Only messages of these keys
    #[arg(long)]
    key: Vec<String>,
    /// Only where the payload says so: `data.total>100`; with = != > < >= <=
    #[arg(long = "where", value_name = "CONDITION")]
    condition: Vec<Condition>,
    /// End where the log, or each topic, ended when this began
    #[arg(long)]
    until_end: bool,
    /// End after so many messages
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Also what stays in the log: entries without a topic
    #[arg(long)]
    all: bool,
    /// Sizes instead of payloads
    #[arg(long)]
    hide_payload: bool,
    /// A line of your own, whatever the format: `{position} {partition} {offset} {time} {name}
    /// {version} {topic} {key} {source} {id} {correlationid} {causationid} {data} {data.a.b}`
    #[arg(long = "fmt", value_name = "TEMPLATE")]
    template: Option<Template>,
}

/// Where a message is.
enum Place {
    Log(Position),
    /// An offset only where the broker has some that rise.
    Broker(Partition, Option<Offset>),
}

impl Place {
    fn partition(&self) -> Option<u32> {
        match self {
            Place::Log(_) => None,
            Place::Broker(partition, _) => Some(partition.number),
        }
    }

    /// For the first column of a table.
    fn padded(&self) -> String {
        let place = self.to_string();
        match self {
            Place::Log(_) => format!("{place:>8}"),
            Place::Broker(..) => format!("{place:<26}"),
        }
    }

    fn offset(&self) -> Option<u64> {
        match self {
            Place::Log(position) => Some(position.0),
            Place::Broker(_, offset) => offset.map(|offset| offset.0),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Log(position) => position.fmt(f),
            Place::Broker(partition, Some(offset)) => write!(f, "{partition}@{}", offset.0),
            Place::Broker(partition, None) => partition.fmt(f),
        }
    }
}

/// Which messages are wanted.
struct Wanted<'t> {
    tail: &'t Tail,
    /// From, and before.
    times: (Option<Timestamp>, Option<Timestamp>),
}

impl Wanted<'_> {
    fn takes(&self, message: &Message) -> bool {
        let Tail { name, key, condition, all, .. } = self.tail;
        let (since, before) = self.times;
        let keyed = |wanted: &String| {
            message.key.as_ref().is_some_and(|key| {
                key.as_bytes() == wanted.as_bytes() || key.label() == wanted.as_str()
            })
        };
        (*all || message.topic.is_some())
            && since.is_none_or(|since| message.time >= since)
            && before.is_none_or(|before| message.time < before)
            && (name.is_empty() || name.contains(&message.name))
            && (key.is_empty() || key.iter().any(keyed))
            && Condition::all_hold(condition, &message.payload)
    }
}

impl Tail {
    pub(super) async fn run(self, session: &mut Session) -> Result<()> {
        match session.broker().await? {
            Some(broker) => self.outside(&*broker, session).await,
            None => self.within(session).await,
        }
    }

    fn from(&self) -> From {
        self.from.unwrap_or(if self.until_end { From::Start } else { From::End })
    }

    /// Begins the table; `place` is the head of its first column, as wide as that is.
    fn begin(&self, place: &str, session: &mut Session) -> Result<()> {
        if self.template.is_some() {
            return Ok(());
        }
        session.out.begin();
        if session.out.is_table() {
            session.out.line(columns([place, "TIME", "NAME", "KEY", "SOURCE", "DATA"]))?;
        }
        Ok(())
    }

    fn show(&self, place: &Place, message: &Message, session: &mut Session) -> Result<()> {
        if let Some(template) = &self.template {
            session.out.line(template.fill(place, message, self.hide_payload))?;
        } else if session.out.format == Format::Table {
            let key = message.key.as_ref().map(sillage::Key::label).unwrap_or_default();
            session.out.line(columns([
                &printable(&place.padded()),
                &millis(message.time),
                &printable(&message.name),
                &printable(&key),
                &printable(&message.source),
                &payload(&message.payload, self.hide_payload),
            ]))?;
        } else {
            session.out.element(&cloud_event(message, self.hide_payload)?)?;
        }
        Ok(())
    }
}

fn columns([place, time, name, key, source, data]: [&str; 6]) -> String {
    let line = format!("{place}  {time:<24}  {name:<24} {key:<36} {source:<12} {data}");
    line.trim_end().to_owned()
}

/// A message as one line of JSON that `publish` takes back; without its payload, it does not.
pub(super) fn cloud_event(message: &Message, hide: bool) -> Result<String> {
    if !hide {
        return Ok(to_json(message)?);
    }
    let bare = Message { payload: bytes::Bytes::new(), ..message.clone() };
    let mut event: serde_json::Value = serde_json::from_str(&to_json(&bare)?)?;
    if let Some(event) = event.as_object_mut() {
        event.remove("data_base64");
        event.insert("payload_bytes".to_owned(), message.payload.len().into());
    }
    Ok(event.to_string())
}
