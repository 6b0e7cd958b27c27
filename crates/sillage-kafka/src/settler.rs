//! Settling: the watermark is stored in the client, which commits it.

use crate::receiver::{Command, Tie};
use sillage_core::{BoxFuture, Epoch, Error, Partition, Result, Settled, Settler, Text};
use std::{sync::Arc, time::Duration};

/// The group is left within this, or in the background.
const LEAVE: Duration = Duration::from_secs(10);

/// The settling side of a subscription.
pub(crate) struct KafkaSettler {
    tie: Arc<Tie>,
}

impl KafkaSettler {
    pub(crate) fn new(tie: Arc<Tie>) -> KafkaSettler {
        KafkaSettler { tie }
    }

    async fn leave(&self) -> Result<()> {
        self.tie.line.tell(Command::Close);
        let mut left = self.tie.left.clone();
        let gone = tokio::time::timeout(LEAVE, left.wait_for(|left| *left)).await;
        gone.map(drop).map_err(|_| {
            Error::unavailable(format!(
                "the consumer has not left its group within {} s: it goes on trying, and the \
                 group ends its membership by itself",
                LEAVE.as_secs()
            ))
        })
    }
}

impl Settler for KafkaSettler {
    fn settle<'a>(&'a self, settled: &'a [Settled]) -> BoxFuture<'a, Result<()>> {
        self.tie.line.tell(Command::Settle(settled.to_vec()));
        let trouble = self.tie.outbox.trouble();
        Box::pin(std::future::ready(trouble.map_or(Ok(()), Err)))
    }

    fn open<'a>(&'a self, _partitions: &'a [Partition]) -> BoxFuture<'a, Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn release<'a>(&'a self, partitions: &'a [Partition]) -> BoxFuture<'a, Result<()>> {
        self.tie.line.tell(Command::Release(partitions.to_vec()));
        Box::pin(std::future::ready(Ok(())))
    }

    fn pause(&self, partitions: &[Partition]) -> Result<()> {
        self.tie.line.tell(Command::Pause(partitions.to_vec()));
        Ok(())
    }

    fn resume(&self, partitions: &[Partition]) -> Result<()> {
        self.tie.line.tell(Command::Resume(partitions.to_vec()));
        Ok(())
    }

    fn fence(&self, _partition: &Partition) -> Option<(Text, Epoch)> {
        None
    }

    fn close(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.leave())
    }
}
