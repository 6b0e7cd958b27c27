//! The operator's command line: a thin layer over `sillage::admin`.
//!
//! *Guarantees.* Data goes to standard output and everything else to standard error; every error
//! ends with a next step and the exit code that names its kind; a database that does not exist is
//! never made; nothing that a message holds can drive the terminal.

mod args;
mod commands;
mod config;
mod data;
mod failure;
mod input;
mod output;
mod session;
mod text;

use args::Cli;
use clap::{CommandFactory as _, FromArgMatches as _};
use commands::Command;
use config::Settings;
use failure::{Exit, Refusal};
use output::say;
use session::Session;
use sillage::{Clock as _, SystemClock};
use std::{future, process::ExitCode, time::Duration};

fn main() -> ExitCode {
    let parsed = Cli::command().try_get_matches().and_then(|matches| {
        let cli = Cli::from_arg_matches(&matches)?;
        Ok((cli, matches))
    });
    let (cli, matches) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { ExitCode::SUCCESS };
        }
    };
    let ended = Settings::resolve(&cli.globals, &matches).and_then(|settings| {
        let session = Session::new(settings, &cli.globals);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let ended = runtime.block_on(supervise(session, cli.command));
        // A read of the database that hangs does not hold up the end.
        runtime.shutdown_timeout(Duration::from_secs(1));
        ended
    });
    ended.map_or_else(|error| report(&error), |()| ExitCode::SUCCESS)
}

/// Runs a command until it ends, is interrupted, or has taken too long.
async fn supervise(mut session: Session, command: Command) -> anyhow::Result<()> {
    for warning in &session.settings.warnings {
        session.out.note(format!("warning: {warning}"));
    }
    let limit = session.settings.timeout.value;
    let ended = tokio::select! {
        biased;
        () = interrupted() => {
            Err(Refusal::new(Exit::Interrupted, "interrupted", "run it again to go on").into())
        }
        refusal = too_late(limit) => Err(refusal.into()),
        ended = Box::pin(commands::run(command, &mut session)) => ended,
    };
    // What was written so far is whole, whatever ended it.
    let written = session.out.end().map_err(anyhow::Error::from);
    ended.and(written)
}

async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        future::pending::<()>().await;
    }
}

async fn too_late(limit: Option<Duration>) -> Refusal {
    let Some(limit) = limit else { return future::pending().await };
    SystemClock.sleep(limit).await;
    Refusal::new(
        Exit::Unreachable,
        format!("it was not done within {}", text::brief(limit)),
        "give it more time with `--timeout`, or see `sillage doctor`",
    )
}

fn report(error: &anyhow::Error) -> ExitCode {
    let Some(refusal) = Refusal::of(error) else { return ExitCode::SUCCESS };
    if refusal.exit != Exit::Interrupted {
        say(format!("error: {}", refusal.what));
        say(format!("next: {}", refusal.next));
    }
    refusal.exit.into()
}
