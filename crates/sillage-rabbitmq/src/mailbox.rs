//! What a member is told, under one lock with what that depends on.

use sillage_core::{BoxFuture, Error, Inbound, Partition, Receiver, Result, Text};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;

/// Holds what was not told yet, and `S`.
pub(crate) struct Mailbox<S> {
    consumer: Text,
    mail: Mutex<Mail<S>>,
    ready: Notify,
    /// Something was told.
    taken: Notify,
}

pub(crate) struct Mail<S> {
    pub(crate) state: S,
    inbox: VecDeque<Result<Inbound>>,
    is_closed: bool,
}

impl<S> Mailbox<S> {
    pub(crate) fn new(consumer: Text, state: S) -> Mailbox<S> {
        let mail = Mail { state, inbox: VecDeque::new(), is_closed: false };
        Mailbox { consumer, mail: Mutex::new(mail), ready: Notify::new(), taken: Notify::new() }
    }

    pub(crate) fn consumer(&self) -> &Text {
        &self.consumer
    }

    fn lock(&self) -> MutexGuard<'_, Mail<S>> {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at, changes and tells, in one step.
    pub(crate) fn with<T>(&self, step: impl FnOnce(&mut Mail<S>) -> T) -> T {
        let done = step(&mut self.lock());
        self.ready.notify_one();
        done
    }

    /// Something that health should show. Only the last is told: a lost connection is reported for
    /// each queue, and who is told waits a while after each error, with all that came behind it.
    pub(crate) fn report(&self, error: Error) {
        tracing::warn!(consumer = %self.consumer, %error, "receiving was interrupted");
        self.with(|mail| {
            mail.inbox.retain(Result::is_ok);
            mail.tell(Err(error));
        });
    }

    /// Waits until less than so much waits to be told.
    pub(crate) async fn until_below(&self, limit: usize) {
        loop {
            let taken = self.taken.notified();
            if self.lock().inbox.len() < limit {
                return;
            }
            taken.await;
        }
    }

    async fn next(&self) -> Result<Inbound> {
        loop {
            {
                let mut mail = self.lock();
                if let Some(inbound) = mail.inbox.pop_front() {
                    self.taken.notify_waiters();
                    return inbound;
                }
                if mail.is_closed {
                    let left = format!("this member has left consumer `{}`", self.consumer);
                    return Err(Error::unavailable(left));
                }
            }
            self.ready.notified().await;
        }
    }
}

impl<S> Mail<S> {
    pub(crate) fn tell(&mut self, inbound: Result<Inbound>) {
        if !self.is_closed {
            self.inbox.push_back(inbound);
        }
    }

    /// Takes back what was not told of a partition; true where the member was told that it has it.
    pub(crate) fn take_back(&mut self, partition: &Partition) -> bool {
        let mut was_told = true;
        self.inbox.retain_mut(|inbound| match inbound {
            Ok(Inbound::Batch(other, _)) => other != partition,
            Ok(Inbound::Assigned(others)) if others.contains(partition) => {
                was_told = false;
                others.retain(|other| other != partition);
                !others.is_empty()
            }
            _ => true,
        });
        was_told
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Nothing more is told.
    pub(crate) fn close(&mut self) {
        self.is_closed = true;
        self.inbox.clear();
    }
}

/// What has a mailbox, and ends when nobody reads it any more.
pub(crate) trait Addressed: Send + Sync + 'static {
    type State: Send;
    fn mailbox(&self) -> &Mailbox<Self::State>;
    fn stop(&self);
}

/// The receiving side. Dropping it ends the membership as a crash would: what is not acknowledged
/// is delivered again, to whoever opens the partition next.
pub(crate) struct Incoming<A: Addressed>(pub(crate) Arc<A>);

impl<A: Addressed> Receiver for Incoming<A> {
    fn next(&mut self) -> BoxFuture<'_, Result<Inbound>> {
        Box::pin(self.0.mailbox().next())
    }
}

impl<A: Addressed> Drop for Incoming<A> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::{Addressed, Incoming, Mailbox};
    use sillage_core::{Error, Inbound, Partition, Receiver as _};
    use std::sync::Arc;

    struct Member(Mailbox<()>);

    impl Addressed for Member {
        type State = ();
        fn mailbox(&self) -> &Mailbox<()> {
            &self.0
        }
        fn stop(&self) {}
    }

    #[tokio::test]
    async fn of_many_errors_that_wait_the_last_is_told() {
        let member = Arc::new(Member(Mailbox::new("billing".into(), ())));
        let partition = |number| Partition { topic: "order".into(), number };
        for number in 0..36 {
            member.0.with(|mail| mail.tell(Ok(Inbound::Lost(vec![partition(number)]))));
            member.0.report(Error::unavailable(format!("queue {number} was cut off")));
        }
        let mut incoming = Incoming(member);
        for number in 0..36 {
            let lost = incoming.next().await.unwrap();
            assert!(matches!(&lost, Inbound::Lost(of) if of[0].number == number), "{lost:?}");
        }
        let told = incoming.next().await.unwrap_err();
        assert!(told.to_string().contains("queue 35"), "{told}");
    }
}
