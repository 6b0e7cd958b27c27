//! `sillage timers`.

use crate::{
    output::Column,
    session::Session,
    text::{millis, when},
};
use anyhow::Result;
use serde::Serialize;
use sillage::Text;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Timers {
    /// The timers that wait, the next one first
    List(List),
}

#[derive(Debug, clap::Args)]
pub(crate) struct List {
    /// At most so many
    #[arg(long, default_value_t = 100, value_name = "N")]
    limit: usize,
}

#[derive(Serialize)]
struct Line {
    id: Text,
    due: Option<String>,
    publishes: Text,
    #[serde(skip)]
    shown: String,
}

const COLUMNS: [Column<Line>; 3] = [
    ("DUE", |line| line.shown.clone()),
    ("PUBLISHES", |line| line.publishes.to_string()),
    ("TIMER", |line| line.id.to_string()),
];

impl Timers {
    pub(super) async fn run(self, session: &mut Session) -> Result<()> {
        let Timers::List(List { limit }) = self;
        let admin = session.admin().await?;
        let now = admin.database().now().await?;
        let mut timers = admin.timers(limit.saturating_add(1)).await?;
        if timers.len() > limit {
            timers.truncate(limit);
            session.out.note(format!("showing the next {limit}; there are more: `--limit`"));
        } else if timers.is_empty() {
            session.out.note("no timer waits");
        }
        let line = |timer: sillage::admin::TimerStatus| Line {
            id: timer.id,
            due: timer.due.map(millis),
            publishes: timer.name,
            shown: timer.due.map_or_else(|| "-".to_owned(), |due| when(due, now)),
        };
        let lines: Vec<_> = timers.into_iter().map(line).collect();
        session.out.rows(&lines, &COLUMNS)
    }
}
