//! Obeys operators: their acts are facts in the log, and documents that say what holds now.

use crate::{names, runtime::member::Control};
use serde::Deserialize;
use sillage_core::{Clock, Database, Filter, Position, Result, Text};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The longest time until an operator's act is seen.
const POLL: Duration = Duration::from_secs(1);

#[derive(Default, Deserialize)]
struct Settings {
    paused: Option<String>,
}

/// Watches what operators do, and tells the members.
pub(super) struct Watcher {
    pub(super) database: Arc<dyn Database>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) controls: Vec<(Text, watch::Sender<Control>)>,
    pub(super) stop: CancellationToken,
}

impl Watcher {
    /// Takes over what holds now: a consumer that was paused starts paused.
    pub(super) async fn begin(&self) -> Result<Position> {
        let head = self.database.head().await?.last;
        self.look(false).await?;
        Ok(head)
    }

    pub(super) async fn run(self, mut seen: Position) {
        let operator = Filter { stream: Some(names::OPERATOR.into()), ..Filter::default() };
        while !self.stop.is_cancelled() {
            match self.step(&mut seen, &operator).await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "operators' acts cannot be read"),
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled() => {}
                () = self.database.changed(seen) => {}
                () = self.clock.sleep(POLL) => {}
            }
        }
    }

    async fn step(&self, seen: &mut Position, operator: &Filter) -> Result<bool> {
        let page = self.database.log(*seen, operator, 100).await?;
        if !page.entries.is_empty() {
            self.look(true).await?;
        }
        let moved = page.through > *seen;
        *seen = page.through.max(*seen);
        Ok(moved)
    }

    async fn look(&self, changed: bool) -> Result<()> {
        for (consumer, control) in &self.controls {
            let stored = self.database.get(names::CONSUMERS, &[consumer]).await?.pop().flatten();
            let settings: Settings = match &stored {
                Some(stored) => serde_json::from_slice(&stored.body)?,
                None => Settings::default(),
            };
            control.send_if_modified(|control| {
                let before = control.clone();
                control.paused = settings.paused;
                control.changes += u64::from(changed);
                *control != before
            });
        }
        Ok(())
    }
}
