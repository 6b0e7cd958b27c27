//! One run of the command: where it writes, what it was told, the database and the broker.

use crate::{
    args::Globals,
    config::Settings,
    failure::{Exit, Refusal},
    input,
    output::{Out, ask},
};
use anyhow::Result;
use sillage::{Broker, Clock as _, SystemClock, admin::Admin};
use std::{borrow::Cow, env, fs, sync::Arc, time::Duration};

pub(crate) struct Session {
    pub(crate) out: Out,
    pub(crate) settings: Settings,
    yes: bool,
    no_input: bool,
}

impl Session {
    pub(crate) fn new(settings: Settings, globals: &Globals) -> Self {
        let out = Out::new(settings.output.value, settings.colour.value, globals.quiet);
        Session { out, settings, yes: globals.yes, no_input: globals.no_input }
    }

    /// The operator verbs on the database. One that is not there is never made.
    pub(crate) async fn admin(&self) -> Result<Admin> {
        let url = self.settings.url()?;
        self.check_file(url)?;
        check_feature(url)?;
        let user = ["USER", "LOGNAME", "USERNAME"].iter().find_map(|name| env::var(name).ok());
        let who = format!("sillage: {}", user.as_deref().unwrap_or("unknown"));
        Ok(Admin::new(sillage::connect(&never_made(url)).await?, who))
    }

    /// The broker, where one is named and it is not the log.
    pub(crate) async fn broker(&self) -> Result<Option<Arc<dyn Broker>>> {
        let Some(url) = &self.settings.broker.value else { return Ok(None) };
        check_feature(url)?;
        Ok(sillage::connect_broker(url).await?)
    }

    fn check_file(&self, url: &str) -> Result<(), Refusal> {
        let Some(path) = url.strip_prefix("sqlite:") else { return Ok(()) };
        let length = fs::metadata(path.trim_start_matches("//")).map(|file| file.len());
        let what = match length {
            Ok(0) => "is empty: no app has ever started on it",
            Ok(_) => return Ok(()),
            Err(_) => "does not exist, or cannot be read",
        };
        let origin = &self.settings.database.origin;
        Err(Refusal::new(
            Exit::NotFound,
            format!("the database `{url}` ({origin}) {what}"),
            "start the app that makes it, or name another with `--database sqlite:FILE`",
        ))
    }

    /// Goes on only with a yes, by flag or by hand.
    pub(crate) async fn confirm(&self, question: &str) -> Result<()> {
        if self.yes {
            return Ok(());
        }
        if self.no_input || !input::is_terminal() {
            return Err(Refusal::usage(
                format!("{question} Nobody is here to answer"),
                "say `--yes` to do it, or `--dry-run` to see what it would do",
            )
            .into());
        }
        ask(question);
        let answer = input::Lines::start().next().await.transpose()?.unwrap_or_default();
        match answer.trim_ascii().to_ascii_lowercase().as_slice() {
            b"y" | b"yes" => Ok(()),
            _ => Err(Refusal::new(
                Exit::Failure,
                "nothing was done",
                "answer `y`, or say `--yes`, to do it",
            )
            .into()),
        }
    }

    pub(crate) async fn sleep(&self, length: Duration) {
        SystemClock.sleep(length).await;
    }
}

/// The URL by which a schema of PostgreSQL is not made where there is none.
fn never_made(url: &str) -> Cow<'_, str> {
    if !url.starts_with("postgres") {
        return Cow::Borrowed(url);
    }
    let mark = if url.contains('?') { '&' } else { '?' };
    Cow::Owned(format!("{url}{mark}create=no"))
}

/// A server that this binary cannot speak to is told with the way to one that can.
fn check_feature(url: &str) -> Result<(), Refusal> {
    let (name, feature, is_there) = match url.split_once(':').map_or(url, |(scheme, _)| scheme) {
        "kafka" => ("Kafka", "kafka", cfg!(feature = "kafka")),
        "amqp" | "amqps" => ("RabbitMQ", "rabbitmq", cfg!(feature = "rabbitmq")),
        "postgres" | "postgresql" => ("PostgreSQL", "postgres", cfg!(feature = "postgres")),
        _ => return Ok(()),
    };
    if is_there {
        return Ok(());
    }
    Err(Refusal::usage(
        format!("this `sillage` was built without {name}: the feature `{feature}` is missing"),
        format!(
            "`cargo run --release -p sillage-cli --features {feature} -- …` in place of \
             `cargo sillage …`"
        ),
    ))
}
