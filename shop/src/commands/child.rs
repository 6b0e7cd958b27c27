//! The gateway as a child process: as far away as in life, and gone when its parent is.

use super::gateway::LISTENS;
use anyhow::{Context as _, bail};
use std::{path::Path, process::Stdio};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

/// A gateway on a free port of the loopback; killed when dropped.
pub(super) struct GatewayChild {
    /// Its address: `http://127.0.0.1:40000`.
    pub(super) url: String,
    /// Its open stdin tells it that its parent lives.
    _process: Child,
}

impl GatewayChild {
    /// Starts it on this ledger, and waits until it listens.
    pub(super) async fn start(ledger: &Path) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("where is this program?")?;
        let mut process = Command::new(program)
            .args(["gateway", "--port", "0", "--with-parent", "--ledger"])
            .arg(ledger)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("the gateway cannot be started")?;
        let Some(output) = process.stdout.take() else { bail!("the gateway has no stdout") };
        let mut lines = BufReader::new(output).lines();
        let Some(line) = lines.next_line().await? else { bail!("the gateway stopped at once") };
        let address = line.strip_prefix(LISTENS).context("the gateway said something else")?;
        Ok(GatewayChild { url: format!("http://{address}"), _process: process })
    }
}
