//! `sillage replay`.

use crate::{args::Moment, failure::Refusal, session::Session, text::printable};
use anyhow::Result;
use sillage::{
    Clock as _, Key, Position, SystemClock, Text,
    admin::{ReplayCount, Replaying, Search},
};
use std::{fmt::Write as _, str::FromStr};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Messages keep source and id, and are marked with the header `sillage-replay`: a \
    consumer that has handled one drops it, another handles it. With `--as-new NAME` each has an id \
    of its own, which follows from its old one and NAME: every consumer handles it, once for each \
    NAME, and external calls keep their idempotency keys. The log has an id once, so with the \
    embedded broker a name is needed.\n\n\
    A replay into a handler, with effects captured, is the app's: see its `replay` command.\n\n\
    Examples:\n  sillage replay --from @-2h --name order.created --to-topic order-again --dry-run\n  \
    sillage replay --from 1041 --key o-7 --to-topic order --as-new mended --yes"
)]
pub(crate) struct Replay {
    /// The first position, or `@TIME`: `@-2h`, `@2026-01-31`
    #[arg(long, value_name = "WHERE")]
    from: From,
    /// Only up to this position, or before `@TIME`
    #[arg(long, value_name = "WHERE")]
    until: Option<From>,
    /// Only messages of these names
    #[arg(long)]
    name: Vec<Text>,
    /// Only of these topics
    #[arg(long)]
    topic: Vec<Text>,
    /// Only of this source
    #[arg(long)]
    source: Vec<Text>,
    /// Only of this key
    #[arg(long)]
    key: Option<String>,
    /// Where they are published
    #[arg(long, value_name = "TOPIC")]
    to_topic: Text,
    /// Give them ids of their own, which follow from this
    #[arg(long, value_name = "NAME")]
    as_new: Option<Text>,
    /// Only count
    #[arg(long)]
    dry_run: bool,
}

#[derive(Clone, Copy, Debug)]
enum From {
    Position(Position),
    Time(Moment),
}

impl FromStr for From {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(time) = text.strip_prefix('@') {
            return time.parse().map(From::Time);
        }
        let position = text.parse().map(|number| From::Position(Position(number)));
        position.map_err(|_| "expected a position, or `@` and a time".to_owned())
    }
}

impl Replay {
    pub(super) async fn run(self, session: &mut Session) -> Result<()> {
        let broker = session.broker().await?;
        let admin = session.admin().await?.broker(broker);
        let what = self.what();
        let count = admin.count_replay(&what).await?;
        let to = printable(&self.to_topic);
        if self.dry_run {
            session.out.note("a dry run: nothing was published");
            return session.out.one(&count, |count| said("would publish", count, &to));
        }
        if count.messages == 0 {
            return Err(
                Refusal::usage("nothing matches", "see it with `sillage tail --from`").into()
            );
        }
        let question = format!("Publish {} messages to {to} again?", count.messages);
        session.confirm(&question).await?;
        let done = admin.replay(&what).await?;
        session.out.one(&done, |count| said("published", count, &to))
    }

    fn what(&self) -> Replaying {
        let now = SystemClock.now();
        let mut search = Search {
            names: self.name.clone(),
            topics: self.topic.clone(),
            sources: self.source.clone(),
            key: self.key.as_ref().map(Key::of),
            ..Search::default()
        };
        match self.from {
            From::Position(first) => search.after = Position(first.0.saturating_sub(1)),
            From::Time(time) => search.since = Some(time.at(now)),
        }
        match self.until {
            Some(From::Position(last)) => search.through = Some(last),
            Some(From::Time(time)) => search.until = Some(time.at(now)),
            None => {}
        }
        Replaying { search, topic: self.to_topic.clone(), as_new: self.as_new.clone() }
    }
}

fn said(verb: &str, count: &ReplayCount, to: &str) -> String {
    let mut text = format!("{verb} {} messages to {to}", count.messages);
    for (name, number) in &count.names {
        let _ = write!(text, "\n  {number:>8}  {}", printable(name));
    }
    if let (Some(first), Some(last)) = (count.first, count.last) {
        let _ = write!(text, "\n  positions {first} to {last}");
    }
    if count.known > 0 {
        let _ = write!(text, "\n  {} were replayed under this name before", count.known);
    }
    if count.trimmed_before > Position(0) {
        let before = count.trimmed_before;
        let _ = write!(text, "\n  entries without a stream are gone up to position {before}");
    }
    text
}
