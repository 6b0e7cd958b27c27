//! `sillage trace`: what caused what, as a tree.

mod marks;

use crate::{
    failure::{Exit, Refusal},
    output::{Format, Paint},
    session::Session,
    text::{brief, count, millis, payload, printable, shorten, time_of_day},
};
use anyhow::Result;
use marks::{Mark, Marks};
use serde::Serialize;
use sillage::{
    Clock as _, Message, Position, SystemClock, Text, Timestamp,
    admin::{Admin, Trace as Tree, TraceNode},
};
use std::time::Duration;

/// A trace that is followed has ended when nothing new has come for so long.
const QUIET: Duration = Duration::from_secs(2);
const EVERY: Duration = Duration::from_millis(200);
/// Deeper branches are drawn at this depth.
const DEEPEST: usize = 32;
/// Words that a failure's name ends with, and an undoing's.
const FAILED: [&str; 4] = ["failed", "declined", "short", "rejected"];
const UNDONE: [&str; 3] = ["cancelled", "refunded", "released"];
/// Where payloads say why.
const REASONS: [&str; 3] = ["why", "reason", "error"];

#[derive(Debug, clap::Args)]
#[command(after_help = "✗ marks failures, ↩ what was undone. A message id or a key is looked for \
    through the whole log; a correlation id is found at once.")]
pub(crate) struct Trace {
    /// A correlation id, a message id, or a key
    id: String,
    /// Wait until nothing new has come for two seconds
    #[arg(long)]
    follow: bool,
}

#[derive(Serialize)]
struct Drawn {
    correlation_id: Text,
    started: Option<String>,
    total_ms: u64,
    /// In the order of the tree: each behind its cause, one deeper.
    messages: Vec<Node>,
}

#[derive(Serialize)]
struct Node {
    depth: usize,
    position: Position,
    id: Text,
    name: Text,
    source: Text,
    topic: Option<Text>,
    key: Option<String>,
    time: String,
    causation_id: Option<Text>,
    /// Since its cause.
    after_ms: Option<u64>,
    /// Its cause is not in this log.
    orphan: bool,
    outcome: Option<&'static str>,
    reason: Option<String>,
    /// Consumers that could not handle it.
    marks: Vec<Mark>,
    #[serde(skip)]
    branch: String,
    #[serde(skip)]
    when: String,
}

impl Trace {
    pub(super) async fn run(self, session: &mut Session) -> Result<()> {
        let admin = session.admin().await?;
        let missing = || {
            Refusal::new(
                Exit::NotFound,
                format!("no message in the log has `{}` as correlation id, id or key", self.id),
                "`sillage tail --until-end -o jsonl` shows the ids there are",
            )
        };
        let mut tree = admin.trace(&self.id).await?.ok_or_else(missing)?;
        if self.follow {
            tree = until_quiet(&admin, tree, session).await?;
        }
        let marks = Marks::of(&admin, &tree).await?;
        let drawn = draw(tree, &marks);
        match session.out.format {
            Format::Table => print(&drawn, session),
            Format::Json => session.out.one(&drawn, |_| String::new()),
            Format::Jsonl => session.out.rows(&drawn.messages, &[]),
        }
    }
}

async fn until_quiet(admin: &Admin, mut tree: Tree, session: &Session) -> Result<Tree> {
    let mut since = SystemClock.elapsed();
    while SystemClock.elapsed().saturating_sub(since) < QUIET {
        session.sleep(EVERY).await;
        let Some(now) = admin.trace(&tree.correlation_id).await? else { break };
        if now.messages > tree.messages {
            since = SystemClock.elapsed();
        }
        tree = now;
    }
    Ok(tree)
}

/// A node that is still to be drawn.
struct Open {
    node: TraceNode,
    cause: Option<Timestamp>,
    depth: usize,
    /// What stands before its own branch.
    indent: String,
    last: bool,
}

/// The tree as a list, in the order it is drawn. Without recursion: chains may be long.
fn draw(tree: Tree, marks: &Marks) -> Drawn {
    let (started, mut ended) = (tree.started(), tree.started());
    let open = |node| Open { node, cause: None, depth: 0, indent: String::new(), last: true };
    let mut stack: Vec<_> = tree.roots.into_iter().rev().map(open).collect();
    let mut messages = Vec::with_capacity(tree.messages);
    while let Some(mut open) = stack.pop() {
        let children = std::mem::take(&mut open.node.children);
        let time = open.node.message.time;
        ended = ended.max(Some(time));
        let below = match (open.depth, open.last) {
            (0 | DEEPEST.., _) => open.indent.clone(),
            (_, true) => format!("{}   ", open.indent),
            (_, false) => format!("{}│  ", open.indent),
        };
        let count = children.len();
        for (index, node) in children.into_iter().enumerate().rev() {
            let (indent, last) = (below.clone(), index + 1 == count);
            stack.push(Open { node, cause: Some(time), depth: open.depth + 1, indent, last });
        }
        messages.push(Node::of(open, marks));
    }
    let total = started.zip(ended).map_or(Duration::ZERO, |(first, last)| last.since(first));
    Drawn {
        correlation_id: tree.correlation_id,
        started: started.map(millis),
        total_ms: whole_millis(total),
        messages,
    }
}

