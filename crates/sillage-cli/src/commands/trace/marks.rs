//! Which messages of a trace are dead letters, parked, or wait behind one.

use crate::text::{printable, shorten};
use serde::Serialize;
use sillage::{
    ErrorKind, Message, Result, Text,
    admin::{Admin, DeadLetter, Trace, TraceNode},
};
use std::{
    collections::{HashMap, HashSet},
    fmt,
};

/// Deliveries of one parked key that are looked at.
const MOST: u64 = 1000;

/// That a consumer has set a message aside.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Mark {
    consumer: Text,
    /// `dead`, `parked`, or `waiting` behind such a one.
    state: &'static str,
    failure: Option<String>,
    attempts: Option<u32>,
    id: Text,
}

impl Mark {
    pub(super) fn is_dead(&self) -> bool {
        self.state == "dead"
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let consumer = printable(&self.consumer);
        let (Some(failure), Some(attempts)) = (&self.failure, self.attempts) else {
            return write!(f, "⏸ waits in {consumer} behind an earlier one of its key");
        };
        let (state, why) = (self.state, printable(failure));
        let sign = if self.is_dead() { "✗" } else { "⏸" };
        let plural = if attempts == 1 { "" } else { "s" };
        let why = shorten(&why, 100);
        write!(f, "{sign} {state} in {consumer}: {why} ({attempts} attempt{plural})")
    }
}

/// The marks on the messages of a trace.
#[derive(Default)]
pub(super) struct Marks(HashMap<(Text, Text), Vec<Mark>>);

impl Marks {
    pub(super) async fn of(admin: &Admin, trace: &Trace) -> Result<Self> {
        let mut marks = Marks::default();
        let mut places = HashSet::new();
        let mut ids = HashSet::new();
        let mut open: Vec<&TraceNode> = trace.roots.iter().collect();
        while let Some(node) = open.pop() {
            open.extend(&node.children);
            let key = node.message.key.as_ref().map(|key| Text::from(&*key.label()));
            places.insert((node.message.topic.clone().unwrap_or_default(), key));
            ids.insert(node.message.id.text());
        }
        for letter in admin.dead_letters(None, true).await? {
            let place = (letter.key.topic.clone(), letter.key.key.clone());
            // A message without a key is parked under its own id.
            let single = || ids.iter().any(|id| letter.id.ends_with(&**id));
            if places.contains(&place) && (letter.key.key.is_some() || single()) {
                marks.add(admin, &letter).await?;
            }
        }
        Ok(marks)
    }

    async fn add(&mut self, admin: &Admin, letter: &DeadLetter) -> Result<()> {
        let (letter, deliveries) = match admin.dead_letter(&letter.id, MOST).await {
            Ok(found) => found,
            // It went on meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let key = &letter.key;
        for delivery in deliveries {
            let head = delivery.number == key.head;
            let state = match (head, key.dead) {
                (true, true) => "dead",
                (true, false) => "parked",
                (false, _) => "waiting",
            };
            let mark = Mark {
                consumer: key.consumer.clone(),
                state,
                failure: head.then(|| key.failure.clone()),
                attempts: head.then_some(key.attempts),
                id: letter.id.clone(),
            };
            let message = &delivery.message;
            let identity = (message.source.clone(), message.id.text());
            self.0.entry(identity).or_default().push(mark);
        }
        Ok(())
    }

    pub(super) fn on(&self, message: &Message) -> Vec<Mark> {
        let identity = (message.source.clone(), message.id.text());
        self.0.get(&identity).cloned().unwrap_or_default()
    }
}
