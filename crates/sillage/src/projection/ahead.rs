//! Reads the next page of the log while the last one is folded and written.
//!
//! *Guarantees.* At most one page is read ahead, and none behind a page that was large. Pages have
//! more entries the smaller these are.

use sillage_core::{Database, Error, Filter, Page, Position, Result};
use std::{ops::RangeInclusive, sync::Arc};
use tokio::task::JoinHandle;

/// Bytes of payloads: a page with less may be followed by a longer one, behind one with more none is
/// read ahead.
const SMALL: usize = 512 << 10;
const LARGE: usize = 4 << 20;
/// A page of so many positions does not end the log, however few of its entries match.
const FAR: u64 = 4096;

pub(super) struct Ahead {
    database: Arc<dyn Database>,
    filter: Arc<Filter>,
    /// Entries of a page.
    sizes: RangeInclusive<usize>,
    size: usize,
    reading: Option<(Position, JoinHandle<Result<Page>>)>,
}

impl Ahead {
    pub(super) fn new(
        database: Arc<dyn Database>,
        filter: Filter,
        sizes: RangeInclusive<usize>,
    ) -> Self {
        let size = *sizes.start();
        Ahead { database, filter: Arc::new(filter), sizes, size, reading: None }
    }

    /// The page behind `after`, and whether there is more behind it, which is read meanwhile.
    pub(super) async fn page(&mut self, after: Position) -> Result<(Page, bool)> {
        let read = match self.reading.take() {
            Some((from, reading)) if from == after => reading.await,
            _ => Ok(self.database.log(after, &self.filter, self.size).await),
        };
        let stopped = |error| Error::unavailable("the runtime is stopping").because(error);
        let page = read.map_err(stopped)??;
        let more = page.entries.len() >= self.size || page.through.0 >= after.0 + FAR;
        if more {
            self.begin(&page);
        } else {
            self.size = *self.sizes.start();
        }
        Ok((page, more))
    }

    /// The next entry by itself, and whether there is one.
    pub(super) async fn one(&mut self, after: Position) -> Result<(Page, bool)> {
        let page = self.database.log(after, &self.filter, 1).await?;
        let more = !page.entries.is_empty();
        Ok((page, more))
    }

    /// Begins to read what comes after this page.
    fn begin(&mut self, page: &Page) {
        let bytes: usize = page.entries.iter().map(|entry| entry.payload.len()).sum();
        let size = if bytes <= SMALL { self.size * 2 } else { self.size };
        let size = if bytes <= LARGE { size } else { *self.sizes.start() };
        self.size = size.min(*self.sizes.end());
        if bytes <= LARGE {
            let (database, filter) = (self.database.clone(), self.filter.clone());
            let (from, most) = (page.through, self.size);
            let reading = tokio::spawn(async move { database.log(from, &filter, most).await });
            self.reading = Some((from, reading));
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        if let Some((_, reading)) = self.reading.take() {
            reading.abort();
        }
    }
}
