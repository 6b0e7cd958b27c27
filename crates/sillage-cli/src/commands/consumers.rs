//! `sillage consumers`.

mod oldest;

use super::unique;
use crate::{
    args::duration,
    failure::{Exit, Refusal},
    output::{Column, Format, UNKNOWN},
    session::Session,
    text::{brief, millis, printable},
};
use anyhow::Result;
use serde::Serialize;
use sillage::{
    Broker, Position, Tally, Text, Timestamp,
    admin::{Admin, ConsumerStatus},
};
use std::{fmt::Write as _, sync::Arc, time::Duration};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Consumers {
    /// How each stands
    List,
    /// How one stands, and what it has counted
    Show { name: String },
    /// Stop it, in all its processes, until it is resumed
    Pause {
        name: String,
        /// Why: it is shown wherever the consumer is, and kept
        #[arg(long)]
        why: String,
    },
    /// Let it go on
    Resume { name: String },
    /// Let one go on that had not read all that was trimmed from the log; its app is stopped
    AcceptLoss { name: String },
    /// What waits for each; with a limit, exit code 8 where one is over it
    Lag(Lag),
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "In the log, lag is counted up to some 10 000 messages a consumer; its seconds \
    are the age of the oldest message that waits. At a broker, that message is read, where the \
    broker has offsets and no more than 100 000 wait in a partition; `?` is what nobody knows, and \
    a limit on it is an error. The relay, which reads the log, is in the list."
)]
pub(crate) struct Lag {
    /// Only these consumers
    name: Vec<String>,
    /// Look again and again, until interrupted or one is over its limit
    #[arg(long)]
    watch: bool,
    /// How long between two looks
    #[arg(long, default_value = "2s", value_name = "TIME", value_parser = duration)]
    every: Duration,
    /// More messages than that are too many
    #[arg(long, value_name = "N")]
    max_messages: Option<u64>,
    /// An oldest message that has waited longer than that is too old
    #[arg(long, value_name = "N")]
    max_seconds: Option<u64>,
}

#[derive(Serialize)]
struct Accepted {
    name: Text,
    position: Position,
}

#[derive(Serialize)]
struct Standing {
    name: Text,
    topics: Vec<String>,
    broker: String,
    position: Option<Position>,
    lag: Option<u64>,
    lag_seconds: Option<f64>,
    waiting_since: Option<String>,
    members: u64,
    parked_keys: u64,
    parked_deliveries: u64,
    dead_letters: u64,
    paused: Option<String>,
    tally: Tally,
}

impl Standing {
    fn of(status: ConsumerStatus, now: Timestamp) -> Self {
        let waited = status.waiting_since.map(|since| now.since(since));
        // Nothing waits; and where something may, only the embedded log knows since when.
        let none_waits = status.lag == Some(0) || status.position.is_some();
        let waited = waited.or_else(|| none_waits.then_some(Duration::ZERO));
        Standing {
            name: status.name,
            topics: status.topics,
            broker: status.broker,
            position: status.position,
            lag: status.lag,
            lag_seconds: waited.map(|waited| waited.as_secs_f64()),
            waiting_since: status.waiting_since.map(millis),
            members: status.members,
            parked_keys: status.parked_keys,
            parked_deliveries: status.parked_deliveries,
            dead_letters: status.dead_letters,
            paused: status.paused,
            tally: status.tally,
        }
    }

    fn waited(&self) -> String {
        match (self.lag_seconds, &self.waiting_since) {
            (Some(seconds), Some(_)) => brief(Duration::from_secs_f64(seconds)),
            (Some(_), None) => "-".to_owned(),
            (None, _) => UNKNOWN.to_owned(),
        }
    }

    fn topics(&self) -> String {
        if self.topics.is_empty() { "all".to_owned() } else { self.topics.join(", ") }
    }

    fn waiting(&self) -> String {
        self.lag.map_or_else(|| UNKNOWN.to_owned(), |lag| lag.to_string())
    }

