//! The causation tree of everything that followed from one first message.

use super::Admin;
use sillage_core::{Filter, Message, Position, Recorded, Result, Text, Timestamp};
use std::{collections::HashMap, sync::Arc};

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

impl Drop for TraceNode {
    /// A chain of causes may be long: dropped one inside the other, it would exhaust the stack.
    fn drop(&mut self) {
        let mut open = std::mem::take(&mut self.children);
        while let Some(mut node) = open.pop() {
            open.append(&mut node.children);
        }
    }
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

/// Without recursion, as a chain of causes may be as long as the trace. What is in a circle of
/// causes hangs from the first of it.
fn tree(correlation_id: &str, entries: &[Recorded]) -> Trace {
    let mut places = HashMap::new();
    for (place, entry) in entries.iter().enumerate() {
        places.entry(entry.id.as_str()).or_insert(place);
    }
    let mut caused = vec![vec![]; entries.len()];
    let mut firsts = vec![];
    for (place, entry) in entries.iter().enumerate() {
        let cause = entry.causation_id.as_ref().and_then(|cause| places.get(cause.as_str()));
        match cause {
            Some(cause) if *cause != place => caused[*cause].push(place),
            _ => firsts.push(place),
        }
    }
    let mut children = vec![vec![]; entries.len()];
    let mut roots = vec![];
    for (place, cause) in walk(&firsts, &caused).into_iter().rev() {
        let mut own: Vec<TraceNode> = std::mem::take(&mut children[place]);
        own.reverse();
        let (entry, siblings) = (&entries[place], cause.map(|cause: usize| &mut children[cause]));
        siblings.unwrap_or(&mut roots).push(TraceNode {
            position: entry.position,
            message: entry.body.clone(),
            orphan: cause.is_none() && entry.causation_id.is_some(),
            children: own,
        });
    }
    roots.reverse();
    Trace { correlation_id: correlation_id.into(), roots, messages: entries.len() }
}

/// All places with their causes, each behind its cause.
fn walk(firsts: &[usize], caused: &[Vec<usize>]) -> Vec<(usize, Option<usize>)> {
    let mut order = Vec::with_capacity(caused.len());
    let mut seen = vec![false; caused.len()];
    for first in firsts.iter().copied().chain(0..caused.len()) {
        let mut open = vec![(first, None)];
        while let Some((place, cause)) = open.pop() {
            if std::mem::replace(&mut seen[place], true) {
                continue;
            }
            order.push((place, cause));
            open.extend(caused[place].iter().rev().map(|child| (*child, Some(place))));
        }
    }
    order
}
