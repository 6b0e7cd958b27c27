//! `sillage projections`.

use crate::{output::Column, session::Session};
use anyhow::Result;
use sillage::admin::ProjectionStatus;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Projections {
    /// How far each has read, and what stops it
    List,
}

const COLUMNS: [Column<ProjectionStatus>; 4] = [
    ("PROJECTION", |status| status.name.to_string()),
    ("POSITION", |status| status.position.to_string()),
    ("BEHIND", |status| status.lag.to_string()),
    ("PAUSED", |status| status.paused.clone().unwrap_or_else(|| "-".to_owned())),
];

impl Projections {
    pub(super) async fn run(self, session: &mut Session) -> Result<()> {
        let Projections::List = self;
        let projections = session.admin().await?.projections().await?;
        if projections.is_empty() {
            session.out.note("no projection has read anything yet");
        }
        session.out.rows(&projections, &COLUMNS)
    }
}
