//! Which partitions are this member's, and what may be done with each: a state machine without
//! I/O.
//!
//! ```text
//! Opening ──stored──▶ Placing ──placed──▶ Flowing ──revoked──▶ Draining ──released──▶ Gone
//!    ▲                   ▲                   │
//! Unplaced               └─────released──────┘          Stopped: offsets are gone, or forgotten
//! ```

use sillage_core::{Offset, Partition, Settled};
use std::collections::HashMap;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Where it starts is not known yet.
    Unplaced,
    /// Where it starts is being committed: said once, whatever happens then.
    Opening,
    /// The client has to be told again where to read.
    Placing,
    /// What comes is delivered.
    Flowing,
    /// Another member wants it; what was delivered is being finished.
    Draining,
    /// What comes next is gone.
    Stopped,
    /// Not this member's.
    Gone,
}

/// A partition that is or was this member's.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) partition: Partition,
    pub(super) phase: Phase,
    /// The member was told that it has it.
    pub(super) announced: bool,
    /// The offset after the last that was delivered.
    pub(super) next: u64,
    /// The offset after the last that is settled: where it would be read again.
    pub(super) settled: u64,
    /// The member wants nothing more of it for now.
    pub(super) held: bool,
    /// The client has it paused.
    pub(super) paused: bool,
}

/// All of them.
#[derive(Default)]
pub(super) struct Assignments {
    places: Vec<Place>,
    numbers: HashMap<Partition, usize>,
    /// What the group wants back, until the client is told.
    wanted: Option<Vec<Partition>>,
}

impl Assignments {
    pub(super) fn find(&self, partition: &Partition) -> Option<usize> {
        self.numbers.get(partition).copied()
    }

