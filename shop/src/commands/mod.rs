//! The binary: what it can be told, one file a command.

mod child;
mod counts;
mod demo;
mod dev;
mod folder;
mod gateway;
mod meter;
mod place;
mod replay;
mod serve;
mod stand;
mod tree;
mod verify;
mod visitor;

use clap::{Parser, Subcommand};
use std::{
    fmt::Display,
    io::{IsTerminal as _, Write as _},
    process::ExitCode,
};
use tracing_subscriber::EnvFilter;

/// An order system on Sillage: seven services, one binary.
#[derive(Parser)]
#[command(name = "shop", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    dev: dev::Dev,
}

#[derive(Subcommand)]
enum Command {
    /// Run everything here, with sample customers: what happens without a command.
    Dev(dev::Dev),
    /// Run some or all services, until SIGTERM or Ctrl-C.
    Serve(serve::Serve),
    /// Run the payment gateway, a process of its own.
    Gateway(gateway::RunGateway),
    /// Place many orders, wait until all have ended, and audit the result.
    Demo(demo::Demo),
    /// Place sample orders; those that were placed before are not placed again.
    Place(place::Place),
    /// Audit a shop: its log, its stock, the gateway's ledger and the letters.
    Verify(verify::Verify),
    /// Handle history again, and show what would be different.
    Replay(replay::Replay),
}

/// Does what the command line says. 0: done; 1: it failed, or an invariant is broken; 2: usage.
pub async fn run() -> ExitCode {
    let cli = Cli::parse();
    let command = cli.command.unwrap_or(Command::Dev(cli.dev));
    let quiet = !matches!(command, Command::Serve(_) | Command::Gateway(_));
    log(if quiet { "error" } else { "info" });
    let done = match command {
        Command::Dev(dev) => Box::pin(dev.run()).await.map(|()| true),
        Command::Serve(serve) => Box::pin(serve.run()).await.map(|()| true),
        Command::Gateway(gateway) => Box::pin(gateway.run()).await.map(|()| true),
        Command::Demo(demo) => Box::pin(demo.run()).await,
        Command::Place(place) => Box::pin(place.run()).await.map(|()| true),
        Command::Verify(verify) => Box::pin(verify.run()).await,
        Command::Replay(replay) => Box::pin(replay.run()).await,
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "shop: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The log goes to stderr, and as far as `RUST_LOG` says.
fn log(default: &str) {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new(format!("{default},lapin=off")));
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colour)
        // Where there is no room for the log there is none to say so either: it would panic.
        .log_internal_errors(false)
        .try_init();
}

/// A line of what was asked for. A reader that has gone away is no error.
fn out(line: impl Display) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}
