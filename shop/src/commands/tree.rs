//! What followed from one message, as a tree.

use sillage::admin::{Trace, TraceNode};
use std::fmt::Write as _;

/// Draws each message under the one that caused it, with the time from the one to the other.
pub(super) fn draw(trace: &Trace) -> String {
    let mut tree = String::new();
    for root in &trace.roots {
        let message = &root.message;
        let _ = writeln!(tree, "{}  {}  {}", message.name, message.source, message.time);
        branches(&mut tree, root, "");
    }
    tree
}

fn branches(tree: &mut String, parent: &TraceNode, indent: &str) {
    for (index, child) in parent.children.iter().enumerate() {
        let last = index + 1 == parent.children.len();
        let (twig, below) = if last { ("└─", "  ") } else { ("├─", "│ ") };
        let after = child.message.time.since(parent.message.time).as_millis();
        let (name, source) = (&child.message.name, &child.message.source);
        let _ = writeln!(tree, "{indent}{twig} {name}  {source}  +{after} ms");
        branches(tree, child, &format!("{indent}{below} "));
    }
}
