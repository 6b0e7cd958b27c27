//! The verbs, a file a family.

mod breakers;
mod completions;
mod config;
mod consumers;
mod dlq;
mod doctor;
mod journal;
mod projections;
mod publish;
mod replay;
mod retention;
mod saga;
mod streams;
mod tail;
mod timers;
mod topics;
mod trace;

use crate::{
    failure::{Exit, Refusal},
    session::Session,
};
use anyhow::Result;
use sillage::Text;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Follow the log
    Tail(tail::Tail),
    /// Publish one message, or CloudEvents from standard input
    Publish(publish::Publish),
    /// Publish a part of the log again, to a topic
    Replay(replay::Replay),
    /// Draw what caused what
    Trace(trace::Trace),
    /// Dead letters and parked keys
    #[command(subcommand)]
    Dlq(dlq::Dlq),
    /// Consumers: how they stand, pause, resume
    #[command(subcommand, alias = "consumer")]
    Consumers(consumers::Consumers),
    /// Projections: how they stand, rebuild, compare, switch
    #[command(subcommand, visible_alias = "projection")]
    Projections(projections::Projections),
    /// What leaves the log, and who holds that back
    #[command(subcommand)]
    Retention(retention::Retention),
    /// Streams into files and out of the log, and back
    #[command(subcommand, alias = "stream")]
    Streams(streams::Streams),
    /// All topics in one log: keep it, search it, look for what is missing
    Journal(journal::Journal),
    /// Breakers of dependencies: which are open
    #[command(subcommand, alias = "breaker")]
    Breakers(breakers::Breakers),
    /// Sagas: how their instances stand, and pictures of them
    #[command(subcommand, alias = "sagas")]
    Saga(saga::Saga),
    /// Timers that wait
    #[command(subcommand, alias = "timer")]
    Timers(timers::Timers),
    /// Topics of the broker, else of the log: what is in them, who produces and consumes
    #[command(subcommand, alias = "topic")]
    Topics(topics::Topics),
    /// Look for what is wrong; exit code 8 where something is
    Doctor,
    /// Completions for a shell
    Completions(completions::Completions),
    /// Where settings come from
    #[command(subcommand)]
    Config(config::Config),
}

pub(crate) async fn run(command: Command, session: &mut Session) -> Result<()> {
    match command {
        Command::Tail(tail) => tail.run(session).await,
        Command::Publish(publish) => publish.run(session).await,
        Command::Replay(replay) => replay.run(session).await,
        Command::Trace(trace) => trace.run(session).await,
        Command::Dlq(dlq) => dlq.run(session).await,
        Command::Consumers(consumers) => consumers.run(session).await,
        Command::Projections(projections) => projections.run(session).await,
        Command::Retention(retention) => retention.run(session).await,
        Command::Streams(streams) => streams.run(session).await,
        Command::Journal(journal) => journal.run(session).await,
        Command::Breakers(breakers) => breakers.run(session).await,
        Command::Saga(saga) => saga.run(session).await,
        Command::Timers(timers) => timers.run(session).await,
        Command::Topics(topics) => topics.run(session).await,
        Command::Doctor => doctor::run(session).await,
        Command::Completions(completions) => completions.run(session),
        Command::Config(config) => config.run(session),
    }
}

/// The one id that is `given`, or has it in it.
fn unique<'i>(
    what: &str,
    given: &str,
    ids: impl Iterator<Item = &'i Text>,
    list: &str,
) -> Result<Text, Refusal> {
    let mut found = vec![];
    for id in ids {
        if **id == *given {
            return Ok(id.clone());
        }
        if id.contains(given) {
            found.push(id);
        }
    }
    match found.as_slice() {
        [id] => Ok((*id).clone()),
        [] => Err(Refusal::new(
            Exit::NotFound,
            format!("no {what} has `{given}` in its id"),
            format!("`{list}` shows them"),
        )),
        many => {
            let some: Vec<_> = many.iter().take(5).map(|id| format!("`{id}`")).collect();
            let dots = if many.len() > 5 { ", …" } else { "" };
            Err(Refusal::usage(
                format!("`{given}` may be {}{dots}", some.join(", ")),
                "say more of the id",
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_may_be_abbreviated_to_any_unique_part() {
        let ids: Vec<Text> = ["shop/a/order/1", "shop/a/order/12", "shop/b/order/3"]
            .map(Text::from)
            .into_iter()
            .collect();
        let of = |given| unique("key", given, ids.iter(), "list").map_err(|r| (r.exit, r.what));
        assert_eq!(of("b/order").unwrap(), ids[2]);
        assert_eq!(of("shop/a/order/1").unwrap(), ids[0], "whole, though it starts another");
        assert_eq!(of("zzz").unwrap_err().0, Exit::NotFound);
        assert_eq!(of("shop/a").unwrap_err().0, Exit::Usage);
    }
}
