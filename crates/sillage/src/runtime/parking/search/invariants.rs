//! What must hold in every state, and at every end.

use super::{Held, Plan, System, number};
use crate::names;
use sillage_core::{Decision, Text};

impl System {
    /// What is wrong in this state.
    pub(super) fn violation(&self) -> Option<String> {
        let key = self.store.key();
        let parked = match key {
            Some(key) => match self.parked(key) {
                Ok(parked) => parked,
                Err(what) => return Some(what),
            },
            None => vec![],
        };
        self.orphans(&parked)
            .or_else(|| self.disorder(&parked))
            .or_else(|| key.and_then(|key| wrong_head(key, &parked)))
    }

    /// The ids of the parked deliveries, from head to tail.
    fn parked(&self, key: &Held) -> Result<Vec<Text>, String> {
        let missing = |number| format!("parked delivery {number} is missing");
        let read = |number| self.store.parked(key, number).ok_or_else(|| missing(number));
        (key.0.state.head..key.0.state.tail).map(read).collect()
    }

    /// Every row that says parked has a delivery between head and tail, and the other way.
    fn orphans(&self, parked: &[Text]) -> Option<String> {
        let rows = self.store.inbox().iter().filter(|(_, row)| row.0 == Decision::Parked);
        let rows: Vec<_> = rows.map(|(id, _)| id.clone()).collect();
        let documents = self.store.list(names::PARKED).len();
        let orphan = rows.iter().find(|id| !parked.contains(id)).map(|id| ("row of", id));
        let orphan = orphan.or_else(|| {
            parked.iter().find(|id| !rows.contains(id)).map(|id| ("delivery without row:", id))
        });
        if let Some((what, id)) = orphan {
            return Some(format!("orphan {what} {id}"));
        }
        (documents != parked.len()).then(|| {
            format!("{documents} parked deliveries, {} between head and tail", parked.len())
        })
    }

    /// Effects are once and in order, and nothing overtakes what is parked.
    fn disorder(&self, parked: &[Text]) -> Option<String> {
        let in_order = |ids: &[Text]| {
            let numbers = ids.iter().map(|id| number(id));
            numbers.filter(|number| self.restored & (1 << number) == 0).is_sorted_by(|a, b| a < b)
        };
        let effects = self.store.effects();
        let twice = |id: &&Text| effects.iter().filter(|e| number(e) == number(id)).count() > 1;
        if let Some(id) = effects.iter().find(twice) {
            return Some(format!("the effect of {id} is doubled: {effects:?}"));
        }
        let all = [effects, parked].concat();
        (!in_order(&all)).then(|| format!("effects {effects:?}, then parked {parked:?}"))
    }

    /// Where nothing more happens: each message has had its effect, or an operator or a dead
    /// letter says why not.
    pub(super) fn violation_at_the_end(&self, plan: &Plan<'_>) -> Option<String> {
        let key = self.store.key();
        let dead = key.is_some_and(|key| key.0.state.dead);
        if key.is_some() && !dead {
            return Some("a parked key that is not dead is not tried again".into());
        }
        let owner = self.members.iter().find(|member| member.epoch == self.store.epoch())?;
        // A key that is gone may be known for longer: the next delivery finds out.
        let known = owner.held.as_ref().map(|held| held.0.version);
        if key.is_some_and(|key| known != Some(key.0.version)) {
            return Some("the owner does not know the parked key as it is".into());
        }
        let copies = (1..=plan.messages).map(|number| format!("c{number}"));
        let copies = copies.filter(|copy| self.store.inbox().contains_key(&**copy));
        let originals = (1..=plan.messages).map(|number| format!("m{number}"));
        let lost = originals.chain(copies).find(|id| {
            let done = self.store.effects().iter().any(|effect| **effect == **id);
            let row = self.store.inbox().get(&**id).map(|row| row.0);
            let told = match row {
                Some(Decision::Parked) => dead,
                Some(Decision::Skipped | Decision::Replaced) => true,
                Some(Decision::Done) | None => false,
            };
            done == told
        });
        lost.map(|id| format!("{id} is lost"))
    }
}

/// What is noted on a key is of its head.
fn wrong_head(key: &Held, parked: &[Text]) -> Option<String> {
    let (state, head) = (&key.0.state, parked.first()?);
    (state.attempts > 0 && *state.failure != **head)
        .then(|| format!("the head is {head}, the failure that of {}", state.failure))
}
