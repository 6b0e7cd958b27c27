//! Which parked keys are meant.

use crate::{args::duration, commands::unique, failure::Refusal};
use anyhow::Result;
use serde::Serialize;
use sillage::{
    Text, Timestamp,
    admin::{Admin, DeadLetter},
};
use std::time::Duration;

const LIST: &str = "sillage dlq list --all --parked";

#[derive(Debug, clap::Args)]
pub(super) struct Select {
    /// Also keys that wait for their next try
    #[arg(long)]
    parked: bool,
    /// Only this consumer's: `service/name`, or its name
    #[arg(long)]
    consumer: Option<String>,
    /// Only where the message that failed has this name
    #[arg(long)]
    name: Option<String>,
    /// Only where the failure has this text in it
    #[arg(long, value_name = "TEXT")]
    error: Option<String>,
    /// Only what failed within this time: `10m`
    #[arg(long, value_name = "TIME", value_parser = duration)]
    since: Option<Duration>,
}

impl Select {
    /// Keys that match, those that failed first before the others.
    pub(super) async fn find(&self, admin: &Admin) -> Result<Vec<DeadLetter>> {
        let since = match self.since {
            Some(since) => Some(admin.database().now().await? - since),
            None => None,
        };
        let mut letters = admin.dead_letters(None, self.parked).await?;
        letters.retain(|letter| self.takes(letter, since));
        letters.sort_by_key(|letter| letter.key.first_failed_at);
        Ok(letters)
    }

    fn takes(&self, letter: &DeadLetter, since: Option<Timestamp>) -> bool {
        let key = &letter.key;
        let named = |wanted: &String| {
            *wanted == *key.consumer
                || key.consumer.rsplit_once('/').is_some_and(|(_, name)| name == wanted)
        };
        let failure = || key.failure.to_lowercase();
        self.consumer.as_ref().is_none_or(named)
            && self.name.as_deref().is_none_or(|name| name == &*key.name)
            && self.error.as_ref().is_none_or(|text| failure().contains(&text.to_lowercase()))
            && since.is_none_or(|since| key.last_failed_at >= since)
    }
}

/// The key that an id, or a part of one, names.
pub(super) async fn resolve(admin: &Admin, given: &str) -> Result<DeadLetter> {
    let found = resolve_all(admin, std::slice::from_ref(&given.to_owned())).await?.pop();
    Ok(found.ok_or_else(|| Refusal::usage("no ID is given", format!("`{LIST}` shows them")))?)
}

/// The keys that these name, each once.
pub(super) async fn resolve_all(admin: &Admin, given: &[String]) -> Result<Vec<DeadLetter>> {
    let mut letters = admin.dead_letters(None, true).await?;
    let ids: Vec<Text> = letters.iter().map(|letter| letter.id.clone()).collect();
    let wanted = given.iter().map(|given| unique("parked key", given, ids.iter(), LIST));
    let wanted = wanted.collect::<Result<Vec<_>, _>>()?;
    letters.retain(|letter| wanted.contains(&letter.id));
    Ok(letters)
}

/// A parked key, for JSON.
#[derive(Serialize)]
pub(super) struct Letter {
    pub(super) id: Text,
    pub(super) consumer: Text,
    pub(super) name: Text,
    pub(super) topic: Text,
    pub(super) key: Option<Text>,
    pub(super) dead: bool,
    pub(super) class: String,
    pub(super) failure: String,
    pub(super) attempts: u32,
    pub(super) redrives: u32,
    pub(super) deliveries: u64,
    pub(super) partition: Text,
    pub(super) first_failed_at: String,
    pub(super) last_failed_at: String,
    /// `null`: it waits for an operator.
    pub(super) next_try: Option<String>,
    #[serde(skip)]
    pub(super) failed_at: Timestamp,
}

impl From<DeadLetter> for Letter {
    fn from(letter: DeadLetter) -> Self {
        let key = letter.key;
        let millis = crate::text::millis;
        Letter {
            id: letter.id,
            consumer: key.consumer,
            name: key.name,
            topic: key.topic,
            key: key.key,
            dead: key.dead,
            class: key.class,
            failure: key.failure,
            attempts: key.attempts,
            redrives: key.redrives,
            deliveries: letter.deliveries,
            partition: key.partition,
            first_failed_at: millis(key.first_failed_at),
            last_failed_at: millis(key.last_failed_at),
            next_try: (!key.dead).then(|| millis(key.next_try)),
            failed_at: key.last_failed_at,
        }
    }
}
