//! `shop gateway`.

use super::out;
use crate::gateway::{GatewayState, Ledger, serve};
use anyhow::Context as _;
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};
use tokio::{io::AsyncReadExt as _, net::TcpListener};

/// What the gateway says before its address, once it listens.
pub(super) const LISTENS: &str = "gateway listens on http://";

/// Run the payment gateway, a process of its own.
#[derive(clap::Args)]
pub(super) struct RunGateway {
    /// The port on the loopback; 0 takes a free one, which is printed.
    #[arg(long, default_value_t = 9000)]
    port: u16,
    /// The file in which every movement of money is kept.
    #[arg(long, value_name = "FILE", default_value = "ledger.jsonl")]
    ledger: PathBuf,
    /// Stop when stdin is closed: when whoever started it is gone.
    #[arg(long, hide = true)]
    with_parent: bool,
}

impl RunGateway {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let ledger = Ledger::open(&self.ledger)
            .with_context(|| format!("the ledger {} cannot be opened", self.ledger.display()))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("the gateway cannot listen on {address}"))?;
        out(format_args!("{LISTENS}{}", listener.local_addr()?));
        let with_parent = self.with_parent;
        let until = async move {
            tokio::select! {
                () = sillage::shutdown_signal(), if !with_parent => {}
                () = orphaned(), if with_parent => {}
            }
        };
        Ok(serve(listener, GatewayState::new(ledger), until).await?)
    }
}

/// Completes when nobody can write to stdin any more. A Ctrl-C in a terminal reaches the whole
/// family of processes: the gateway ignores it, as whoever started it has payments to finish.
async fn orphaned() {
    let ignored = async {
        loop {
            sillage::shutdown_signal().await;
        }
    };
    let end = async {
        let (mut stdin, mut byte) = (tokio::io::stdin(), [0]);
        while matches!(stdin.read(&mut byte).await, Ok(1)) {}
    };
    tokio::select! {
        () = ignored => {}
        () = end => {}
    }
}
