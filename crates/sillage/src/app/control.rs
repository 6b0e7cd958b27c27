//! Obeys operators: their acts are facts in the log, and documents that say what holds now.

use crate::{names, runtime::member::Control};
use serde::Deserialize;
use sillage_core::{Clock, Database, Filter, Position, Result, Text};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The longest time until an operator's act is seen.
const POLL: Duration = Duration::from_secs(1);

#[derive(Deserialize)]
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
                () = self.database.changed(seen, &operator) => {}
                () = self.clock.sleep(POLL) => {}
            }
        }
    }

    async fn step(&self, seen: &mut Position, operator: &Filter) -> Result<bool> {
        let page = self.database.log(*seen, operator, 100).await?;
        if !page.entries.is_empty() {
            self.look().await?;
        }
        let moved = page.through > *seen;
        *seen = page.through.max(*seen);
        Ok(moved)
    }

    async fn look(&self) -> Result<()> {
        for (consumer, control) in &self.controls {
            let paused = paused(&*self.database, consumer).await?;
            control.send_modify(|control| {
                control.paused = paused;
                control.changes += 1;
            });
        }
        Ok(())
    }
}

/// Why a consumer is paused, where it is.
pub(super) async fn paused(database: &dyn Database, consumer: &str) -> Result<Option<String>> {
    let stored = database.get(names::CONSUMERS, &[consumer]).await?.pop().flatten();
    let Some(stored) = stored else { return Ok(None) };
    Ok(serde_json::from_slice::<Settings>(&stored.body)?.paused)
}
