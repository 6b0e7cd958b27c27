//! `sillage dlq show`.

use super::select::{Letter, resolve};
use crate::{
    commands::tail::cloud_event,
    session::Session,
    text::{millis, payload, printable},
};
use anyhow::Result;
use serde::Serialize;
use serde_json::value::RawValue;
use sillage::{Key, admin::Delivered};
use std::fmt::Write as _;

#[derive(Debug, clap::Args)]
pub(crate) struct Show {
    /// The key's id, or a part that no other has
    id: String,
    /// At most so many of the deliveries that wait in it
    #[arg(long, default_value_t = 20, value_name = "N")]
    limit: u64,
    /// Sizes instead of payloads
    #[arg(long)]
    hide_payload: bool,
}

#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    letter: Letter,
    /// The head, and what waits behind it, as `CloudEvents`.
    messages: Vec<Box<RawValue>>,
    #[serde(skip)]
    found: Vec<Delivered>,
    #[serde(skip)]
    hide: bool,
}

impl Show {
    pub(super) async fn run(self, session: &mut Session) -> Result<()> {
        let admin = session.admin().await?;
        let id = resolve(&admin, &self.id).await?.id;
        let (letter, found) = admin.dead_letter(&id, self.limit).await?;
        if (found.len() as u64) < letter.deliveries {
            let (shown, all) = (found.len(), letter.deliveries);
            session.out.note(format!("showing {shown} of {all} deliveries; `--limit` for more"));
        }
        let event = |delivered: &Delivered| {
            let event = cloud_event(&delivered.message, self.hide_payload)?;
            Ok(RawValue::from_string(event)?)
        };
        let messages = found.iter().map(event).collect::<Result<_>>()?;
        let shown = Shown { letter: letter.into(), messages, found, hide: self.hide_payload };
        session.out.one(&shown, Shown::describe)
    }
}

impl Shown {
    fn describe(&self) -> String {
        let letter = &self.letter;
        let mut text = format!("{}\n", printable(&letter.id));
        let mut say = |what: &str, value: &str| {
            let _ = writeln!(text, "  {what:<10} {}", printable(value));
        };
        let state = match &letter.next_try {
            None => "dead: it waits for an operator".to_owned(),
            Some(next_try) => format!("parked: tried again at {next_try}"),
        };
        say("state", &state);
        say("consumer", &letter.consumer);
        say("topic", &letter.topic);
        say("key", letter.key.as_deref().unwrap_or("-"));
        say("failed", &format!("{}, first {}", letter.last_failed_at, letter.first_failed_at));
        say("class", &letter.class);
        say("attempts", &format!("{}, sent back {} times", letter.attempts, letter.redrives));
        say("failure", &letter.failure);
        say("deliveries", &letter.deliveries.to_string());
        for (index, delivered) in self.found.iter().enumerate() {
            let message = &delivered.message;
            let what = if index == 0 { "failed" } else { "waits" };
            let key = message.key.as_ref().map(Key::label).unwrap_or_default();
            let _ = writeln!(
                text,
                "\n{what}  {}  {}  {} v{}  {}\n  id {}  correlation {}\n  {}",
                millis(message.time),
                printable(&message.source),
                printable(&message.name),
                message.version,
                printable(&key),
                printable(message.id.as_str()),
                printable(&message.correlation_id),
                payload(&message.payload, self.hide)
            );
            for header in &message.headers {
                let (name, value) = (printable(&header.name), payload(&header.value, self.hide));
                let _ = writeln!(text, "  {name}: {value}");
            }
        }
        text
    }
}
