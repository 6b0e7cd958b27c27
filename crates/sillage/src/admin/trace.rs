//! The causation tree of everything that followed from one first message.

use super::Admin;
use sillage_core::{Filter, Message, Position, Recorded, Result, Text, Timestamp};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// Entries a trace shows at most.
const MOST: usize = 10_000;

/// Everything that followed from one first message, as a tree.
#[derive(Clone, Debug)]
pub struct Trace {
    /// What its messages share.
    pub correlation_id: Text,
    /// Messages without a cause here, with what they caused.
    pub roots: Vec<TraceNode>,
    /// How many messages it has.
    pub messages: usize,
}

/// A message and what it caused.
#[derive(Clone, Debug)]
pub struct TraceNode {
    /// Where in the log.
    pub position: Position,
    /// The message.
    pub message: Arc<Message>,
    /// Its cause is not in the log any more, or never was.
    pub orphan: bool,
    /// What it caused, in order.
    pub children: Vec<TraceNode>,
}

impl Trace {
    /// When its first message was produced.
    pub fn started(&self) -> Option<Timestamp> {
        self.roots.iter().map(|node| node.message.time).min()
    }
}

impl Admin {
    /// The tree of a correlation id, or of the message of that id.
    pub async fn trace(&self, id: &str) -> Result<Option<Trace>> {
        let entries = self.correlated(id).await?;
        if !entries.is_empty() {
            return Ok(Some(tree(id, &entries)));
        }
        let Some(entry) = self.find(id).await? else { return Ok(None) };
        let correlation_id = entry.body.correlation_id.clone();
        let entries = self.correlated(&correlation_id).await?;
        Ok(Some(tree(&correlation_id, &entries)))
    }

    async fn correlated(&self, id: &str) -> Result<Vec<Recorded>> {
        let filter = Filter { correlation_id: Some(id.into()), ..Filter::default() };
        let (mut entries, mut at) = (vec![], Position::default());
        loop {
            let page = self.database.log(at, &filter, 1000).await?;
            entries.extend(page.entries);
            if page.through <= at || entries.len() >= MOST {
                return Ok(entries);
            }
            at = page.through;
        }
    }

    /// The message of an id, or the first of a key: looked for through the whole log.
    pub async fn find(&self, id: &str) -> Result<Option<Recorded>> {
        let (filter, mut at) = (Filter::default(), Position::default());
        loop {
            let page = self.database.log(at, &filter, 1000).await?;
            let named = |entry: &&Recorded| {
                entry.id.as_str() == id
                    || entry.key.as_ref().is_some_and(|key| key.as_bytes() == id.as_bytes())
            };
            if let Some(entry) = page.entries.iter().find(named) {
                return Ok(Some(entry.clone()));
            }
            if page.through <= at {
                return Ok(None);
            }
            at = page.through;
        }
    }
}

fn tree(correlation_id: &str, entries: &[Recorded]) -> Trace {
    let here: HashSet<&str> = entries.iter().map(|entry| entry.id.as_str()).collect();
    let mut caused: HashMap<&str, Vec<&Recorded>> = HashMap::new();
    let mut roots = vec![];
    for entry in entries {
        let cause = entry.causation_id.as_ref().map(sillage_core::MessageId::as_str);
        match cause.filter(|cause| here.contains(cause) && *cause != entry.id.as_str()) {
            Some(cause) => caused.entry(cause).or_default().push(entry),
            None => roots.push(entry),
        }
    }
    let roots = roots.into_iter().map(|root| node(root, &mut caused)).collect();
    Trace { correlation_id: correlation_id.into(), roots, messages: entries.len() }
}

/// Each list of children is taken out once, so that a circle of causes ends.
fn node<'e>(entry: &'e Recorded, caused: &mut HashMap<&'e str, Vec<&'e Recorded>>) -> TraceNode {
    let children = caused.remove(entry.id.as_str()).unwrap_or_default();
    TraceNode {
        position: entry.position,
        message: entry.body.clone(),
        orphan: entry.causation_id.is_some(),
        children: children
            .into_iter()
            .map(|child| TraceNode { orphan: false, ..node(child, caused) })
            .collect(),
    }
}
