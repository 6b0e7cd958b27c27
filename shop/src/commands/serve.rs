//! `shop serve`.

use super::{folder::Folder, out, stand::Stand};
use crate::{
    email::Mailer,
    gateway::Gateway,
    order::PaymentTerm,
    parts::{Flow, Needs, Part},
};
use anyhow::{Context as _, ensure};
use sillage::{Broker, Database};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::net::TcpListener;

/// Run some or all services, until SIGTERM or Ctrl-C.
#[derive(clap::Args)]
pub(super) struct Serve {
    /// Which services run here; all unless said.
    #[arg(long, value_enum, value_delimiter = ',')]
    services: Vec<Part>,
    /// The database; in the data folder unless said. Processes of one shop share it.
    #[arg(long, env = "SILLAGE_DATABASE", value_name = "URL")]
    database: Option<String>,
    /// Where the HTTP API listens; port 0 takes a free one, which is printed.
    #[arg(long, visible_alias = "http", value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// The payment gateway.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9000")]
    gateway: String,
    #[command(flatten)]
    outside: Outside,
    #[command(flatten)]
    folder: Folder,
}

/// What a shop's services need from outside, apart from the gateway.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Outside {
    /// The broker between the services: `embedded`, `kafka://host:port` or
    /// `amqp://user:password@host`.
    #[arg(long, env = "SILLAGE_BROKER", value_name = "URL", default_value = "embedded")]
    pub(super) broker: String,
    /// The mail server; unless said, letters become files in the data folder.
    #[arg(long, value_name = "URL")]
    smtp: Option<String>,
    /// How long an order may stay unpaid, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = PaymentTerm::default().0.as_secs())]
    pub(super) unpaid_after: u64,
    /// Who says what comes next: nobody, or a saga. All processes of a shop say the same, from the
    /// first order on: it is refused to change it then.
    #[arg(long, value_enum, default_value_t)]
    pub(super) flow: Flow,
    /// Lets this share of all handlings fail, for example 0.05: what their handlers returned is dropped, and
    /// they are tried again.
    #[arg(long, value_name = "SHARE")]
    fail_handlers: Option<f64>,
}

/// The database of a URL.
pub(super) async fn connect(url: &str) -> anyhow::Result<Arc<dyn Database>> {
    sillage::connect(url).await.context(
        "the database cannot be used; `cargo run -p shop --features postgres` has PostgreSQL too",
    )
}

impl Outside {
    /// The broker; `None` is the database's own log.
    pub(super) async fn connect_broker(&self) -> anyhow::Result<Option<Arc<dyn Broker>>> {
        let connected = sillage::connect_broker(&self.broker).await;
        connected.context(
            "the broker cannot be used; `cargo run -p shop --features kafka,rabbitmq` has them all",
        )
    }

    /// With this gateway, and letters in this folder unless there is a mail server.
    pub(super) fn needs(&self, gateway: &str, folder: &Folder) -> anyhow::Result<Needs> {
        let mailer = match &self.smtp {
            Some(url) => Mailer::smtp(url)?,
            None => Mailer::folder(folder.letters()).context("letters cannot be kept")?,
        };
        let term = PaymentTerm(Duration::from_secs(self.unpaid_after));
        Ok(Needs {
            gateway: Gateway::at(gateway)?,
            mailer,
            term,
            flow: self.flow,
            failing: self.fail_handlers,
        })
    }
}

impl Serve {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        self.folder.make()?;
        let parts = if self.services.is_empty() { Part::all() } else { self.services };
        let twice = parts.iter().enumerate().find(|(i, part)| parts[..*i].contains(part));
        ensure!(twice.is_none(), "a service is named twice");
        let url = self.database.unwrap_or_else(|| self.folder.database());
        let database = connect(&url).await?;
        let needs = self.outside.needs(&self.gateway, &self.folder)?;
        let listener = TcpListener::bind(self.listen)
            .await
            .with_context(|| format!("cannot listen on {}", self.listen))?;
        let broker = self.outside.connect_broker().await?;
        let stand = Stand::open(database, broker, &parts, &needs, listener).await?;
        out(format_args!("shop listens on {}", stand.url()));
        sillage::shutdown_signal().await;
        stand.close().await
    }
}
