//! `sillage journal`.

use crate::{
    args::{Moment, duration},
    failure::{Exit, Refusal},
    output::Column,
    session::Session,
    text::{millis, payload, printable},
};
use anyhow::Result;
use serde::Serialize;
use serde_json::Value;
use sillage::{
    App, Broker, Clock as _, Key, Position, Recorded, Service, SystemClock, Text,
    admin::{Checked, Gap, Search},
    to_json,
};
use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs::File,
    io::{BufWriter, Write as _},
    path::PathBuf,
    time::Duration,
};

#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Without a verb it runs: it keeps a copy of every message of every topic of the \
    broker in the log of the journal's own database, until it is interrupted. The verbs read that \
    log, or any other: with the embedded broker an app's own log is its journal.\n\n\
    Examples:\n  sillage journal --broker kafka://127.0.0.1:9092 --database sqlite:journal.db\n  \
    sillage journal search --correlation ID --database sqlite:journal.db\n  \
    sillage journal check --database sqlite:journal.db"
)]
pub(crate) struct Journal {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    run: Run,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Messages that match, one a line
    Search(Wanted),
    /// Messages that match, as `CloudEvents`: JSON lines
    Export {
        #[command(flatten)]
        wanted: Wanted,
        /// A new file, in place of the standard output
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
    /// Look for messages that were published and are not here; exit code 8 where one is missing
    Check {
        /// What is younger may still be on its way
        #[arg(long, default_value = "10m", value_name = "TIME", value_parser = duration)]
        settle: Duration,
    },
}

#[derive(Debug, clap::Args)]
struct Run {
    /// Only these topics; else all that the broker has, and will have
    #[arg(long)]
    topic: Vec<Text>,
    /// How often to look for new topics
    #[arg(long, default_value = "30s", value_name = "TIME", value_parser = duration)]
    look: Duration,
    /// End when nothing more has come for so long
    #[arg(long, value_name = "TIME", value_parser = duration)]
    until_idle: Option<Duration>,
}

#[derive(Debug, clap::Args)]
struct Wanted {
    /// Only what follows from this first message
    #[arg(long, value_name = "ID")]
    correlation: Option<Text>,
    /// Only messages of these names
    #[arg(long)]
    name: Vec<Text>,
    /// Only these topics
    #[arg(long)]
    topic: Vec<Text>,
    /// Only of these sources
    #[arg(long)]
    source: Vec<Text>,
    /// Only of this key
    #[arg(long)]
    key: Option<String>,
    /// Only what was produced then or later: `-10m`, a day, or RFC 3339
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    since: Option<Moment>,
    /// Only what was produced before
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    until: Option<Moment>,
    /// End after so many
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

#[derive(Serialize)]
struct Found {
    position: Position,
    message: Value,
    #[serde(skip)]
    shown: [String; 6],
}

const COLUMNS: [Column<Found>; 6] = [
    ("TIME", |found| found.shown[0].clone()),
    ("SOURCE", |found| found.shown[1].clone()),
    ("NAME", |found| found.shown[2].clone()),
    ("KEY", |found| found.shown[3].clone()),
    ("CORRELATION", |found| found.shown[4].clone()),
    ("PAYLOAD", |found| found.shown[5].clone()),
];

impl Found {
    fn of(entry: &Recorded) -> sillage::Result<Self> {
        let label = entry.key.as_ref().map(|key| key.label().into_owned()).unwrap_or_default();
        let shown = [
            millis(entry.time),
            printable(&entry.source).into_owned(),
            printable(&entry.name).into_owned(),
            printable(&label).into_owned(),
            printable(&entry.correlation_id).into_owned(),
            payload(&entry.payload, false).into_owned(),
        ];
        let message = serde_json::from_str(&to_json(&entry.body)?)?;
        Ok(Found { position: entry.position, message, shown })
    }
}

impl Wanted {
    fn search(&self) -> Search {
        let now = SystemClock.now();
        Search {
            correlation_id: self.correlation.clone(),
            names: self.name.clone(),
            topics: self.topic.clone(),
            sources: self.source.clone(),
            key: self.key.as_ref().map(Key::of),
            since: self.since.map(|moment| moment.at(now)),
            until: self.until.map(|moment| moment.at(now)),
            ..Search::default()
        }
    }
}

impl Journal {
    pub(super) async fn run(self, session: &mut Session) -> Result<()> {
        match self.verb {
            None => self.run.run(session).await,
            Some(Verb::Search(wanted)) => search(&wanted, session).await,
            Some(Verb::Export { wanted, to }) => export(&wanted, to, session).await,
            Some(Verb::Check { settle }) => check(settle, session).await,
        }
    }
}

impl Run {
    async fn run(self, session: &mut Session) -> Result<()> {
        let Some(broker) = session.broker().await? else {
            return Err(Refusal::usage(
                "a journal is of a broker outside the database, and none is named",
                "say `--broker URL`; the log of an app on the embedded broker is its journal",
            )
            .into());
        };
        let database = sillage::connect(session.settings.url()?).await?;
        loop {
            let topics = self.topics(&*broker).await?;
            if topics.is_empty() {
                session.out.note("the broker has no topic yet");
                session.sleep(self.look).await;
                continue;
            }
            let names: Vec<_> = topics.iter().map(|topic| printable(topic)).collect();
            session.out.note(format!("journal of {}", names.join(", ")));
            let service = Service::new("journal").follow(topics.iter().cloned());
            let app = App::new(database.clone()).broker(Some(broker.clone())).service(service);
            let app = app.start().await?;
            let ended = self.watch(&*broker, &topics, &*database, session).await;
            app.drain().await;
            if ended? {
                return Ok(());
            }
        }
    }

