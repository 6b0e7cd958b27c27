//! The same shop on every broker: `cargo xtask brokers`. The same seed must give the same totals.

use crate::process;
use crate::services::{self, ForTests, Service};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs;

#[derive(clap::Args)]
pub(crate) struct Brokers {
    /// How many orders
    #[arg(long, default_value_t = 2000)]
    orders: u32,
}

/// What must be the same everywhere.
const TOTALS: [&str; 6] = ["completed", "cancelled", "emails", "charged", "refunded", "stock"];
/// What the shop is told besides.
const SAMPLES: &str = "--decline-percent 10 --shortage-percent 5 --seed 7";

pub(crate) fn run(brokers: &Brokers) -> Result<()> {
    compare("release", brokers.orders)
}

/// The short form, of the shop as the tests build it.
pub(crate) fn short() -> Result<()> {
    compare("dev", 200)
}

fn compare(profile: &str, orders: u32) -> Result<()> {
    const BROKERS: [Service; 2] = [Service::Kafka, Service::Rabbitmq];
    let build = format!("build --profile {profile} -p shop --bin shop --features kafka,rabbitmq");
    process::run(process::cargo(&build))?;
    let _stopped_afterwards = ForTests::up(&BROKERS);
    let servers = services::up(&BROKERS)?;
    let run: u32 = rand::random();
    let outside = servers.into_iter().map(|(service, url)| {
        let mark = if url.contains('?') { '&' } else { '?' };
        (service.name(), format!("{url}{mark}prefix=demo-{run:x}."))
    });
    let mut reports = vec![("embedded", demo(profile, orders, "embedded")?)];
    for (name, broker) in outside {
        reports.push((name, demo(profile, orders, &broker)?));
    }
    println!("\n| broker | completed | cancelled | charged | refunded | orders/s | invariants |");
    println!("|---|---|---|---|---|---|---|");
    for (name, report) in &reports {
        println!(
            "| {name} | {} | {} | {} | {} | {:.0} | all hold |",
            report["completed"],
            report["cancelled"],
            report["charged"],
            report["refunded"],
            report["orders_per_second"].as_f64().unwrap_or_default()
        );
    }
    let (_, expected) = &reports[0];
    for (name, report) in &reports[1..] {
        for total in TOTALS {
            ensure!(
                report[total] == expected[total],
                "`{total}` is {} on {name}, and {} on the embedded broker",
                report[total],
                expected[total]
            );
        }
    }
    Ok(())
}

/// The report of a demonstration, whose invariants must hold.
fn demo(profile: &str, orders: u32, broker: &str) -> Result<Value> {
    let built = if profile == "dev" { "debug" } else { profile };
    let folder = process::root().join("target/brokers");
    fs::create_dir_all(&folder)?;
    let arguments =
        format!("demo --json --data target/brokers --orders {orders} {SAMPLES} --broker {broker}");
    let output =
        process::shown_result(process::program(&format!("target/{built}/shop"), &arguments))?;
    fs::remove_dir_all(&folder)?;
    ensure!(output.success, "an invariant is broken: {}", output.said);
    serde_json::from_str(&output.said).context("`shop demo` printed no JSON")
}
