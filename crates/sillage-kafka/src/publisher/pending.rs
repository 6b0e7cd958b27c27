//! What was handed over and is not confirmed yet: an answer a message, a wake-up a batch.

use super::receipt;
use crate::watch::lock;
use sillage_core::{Message, PublishError, Receipt, Result, Text};
use std::sync::{Arc, Mutex};
use tokio::sync::oneshot;

/// The answers of a batch, in its order.
pub(super) type Answers = oneshot::Receiver<Vec<Result<Receipt, PublishError>>>;

/// A message: its batch's slot, and its place in the batch. It travels through the client as one
/// word, so that nothing is allocated for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket(usize);

const _: () = assert!(usize::BITS == 64, "a ticket needs a word of 64 bits");
/// The lower half of a ticket.
const INDEX: usize = 0xffff_ffff;

impl Ticket {
    pub(super) fn new(slot: usize, index: usize) -> Ticket {
        Ticket((slot << 32) | index)
    }

    fn slot(self) -> usize {
        self.0 >> 32
    }

    fn index(self) -> usize {
        self.0 & INDEX
    }

    pub(super) fn opaque(self) -> usize {
        self.0
    }

    pub(super) fn from_opaque(opaque: usize) -> Ticket {
        Ticket(opaque)
    }
}

struct Batch {
    messages: Arc<[Arc<Message>]>,
    answers: Vec<Option<Result<Receipt, PublishError>>>,
    left: usize,
    done: oneshot::Sender<Vec<Result<Receipt, PublishError>>>,
}

/// Batches that wait for answers.
#[derive(Default)]
pub(super) struct Pending(Mutex<Batches>);

#[derive(Default)]
struct Batches {
    slots: Vec<Option<Batch>>,
    free: Vec<usize>,
}

impl Pending {
    /// Takes a batch in.
    pub(super) fn begin(&self, messages: Arc<[Arc<Message>]>) -> (usize, Answers) {
        let (done, answers) = oneshot::channel();
        let left = messages.len();
        let batch = Batch { answers: (0..left).map(|_| None).collect(), messages, left, done };
        let mut batches = lock(&self.0);
        let slot = batches.free.pop().unwrap_or(batches.slots.len());
        if slot == batches.slots.len() {
            batches.slots.push(None);
        }
        batches.slots[slot] = Some(batch);
        (slot, answers)
    }

    /// The message of a ticket that has no answer yet.
    pub(super) fn message(&self, ticket: Ticket) -> Option<Arc<Message>> {
        let batches = lock(&self.0);
        let batch = batches.slots.get(ticket.slot())?.as_ref()?;
        batch.messages.get(ticket.index()).cloned()
    }

    /// Its topic.
    pub(super) fn topic(&self, ticket: Ticket) -> Text {
        self.message(ticket).and_then(|message| message.topic.clone()).unwrap_or_else(|| "".into())
    }

    /// Kafka has it.
    pub(super) fn confirmed(&self, ticket: Ticket, number: u32, offset: Option<u64>) {
        self.answer(ticket, |message| Ok(receipt(message, number, offset)));
    }

    /// It was not published, or nobody knows.
    pub(super) fn failed(&self, ticket: Ticket, error: PublishError) {
        self.answer(ticket, |_| Err(error));
    }

    fn answer(
        &self,
        ticket: Ticket,
        answer: impl FnOnce(&Message) -> Result<Receipt, PublishError>,
    ) {
        let mut batches = lock(&self.0);
        let Some(place) = batches.slots.get_mut(ticket.slot()) else { return };
        let Some(batch) = place else { return };
        let Some(empty @ None) = batch.answers.get_mut(ticket.index()) else { return };
        *empty = Some(answer(&batch.messages[ticket.index()]));
        batch.left -= 1;
        if batch.left == 0
            && let Some(batch) = place.take()
        {
            batches.free.push(ticket.slot());
            drop(batches);
            batch.finish();
        }
    }

    /// Answers everything that has no answer.
    pub(super) fn fail_all(&self, error: impl Fn(&str) -> PublishError) {
        let mut batches = lock(&self.0);
        let all = std::mem::take(&mut *batches);
        drop(batches);
        for mut batch in all.slots.into_iter().flatten() {
            for (answer, message) in batch.answers.iter_mut().zip(&*batch.messages) {
                let topic = message.topic.as_deref().unwrap_or_default();
                answer.get_or_insert_with(|| Err(error(topic)));
            }
            batch.finish();
        }
    }

    /// Nothing waits for an answer.
    pub(super) fn is_empty(&self) -> bool {
        let batches = lock(&self.0);
        batches.free.len() == batches.slots.len()
    }
}

impl Batch {
    fn finish(self) {
        // Nobody waits where the future was dropped.
        let _ = self.done.send(self.answers.into_iter().flatten().collect());
    }
}
