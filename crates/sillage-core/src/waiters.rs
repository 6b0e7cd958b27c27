//! Those who wait for a log to grow.

use crate::{
    Filter, Page, Position, Recorded,
    growth::{Growth, Waiting},
};
use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

/// Those who wait for a log to grow, and its last entries as far as this process has seen them
/// appended: for implementations of [`Database::changed`](crate::Database::changed) and
/// [`Database::next`](crate::Database::next).
///
/// Whoever reports growth finds out whom it concerns, and wakes nobody else. Told too often, a
/// reader looks in vain; it is never told too rarely, as long as every growth is reported here.
#[derive(Clone, Debug, Default)]
pub struct Waiters(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    growth: Growth,
    /// By number, which says who came first.
    waiting: BTreeMap<u64, Reader>,
    next: u64,
}

#[derive(Debug)]
struct Reader {
    waiting: Waiting,
    is_told: bool,
    waker: Option<Waker>,
}

impl Waiters {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Up to where growth was reported.
    pub fn through(&self) -> Position {
        self.state().growth.through()
    }

    /// How many wait.
    pub fn count(&self) -> usize {
        self.state().waiting.len()
    }

    /// The log has grown at least to here, and nobody knows by what. How many were told.
    pub fn grown(&self, through: Position) -> usize {
        self.report(|growth| growth.grown(through))
    }

    /// The log has grown from `after` to `through`: by these entries, in their order, and by no
    /// other. How many were told.
    pub fn appended(
        &self,
        after: Position,
        through: Position,
        entries: impl IntoIterator<Item = Recorded>,
    ) -> usize {
        self.report(|growth| growth.appended(after, through, entries))
    }

    fn report(&self, report: impl FnOnce(&mut Growth)) -> usize {
        let mut state = self.state();
        let State { growth, waiting, .. } = &mut *state;
        report(growth);
        let (mut told, mut woken) = (0, vec![]);
        for reader in waiting.values_mut().filter(|reader| !reader.is_told) {
            reader.is_told = reader.waiting.is_over(growth);
            if reader.is_told {
                told += 1;
                woken.extend(reader.waker.take());
            }
        }
        drop(state);
        woken.into_iter().for_each(Waker::wake);
        told
    }

    /// Waits for entries after a position that the filter takes: from this call on, polled or not.
    pub fn wait(&self, position: Position, filter: Filter) -> Wait {
        let mut state = self.state();
        let mut waiting = Waiting::new(position, filter);
        let is_told = waiting.is_over(&state.growth);
        let number = state.next;
        state.next += 1;
        state.waiting.insert(number, Reader { waiting, is_told, waker: None });
        Wait { waiters: self.clone(), number }
    }

    /// Entries after a position that the filter takes, at most `max`, where all of them are in
    /// memory. [`Page::trimmed_before`] is not known.
    pub fn page(&self, after: Position, filter: &Filter, max: usize) -> Option<Page> {
        self.state().growth.page(after, filter, max)
    }
}

/// Completes when there is, or may be, something to read for who waits, or when its place can move
/// by much.
#[derive(Debug)]
#[must_use = "nobody waits who does not poll"]
pub struct Wait {
    waiters: Waiters,
    number: u64,
}

impl Future for Wait {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.waiters.state();
        match state.waiting.get_mut(&self.number) {
            Some(reader) if !reader.is_told => {
                reader.waker = Some(context.waker().clone());
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.waiters.state().waiting.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::growth::tests::{entry, of};
    use std::{
        sync::atomic::{AtomicU32, Ordering},
        task::Wake,
    };

    #[derive(Default)]
    struct Count(AtomicU32);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Count {
        fn polls(self: &Arc<Self>, wait: &mut Wait) -> bool {
            let waker = Waker::from(self.clone());
            Pin::new(wait).poll(&mut Context::from_waker(&waker)).is_ready()
        }

        fn woken(&self) -> u32 {
            self.0.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn only_those_are_woken_whom_it_concerns_and_once() {
        let waiters = Waiters::default();
        let counts: [Arc<Count>; 2] = Default::default();
        let mut waits = [0, 1].map(|topic| waiters.wait(Position(0), of(topic)));
        for (count, wait) in counts.iter().zip(&mut waits) {
            assert!(!count.polls(wait));
        }
        waiters.appended(Position(0), Position(1), [entry(1, 0, 1)]);
        waiters.appended(Position(1), Position(2), [entry(2, 0, 1)]);
        assert_eq!(counts.each_ref().map(|count| count.woken()), [1, 0]);
        assert!(counts[0].polls(&mut waits[0]) && !counts[1].polls(&mut waits[1]));
        let page = waiters.page(Position(1), &of(0), 9).unwrap();
        assert_eq!((page.entries, page.through), (vec![entry(2, 0, 1)], Position(2)));
        // By whom, nobody knows.
        waiters.grown(Position(3));
        assert_eq!(counts.each_ref().map(|count| count.woken()), [1, 1]);
        assert!(counts[1].polls(&mut waits[1]) && waiters.page(Position(2), &of(0), 9).is_none());
        assert_eq!(waiters.count(), 2);
        drop(waits);
        assert_eq!(waiters.count(), 0);
    }

    #[test]
    fn what_comes_before_the_first_poll_is_not_missed() {
        let (waiters, count) = (Waiters::default(), Arc::<Count>::default());
        let mut wait = waiters.wait(Position(0), of(0));
        waiters.appended(Position(0), Position(1), [entry(1, 0, 1)]);
        assert!(count.polls(&mut wait));
        let mut late = waiters.wait(Position(0), of(0));
        assert!(count.polls(&mut late) && count.woken() == 0);
    }
}
