//! Reads the next pages of the log while the last one is folded and written.
//!
//! *Guarantees.* At most two pages are read ahead, and none behind a page that was large. Pages have
//! more entries the smaller these are, and fewer behind a page that was large.

use sillage_core::{Database, Filter, Page, Position, Result};
use std::{ops::RangeInclusive, sync::Arc};
use tokio::{sync::mpsc, task::JoinHandle};

/// Bytes of payloads: a page with less may be followed by a longer one, behind one with more none is
/// read ahead.
const SMALL: usize = 512 << 10;
const LARGE: usize = 4 << 20;

pub(super) struct Ahead {
    pages: Pages,
    reading: Option<Reading>,
}

/// Reads pages, one behind the other.
#[derive(Clone)]
struct Pages {
    database: Arc<dyn Database>,
    filter: Arc<Filter>,
    /// Entries of a page.
    sizes: RangeInclusive<usize>,
    size: usize,
}

/// A page, and whether there is more behind it.
type Read = (Page, bool);

/// What is read ahead, from a position on.
struct Reading {
    at: Position,
    pages: mpsc::Receiver<Result<Read>>,
    task: JoinHandle<()>,
}

impl Pages {
    async fn read(&mut self, after: Position) -> Result<Read> {
        let page = self.database.log(after, &self.filter, self.size).await?;
        // It goes as far as a page may, however few of the entries there match.
        let more = page.through.0 >= after.0 + self.size as u64;
        Ok((page, more))
    }

    /// Whether the page behind this one is read ahead; it may be longer.
    fn go_on(&mut self, (page, more): &Read) -> bool {
        let bytes: usize = page.entries.iter().map(|entry| entry.payload.len()).sum();
        if bytes <= SMALL {
            self.size = (self.size * 2).min(*self.sizes.end());
        } else if bytes > LARGE {
            self.size = (self.size / 2).max(1);
        }
        *more && bytes <= LARGE
    }

    async fn send(mut self, mut at: Position, pages: mpsc::Sender<Result<Read>>) {
        loop {
            let read = self.read(at).await;
            let next = match &read {
                Ok(read) if self.go_on(read) => Some(read.0.through),
                _ => None,
            };
            let is_waited_for = pages.send(read).await.is_ok();
            match next {
                Some(next) if is_waited_for => at = next,
                _ => return,
            }
        }
    }
}

impl Ahead {
    pub(super) fn new(
        database: Arc<dyn Database>,
        filter: Filter,
        sizes: RangeInclusive<usize>,
    ) -> Self {
        let size = *sizes.start();
        let pages = Pages { database, filter: Arc::new(filter), sizes, size };
        Ahead { pages, reading: None }
    }

    /// The page behind `after`, and whether there is more behind it, which is read meanwhile.
    pub(super) async fn page(&mut self, after: Position) -> Result<(Page, bool)> {
        if let Some(reading) = &mut self.reading
            && reading.at == after
            && let Some(read) = reading.pages.recv().await
        {
            let read = read?;
            reading.at = read.0.through;
            return Ok(read);
        }
        self.reading = None;
        let mut pages = self.pages.clone();
        let read = pages.read(after).await?;
        if pages.go_on(&read) {
            // One waits here, one more to be put here.
            let (sender, receiver) = mpsc::channel(1);
            let at = read.0.through;
            let task = tokio::spawn(pages.send(at, sender));
            self.reading = Some(Reading { at, pages: receiver, task });
        }
        Ok(read)
    }

    /// The next entry by itself, and whether there is one.
    pub(super) async fn one(&mut self, after: Position) -> Result<(Page, bool)> {
        let page = self.pages.database.log(after, &self.pages.filter, 1).await?;
        let more = !page.entries.is_empty();
        Ok((page, more))
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.task.abort();
    }
}