    async fn topics(&self, broker: &dyn Broker) -> Result<BTreeSet<Text>> {
        let found = broker.topics(&self.topic).await?;
        Ok(found.into_iter().map(|topic| topic.name).collect())
    }

    /// Until there are other topics: false; or nothing more comes: true.
    async fn watch(
        &self,
        broker: &dyn Broker,
        topics: &BTreeSet<Text>,
        database: &dyn sillage::Database,
        session: &Session,
    ) -> Result<bool> {
        let mut grown = (database.head().await?.last, SystemClock.elapsed());
        let mut looked = SystemClock.elapsed();
        loop {
            session.sleep(Duration::from_millis(200)).await;
            let (head, now) = (database.head().await?.last, SystemClock.elapsed());
            if head > grown.0 {
                grown = (head, now);
            }
            if self.until_idle.is_some_and(|idle| now >= grown.1 + idle) {
                return Ok(true);
            }
            if now >= looked + self.look {
                looked = now;
                if self.topics(broker).await? != *topics {
                    return Ok(false);
                }
            }
        }
    }
}

async fn search(wanted: &Wanted, session: &mut Session) -> Result<()> {
    let admin = session.admin().await?;
    let (mut found, mut failed) = (vec![], None);
    let limit = wanted.limit.unwrap_or(usize::MAX);
    admin
        .search(&wanted.search(), |entry| {
            match Found::of(entry) {
                Ok(one) => found.push(one),
                Err(error) => failed = Some(error),
            }
            failed.is_none() && found.len() < limit
        })
        .await?;
    failed.map_or(Ok(()), Err)?;
    found.truncate(limit);
    session.out.rows(&found, &COLUMNS)
}

async fn export(wanted: &Wanted, to: Option<PathBuf>, session: &mut Session) -> Result<()> {
    let admin = session.admin().await?;
    let mut lines: Box<dyn std::io::Write + Send> = match &to {
        Some(path) => Box::new(BufWriter::new(File::create_new(path)?)),
        None => Box::new(BufWriter::new(std::io::stdout())),
    };
    let (mut count, mut ended) = (0_usize, Ok(()));
    let limit = wanted.limit.unwrap_or(usize::MAX);
    admin
        .search(&wanted.search(), |entry| {
            let line = to_json(&entry.body).map_err(anyhow::Error::from);
            ended = line.and_then(|line| Ok(writeln!(lines, "{line}")?));
            count += 1;
            ended.is_ok() && count < limit
        })
        .await?;
    ended?;
    lines.flush()?;
    session.out.note(format!("{count} messages"));
    Ok(())
}

async fn check(settle: Duration, session: &mut Session) -> Result<()> {
    let checked = session.admin().await?.gaps(settle).await?;
    session.out.one(&checked, describe)?;
    match checked.gaps.len() {
        0 => Ok(()),
        count => Err(Refusal::new(
            Exit::CheckFailed,
            format!("{count} messages that were published are not here"),
            "`sillage trace` and the log of the service that published them tell what they were",
        )
        .into()),
    }
}

fn describe(checked: &Checked) -> String {
    let counts = |what: &str, by: &std::collections::BTreeMap<Text, u64>| {
        let of = |(source, count): (&Text, &u64)| format!("{count} of {}", printable(source));
        let all: Vec<_> = by.iter().map(of).collect();
        if all.is_empty() { String::new() } else { format!("\n{what}: {}", all.join(", ")) }
    };
    let mut text = format!("{} missing", checked.gaps.len());
    for Gap { log, source, missing, told_by, time } in checked.gaps.iter().take(20) {
        let (source, time) = (printable(source), millis(*time));
        let _ = write!(
            text,
            "\n  position {missing} of log {log}, before {told_by} of {source} at {time}"
        );
    }
    text.push_str(&counts("checked", &checked.checked));
    text.push_str(&counts("do not know what was before", &checked.unknown));
    text.push_str(&counts("of others, who do not say", &checked.foreign));
    if checked.young > 0 {
        let _ = write!(text, "\ntoo young to tell: {}", checked.young);
    }
    text
}
