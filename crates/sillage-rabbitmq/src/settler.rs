//! Settling: acknowledgements, opening and giving up.

use crate::{
    acks::Ack,
    mailbox::Mail,
    member::{Member, Order, Slots},
};
use futures_util::{FutureExt as _, future::join_all};
use lapin::{Channel, options::BasicAckOptions};
use sillage_core::{BoxFuture, Epoch, Error, Partition, Result, Settled, Settler, Text};
use std::sync::Arc;

/// The settling side of a consumer whose partitions are queues.
pub(crate) struct Outgoing(pub(crate) Arc<Member>);

type Sending = BoxFuture<'static, lapin::Result<()>>;

impl Outgoing {
    /// Hands acknowledgements over to the client, in order; what is left is to see them sent.
    ///
    /// Under one lock with the state they were worked out from: two calls at the same time would
    /// else acknowledge "all up to 9" before "all up to 5", which the server takes for a mistake.
    fn send(&self, settled: &[Settled]) -> Vec<Sending> {
        self.0.mailbox.with(|mail| send_in(mail, settled))
    }
}

fn send_in(mail: &mut Mail<Slots>, settled: &[Settled]) -> Vec<Sending> {
    let mut sendings = vec![];
    for Settled { partition, finished, .. } in settled {
        // Nothing of an assignment that has ended: the server has taken that back already.
        let Some(assignment) = mail.state.assignment(partition) else { continue };
        let base = assignment.base;
        let tags = finished.iter().filter_map(|offset| offset.0.checked_sub(base));
        for ack in assignment.acks.finish(tags) {
            let mut sending = acknowledge(assignment.channel.clone(), ack);
            match (&mut sending).now_or_never() {
                None => sendings.push(sending),
                Some(Ok(())) => {}
                Some(Err(error)) => sendings.push(Box::pin(async { Err(error) })),
            }
        }
    }
    sendings
}

fn acknowledge(channel: Channel, ack: Ack) -> Sending {
    Box::pin(
        async move { channel.basic_ack(ack.tag, BasicAckOptions { multiple: ack.up_to }).await },
    )
}

impl Settler for Outgoing {
    fn settle<'a>(&'a self, settled: &'a [Settled]) -> BoxFuture<'a, Result<()>> {
        // Handed over in this call: a release that follows closes the channel behind it.
        let sendings = self.send(settled);
        Box::pin(async move {
            let sent: lapin::Result<Vec<()>> = join_all(sendings).await.into_iter().collect();
            sent.map(drop).map_err(|error| {
                let what = format!(
                    "consumer `{}`: acknowledgements may not have arrived; what they were for \
                     comes again",
                    self.0.mailbox.consumer()
                );
                Error::unavailable(what).because(error)
            })
        })
    }

    fn open<'a>(&'a self, partitions: &'a [Partition]) -> BoxFuture<'a, Result<()>> {
        let opened = partitions.iter().try_for_each(|partition| self.0.open(partition));
        Box::pin(async { opened })
    }

    fn release<'a>(&'a self, partitions: &'a [Partition]) -> BoxFuture<'a, Result<()>> {
        Box::pin(async {
            self.0.release(partitions).await;
            Ok(())
        })
    }

    fn pause(&self, partitions: &[Partition]) -> Result<()> {
        self.0.order(partitions, Order::Hold);
        Ok(())
    }

    fn resume(&self, partitions: &[Partition]) -> Result<()> {
        self.0.order(partitions, Order::Flow);
        Ok(())
    }

    fn fence(&self, _partition: &Partition) -> Option<(Text, Epoch)> {
        None
    }

    fn close(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            join_all(self.0.stop_all()).await;
            self.0.link.close().await;
            Ok(())
        })
    }
}
