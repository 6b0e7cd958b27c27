//! `sillage saga list`.

use crate::{
    output::Column,
    session::Session,
    text::{millis, printable, shorten, when},
};
use anyhow::Result;
use serde::Serialize;
use sillage::{Text, Timestamp, admin::SagaStatus, saga::Status};

#[derive(Debug, clap::Args)]
pub(crate) struct List {
    /// Only of this saga, as `service/saga`
    #[arg(long, value_name = "NAME")]
    saga: Option<String>,
    /// Only those that are stuck
    #[arg(long, conflicts_with_all = ["status", "unknown"])]
    stuck: bool,
    /// Only those that are at this
    #[arg(long, value_name = "STATUS", value_parser = status)]
    status: Option<Status>,
    /// Answers whose saga is not there, and why nothing came of them
    #[arg(long, conflicts_with_all = ["saga", "status"])]
    unknown: bool,
    /// At most so many
    #[arg(long, default_value_t = 100, value_name = "N")]
    limit: usize,
}

fn status(word: &str) -> Result<Status, String> {
    let all = [
        Status::Stuck,
        Status::Compensating,
        Status::Running,
        Status::Compensated,
        Status::Completed,
    ];
    let words = all.map(Status::word).join(", ");
    let found = all.into_iter().find(|status| status.word() == word);
    found.ok_or_else(|| format!("one of {words}"))
}

#[derive(Serialize)]
struct Line {
    id: Text,
    version: u32,
    status: Status,
    at: Vec<Text>,
    why: Option<String>,
    started: String,
    updated: String,
    correlation_id: Text,
    #[serde(skip)]
    shown: String,
}

const COLUMNS: [Column<Line>; 6] = [
    ("SAGA", |line| line.id.to_string()),
    ("VERSION", |line| line.version.to_string()),
    ("STATUS", |line| line.status.word().to_owned()),
    ("AT", |line| line.at.join(", ")),
    ("UPDATED", |line| line.shown.clone()),
    ("WHY", |line| brief(line.why.as_deref().unwrap_or_default())),
];

#[derive(Serialize)]
struct Unknown {
    process: Text,
    key: Text,
    name: Text,
    source: Text,
    message: Text,
    at: String,
    why: String,
}

const UNKNOWN: [Column<Unknown>; 4] = [
    ("AT", |line| line.at.clone()),
    ("MESSAGE", |line| line.name.to_string()),
    ("FROM", |line| line.source.to_string()),
    ("WHY", |line| brief(&line.why)),
];

fn brief(why: &str) -> String {
    shorten(&printable(why), 80).into_owned()
}

impl List {
    pub(super) async fn run(self, session: &mut Session) -> Result<()> {
        let admin = session.admin().await?;
        if self.unknown {
            let line = |reply: sillage::admin::UnknownReply| Unknown {
                process: reply.process,
                key: reply.key,
                name: reply.name,
                source: reply.source,
                message: reply.message,
                at: millis(reply.at),
                why: reply.why,
            };
            let lines: Vec<_> = admin.unknown_replies().await?.into_iter().map(line).collect();
            return session.out.rows(&lines, &UNKNOWN);
        }
        let now = admin.database().now().await?;
        let status = if self.stuck { Some(Status::Stuck) } else { self.status };
        let more = self.limit.saturating_add(1);
        let mut sagas = admin.sagas(self.saga.as_deref(), status, more).await?;
        if sagas.len() > self.limit {
            sagas.truncate(self.limit);
            let limit = self.limit;
            session.out.note(format!("showing {limit}; there are more: `--limit`"));
        } else if sagas.is_empty() {
            session.out.note("no saga, or none that matches");
        }
        let lines: Vec<_> = sagas.into_iter().map(|saga| line(saga, now)).collect();
        session.out.rows(&lines, &COLUMNS)
    }
}

fn line(saga: SagaStatus, now: Timestamp) -> Line {
    Line {
        shown: when(saga.updated, now),
        id: saga.id,
        version: saga.version,
        status: saga.status,
        at: saga.at,
        why: saga.why,
        started: millis(saga.started),
        updated: millis(saga.updated),
        correlation_id: saga.correlation_id,
    }
}
