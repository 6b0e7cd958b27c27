//! What was published before: of each message the relay carries, the position of the one before it in
//! its slot of the log, so that whoever has all messages can tell that one is missing.
//!
//! It follows from the log alone, so a message that is published again says the same.

use crate::{log_broker::slot_for, retention::trimmed_before};
use sillage_core::{Database, Filter, Page, Position, Recorded, Result};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tokio::sync::Mutex;

/// Positions read at once.
const PAGE: u64 = 1_000;
/// So far back it is looked for; then nobody knows.
const BACK: u64 = 16 * PAGE;
/// Positions that are remembered.
const KEPT: u64 = 64 * PAGE;

/// What is published of one log, as far as it was looked at.
pub(crate) struct Chain {
    database: Arc<dyn Database>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// Everything after one position up to another was looked at.
    after: u64,
    through: u64,
    /// Positions of what is published, by slot.
    slots: BTreeMap<u32, BTreeSet<u64>>,
}

/// Whether the relay publishes an entry.
fn is_published(entry: &Recorded) -> bool {
    entry.topic.is_some() && !entry.is_copy()
}

impl Chain {
    pub(crate) fn new(database: Arc<dyn Database>) -> Self {
        Chain { database, known: Mutex::default() }
    }

    /// What was published before the entry at `position` in its slot: position 0 where it is the first,
    /// `None` where nobody knows, as the log was trimmed or it is too long ago.
    pub(crate) async fn before(&self, position: u64, slot: u32) -> Result<Option<u64>> {
        let mut known = self.known.lock().await;
        // One that was parked comes long after the others.
        if position <= known.after || position > known.through + BACK {
            *known = Known::from(position.saturating_sub(PAGE));
        }
        while known.through < position {
            let page = self.page(known.through).await?;
            known.note(&page.entries);
            known.through = page.through.0.max(known.through + 1);
        }
        loop {
            let in_slot = known.slots.get(&slot);
            let before = in_slot.and_then(|slot| slot.range(..position).next_back()).copied();
            if before.is_some() {
                known.forget();
                return Ok(before);
            }
            if known.after == 0 {
                let whole = trimmed_before(&*self.database).await? == Position(0);
                return Ok(whole.then_some(0));
            }
            if position - known.after > BACK {
                return Ok(None);
            }
            // A page has all that there is of so many positions.
            let from = known.after.saturating_sub(PAGE);
            let mut page = self.page(from).await?;
            page.entries.retain(|entry| entry.position.0 <= known.after);
            known.note(&page.entries);
            known.after = from;
        }
    }

    async fn page(&self, after: u64) -> Result<Page> {
        let most = usize::try_from(PAGE).unwrap_or(usize::MAX);
        self.database.log(Position(after), &Filter::default(), most).await
    }
}

impl Known {
    fn from(position: u64) -> Self {
        Known { after: position, through: position, slots: BTreeMap::new() }
    }

    fn note(&mut self, entries: &[Recorded]) {
        for entry in entries.iter().filter(|entry| is_published(entry)) {
            self.slots.entry(slot_for(entry)).or_default().insert(entry.position.0);
        }
    }

    fn forget(&mut self) {
        if self.through - self.after > 2 * KEPT {
            self.after = self.through - KEPT;
            for slot in self.slots.values_mut() {
                *slot = slot.split_off(&(self.after + 1));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::assemble::foreign;
    use sillage_core::{Commit, Draft, Key, Timestamp, Write};
    use sillage_testkit::{ManualClock, Memory};

    /// In any order of asking, by any process: what the log says.
    #[tokio::test]
    async fn what_was_before_follows_from_the_log() {
        let database = Memory::new(Arc::new(ManualClock::default()));
        for n in 0..4_000_u32 {
            let draft = Draft {
                name: "order.created".into(),
                version: 1,
                topic: (n % 3 > 0).then(|| "order".into()),
                key: Some(Key::of((n % 200).to_string())),
                operation_id: None,
                headers: vec![],
                payload: Ok("{}".into()),
            };
            let message = Arc::new(foreign("shop", draft, Timestamp::default()).unwrap());
            let writes = vec![Write::Append { stream: None, message }];
            database
                .commit(vec![Commit { conditions: vec![], writes }])
                .await
                .pop()
                .unwrap()
                .unwrap();
        }
        let all = database.log(Position(0), &Filter::default(), 10_000).await.unwrap().entries;
        let mut expected = vec![];
        let mut last = BTreeMap::new();
        for entry in all.iter().filter(|entry| is_published(entry)) {
            let (position, slot) = (entry.position.0, slot_for(entry));
            let before = last.insert(slot, position).unwrap_or(0);
            expected.push((position, slot, before));
        }
        assert_eq!(last.len(), 16);
        let database: Arc<dyn Database> = Arc::new(database);
        let (forward, backward) = (Chain::new(database.clone()), Chain::new(database.clone()));
        for (position, slot, before) in &expected {
            assert_eq!(forward.before(*position, *slot).await.unwrap(), Some(*before));
        }
        for (position, slot, before) in expected.iter().rev().step_by(7) {
            assert_eq!(backward.before(*position, *slot).await.unwrap(), Some(*before));
            let fresh = Chain::new(database.clone());
            assert_eq!(fresh.before(*position, *slot).await.unwrap(), Some(*before));
        }
    }
}
