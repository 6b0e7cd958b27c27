//! Which documents of two generations differ.

use super::{Admin, projections::nothing};
use crate::projection::{Hash, collection};
use serde::Serialize;
use serde_json::Value;
use sillage_core::{Range, Result, Stored, Text};
use std::{cmp::Ordering, collections::VecDeque};

/// Documents read at once.
const PAGE: usize = 500;

/// A document that is not the same in two generations.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    /// Its id.
    pub id: Text,
    /// As it is read; `None`: it is not there.
    pub live: Option<Value>,
    /// As it is beside that.
    pub other: Option<Value>,
}

/// How many documents of two generations differ, with the first of them.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Differences {
    /// How many.
    pub count: u64,
    /// The first of them, by id.
    pub examples: Vec<Difference>,
}

impl Admin {
    /// Compares the documents that are read with those beside them one by one, as they are now:
    /// where the log grows, some may differ only because one has seen more.
    pub async fn differences(&self, name: &str, examples: usize) -> Result<Differences> {
        let (id, of, _) = self.generations(name).await?;
        let other = of.shadow.as_ref().or(of.former.as_ref()).ok_or_else(|| nothing(&id))?;
        let place = |tag: &str| collection(&id, &of.collection, tag);
        let mut live = Pages::new(self, place(&of.live.tag));
        let mut beside = Pages::new(self, place(&other.tag));
        let mut found = Differences::default();
        loop {
            let order = match (live.first().await?, beside.first().await?) {
                (None, None) => return Ok(found),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(one), Some(other)) => one.cmp(&other),
            };
            let one = if order.is_le() { live.take() } else { None };
            let other = if order.is_ge() { beside.take() } else { None };
            if one.as_ref().map(hash) == other.as_ref().map(hash) {
                continue;
            }
            found.count += 1;
            if found.examples.len() < examples
                && let Some(id) = one.as_ref().or(other.as_ref()).map(|stored| stored.id.clone())
            {
                let (live, other) = (one.map(|one| said(&one)), other.map(|other| said(&other)));
                found.examples.push(Difference { id, live, other });
            }
        }
    }
}

fn hash(stored: &Stored) -> Hash {
    Hash::document(&stored.id, stored.sort.as_deref(), &stored.body)
}

fn said(stored: &Stored) -> Value {
    let text = || String::from_utf8_lossy(&stored.body).into_owned().into();
    serde_json::from_slice(&stored.body).unwrap_or_else(|_| text())
}

/// Documents of a collection by id, a page in memory.
struct Pages<'a> {
    admin: &'a Admin,
    collection: Text,
    after: Text,
    page: VecDeque<Stored>,
}

impl<'a> Pages<'a> {
    fn new(admin: &'a Admin, collection: Text) -> Self {
        Pages { admin, collection, after: "".into(), page: VecDeque::new() }
    }

    async fn first(&mut self) -> Result<Option<Text>> {
        if self.page.is_empty() {
            let range = Range::Ids { prefix: "", after: &self.after };
            let page = self.admin.database.list(&self.collection, range, PAGE).await?;
            self.page = page.into();
        }
        Ok(self.page.front().map(|stored| stored.id.clone()))
    }

    fn take(&mut self) -> Option<Stored> {
        let stored = self.page.pop_front()?;
        self.after = stored.id.clone();
        Some(stored)
    }
}