    fn unknown(&self, what: &str) -> Refusal {
        Refusal::usage(
            format!("the {what} of {} is not known here: it reads from {}", self.name, self.broker),
            "name that broker by `--broker URL` or SILLAGE_BROKER; `sillage doctor` says more",
        )
    }

    fn describe(&self) -> String {
        let mut text = format!("{}\n", printable(&self.name));
        let mut say = |what: &str, value: String| {
            let _ = writeln!(text, "  {what:<12} {}", printable(&value));
        };
        say("topics", self.topics());
        say("broker", self.broker.clone());
        if let Some(position) = self.position {
            say("position", position.to_string());
        }
        say("lag", format!("{} messages, the oldest {}", self.waiting(), self.waited()));
        say("members", self.members.to_string());
        say("paused", self.paused.clone().unwrap_or_else(|| "no".to_owned()));
        let tally = self.tally;
        say("received", tally.received.to_string());
        say("done", tally.done.to_string());
        say("parked", tally.parked.to_string());
        say("ignored", tally.ignored.to_string());
        say("duplicates", tally.duplicates.to_string());
        let (keys, deliveries) = (self.parked_keys, self.parked_deliveries);
        say("parked now", format!("{keys} keys with {deliveries} deliveries"));
        say("dead now", format!("{} keys", self.dead_letters));
        text
    }
}

const COLUMNS: [Column<Standing>; 8] = [
    ("CONSUMER", |line| line.name.to_string()),
    ("TOPICS", Standing::topics),
    ("LAG", Standing::waiting),
    ("OLDEST", Standing::waited),
    ("MEMBERS", |line| line.members.to_string()),
    ("PARKED", |line| line.parked_keys.to_string()),
    ("DEAD", |line| line.dead_letters.to_string()),
    ("PAUSED", |line| line.paused.clone().unwrap_or_else(|| "-".to_owned())),
];

const LAG: [Column<Standing>; 4] = [COLUMNS[0], COLUMNS[2], COLUMNS[3], COLUMNS[4]];

#[derive(Serialize)]
struct Changed {
    name: Text,
    paused: Option<String>,
    position: Position,
}

impl Consumers {
    pub(super) async fn run(self, session: &mut Session) -> Result<()> {
        let admin = session.admin().await?;
        match self {
            Consumers::List => {
                let standings = Look::new(admin, session).await?.standings(&[], false).await?;
                if standings.is_empty() {
                    session.out.note("no app with a consumer has ever started on this database");
                }
                let unknown = standings.iter().find(|standing| standing.lag.is_none());
                if let Some(Refusal { what, next, .. }) = unknown.map(|one| one.unknown("lag")) {
                    session.out.note(format!("{what}; {next}"));
                }
                session.out.rows(&standings, &COLUMNS)
            }
            Consumers::Show { name } => {
                for standing in Look::new(admin, session).await?.standings(&[name], true).await? {
                    session.out.one(&standing, Standing::describe)?;
                }
                Ok(())
            }
            Consumers::Pause { name, why } => {
                let name = resolve(&admin, &name).await?;
                let position = admin.pause(&name, &why).await?.position;
                changed(session, &Changed { name, paused: Some(why), position })
            }
            Consumers::Resume { name } => {
                let name = resolve(&admin, &name).await?;
                let position = admin.resume(&name).await?.position;
                changed(session, &Changed { name, paused: None, position })
            }
            Consumers::AcceptLoss { name } => {
                let name = resolve(&admin, &name).await?;
                session.confirm(&format!("Let {name} go on without what is gone?")).await?;
                let position = admin.accept_loss(&name).await?;
                let accepted = Accepted { name, position };
                session.out.one(&accepted, |accepted| {
                    let Accepted { name, position } = accepted;
                    format!("{} goes on behind position {position}", printable(name))
                })
            }
            Consumers::Lag(lag) => {
                let look = Look::new(admin, session).await?;
                lag.run(&look, session).await
            }
        }
    }
}

