//! The same shop on every database with every broker, in both flows: `cargo xtask pairs`. The same
//! seed must give the same totals.

use crate::process;
use crate::services::{self, ForTests, Room, Service};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::fmt::{Display, Write as _};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

#[derive(clap::Args)]
pub(crate) struct Pairs {
    /// How many orders
    #[arg(long, default_value_t = 2000)]
    orders: u32,
    /// The shop as the tests build it, which is ready sooner, instead of in release
    #[arg(long)]
    debug: bool,
    /// Write the page with the table there as well
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = PAGE)]
    write: Option<PathBuf>,
}

/// Where the table is.
const PAGE: &str = "docs/backends.md";
const SERVERS: [Service; 3] = [Service::Postgres, Service::Kafka, Service::Rabbitmq];
const FLOWS: [&str; 2] = ["choreography", "orchestration"];
/// What must be the same everywhere.
const TOTALS: [&str; 4] = ["completed", "cancelled", "emails", "stock"];
/// What must be the same in one flow: in orchestration nobody is charged for what is sold out.
const MONEY: [&str; 2] = ["charged", "refunded"];
/// What the shop is told besides.
const SAMPLES: &str = "--decline-percent 10 --shortage-percent 5 --seed 7";

/// Runs the shop on each, prints the table, and fails if a total differs.
pub(crate) fn run(pairs: &Pairs) -> Result<()> {
    let (profile, flag) = if pairs.debug { ("dev", " --debug") } else { ("release", "") };
    let shown = measure(profile, pairs.orders)?;
    println!("\n{}", table(&shown));
    if let Some(file) = &pairs.write {
        let command = format!("cargo xtask pairs --orders {}{flag} --write", pairs.orders);
        fs::write(process::root().join(file), page(&command, &shown))
            .with_context(|| file.display().to_string())?;
        println!("{} is written", file.display());
    }
    compare(&shown)
}

/// The short form, of the shop as the tests build it.
pub(crate) fn short() -> Result<()> {
    let shown = measure("dev", 60)?;
    println!("\n{}", table(&shown));
    compare(&shown)
}

/// A demonstration, and what it showed.
struct Shown {
    database: &'static str,
    broker: &'static str,
    flow: &'static str,
    report: Value,
}

impl Shown {
    fn whole(&self, total: &str) -> i64 {
        self.report[total].as_i64().unwrap_or_default()
    }

    fn earned(&self) -> i64 {
        self.whole("charged") - self.whole("refunded")
    }
}

impl Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} with {}, {}", self.database, self.broker, self.flow)
    }
}

fn measure(profile: &str, orders: u32) -> Result<Vec<Shown>> {
    let build =
        format!("build --profile {profile} -p shop --bin shop --features kafka,rabbitmq,postgres");
    process::run(process::cargo(&build))?;
    let _stopped_afterwards = ForTests::up(&SERVERS);
    let servers = services::at_hand(&SERVERS)?;
    let [postgres, kafka, rabbitmq] = &servers[..] else { bail!("a server is missing") };
    let run = format!("pairs-{:08x}", rand::random::<u32>());
    let kafka = Room::make(Service::Kafka, kafka, &run)?;
    let rabbitmq = Room::make(Service::Rabbitmq, rabbitmq, &run)?;
    let brokers =
        [("embedded", None), ("Kafka", Some(&*kafka.url)), ("RabbitMQ", Some(&*rabbitmq.url))];
    let mut shown = vec![];
    for flow in FLOWS {
        for (database, server) in [("SQLite", None), ("PostgreSQL", Some(&**postgres))] {
            for (broker, url) in brokers {
                let name = format!("{run}-{}", shown.len());
                let place = Place { profile, name, postgres: server, broker: url };
                let report = place.demo(orders, flow);
                let report = report.with_context(|| format!("{database} with {broker}, {flow}"))?;
                shown.push(Shown { database, broker, flow, report });
            }
        }
    }
    Ok(shown)
}

/// Where one demonstration happens.
struct Place<'a> {
    profile: &'a str,
    /// Of its schema, and of its topics.
    name: String,
    postgres: Option<&'a str>,
    broker: Option<&'a str>,
}

