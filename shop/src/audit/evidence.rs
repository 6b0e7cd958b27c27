//! What the audit looks at, read from where it is kept.

use crate::{
    email::letters_in,
    events::{Item, OrderCancelled, OrderCompleted, OrderCreated},
    gateway::{Entry, Gateway, read_ledger},
    ids::OrderId,
    inventory::Stock,
    money::Money,
};
use anyhow::{Context as _, anyhow};
use sillage::{Contract as _, Database, Document as _, Filter, Position, Range, Recorded};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

/// How much of the log is read at once.
const PAGE: usize = 1_000;

/// How an order ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was shipped.
    Completed,
    /// It was given up.
    Cancelled,
}

/// One order, from the facts about it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Story {
    /// What was ordered.
    pub items: Vec<Item>,
    /// What it costs.
    pub total: Money,
    /// How it ended: once, one hopes.
    pub ends: Vec<End>,
}

/// All orders, as far as the log was read.
#[derive(Clone, Debug, Default)]
pub struct Orders {
    /// Each order.
    pub stories: BTreeMap<OrderId, Story>,
    /// How far each database was read.
    read: Vec<Position>,
}

impl Orders {
    /// Reads on to the ends of the logs, always of the same databases: services may share one, or
    /// have one each. Copies that a service keeps of others' facts are passed over.
    pub async fn catch_up(&mut self, databases: &[Arc<dyn Database>]) -> anyhow::Result<()> {
        self.read.resize(databases.len(), Position::default());
        for (index, database) in databases.iter().enumerate() {
            self.read[index] = self.read_on(&**database, self.read[index]).await?;
        }
        Ok(())
    }

    async fn read_on(
        &mut self,
        database: &dyn Database,
        mut read: Position,
    ) -> anyhow::Result<Position> {
        let names = [OrderCreated::NAME, OrderCompleted::NAME, OrderCancelled::NAME];
        let filter = Filter { names: names.map(Into::into).into(), ..Filter::default() };
        let end = database.head().await?.stable;
        while read < end {
            let page = database.log(read, &filter, PAGE).await?;
            for entry in page.entries.iter().filter(|entry| !entry.is_copy()) {
                self.apply(entry).with_context(|| format!("log entry {}", entry.position))?;
            }
            if page.through <= read {
                break;
            }
            read = page.through;
        }
        Ok(read)
    }

    /// How many orders have not ended.
    pub fn open(&self) -> usize {
        self.stories.values().filter(|story| story.ends.is_empty()).count()
    }

    fn apply(&mut self, entry: &Recorded) -> anyhow::Result<()> {
        let (version, payload) = (entry.body.version, &entry.payload);
        match &*entry.name {
            OrderCreated::NAME => {
                let OrderCreated { order_id, items, total, .. } =
                    OrderCreated::read(version, payload)?;
                let story = self.stories.entry(order_id).or_default();
                (story.items, story.total) = (items, total);
            }
            OrderCompleted::NAME => {
                let order_id = OrderCompleted::read(version, payload)?.order_id;
                self.stories.entry(order_id).or_default().ends.push(End::Completed);
            }
            OrderCancelled::NAME => {
                let order_id = OrderCancelled::read(version, payload)?.order_id;
                self.stories.entry(order_id).or_default().ends.push(End::Cancelled);
            }
            _ => {}
        }
        Ok(())
    }
}

/// Where the gateway's ledger is.
#[derive(Clone)]
pub enum Source {
    /// In this file.
    File(PathBuf),
    /// With the running gateway.
    Gateway(Gateway),
}

/// What the audit looks at.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// All orders.
    pub orders: Orders,
    /// All movements of money.
    pub ledger: Vec<Entry>,
    /// The stock of each product.
    pub stock: Vec<Stock>,
    /// Which order each letter is about.
    pub letters: Vec<OrderId>,
}

impl Evidence {
    /// Gathers it; `orders` are read on from where they are.
    pub async fn gather(
        databases: &[Arc<dyn Database>],
        mut orders: Orders,
        ledger: &Source,
        letters: &Path,
    ) -> anyhow::Result<Self> {
        orders.catch_up(databases).await.context("the log cannot be read")?;
        let ledger = match ledger {
            Source::File(path) => read_ledger(path).context("the ledger cannot be read")?,
            Source::Gateway(gateway) => {
                gateway.ledger().await.map_err(|failure| anyhow!("{failure}"))?
            }
        };
        let letters = letters_in(letters)
            .with_context(|| format!("the letters in {} cannot be read", letters.display()))?;
        let mut stock = vec![];
        for database in databases {
            stock.extend(stock_in(&**database).await?);
        }
        Ok(Evidence { orders, ledger, stock, letters })
    }

    pub(super) fn stories(&self) -> impl Iterator<Item = (&OrderId, &Story)> {
        self.orders.stories.iter()
    }
}

async fn stock_in(database: &dyn Database) -> anyhow::Result<Vec<Stock>> {
    let collection = format!("inventory/{}", Stock::COLLECTION);
    let all = Range::Ids { prefix: "", after: "" };
    let stored = database.list(&collection, all, PAGE).await.context("no stock can be read")?;
    Ok(stored
        .iter()
        .map(|stored| serde_json::from_slice(&stored.body))
        .collect::<Result<_, _>>()?)
}
