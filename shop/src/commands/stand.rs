//! A shop in this process: services, shelves and the HTTP API, opened and closed together.

use crate::{
    http, inventory,
    parts::{Needs, Part, assemble, check_flow},
};
use anyhow::Context as _;
use sillage::{App, Broker, Database, Running, admin::Admin};
use std::{io, net::SocketAddr, sync::Arc};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// A shop in this process.
pub(super) struct Stand {
    pub(super) running: Running,
    pub(super) address: SocketAddr,
    http: JoinHandle<io::Result<()>>,
    closing: CancellationToken,
}

impl Stand {
    /// Starts the services and serves what they offer.
    pub(super) async fn open(
        database: Arc<dyn Database>,
        broker: Option<Arc<dyn Broker>>,
        parts: &[Part],
        needs: &Needs,
        listener: TcpListener,
    ) -> anyhow::Result<Self> {
        check_flow(&Admin::new(database.clone(), "shop"), needs.flow).await?;
        let running = assemble(App::new(database).broker(broker), parts, needs).start().await?;
        if parts.contains(&Part::Inventory) {
            let filled = inventory::fill_shelves(&running.service("inventory")).await;
            filled.context("the shelves cannot be filled")?;
        }
        let (address, closing) = (listener.local_addr()?, CancellationToken::new());
        let routes = http::routes(&running, parts);
        let closed = closing.clone().cancelled_owned();
        let serving = axum::serve(listener, routes).with_graceful_shutdown(closed);
        let http = tokio::spawn(serving.into_future());
        Ok(Stand { running, address, http, closing })
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Answers what was asked, takes no more, and ends what is under way.
    pub(super) async fn close(self) -> anyhow::Result<()> {
        self.closing.cancel();
        self.running.drain().await;
        // A caller that keeps its connection open is not waited for.
        self.http.abort();
        match self.http.await {
            Ok(served) => served.context("the HTTP server failed"),
            Err(_) => Ok(()),
        }
    }
}