impl Place<'_> {
    /// The report of a demonstration, whose invariants must hold.
    fn demo(&self, orders: u32, flow: &str) -> Result<Value> {
        let built = if self.profile == "dev" { "debug" } else { self.profile };
        let folder = process::root().join("target/pairs");
        fs::create_dir_all(&folder)?;
        let broker = self.broker.map_or("embedded".to_owned(), |url| {
            let mark = if url.contains('?') { '&' } else { '?' };
            format!("{url}{mark}prefix={}.", self.name)
        });
        let mut arguments = format!(
            "demo --json --data target/pairs --flow {flow} --orders {orders} {SAMPLES} --broker \
             {broker}"
        );
        if let Some(url) = self.postgres {
            write!(arguments, " --database {url}?schema={}", self.schema())?;
        }
        let program = process::program(&format!("target/{built}/shop"), &arguments);
        let output = process::shown_result(program)?;
        fs::remove_dir_all(&folder)?;
        ensure!(output.success, "an invariant is broken: {}", output.said);
        self.clear()?;
        serde_json::from_str(&output.said).context("`shop demo` printed no JSON")
    }

    /// What is left in the server, which is there for others as well.
    fn clear(&self) -> Result<()> {
        let Some(url) = self.postgres else { return Ok(()) };
        let mut psql = Command::new("psql");
        psql.args(["-q", "-c", "SET client_min_messages = warning"]);
        psql.args(["-c", &format!("DROP SCHEMA {} CASCADE", self.schema()), url]);
        process::output(psql).map(drop)
    }

    fn schema(&self) -> String {
        self.name.replace('-', "_")
    }
}

/// Fails where a total differs.
fn compare(shown: &[Shown]) -> Result<()> {
    let first = shown.first().context("nothing was run")?;
    for other in shown {
        let of_flow = shown.iter().find(|of_it| of_it.flow == other.flow).unwrap_or(first);
        let everywhere = TOTALS.iter().map(|total| (total, first));
        for (total, expected) in everywhere.chain(MONEY.iter().map(|total| (total, of_flow))) {
            ensure!(
                other.report[*total] == expected.report[*total],
                "`{total}` is {} on {other}, and {} on {expected}",
                other.report[*total],
                expected.report[*total]
            );
        }
        ensure!(
            other.earned() == first.earned(),
            "what was earned on {other} is not as on {first}"
        );
    }
    println!("the same totals on all {} pairs and flows", shown.len());
    Ok(())
}

/// Markdown. Money in minor units.
fn table(shown: &[Shown]) -> String {
    const TITLES: &str = "flow | database | broker | completed | cancelled | letters | charged | \
                          refunded | earned | shipped";
    let mut table = format!("| {TITLES} |\n|{}\n", "---|".repeat(10));
    for one in shown {
        let Shown { database, broker, flow, report } = one;
        let counts = ["completed", "cancelled", "emails", "charged", "refunded"];
        let counts = counts.map(|total| one.whole(total).to_string()).join(" | ");
        let (earned, shipped) = (one.earned(), &report["stock"]["shipped"]);
        let _ =
            writeln!(table, "| {flow} | {database} | {broker} | {counts} | {earned} | {shipped} |");
    }
    table
}

fn page(command: &str, shown: &[Shown]) -> String {
    format!(
        "# The same shop on every pair of backends\n\n\
         Found and written by `{command}`:\n\
         `shop demo {SAMPLES}` on each database\n\
         with each broker, in both flows. The same seed gives the same totals; every invariant of the \
         audit held\nin each run, and no saga was stuck. `cargo xtask ci` does it in short.\n\n{}\n\
         Money is in minor units. In orchestration stock is set aside before anybody is charged, so \
         nothing is\npaid back for what is sold out; what is earned is the same.\n",
        table(shown)
    )
}

#[cfg(test)]
mod tests {
    use super::{Shown, compare};
    use serde_json::json;

    fn shown(broker: &'static str, flow: &'static str, money: (i64, i64)) -> Shown {
        let report = json!({
            "completed": 8, "cancelled": 2, "emails": 10, "stock": { "shipped": 20 },
            "charged": money.0, "refunded": money.1,
        });
        Shown { database: "SQLite", broker, flow, report }
    }

    #[test]
    fn a_total_that_differs_is_told() {
        let mut all = vec![
            shown("embedded", "choreography", (500, 100)),
            shown("Kafka", "choreography", (500, 100)),
            shown("embedded", "orchestration", (400, 0)),
        ];
        compare(&all).unwrap();
        all.push(shown("RabbitMQ", "choreography", (500, 90)));
        let told = compare(&all).unwrap_err().to_string();
        assert_eq!(
            told,
            "`refunded` is 90 on SQLite with RabbitMQ, choreography, and 100 on SQLite with \
             embedded, choreography"
        );
        all.pop();
        all.push(shown("Kafka", "orchestration", (390, 0)));
        assert!(compare(&all).unwrap_err().to_string().starts_with("`charged` is 390"));
        all.pop();
        all[2] = shown("embedded", "orchestration", (390, 0));
        assert!(compare(&all).unwrap_err().to_string().starts_with("what was earned"));
    }
}