impl Node {
    fn of(open: Open, marks: &Marks) -> Self {
        let Open { node, cause, depth, indent, last } = open;
        let message = &node.message;
        let after = cause.map(|cause| message.time.since(cause));
        let branch = match (depth, last) {
            (0, _) => String::new(),
            (_, true) => format!("{indent}└─ "),
            (_, false) => format!("{indent}├─ "),
        };
        let outcome = outcome(&message.name);
        Node {
            depth,
            position: node.position,
            id: message.id.text(),
            name: message.name.clone(),
            source: message.source.clone(),
            topic: message.topic.clone(),
            key: message.key.as_ref().map(|key| key.label().into_owned()),
            time: millis(message.time),
            causation_id: message.causation_id.as_ref().map(sillage::MessageId::text),
            after_ms: after.map(whole_millis),
            orphan: node.orphan,
            outcome,
            reason: outcome.and_then(|_| reason(message)),
            marks: marks.on(message),
            branch,
            when: after.map_or_else(|| time_of_day(message.time), elapsed),
        }
    }

    fn remarks(&self, session: &Session) -> Vec<String> {
        let mut remarks = vec![];
        let reason = self.reason.as_deref().unwrap_or_default();
        let with = |sign: &str| format!("{sign} {}", shorten(&printable(reason), 100));
        match self.outcome {
            Some("failed") => remarks.push(session.out.paint(with("✗").trim_end(), Paint::Bad)),
            Some(_) => remarks.push(session.out.paint(with("↩").trim_end(), Paint::Undone)),
            None => {}
        }
        for mark in &self.marks {
            let paint = if mark.is_dead() { Paint::Bad } else { Paint::Undone };
            remarks.push(session.out.paint(&mark.to_string(), paint));
        }
        if self.orphan {
            remarks.push(session.out.paint("(its cause is not in this log)", Paint::Faint));
        }
        remarks
    }
}

fn whole_millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

fn elapsed(length: Duration) -> String {
    match length.as_secs() {
        0..10 => format!("+{}ms", length.as_millis()),
        _ => format!("+{}", brief(length)),
    }
}

fn outcome(name: &str) -> Option<&'static str> {
    let ends = |words: &[&str]| words.iter().any(|word| name.ends_with(word));
    match name {
        _ if ends(&FAILED) => Some("failed"),
        _ if ends(&UNDONE) => Some("undone"),
        _ => None,
    }
}

fn reason(message: &Message) -> Option<String> {
    let data: serde_json::Value = serde_json::from_slice(&message.payload).ok()?;
    let reason = REASONS.iter().find_map(|name| data.get(name)?.as_str());
    reason.map(|reason| payload(reason.as_bytes(), false).into_owned())
}

fn print(drawn: &Drawn, session: &mut Session) -> Result<()> {
    let label = |node: &Node| format!("{}{}", node.branch, printable(&node.name));
    let width = |text: &str| text.chars().count();
    let names = drawn.messages.iter().map(|node| width(&label(node))).max().unwrap_or(0);
    let sources = drawn.messages.iter().map(|node| width(&printable(&node.source)));
    let (names, sources) = (names.min(64), sources.max().unwrap_or(0).min(32));
    for node in &drawn.messages {
        let (label, source) = (label(node), printable(&node.source));
        let mut line = format!("{label:<names$}  {source:<sources$}  {}", node.when);
        for remark in node.remarks(session) {
            line.push_str("  ");
            line.push_str(&remark);
        }
        session.out.line(line)?;
    }
    let mut parts = vec![count(drawn.messages.len(), "message"), format!("{}ms", drawn.total_ms)];
    let marks = || drawn.messages.iter().flat_map(|node| &node.marks);
    let dead = marks().filter(|mark| mark.is_dead()).count();
    let parked = marks().count() - dead;
    for (number, what) in [(dead, "dead"), (parked, "parked")] {
        if number > 0 {
            parts.push(format!("{number} {what}"));
        }
    }
    session.out.line(parts.join(" · "))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_failures_and_undoings() {
        assert_eq!(outcome("payment.failed"), Some("failed"));
        assert_eq!(outcome("stock.short"), Some("failed"));
        assert_eq!(outcome("order.cancelled"), Some("undone"));
        assert_eq!(outcome("order.created"), None);
    }

    #[test]
    fn lengths_of_time() {
        assert_eq!(elapsed(Duration::from_micros(12_900)), "+12ms");
        assert_eq!(elapsed(Duration::from_secs(75)), "+1m");
    }
}
