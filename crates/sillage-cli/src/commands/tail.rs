//! `sillage tail`: the log, as it grows.

mod condition;
mod from;
mod template;

use crate::{
    output::Format,
    session::Session,
    text::{millis, payload, printable},
};
use anyhow::Result;
use condition::Condition;
use from::From;
use sillage::{Database, Filter, Message, Position, Recorded, Text, Timestamp, to_json};
use std::time::Duration;
use template::Template;

/// Entries read at once.
const PAGE: usize = 200;
/// The log is looked at at least so often.
const EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
#[command(after_help = "Times are those that messages carry, which need not rise with their \
    positions; so `@` reads the whole log, to miss nothing: slow where it is long.\n\n\
    Examples:\n  sillage tail order payment --key o-1041\n  \
    sillage tail --from @-10m --until-end -o jsonl | sillage publish - --database sqlite:copy.db\n  \
    sillage tail --name order.created --where 'data.total.minor>=10000' --fmt '{time} {key} \
    {data.total}'")]
pub(crate) struct Tail {
    /// Only these topics
    topic: Vec<Text>,
    /// Where to begin: `start`, `end`, `-N` (the last N that match), `N` (a position),
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
    /// End where the log ended when this began
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
    /// A line of your own, whatever the format: `{position} {time} {name} {version} {topic} {key}
    /// {source} {id} {correlationid} {causationid} {data} {data.a.b}`
    #[arg(long = "fmt", value_name = "TEMPLATE")]
    template: Option<Template>,
}

/// Which entries are wanted.
struct Wanted<'t> {
    tail: &'t Tail,
    filter: Filter,
    /// From, and before.
    times: (Option<Timestamp>, Option<Timestamp>),
}

impl Wanted<'_> {
    fn takes(&self, entry: &Recorded) -> bool {
        let Tail { key, condition, all, .. } = self.tail;
        let (since, before) = self.times;
        let keyed = |wanted: &String| {
            entry.key.as_ref().is_some_and(|key| {
                key.as_bytes() == wanted.as_bytes() || key.label() == wanted.as_str()
            })
        };
        (*all || entry.topic.is_some())
            && since.is_none_or(|since| entry.time >= since)
            && before.is_none_or(|before| entry.time < before)
            && (key.is_empty() || key.iter().any(keyed))
            && Condition::all_hold(condition, &entry.payload)
    }
}

impl Tail {
    pub(super) async fn run(self, session: &mut Session) -> Result<()> {
        let admin = session.admin().await?;
        let database = &**admin.database();
        let from = self.from.unwrap_or(if self.until_end { From::Start } else { From::End });
        let now = database.now().await?;
        let filter =
            Filter { topics: self.topic.clone(), names: self.name.clone(), ..Filter::default() };
        let wanted = Wanted { tail: &self, filter, times: from.times(now) };
        let head = database.head().await?.stable;
        let after = match from {
            From::End => head,
            From::At(position) => Position(position.0.saturating_sub(1)),
            From::Last(count) => wanted.before_last(database, head, count).await?,
            From::Start | From::Time(..) => Position(0),
        };
        let until = (self.until_end || wanted.times.1.is_some()).then_some(head);
        self.begin(session)?;
        self.follow(&wanted, database, (after, until), session).await
    }

    fn begin(&self, session: &mut Session) -> Result<()> {
        if self.template.is_some() {
            return Ok(());
        }
        session.out.begin();
        if session.out.is_table() {
            let head = columns(["POSITION", "TIME", "NAME", "KEY", "SOURCE", "DATA"]);
            session.out.line(head)?;
        }
        Ok(())
    }

    async fn follow(
        &self,
        wanted: &Wanted<'_>,
        database: &dyn Database,
        (mut after, until): (Position, Option<Position>),
        session: &mut Session,
    ) -> Result<()> {
        let mut left = self.limit.unwrap_or(usize::MAX);
        let mut trimmed = Position(0);
        loop {
            if left == 0 || until.is_some_and(|until| after >= until) {
                return Ok(());
            }
            let page = database.log(after, &wanted.filter, PAGE).await?;
            if page.trimmed_before > after.max(trimmed) {
                trimmed = page.trimmed_before;
                session.out.note(format!("entries up to position {trimmed} are gone"));
            }
            for entry in &page.entries {
                if until.is_some_and(|until| entry.position > until) || left == 0 {
                    return Ok(());
                }
                if wanted.takes(entry) {
                    self.show(entry, session)?;
                    left -= 1;
                }
            }
            session.out.flush()?;
            if page.through <= after {
                if until.is_some() {
                    return Ok(());
                }
                tokio::select! {
                    () = database.changed(after) => {}
                    () = session.sleep(EVERY) => {}
                }
            }
            after = after.max(page.through);
        }
    }

    fn show(&self, entry: &Recorded, session: &mut Session) -> Result<()> {
        if let Some(template) = &self.template {
            session.out.line(template.fill(entry, self.hide_payload))?;
        } else if session.out.format == Format::Table {
            let key = entry.key.as_ref().map(sillage::Key::label).unwrap_or_default();
            session.out.line(columns([
                &entry.position.to_string(),
                &millis(entry.time),
                &printable(&entry.name),
                &printable(&key),
                &printable(&entry.source),
                &payload(&entry.payload, self.hide_payload),
            ]))?;
        } else {
            session.out.element(&cloud_event(entry, self.hide_payload)?)?;
        }
        Ok(())
    }
}

impl Wanted<'_> {
    /// The position before the last `count` entries that match.
    async fn before_last(
        &self,
        database: &dyn Database,
        head: Position,
        count: usize,
    ) -> Result<Position> {
        let (mut found, mut end, mut window) = (0, head, 1000);
        while end.0 > 0 && found < count {
            let start = Position(end.0.saturating_sub(window));
            let matching = self.between(database, start, end).await?;
            found += matching.len();
            if let Some(spare) = found.checked_sub(count) {
                return Ok(matching.get(spare).map_or(end, |first| Position(first.0 - 1)));
            }
            (end, window) = (start, window.saturating_mul(2));
        }
        Ok(end)
    }

    /// The positions of what matches after `start`, up to `end`.
    async fn between(
        &self,
        database: &dyn Database,
        start: Position,
        end: Position,
    ) -> Result<Vec<Position>> {
        let (mut found, mut at) = (vec![], start);
        while at < end {
            let page = database.log(at, &self.filter, PAGE).await?;
            let matching = page.entries.iter().filter(|entry| self.takes(entry));
            let positions = matching.map(|entry| entry.position);
            found.extend(positions.take_while(|position| *position <= end));
            if page.through <= at {
                break;
            }
            at = page.through;
        }
        Ok(found)
    }
}

fn columns([position, time, name, key, source, data]: [&str; 6]) -> String {
    let line = format!("{position:>8}  {time:<24}  {name:<24} {key:<36} {source:<12} {data}");
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