    pub(super) fn place(&mut self, number: usize) -> &mut Place {
        &mut self.places[number]
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Place> {
        self.places.iter()
    }

    pub(super) fn in_phase(&self, phase: Phase) -> Vec<Partition> {
        let places = self.places.iter().filter(|place| place.phase == phase);
        places.map(|place| place.partition.clone()).collect()
    }

    /// A partition has come: it begins at `offset`. Whether the client has it paused still.
    pub(super) fn take(&mut self, partition: &Partition, offset: u64, phase: Phase) -> bool {
        let number = self.find(partition).unwrap_or_else(|| {
            self.places.push(Place {
                partition: partition.clone(),
                phase: Phase::Gone,
                announced: false,
                next: 0,
                settled: 0,
                held: false,
                paused: false,
            });
            self.numbers.insert(partition.clone(), self.places.len() - 1);
            self.places.len() - 1
        });
        let place = &mut self.places[number];
        place.phase = phase;
        place.announced = phase == Phase::Flowing;
        (place.next, place.settled) = (offset, offset);
        place.held = false;
        std::mem::take(&mut place.paused)
    }

    /// Those whose start is committed now are to be placed.
    pub(super) fn stored(&mut self, partitions: &[Partition]) {
        for place in &mut self.places {
            if place.phase == Phase::Opening && partitions.contains(&place.partition) {
                place.phase = Phase::Placing;
            }
        }
    }

    /// The client reads it from its settled offset on: it flows.
    pub(super) fn placed(&mut self, partition: &Partition) -> bool {
        let Some(place) = self.get_mut(partition) else { return false };
        if place.phase != Phase::Placing {
            return false;
        }
        place.next = place.settled;
        place.phase = Phase::Flowing;
        place.announced = true;
        true
    }

    /// The group wants these back. Those of which nothing was delivered are gone at once; the
    /// others are returned: they are to be drained.
    pub(super) fn revoke(&mut self, partitions: Vec<Partition>) -> Vec<Partition> {
        let mut draining = vec![];
        for place in &mut self.places {
            if place.phase == Phase::Gone || !partitions.contains(&place.partition) {
                continue;
            }
            if place.announced {
                place.phase = Phase::Draining;
                draining.push(place.partition.clone());
            } else {
                place.phase = Phase::Gone;
            }
        }
        self.wanted = Some(partitions);
        draining
    }

    /// What the group wants back and nobody uses any more.
    pub(super) fn returned(&mut self) -> Option<Vec<Partition>> {
        let wanted = self.wanted.as_ref()?;
        let is_used = |place: &Place| place.phase != Phase::Gone;
        let mut used = self.places.iter().filter(|place| is_used(place));
        if used.any(|place| wanted.contains(&place.partition)) {
            return None;
        }
        self.wanted.take()
    }

    /// The member has no use for it any more. `true`: nobody asked it back, so that it begins
    /// again at what is settled.
    pub(super) fn release(&mut self, partition: &Partition) -> bool {
        let Some(place) = self.get_mut(partition) else { return false };
        match place.phase {
            Phase::Draining => {
                place.phase = Phase::Gone;
                place.announced = false;
                false
            }
            Phase::Flowing => {
                place.phase = Phase::Placing;
                place.announced = false;
                place.held = false;
                true
            }
            Phase::Stopped => {
                place.announced = false;
                false
            }
            Phase::Unplaced | Phase::Opening | Phase::Placing | Phase::Gone => false,
        }
    }

    /// Everything is another member's already. Those the member knew of.
    pub(super) fn lose(&mut self) -> Vec<Partition> {
        let mut lost = vec![];
        for place in self.places.iter_mut().filter(|place| place.phase != Phase::Gone) {
            if place.announced {
                lost.push(place.partition.clone());
            }
            place.phase = Phase::Gone;
            place.announced = false;
        }
        lost
    }

    /// The offset that is to be stored after this; `None`: there is nothing new, or it is of an
    /// earlier assignment.
    pub(super) fn settle(&mut self, settled: &Settled) -> Option<u64> {
        let place = self.get_mut(&settled.partition)?;
        let watermark = settled.watermark?.0;
        let delivered = watermark < place.next;
        if !place.announced || !delivered || watermark < place.settled {
            return None;
        }
        place.settled = watermark + 1;
        Some(place.settled)
    }

    /// Whether the record at this offset is to be delivered.
    pub(super) fn deliver(&mut self, number: usize, offset: u64) -> bool {
        let place = &mut self.places[number];
        if place.phase != Phase::Flowing || offset < place.next {
            return false;
        }
        place.next = offset + 1;
        true
    }

    /// Its next offset is gone.
    pub(super) fn stop(&mut self, partition: &Partition) {
        if let Some(place) = self.get_mut(partition)
            && place.phase == Phase::Flowing
        {
            place.phase = Phase::Stopped;
        }
    }

    /// The member's wish to get nothing more of these for now.
    pub(super) fn hold(&mut self, partitions: &[Partition], held: bool) {
        for partition in partitions {
            if let Some(place) = self.get_mut(partition) {
                place.held = held;
            }
        }
    }

    /// All that could flow is to wait (as it is held, or everything is to if `full`), and nothing
    /// is about to begin.
    pub(super) fn are_held(&self, full: bool) -> bool {
        let begins = |place: &Place| matches!(place.phase, Phase::Opening | Phase::Placing);
        let mut flowing = self.places.iter().filter(|place| place.phase == Phase::Flowing);
        let waits = flowing.clone().count() > 0 && flowing.all(|place| full || place.held);
        waits && !self.places.iter().any(begins)
    }

    /// Those that the client has to pause and to resume, where all are to be paused if `full`;
    /// and takes for granted that it does.
    pub(super) fn pauses(&mut self, full: bool) -> (Vec<Partition>, Vec<Partition>) {
        let (mut pause, mut resume) = (vec![], vec![]);
        for place in &mut self.places {
            let wanted = match place.phase {
                Phase::Flowing => full || place.held,
                Phase::Unplaced | Phase::Opening | Phase::Placing | Phase::Stopped => true,
                // The client itself fetches nothing more of it.
                Phase::Draining | Phase::Gone => continue,
            };
            if wanted != place.paused {
                place.paused = wanted;
                let list = if wanted { &mut pause } else { &mut resume };
                list.push(place.partition.clone());
            }
        }
        (pause, resume)
    }

    fn get_mut(&mut self, partition: &Partition) -> Option<&mut Place> {
        let number = self.find(partition)?;
        self.places.get_mut(number)
    }
}

/// An offset as the port has it.
pub(super) fn offset(raw: i64) -> Offset {
    Offset(u64::try_from(raw).unwrap_or_default())
}

#[cfg(test)]
mod tests;
