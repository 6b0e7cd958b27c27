//! What a doctor would say.

use super::Admin;
use serde::Serialize;
use sillage_core::Result;
use std::time::Duration;

/// Something a doctor says.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// Nothing is wrong with it.
    pub ok: bool,
    /// What was looked at.
    pub what: String,
    /// What was found, and how to mend it.
    pub finding: String,
}

impl Admin {
    /// What a doctor would look at; each finding names its fix.
    pub async fn doctor(&self) -> Result<Vec<Finding>> {
        let mut findings = vec![];
        let mut say = |ok: bool, what: &str, finding: String| {
            findings.push(Finding { ok, what: what.to_owned(), finding });
        };
        let head = self.database.head().await?;
        say(true, "database", format!("answers; the log ends at position {}", head.last));
        let (ours, theirs) = (self.clock.now(), self.database.now().await?);
        let skew = ours.since(theirs).max(theirs.since(ours));
        let within = skew < Duration::from_secs(5);
        say(within, "clock", format!("{} ms from the database's clock", skew.as_millis()));
        let manifests = self.manifests().await?;
        let none = "no app has ever started on this database: start one, then look again";
        say(
            !manifests.is_empty(),
            "apps",
            match manifests.len() {
                0 => none.to_owned(),
                count => format!("{count} services have signed in"),
            },
        );
        for consumer in self.consumers().await? {
            let what = format!("consumer {}", consumer.name);
            if let Some(why) = &consumer.paused {
                let mend = format!("paused: {why}; `sillage consumers resume {}`", consumer.name);
                say(false, &what, mend);
                continue;
            }
            if consumer.dead_letters > 0 {
                let count = consumer.dead_letters;
                say(false, &what, format!("{count} dead letters; `sillage dlq list`"));
                continue;
            }
            let members = consumer.members;
            match consumer.lag {
                Some(lag) if lag > 0 && members == 0 => {
                    let start = format!("{lag} messages wait and no process runs it: start one");
                    say(false, &what, start);
                }
                Some(lag) => say(true, &what, format!("lag {lag}, members {members}")),
                None => {
                    let ask = format!("reads from {}: ask with `--broker URL`", consumer.broker);
                    say(true, &what, format!("{ask}; members {members}"));
                }
            }
        }
        for projection in self.projections().await? {
            let what = format!("projection {}", projection.name);
            match projection.paused {
                Some(why) => say(false, &what, format!("paused: {why}; deploy a reader for it")),
                None => say(true, &what, format!("{} positions behind", projection.lag)),
            }
        }
        Ok(findings)
    }
}
