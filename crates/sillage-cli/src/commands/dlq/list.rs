//! `sillage dlq list`.

use super::select::{Letter, Select};
use crate::{
    output::Column,
    session::Session,
    text::{millis, printable, shorten, when},
};
use anyhow::Result;
use serde::Serialize;
use sillage::{Text, Timestamp, admin::DeadLetter};
use std::collections::BTreeMap;

#[derive(Debug, clap::Args)]
pub(crate) struct List {
    /// Single keys, with their ids, instead of groups
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    select: Select,
}

#[derive(Serialize)]
struct Group {
    consumer: Text,
    name: Text,
    class: String,
    keys: u64,
    dead: u64,
    deliveries: u64,
    first_failed_at: String,
    last_failed_at: String,
    /// The newest.
    failure: String,
    #[serde(skip)]
    last: String,
}

const GROUPS: [Column<Group>; 7] = [
    ("CONSUMER", |group| group.consumer.to_string()),
    ("MESSAGE", |group| group.name.to_string()),
    ("CLASS", |group| group.class.clone()),
    ("KEYS", |group| group.keys.to_string()),
    ("DELIVERIES", |group| group.deliveries.to_string()),
    ("LAST FAILED", |group| group.last.clone()),
    ("FAILURE", |group| brief(&group.failure)),
];

struct Row(Letter, Timestamp);

const LETTERS: [Column<Row>; 6] = [
    ("ID", |row| row.0.id.to_string()),
    ("STATE", |row| if row.0.dead { "dead" } else { "parked" }.to_owned()),
    ("MESSAGE", |row| row.0.name.to_string()),
    ("DELIVERIES", |row| row.0.deliveries.to_string()),
    ("LAST FAILED", |row| when(row.0.failed_at, row.1)),
    ("FAILURE", |row| brief(&row.0.failure)),
];

impl Serialize for Row {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

fn brief(failure: &str) -> String {
    shorten(&printable(failure), 60).into_owned()
}

impl List {
    pub(super) async fn run(self, session: &mut Session) -> Result<()> {
        let admin = session.admin().await?;
        let letters = self.select.find(&admin).await?;
        if letters.is_empty() {
            session.out.note("nothing: no key is parked, or none that matches");
        }
        let now = admin.database().now().await?;
        if self.all {
            let rows: Vec<_> = letters.into_iter().map(|letter| Row(letter.into(), now)).collect();
            return session.out.rows(&rows, &LETTERS);
        }
        let groups = groups(letters, now);
        session.out.rows(&groups, &GROUPS)?;
        if session.out.is_table() && !groups.is_empty() {
            session.out.note("`sillage dlq list --all` shows single keys with their ids");
        }
        Ok(())
    }
}

/// Largest first.
fn groups(letters: Vec<DeadLetter>, now: Timestamp) -> Vec<Group> {
    let mut groups = BTreeMap::<_, Vec<DeadLetter>>::new();
    for letter in letters {
        let key = &letter.key;
        let group = (key.consumer.clone(), key.name.clone(), key.class.clone());
        groups.entry(group).or_default().push(letter);
    }
    let mut groups: Vec<_> = groups
        .into_iter()
        .filter_map(|((consumer, name, class), letters)| {
            let first = letters.iter().map(|letter| letter.key.first_failed_at).min()?;
            let newest = letters.iter().max_by_key(|letter| letter.key.last_failed_at)?;
            let last = newest.key.last_failed_at;
            Some(Group {
                consumer,
                name,
                class,
                keys: letters.len() as u64,
                dead: letters.iter().filter(|letter| letter.key.dead).count() as u64,
                deliveries: letters.iter().map(|letter| letter.deliveries).sum(),
                first_failed_at: millis(first),
                last_failed_at: millis(last),
                failure: newest.key.failure.clone(),
                last: when(last, now),
            })
        })
        .collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.keys));
    groups
}
