//! `sillage retention`.

use crate::{
    output::Column,
    session::Session,
    text::{brief, printable},
};
use anyhow::Result;
use sillage::{LogReader, admin::RetentionStatus};
use std::fmt::Write as _;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Retention {
    /// How far the log is trimmed, and who holds it back
    Show,
    /// Everybody who reads the log, the last one first
    Readers,
    /// Forget a service that is gone for good, so that its consumers hold back nothing
    Forget { service: String },
}

const COLUMNS: [Column<LogReader>; 2] = [
    ("READER", |reader| printable(&reader.name).into_owned()),
    ("POSITION", |reader| reader.position.to_string()),
];

impl Retention {
    pub(super) async fn run(self, session: &mut Session) -> Result<()> {
        let admin = session.admin().await?;
        match self {
            Retention::Show => session.out.one(&admin.retention().await?, describe),
            Retention::Readers => session.out.rows(&admin.retention().await?.readers, &COLUMNS),
            Retention::Forget { service } => {
                session.confirm(&format!("Forget service {service} and where it was?")).await?;
                admin.forget_service(&service).await?;
                session.out.one(&admin.retention().await?, describe)
            }
        }
    }
}

fn describe(status: &RetentionStatus) -> String {
    let Some(keep) = status.keep() else {
        return "everything stays: no app has a retention".to_owned();
    };
    let mut text = format!(
        "entries without a stream stay for {}: gone up to position {}, old enough up to {}",
        brief(keep),
        status.trimmed_before,
        status.due
    );
    for reader in status.holding().take(5) {
        let name = printable(&reader.name);
        let _ = write!(text, "\n  held back by {name} at position {}", reader.position);
    }
    text
}
