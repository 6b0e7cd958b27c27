//! `sillage breakers`.

use crate::{
    output::Column,
    session::Session,
    text::{millis, when},
};
use anyhow::Result;
use serde::Serialize;
use sillage::Text;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Breakers {
    /// Those that are open, and who waits for them
    List,
}

#[derive(Serialize)]
struct Line {
    name: Text,
    since: String,
    probe_at: String,
    why: String,
    consumers: Vec<Text>,
    #[serde(skip)]
    shown: (String, String),
}

const COLUMNS: [Column<Line>; 5] = [
    ("DEPENDENCY", |line| line.name.to_string()),
    ("OPEN SINCE", |line| line.shown.0.clone()),
    ("TRIED AGAIN", |line| line.shown.1.clone()),
    ("CONSUMERS", |line| line.consumers.join(" ")),
    ("WHY", |line| line.why.clone()),
];

impl Breakers {
    pub(super) async fn run(self, session: &mut Session) -> Result<()> {
        let Breakers::List = self;
        let admin = session.admin().await?;
        let now = admin.database().now().await?;
        let open = admin.breakers().await?;
        if open.is_empty() {
            session.out.note("no breaker is open");
        }
        let line = |one: sillage::admin::BreakerStatus| Line {
            shown: (when(one.since, now), when(one.probe_at, now)),
            name: one.name,
            since: millis(one.since),
            probe_at: millis(one.probe_at),
            why: one.why,
            consumers: one.consumers,
        };
        let lines: Vec<_> = open.into_iter().map(line).collect();
        session.out.rows(&lines, &COLUMNS)
    }
}
