//! This repository's own tasks: `cargo xtask --help`.
//!
//! One file a task; each prints what it does and exits with 1 when something is to be mended.
#![allow(clippy::print_stdout)] // a command-line program: standard output is its result

mod bench;
mod ci;
mod examples;
mod faults;
mod gate;
mod pairs;
mod planted;
mod process;
mod services;
mod test;
mod tidy;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "This repository's own tasks")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Everything a change has to pass, with a table of steps and seconds
    Ci,
    /// All tests and doctests, with the servers they need
    Test(test::Test),
    /// Run the examples and compare what they print
    Examples,
    /// Kill a shop's processes at random moments, and audit what is left
    Faults(faults::Faults),
    /// Rebuild projections on PostgreSQL while orders come in and reports are read
    Rebuild(faults::Rebuild),
    /// Plant bugs in a copy of the source; tests on real servers have to find each
    Planted(planted::Planted),
    /// The shop on every database with every broker: the same totals for the same seed
    Pairs(pairs::Pairs),
    /// What Sillage costs, against limits that hold on any machine
    Bench(bench::Bench),
    /// The long forms of everything; writes `docs/gate.md`
    Gate(gate::Gate),
    /// Real servers for tests, without Docker: Kafka, RabbitMQ and others
    #[command(subcommand)]
    Services(services::Services),
    /// What no lint checks: sizes, words, the floor plan
    Tidy,
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Ci => ci::run(),
        Task::Test(test) => test::run(&test),
        Task::Examples => examples::run(),
        Task::Faults(faults) => faults::run(&faults),
        Task::Rebuild(rebuild) => rebuild.run(),
        Task::Planted(planted) => planted::run(&planted),
        Task::Pairs(pairs) => pairs::run(&pairs),
        Task::Bench(bench) => bench::run(&bench),
        Task::Gate(gate) => gate::run(&gate),
        Task::Services(services) => services::run(&services),
        Task::Tidy => tidy::run(),
    };
    if let Err(error) = result {
        eprintln!("error: {error:#}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
