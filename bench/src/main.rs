//! Measurements, each with its raw ceiling in the same run: see `bench/README.md`.
#![allow(clippy::print_stdout, clippy::expect_used, clippy::disallowed_methods)]

#[cfg(any(feature = "kafka", feature = "rabbitmq"))]
mod brokers;
mod commit;
mod dispatch;
mod execute;
#[cfg(all(feature = "postgres", any(feature = "kafka", feature = "rabbitmq")))]
mod inbox;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "postgres")]
mod replay;
mod saga;

use clap::{Parser, Subcommand};

#[cfg(feature = "allocations")]
#[global_allocator]
static ALLOCATIONS: &stats_alloc::StatsAlloc<std::alloc::System> =
    &stats_alloc::INSTRUMENTED_SYSTEM;

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Broker → lane → handler that returns nothing → watermark, without a database.
    Dispatch {
        /// How many messages.
        #[arg(long, default_value_t = 1_000_000)]
        messages: u64,
    },
    /// Group commit on SQLite beside raw rusqlite at equal batch.
    Commit {
        /// How many commits.
        #[arg(long, default_value_t = 50_000)]
        commits: u64,
        /// How many callers wait at once.
        #[arg(long, default_value_t = 64)]
        writers: u64,
        /// Interleaved rounds.
        #[arg(long, default_value_t = 5)]
        rounds: u32,
    },
    /// Publishing and consuming beside raw rdkafka or raw lapin.
    #[cfg(any(feature = "kafka", feature = "rabbitmq"))]
    Brokers(brokers::Brokers),
    /// From a broker into PostgreSQL, an inbox row a message, beside bare array inserts.
    #[cfg(all(feature = "postgres", any(feature = "kafka", feature = "rabbitmq")))]
    Inbox(inbox::Inbox),
    /// Group commit on PostgreSQL beside pgbench, and what idle readers cost.
    #[cfg(feature = "postgres")]
    Postgres(postgres::Postgres),
    /// A million events into a view on PostgreSQL, beside reading, decoding and writing by itself.
    #[cfg(feature = "postgres")]
    Replay(replay::Replay),
    /// A saga of four steps, one and 64 in flight, beside what its durable writes cost.
    Saga(saga::Saga),
    /// A hundred `execute` calls at once on one stream.
    Execute,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    match Arguments::parse().what {
        What::Dispatch { messages } => dispatch::run(messages).await,
        What::Commit { commits, writers, rounds } => commit::run(commits, writers, rounds).await,
        #[cfg(any(feature = "kafka", feature = "rabbitmq"))]
        What::Brokers(what) => brokers::run(what).await,
        #[cfg(all(feature = "postgres", any(feature = "kafka", feature = "rabbitmq")))]
        What::Inbox(what) => inbox::run(what).await,
        #[cfg(feature = "postgres")]
        What::Postgres(what) => postgres::run(what).await,
        #[cfg(feature = "postgres")]
        What::Replay(what) => replay::run(what).await,
        What::Saga(what) => saga::run(what).await,
        What::Execute => execute::run().await,
    }
}
