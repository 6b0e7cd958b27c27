//! The ledger: the book in a file, a line a movement, each on disk before it is answered.
//!
//! One thread owns the file. What has gathered while it wrote is written next, with one `fsync`
//! for all of it. A line that a crash cut short was never answered, and is cut off at the start.

use super::{Book, ChargeRequest, Entry, Faults, RefundRequest, Reply};
use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    path::Path,
};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

/// How many requests share one write.
const BATCH: usize = 256;

/// The ledger of a running gateway. Cheap to clone.
#[derive(Clone)]
pub struct Ledger(mpsc::Sender<Ask>);

enum Ask {
    Charge(Uuid, ChargeRequest, Faults, oneshot::Sender<Reply>),
    Refund(Uuid, RefundRequest, oneshot::Sender<Reply>),
    Entries(oneshot::Sender<Vec<Entry>>),
}

impl Ledger {
    /// Opens the file, making it if it is missing, and takes in what it says.
    pub fn open(path: &Path) -> io::Result<Self> {
        let (book, length) = read(path)?;
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        file.set_len(length)?;
        let (sender, asks) = mpsc::channel(BATCH);
        std::thread::Builder::new()
            .name("ledger".into())
            .spawn(move || Keeper { book, file }.keep(asks))?;
        Ok(Ledger(sender))
    }

    /// Charges; `None` if the ledger cannot be written any more.
    pub async fn charge(&self, key: Uuid, request: ChargeRequest, faults: Faults) -> Option<Reply> {
        self.ask(|reply| Ask::Charge(key, request, faults, reply)).await
    }

    /// Refunds; `None` if the ledger cannot be written any more.
    pub async fn refund(&self, key: Uuid, request: RefundRequest) -> Option<Reply> {
        self.ask(|reply| Ask::Refund(key, request, reply)).await
    }

    /// Every movement, in order; `None` if the ledger cannot be written any more.
    pub async fn entries(&self) -> Option<Vec<Entry>> {
        self.ask(Ask::Entries).await
    }

    async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Option<T> {
        let (sender, answer) = oneshot::channel();
        self.0.send(ask(sender)).await.ok()?;
        answer.await.ok()
    }
}

/// Every movement in the file, in order.
pub fn read_ledger(path: &Path) -> io::Result<Vec<Entry>> {
    Ok(read(path)?.0.entries().to_vec())
}

/// The book, and how long the file is without a line that was cut short.
fn read(path: &Path) -> io::Result<(Book, u64)> {
    let bytes = match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => vec![],
        read => read?,
    };
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let mut book = Book::default();
    for (number, line) in bytes[..whole].split_inclusive(|byte| *byte == b'\n').enumerate() {
        let entry = serde_json::from_slice(line).map_err(|error| {
            io::Error::other(format!("{}, line {}: {error}", path.display(), number + 1))
        })?;
        book.apply(entry);
    }
    Ok((book, whole as u64))
}

struct Keeper {
    book: Book,
    file: File,
}

impl Keeper {
    /// Ends when nobody can ask any more, or when the file cannot be written: then whoever still
    /// waits gets no answer, as what the file holds is not known.
    fn keep(mut self, mut asks: mpsc::Receiver<Ask>) {
        let mut batch = Vec::with_capacity(BATCH);
        while asks.blocking_recv_many(&mut batch, BATCH) > 0 {
            let (mut lines, mut answers) = (Vec::new(), Vec::with_capacity(batch.len()));
            for ask in batch.drain(..) {
                answers.push(self.answer(ask, &mut lines));
            }
            if let Err(error) = self.write(&lines) {
                tracing::error!(%error, "the ledger cannot be written: the gateway stops");
                return;
            }
            for answer in answers {
                answer();
            }
        }
    }

    /// Answers in memory; what is returned tells the asker, once the lines are on disk.
    fn answer(&mut self, ask: Ask, lines: &mut Vec<u8>) -> Box<dyn FnOnce()> {
        let ((reply, entry), sender) = match ask {
            Ask::Charge(key, request, faults, sender) => {
                (self.book.charge(key, &request, &faults), sender)
            }
            Ask::Refund(key, request, sender) => (self.book.refund(key, &request), sender),
            Ask::Entries(sender) => {
                let entries = self.book.entries().to_vec();
                return Box::new(move || drop(sender.send(entries)));
            }
        };
        if let Some(entry) = entry {
            lines.extend(serde_json::to_vec(&entry).unwrap_or_default());
            lines.push(b'\n');
            self.book.apply(entry);
        }
        Box::new(move || drop(sender.send(reply)))
    }

    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        self.file.write_all(lines)?;
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::OrderId,
        money::{Card, Money},
    };

    fn request() -> ChargeRequest {
        ChargeRequest {
            order_id: OrderId::of_key("o"),
            customer_id: "c".parse().unwrap(),
            card: Card::accepted(),
            amount: Money::cents(500),
        }
    }

    #[tokio::test]
    async fn a_gateway_that_was_killed_remembers_its_answers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.jsonl");
        let key = Uuid::from_u128(1);
        let ledger = Ledger::open(&path).unwrap();
        let first = ledger.charge(key, request(), Faults::default()).await.unwrap();
        drop(ledger);
        let again = Ledger::open(&path).unwrap();
        assert_eq!(again.charge(key, request(), Faults::default()).await, Some(first));
        assert_eq!(read_ledger(&path).unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_line_cut_short_by_a_crash_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.jsonl");
        let ledger = Ledger::open(&path).unwrap();
        ledger.charge(Uuid::from_u128(1), request(), Faults::default()).await.unwrap();
        drop(ledger);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend(br#"{"kind":"charge","key":"0000"#);
        std::fs::write(&path, bytes).unwrap();
        let ledger = Ledger::open(&path).unwrap();
        ledger.charge(Uuid::from_u128(2), request(), Faults::default()).await.unwrap();
        assert_eq!(read_ledger(&path).unwrap().len(), 2);
    }

    #[test]
    fn a_spoilt_ledger_names_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.jsonl");
        std::fs::write(&path, "nonsense\n").unwrap();
        assert!(read_ledger(&path).unwrap_err().to_string().contains("line 1"));
    }
}
