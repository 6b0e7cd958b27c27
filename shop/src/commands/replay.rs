//! `shop replay`.

use super::{folder::Folder, out};
use crate::{
    email::Mailer,
    gateway::Gateway,
    order::PaymentTerm,
    parts::{Flow, Needs, Part, assemble},
};
use anyhow::{Context as _, bail};
use sillage::{App, Position, Replayed, Text, Timestamp};
use std::{fmt::Write as _, str::FromStr};

/// Handle history again, with the code as it is now and nothing outside touched, and show what
/// would be different.
///
/// The gateway and the mailboxes are stand-ins, and nothing is committed. Documents are those that
/// the replay makes itself: begin at the start for those of then. What a service was given from
/// outside is not among them, such as the stock that inventory began with. Messages come in the
/// order of the log: of two topics that may be another than then, so what waits for both may have
/// its effect because of the other one.
#[derive(clap::Args)]
pub(super) struct Replay {
    /// The consumer, as `service/name`, or a part of that.
    #[arg(long)]
    consumer: String,
    /// Only messages after this position, or from this time on: `1200`, `2026-01-31T10:00:00Z`.
    #[arg(long, value_name = "POSITION|TIME")]
    from: Option<Place>,
    /// Only messages up to this position, or before this time.
    #[arg(long, value_name = "POSITION|TIME")]
    to: Option<Place>,
    /// Only messages with this name; may be given for each of several.
    #[arg(long)]
    name: Vec<Text>,
    /// Only messages of this topic; may be given for each of several.
    #[arg(long)]
    topic: Vec<Text>,
    /// Only messages of this key.
    #[arg(long)]
    key: Option<String>,
    /// Show what differs, and end with exit code 1 where something does.
    #[arg(long)]
    diff: bool,
    /// Who says what comes next: as it was when history was made.
    #[arg(long, value_enum, default_value_t)]
    flow: Flow,
    /// How many examples of each difference to show.
    #[arg(long, default_value_t = 3, value_name = "N")]
    examples: usize,
    /// The database; in the data folder unless said.
    #[arg(long, env = "SILLAGE_DATABASE", value_name = "URL")]
    database: Option<String>,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    folder: Folder,
}

/// A place in history.
#[derive(Clone, Copy)]
enum Place {
    At(Position),
    Time(Timestamp),
}

impl FromStr for Place {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(position) = text.parse() {
            return Ok(Place::At(Position(position)));
        }
        let time = text.parse().map(Place::Time);
        time.map_err(|_| "expected a position, or a time as in `2026-01-31T10:00:00Z`".to_owned())
    }
}

impl Replay {
    /// Whether nothing differs, where that is asked.
    pub(super) async fn run(self) -> anyhow::Result<bool> {
        let url = self.database.clone().unwrap_or_else(|| self.folder.database());
        let letters = std::env::temp_dir().join(format!("shop-replay-{}", std::process::id()));
        let mailer = Mailer::folder(&letters).context("no folder for letters that nobody gets")?;
        let (gateway, term, flow) = (Gateway::in_memory(), PaymentTerm::default(), self.flow);
        let needs = Needs { gateway, mailer, term, flow, failing: None };
        let app = assemble(App::new(sillage::connect(&url).await?), &Part::all(), &needs);
        let replayed = self.replay(app).await;
        let _ = std::fs::remove_dir_all(&letters);
        let replayed = replayed?;
        if self.json {
            out(serde_json::to_string(&replayed)?);
        } else {
            out(table(&replayed, self.diff));
        }
        Ok(!self.diff || replayed.different == 0)
    }

    async fn replay(&self, app: App) -> anyhow::Result<Replayed> {
        let names = app.consumers();
        let found: Vec<_> = names.iter().filter(|name| name.contains(&self.consumer)).collect();
        let whole = names.iter().find(|name| **name == *self.consumer);
        let ((Some(name), _) | (None, &[name])) = (whole, found.as_slice()) else {
            bail!("no single consumer `{}`; there are: {}", self.consumer, names.join(", "))
        };
        let mut replay = app.replay(name)?.examples(self.examples);
        replay = replay.names(self.name.clone()).topics(self.topic.clone());
        replay = match self.from {
            None => replay,
            Some(Place::At(position)) => replay.after(position),
            Some(Place::Time(time)) => replay.since(time),
        };
        replay = match self.to {
            None => replay,
            Some(Place::At(position)) => replay.through(position),
            Some(Place::Time(time)) => replay.until(time),
        };
        if let Some(key) = &self.key {
            replay = replay.key(key.as_str());
        }
        Ok(replay.run().await?)
    }
}

fn table(replayed: &Replayed, diff: bool) -> String {
    let mut table = format!(
        "{} messages handled again, up to position {}; {} failed; {} timers would be set\n",
        replayed.handled, replayed.through, replayed.failed, replayed.scheduled
    );
    for (why, count) in &replayed.failures {
        let _ = writeln!(table, "  ✗ {count} × {why}");
    }
    let _ = writeln!(table, "  {:<28}{:>8}{:>9}{:>8}{:>8}", "", "same", "changed", "added", "gone");
    for (name, change) in &replayed.effects {
        let sillage::Change { same, changed, added, gone, .. } = change;
        let _ = writeln!(table, "  {name:<28}{same:>8}{changed:>9}{added:>8}{gone:>8}");
    }
    if diff {
        for (name, change) in &replayed.effects {
            for example in &change.examples {
                let key = example.key.as_deref().unwrap_or("-");
                let of = format!("{} {key} at position {}", example.message, example.position);
                let _ = writeln!(table, "\n  {name}, because of {of}");
                for (word, value) in [("was", &example.was), ("now", &example.now)] {
                    let value = value.as_ref().map_or("nothing".to_owned(), ToString::to_string);
                    let _ = writeln!(table, "    {word} {value}");
                }
            }
        }
        let _ = match replayed.different {
            0 => writeln!(table, "\n  ✓ nothing would be different"),
            count => writeln!(table, "\n  ✗ {count} messages would have other effects"),
        };
    }
    table.truncate(table.trim_end().len());
    table
}
