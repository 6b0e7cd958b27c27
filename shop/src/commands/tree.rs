//! What followed from one message, as a tree.

use anyhow::Context as _;
use sillage::{Database, Filter, MessageId, Position, Recorded, Text};
use std::fmt::Write as _;

/// How many messages are drawn at most.
const MOST: usize = 200;

/// Draws everything of this correlation, each message under the one that caused it.
pub(super) async fn draw(database: &dyn Database, correlation: &Text) -> anyhow::Result<String> {
    let filter = Filter { correlation_id: Some(correlation.clone()), ..Filter::default() };
    let page = database.log(Position(0), &filter, MOST).await.context("the log cannot be read")?;
    Ok(render(&page.entries))
}

fn render(entries: &[Recorded]) -> String {
    let known = |id: &MessageId| entries.iter().any(|entry| entry.id == *id);
    let is_root = |entry: &&Recorded| entry.causation_id.as_ref().is_none_or(|id| !known(id));
    let mut tree = String::new();
    for root in entries.iter().filter(is_root) {
        let _ = writeln!(tree, "{}  {}  {}", root.name, root.source, root.time);
        branches(&mut tree, entries, root, "");
    }
    tree
}

fn branches(tree: &mut String, entries: &[Recorded], parent: &Recorded, indent: &str) {
    let caused = |entry: &&Recorded| entry.causation_id.as_ref() == Some(&parent.id);
    let mut children = entries.iter().filter(caused).peekable();
    while let Some(child) = children.next() {
        let (twig, below) = if children.peek().is_some() { ("├─", "│ ") } else { ("└─", "  ") };
        let after = child.time.since(parent.time).as_millis();
        let _ = writeln!(tree, "{indent}{twig} {}  {}  +{after} ms", child.name, child.source);
        branches(tree, entries, child, &format!("{indent}{below} "));
    }
}
