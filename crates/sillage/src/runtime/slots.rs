//! A fixed set of places in which handlers run: no task, no lock and no allocation a message.
//!
//! The memory of a handler's future is used again by the next one of the same size. A handler
//! that never waits runs to its end where it is started and costs no wake-up at all.

use crate::handler::Handled;
use std::{
    future::{pending, poll_fn},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Wake, Waker},
};
use tokio_util::sync::ReusableBoxFuture;

/// Names a slot.
pub(crate) type SlotId = usize;

struct Slot {
    future: ReusableBoxFuture<'static, Handled>,
    waker: Waker,
    running: bool,
}

/// Woken slots, and who polls them.
#[derive(Default)]
struct Woken(Mutex<(Vec<SlotId>, Option<Waker>)>);

struct SlotWaker {
    slot: SlotId,
    woken: Arc<Woken>,
}

impl Wake for SlotWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut woken = self.woken.0.lock().unwrap_or_else(PoisonError::into_inner);
        woken.0.push(self.slot);
        let waker = woken.1.take();
        drop(woken);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The slots of one member.
pub(crate) struct Slots {
    all: Vec<Slot>,
    free: Vec<SlotId>,
    woken: Arc<Woken>,
    polling: Vec<SlotId>,
}

impl Slots {
    pub(crate) fn new(count: usize) -> Self {
        let woken = Arc::<Woken>::default();
        let slot = |slot| Slot {
            future: ReusableBoxFuture::new(pending()),
            waker: Waker::from(Arc::new(SlotWaker { slot, woken: woken.clone() })),
            running: false,
        };
        let free = (0..count).rev().collect();
        Slots { all: (0..count).map(slot).collect(), free, woken, polling: vec![] }
    }

    /// Whether something can be started.
    pub(crate) fn has_free(&self) -> bool {
        !self.free.is_empty()
    }

    /// Starts a future that `make` puts in place, and runs it as far as it goes. `Ready` where it
    /// ended at once; else the slot it runs in.
    pub(crate) fn start(
        &mut self,
        make: impl FnOnce(&mut ReusableBoxFuture<'static, Handled>),
    ) -> Option<Result<Handled, SlotId>> {
        let id = *self.free.last()?;
        let slot = &mut self.all[id];
        make(&mut slot.future);
        match slot.future.poll(&mut Context::from_waker(&slot.waker)) {
            Poll::Ready(handled) => Some(Ok(handled)),
            Poll::Pending => {
                slot.running = true;
                self.free.pop();
                Some(Err(id))
            }
        }
    }

    /// The next slot whose future ends.
    pub(crate) async fn next(&mut self) -> (SlotId, Handled) {
        poll_fn(|context| self.poll_next(context)).await
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<(SlotId, Handled)> {
        loop {
            while let Some(id) = self.polling.pop() {
                let slot = &mut self.all[id];
                if !slot.running {
                    continue;
                }
                if let Poll::Ready(handled) =
                    slot.future.poll(&mut Context::from_waker(&slot.waker))
                {
                    // Its ended future stays in place: the next one takes its memory.
                    slot.running = false;
                    self.free.push(id);
                    return Poll::Ready((id, handled));
                }
            }
            let mut woken = self.woken.0.lock().unwrap_or_else(PoisonError::into_inner);
            if woken.0.is_empty() {
                woken.1 = Some(context.waker().clone());
                return Poll::Pending;
            }
            std::mem::swap(&mut woken.0, &mut self.polling);
        }
    }

    /// Drops what runs in a slot before its end.
    pub(crate) fn stop(&mut self, id: SlotId) {
        let slot = &mut self.all[id];
        if std::mem::take(&mut slot.running) {
            slot.future.set(pending());
            self.free.push(id);
        }
    }
}
