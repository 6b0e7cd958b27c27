//! The long forms of everything, written to `docs/gate.md`: `cargo xtask gate`.

use crate::bench::{self, Figure};
use crate::process;
use crate::services::{ForTests, Service};
use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use std::{env, fs, thread};

/// Where it is written to.
const PAGE: &str = "docs/gate.md";

#[derive(clap::Args)]
pub(crate) struct Gate {
    /// How many trials of kills
    #[arg(long, default_value_t = 100)]
    trials: u32,
    /// Only this part; the others stay on the page as they are
    #[arg(long, value_enum)]
    only: Option<Part>,
}

/// What there is on the page, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    Orders,
    Kills,
    Conformance,
    Stable,
    Troubles,
    Planted,
    Costs,
}

/// A part of the page.
struct Section {
    title: String,
    /// Markdown.
    text: String,
    /// `None`: it was never run.
    passed: Option<bool>,
}

impl Section {
    /// As the page's table has it.
    fn result(&self) -> &'static str {
        match self.passed {
            Some(true) => "passed",
            Some(false) => "FAILED",
            None => "not run yet",
        }
    }
}

/// Runs everything, or a part, writes the page, and fails if something on it does.
pub(crate) fn run(gate: &Gate) -> Result<()> {
    let kept = match gate.only {
        Some(_) => fs::read_to_string(process::root().join(PAGE)).context(PAGE)?,
        None => String::new(),
    };
    if gate.only.is_none_or(|part| matches!(part, Part::Orders | Part::Kills)) {
        process::run(process::cargo("build --release -p shop"))?;
    }
    let mut sections = vec![];
    for part in Part::value_variants() {
        let title = format!("{part:?}");
        sections.push(match gate.only {
            Some(only) if only != *part => kept_section(&kept, title),
            _ => section(title, part.run(gate))?,
        });
    }
    fs::write(process::root().join(PAGE), page(&sections)?).context(PAGE)?;
    println!("{PAGE} is written");
    let failed: Vec<_> = sections
        .iter()
        .filter(|part| part.passed == Some(false))
        .map(|part| &*part.title)
        .collect();
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

impl Part {
    fn run(self, gate: &Gate) -> Result<(String, bool)> {
        match self {
            Part::Orders => orders(),
            Part::Kills => kills(gate.trials),
            Part::Conformance => conformance(),
            Part::Stable => stable(),
            Part::Troubles => troubles(),
            Part::Planted => planted(),
            Part::Costs => costs(),
        }
    }
}

/// What could not be done has failed.
fn section(title: String, done: Result<(String, bool)>) -> Result<Section> {
    let (text, passed) = done.unwrap_or_else(|error| (format!("{error:#}\n"), false));
    if !passed {
        println!("{title}: FAILED");
    }
    let mut git = Command::new("git");
    git.args(["rev-parse", "--short", "HEAD"]).current_dir(process::root());
    let commit = process::output(git)?;
    let text = format!("At commit {}.\n\n{text}", commit.trim());
    Ok(Section { title, text, passed: Some(passed) })
}

/// A section of the page as it is.
fn kept_section(page: &str, title: String) -> Section {
    let heading = format!("\n## {title}\n\n");
    let rest = page.split_once(&heading).map_or("Not run yet.\n", |(_, rest)| rest);
    let text = rest.split("\n## ").next().unwrap_or(rest).to_owned();
    let result =
        |result| page.contains(&format!("| [{title}](#{}) | {result} |", title.to_lowercase()));
    let passed = result("passed").then_some(true).or(result("FAILED").then_some(false));
    Section { title, text, passed }
}

fn page(sections: &[Section]) -> Result<String> {
    let rustc = process::output(process::rustc("--version"))?;
    let version = rustc.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    let (cores, system) = (thread::available_parallelism()?, env::consts::OS);
    let mut page = format!(
        "# The gate\n\nWhat `cargo xtask gate` found last: the long forms of what `cargo xtask ci` \
         runs in short. It writes this\npage; times are of a machine that had other things to do as \
         well.\n\nMachine: {cores} cores, {} {system}, {version}.\n\n| part | result |\n|---|---|\n",
        env::consts::ARCH
    );
    for section in sections {
        let (title, result) = (&section.title, section.result());
        writeln!(page, "| [{title}](#{}) | {result} |", title.to_lowercase())?;
    }
    for Section { title, text, .. } in sections {
        write!(page, "\n## {title}\n\n{text}")?;
    }
    Ok(page)
}

fn kills(trials: u32) -> Result<(String, bool)> {
    let command = format!("xtask faults --trials {trials}");
    let output = process::shown_result(process::cargo(&command))?;
    let mut text = format!("`cargo {command}`\n\n");
    for planted in output.said.lines().filter(|line| line.starts_with("planted ")) {
        // Which order it was is of no interest here.
        let found = planted.splitn(3, ": ").take(2).collect::<Vec<_>>().join(": ");
        writeln!(text, "- {found}")?;
    }
    // The rest is one line a trial, and the sums behind an empty one.
    let (trials, sums) = output.said.split_once("\n\n").context("no trial was run")?;
    let begin = trials.lines().find(|line| line.contains(" trials of ")).unwrap_or_default();
    writeln!(text, "\n```text\n{begin}\n\n{}\n```", sums.trim_end())?;
    Ok((text, output.success))
}

const TROUBLES: &str =
    "xtask faults --broker kafka,rabbitmq --troubles outage,network,freezes,members";

/// Services apart on real brokers: what befell them, and what became of the orders.
fn troubles() -> Result<(String, bool)> {
    told(TROUBLES, |line| line.contains(" processes and ") || line.starts_with("  "))
}

/// Bugs put into the source, and the tests that found them.
fn planted() -> Result<(String, bool)> {
    told("xtask planted", |line| line.starts_with("planted: ") || line.starts_with("  "))
}

/// What a command says in the lines that count.
fn told(command: &str, counts: impl Fn(&str) -> bool) -> Result<(String, bool)> {
    let output = process::shown_result(process::cargo(command))?;
    let lines: Vec<_> = output.said.lines().filter(|line| counts(line)).collect();
    let passed = output.success && !lines.is_empty();
    Ok((format!("`cargo {command}`\n\n```text\n{}\n```\n", lines.join("\n")), passed))
}

/// A run of the shop, and what it has to show besides that all invariants hold.
struct Demo {
    arguments: &'static str,
    /// Whether payments may be set aside: what fails for good is, a gateway that is down is waited for.
    parks: bool,
}

const DEMOS: [Demo; 3] = [
    Demo { arguments: "--orders 2000 --decline-percent 10 --shortage-percent 5", parks: false },
    Demo { arguments: "--orders 2000 --gateway-down-after 5 --gateway-down-for 20", parks: false },
    Demo { arguments: "--orders 1000 --fail-customer 3 --mend", parks: true },
];

fn orders() -> Result<(String, bool)> {
    let mut text = "`cargo run --release -p shop -- demo --json` with\n\n\
                    | | orders | completed | cancelled | e-mails | duplicates | payments set aside \
                    | dead | orders/s | invariants |\n|---|---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    let (mut broken, mut names, mut passed) = (Vec::new(), Vec::new(), true);
    for demo in &DEMOS {
        let (report, parked, success) = show(demo)?;
        let count = |name: &str| report[name].as_u64().unwrap_or(0);
        let invariants = report["invariants"].as_array().context("no invariants")?;
        let wrong = invariants.iter().filter(|invariant| invariant["holds"] != true);
        broken.extend(wrong.map(|wrong| format!("{}: {}", wrong["name"], wrong["detail"])));
        names = invariants
            .iter()
            .filter_map(|invariant| invariant["name"].as_str())
            .map(str::to_owned)
            .collect();
        passed &= success && count("dead") == 0 && (parked > 0) == demo.parks;
        writeln!(
            text,
            "| `{}` | {} | {} | {} | {} | {} | {parked} | {} | {:.0} | {} |",
            demo.arguments,
            count("orders"),
            count("completed"),
            count("cancelled"),
            count("emails"),
            count("duplicates"),
            count("dead"),
            report["orders_per_second"].as_f64().unwrap_or(0.0),
            if success { "all hold" } else { "BROKEN" },
        )?;
    }
    text += "\nA gateway that is down sets nothing aside and spends no attempt; a customer whose charges \
             fail for good\nhas dead letters, which are sent back once the gateway is mended.\n\n";
    for name in names {
        writeln!(text, "- {name}")?;
    }
    for broken in broken {
        writeln!(text, "- **BROKEN** {broken}")?;
    }
    Ok((text, passed))
}

/// Its report, how many payments were ever set aside, and whether all invariants hold.
fn show(demo: &Demo) -> Result<(Value, u64, bool)> {
    let folder = process::root().join("target/gate");
    fs::create_dir_all(&folder)?;
    let arguments = format!("demo --json --data target/gate {}", demo.arguments);
    let output = process::shown_result(process::program("target/release/shop", &arguments))?;
    let report = serde_json::from_str(&output.said).context("`shop demo` printed no JSON")?;
    let parked = parked(&folder.join("shop.db"))?;
    fs::remove_dir_all(&folder)?;
    Ok((report, parked, output.success))
}

fn parked(database: &Path) -> Result<u64> {
    let database = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let sum = "SELECT sum(json_extract(CAST(body AS TEXT), '$.parked')) FROM documents \
               WHERE collection = 'watermarks' AND id LIKE 'payment/payment/%'";
    Ok(database.query_row(sum, [], |row| row.get::<_, u32>(0))?.into())
}

/// Every backend passes the same suites.
const SUITES: [(&str, &str); 7] = [
    ("databases, brokers, consumers: in memory", "test -p sillage-testkit"),
    ("databases, brokers, consumers: SQLite", "test -p sillage-sqlite --test conformance"),
    (
        "databases, brokers, consumers: PostgreSQL, also behind PgBouncer",
        "test -p sillage-postgres --test postgres conformance",
    ),
    ("brokers, consumers: Apache Kafka", "test -p sillage-kafka --test kafka conformance"),
    ("brokers, consumers: RabbitMQ", "test -p sillage-rabbitmq --test conformance"),
    ("consumers and members on virtual time", "test -p sillage --test consumer --test members"),
    ("brokers outside on virtual time", "test -p sillage --test outside --test state"),
];

fn conformance() -> Result<(String, bool)> {
    let mut text = "| suite | command | passed | failed |\n|---|---|---|---|\n".to_owned();
    let mut all = true;
    let servers =
        ForTests::up(&[Service::Kafka, Service::Rabbitmq, Service::Postgres, Service::Pgbouncer]);
    for (suite, arguments) in SUITES {
        let mut command = process::cargo(arguments);
        servers.tell(&mut command);
        let output = process::shown_result(command)?;
        let (passed, failed) = (sum(&output.said, " passed"), sum(&output.said, " failed"));
        all &= output.success && passed > 0;
        writeln!(text, "| {suite} | `cargo {arguments}` | {passed} | {failed} |")?;
    }
    Ok((text, all))
}

/// The stable position of PostgreSQL, under writers that are killed; and bugs it has to catch.
fn stable() -> Result<(String, bool)> {
    const ENTRIES: u64 = 6_600_000;
    let arguments = "test -p sillage-postgres --test postgres stable:: -- --nocapture";
    let servers = ForTests::up(&[Service::Postgres]);
    let mut command = process::cargo(arguments);
    servers.tell(&mut command);
    command.env("SILLAGE_STABLE_ENTRIES", ENTRIES.to_string());
    let output = process::shown_result(command)?;
    let mut text = format!(
        "`SILLAGE_STABLE_ENTRIES={ENTRIES} cargo {arguments}`: twelve writers, slow, rolled back, \
         with savepoints, at\nthree isolation levels, whose backends are killed, and three \
         readers. Planted bugs have to be caught.\n\n| reader | entries | backends killed | \
         entries skipped |\n|---|---|---|---|\n"
    );
    let mut all = output.success;
    let found = output.said.lines().filter_map(|line| line.split_once(": "));
    for (reader, found) in found.filter(|(_, found)| found.ends_with(" lost")) {
        let number = |word| bench::before::<u64>(found, word);
        let (entries, killed) = (number(" entries,")?, number(" killed,")?);
        let skipped = number(" skipped,")?;
        if reader == "ours" {
            all &= skipped == 0 && entries >= 5_000_000 && killed >= 1_000;
        }
        writeln!(text, "| {reader} | {entries} | {killed} | {skipped} |")?;
    }
    Ok((text, all))
}

/// The sum of the numbers before the word, over all results of tests.
fn sum(said: &str, word: &str) -> u32 {
    let results = said.lines().filter(|line| line.starts_with("test result: "));
    results.filter_map(|line| bench::before::<u32>(line, word).ok()).sum()
}

fn costs() -> Result<(String, bool)> {
    let figures = bench::measure()?;
    let mut text =
        "| figure | measured | limit | result | command |\n|---|---|---|---|---|\n".to_owned();
    for figure in &figures {
        let Figure { what, command, measured, limit, .. } = figure;
        writeln!(text, "| {what} | {measured} | {limit} | {} | `{command}` |", figure.result())?;
    }
    Ok((text, figures.iter().all(|figure| figure.holds != Some(false))))
}
