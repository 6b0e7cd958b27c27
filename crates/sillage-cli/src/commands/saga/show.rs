//! `sillage saga show`.

use super::resolve;
use crate::{
    session::Session,
    text::{millis, printable},
};
use anyhow::Result;
use sillage::{
    admin::{SagaDetail, StepStatus},
    saga::Kind,
};
use std::fmt::Write as _;

#[derive(Debug, clap::Args)]
pub(crate) struct Show {
    /// The instance's id, or a part that no other has
    id: String,
    /// Leave away what it remembers
    #[arg(long)]
    hide_payload: bool,
}

impl Show {
    pub(super) async fn run(self, session: &mut Session) -> Result<()> {
        let admin = session.admin().await?;
        let id = resolve(&admin, &self.id).await?;
        let mut detail = admin.saga(&id).await?;
        if self.hide_payload {
            detail.memory = serde_json::Value::Null;
        }
        session.out.one(&detail, describe)
    }
}

fn describe(detail: &SagaDetail) -> String {
    let status = &detail.status;
    let mut text = format!("{}\n", printable(&status.id));
    let mut say = |what: &str, value: &str| {
        let _ = writeln!(text, "  {what:<12} {}", printable(value));
    };
    say("saga", &format!("{} version {}", status.saga, status.version));
    say("status", status.status.word());
    if let Some(why) = &status.why {
        say("why", why);
    }
    say("started", &millis(status.started));
    say("updated", &millis(status.updated));
    say("correlation", &status.correlation_id);
    if !detail.memory.is_null() {
        say("remembers", &detail.memory.to_string());
    }
    let _ = writeln!(text);
    for step in &detail.steps {
        let _ = writeln!(text, "  {}", printable(&told(step)));
    }
    let _ = writeln!(text);
    for moment in &detail.history {
        let again =
            if moment.attempt > 1 { format!(", try {}", moment.attempt) } else { String::new() };
        let line = format!(
            "{}  {:<12} {:<10} because of {}{again}",
            millis(moment.at),
            moment.step,
            moment.progress.word(),
            moment.because
        );
        let _ = writeln!(text, "  {}", printable(&line));
    }
    text
}

/// A step in a line: what it is at, and what would undo it.
fn told(step: &StepStatus) -> String {
    let kind = match (&step.undo, step.kind) {
        (Some(undo), _) => format!("undo {undo}"),
        (None, Kind::Pivot) => "pivot".to_owned(),
        (None, Kind::Forward) => "only forward".to_owned(),
        (None, _) => "nothing to undo".to_owned(),
    };
    let deadline = step.deadline.map_or(String::new(), |at| format!(", until {}", millis(at)));
    let word = step.progress.word();
    format!("{:<12} {word:<10} {} ({kind}){deadline}", step.name, step.command)
}