fn changed(session: &mut Session, changed: &Changed) -> Result<()> {
    session.out.one(changed, |changed| {
        let name = printable(&changed.name);
        match &changed.paused {
            Some(why) => format!("{name} is paused: {}", printable(why)),
            None => format!("{name} goes on"),
        }
    })
}

async fn resolve(admin: &Admin, given: &str) -> Result<Text> {
    let consumers = admin.consumers().await?;
    let names = consumers.iter().map(|consumer| &consumer.name);
    Ok(unique("consumer", given, names, "sillage consumers list")?)
}

/// Looks at the database, and at the broker where one is named.
struct Look {
    admin: Admin,
    broker: Option<Arc<dyn Broker>>,
}

impl Look {
    async fn new(admin: Admin, session: &Session) -> Result<Self> {
        let broker = session.broker().await?;
        Ok(Look { admin: admin.broker(broker.clone()), broker })
    }

    /// How those named stand, or all; with the age of what waits at the broker too, which takes
    /// longer.
    async fn standings(&self, given: &[String], ages: bool) -> Result<Vec<Standing>> {
        let now = self.admin.database().now().await?;
        let mut consumers = self.admin.consumers().await?;
        consumers.sort_by(|one, other| one.name.cmp(&other.name));
        if !given.is_empty() {
            let names: Vec<_> = consumers.iter().map(|consumer| consumer.name.clone()).collect();
            let resolve = |given: &String| unique("consumer", given, names.iter(), LIST);
            let wanted: Vec<_> = given.iter().map(resolve).collect::<Result<_, _>>()?;
            consumers.retain(|consumer| wanted.contains(&consumer.name));
        }
        let mut standings = vec![];
        for mut status in consumers {
            // The log has told its own.
            let waits = ages && status.position.is_none() && status.lag.is_some_and(|lag| lag > 0);
            if let Some(broker) = self.broker.as_ref().filter(|_| waits) {
                oldest::look(&**broker, &mut status).await?;
            }
            standings.push(Standing::of(status, now));
        }
        Ok(standings)
    }
}

const LIST: &str = "sillage consumers list";

impl Lag {
    async fn run(self, look: &Look, session: &mut Session) -> Result<()> {
        // One JSON value, also of many looks: a list of them.
        let list = self.watch && session.out.format == Format::Json;
        if list {
            session.out.begin();
        }
        loop {
            let standings = look.standings(&self.name, true).await?;
            if list {
                session.out.element(&serde_json::to_string(&standings)?)?;
            } else {
                session.out.rows(&standings, &LAG)?;
            }
            let over = standings.iter().map(|one| self.over(one));
            let over: Vec<_> = over.filter_map(Result::transpose).collect::<Result<_, _>>()?;
            if !over.is_empty() {
                return Err(Refusal::new(
                    Exit::CheckFailed,
                    over.join("; "),
                    "`sillage consumers show` and `sillage doctor` say what holds it up",
                )
                .into());
            }
            if !self.watch {
                return Ok(());
            }
            session.out.flush()?;
            session.sleep(self.every).await;
        }
    }

    /// What of it is over a limit; an error where nobody can tell.
    fn over(&self, standing: &Standing) -> Result<Option<String>, Refusal> {
        let name = &standing.name;
        if let Some(max) = self.max_messages {
            let lag = standing.lag.ok_or_else(|| standing.unknown("lag"))?;
            if lag > max {
                return Ok(Some(format!("{lag} messages wait for {name}")));
            }
        }
        let Some(max) = self.max_seconds else { return Ok(None) };
        let seconds = standing.lag_seconds.ok_or_else(|| standing.unknown("oldest message"))?;
        let waited = Duration::from_secs_f64(seconds);
        let over = waited > Duration::from_secs(max);
        Ok(over.then(|| format!("a message has waited {} for {name}", brief(waited))))
    }
}
