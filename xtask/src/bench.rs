//! What Sillage costs, against limits that hold on any machine: ratios to a raw ceiling in the same
//! run, counts, and instructions instead of time.

use crate::process;
use crate::services::{self, ForTests, Service};
use anyhow::{Context, Result, bail, ensure};
use std::process::Command;
use std::str::FromStr;

/// Messages of the two runs under callgrind: what starting costs is in both.
const MESSAGES: (u64, u64) = (100_000, 200_000);

/// A figure and its limit.
pub(crate) struct Figure {
    pub(crate) what: &'static str,
    pub(crate) command: String,
    pub(crate) measured: String,
    pub(crate) limit: String,
    /// `None`: it could not be measured here.
    pub(crate) holds: Option<bool>,
}

impl Figure {
    /// The last column of every table.
    pub(crate) fn result(&self) -> &'static str {
        match self.holds {
            Some(true) => "ok",
            Some(false) => "FAILED",
            None => "skipped",
        }
    }
}

#[derive(clap::Args)]
pub(crate) struct Bench {
    /// Beside the raw clients of Kafka and RabbitMQ, instead of in one process
    #[arg(long)]
    brokers: bool,
    /// Beside pgbench, on PostgreSQL
    #[arg(long, conflicts_with = "brokers")]
    databases: bool,
    /// Only what is the same on a busy machine: a step of `cargo xtask ci`
    #[arg(long, conflicts_with_all = ["brokers", "databases"])]
    counts: bool,
}

/// Measures, and fails if a limit does not hold.
pub(crate) fn run(what: &Bench) -> Result<()> {
    let figures = match what {
        Bench { brokers: true, .. } => brokers()?,
        Bench { databases: true, .. } => databases()?,
        Bench { counts: true, .. } => count()?,
        _ => measure()?,
    };
    compare(&figures)
}

/// What does not depend on what else the machine does; fails if a limit does not hold, or, where `CI`
/// is `true`, if something could not be measured.
pub(crate) fn counts() -> Result<()> {
    let figures = count()?;
    compare(&figures)?;
    let skipped = figures.iter().any(|figure| figure.holds.is_none());
    ensure!(!skipped || !process::in_ci(), "no figure may be skipped where `CI` is `true`");
    Ok(())
}

fn compare(figures: &[Figure]) -> Result<()> {
    println!("\n{:<50}{:>12}{:>12}  result", "figure", "measured", "limit");
    for figure in figures {
        let Figure { what, measured, limit, .. } = figure;
        println!("{what:<50}{measured:>12}{limit:>12}  {}", figure.result());
    }
    let failed = figures.iter().filter(|figure| figure.holds == Some(false)).count();
    ensure!(failed == 0, "{failed} of {} figures are beyond their limits", figures.len());
    Ok(())
}

/// Builds the bench and measures everything.
pub(crate) fn measure() -> Result<Vec<Figure>> {
    let mut figures = count()?;
    figures.extend(commit()?);
    figures.extend(saga(&IN_A_FILE, "saga", "cargo run --profile perf -p bench -- saga")?);
    Ok(figures)
}

fn count() -> Result<Vec<Figure>> {
    process::run(process::cargo("build --profile perf -p bench"))?;
    let mut figures = dispatch()?;
    figures.extend([instructions()?, execute()?]);
    Ok(figures)
}

fn dispatch() -> Result<Vec<Figure>> {
    let (command, said) = bench("dispatch --messages 1000000")?;
    let allocations: f64 = before(&said, " allocations each")?;
    Ok(vec![
        Figure {
            what: "dispatch of a message, nanoseconds",
            command: command.clone(),
            measured: before::<u64>(&said, " ns each")?.to_string(),
            limit: "none".into(),
            holds: Some(true),
        },
        Figure {
            what: "dispatch of a message, allocations",
            command,
            measured: format!("{allocations:.4}"),
            // A batch of 512 may allocate, a message may not.
            limit: "< 0.05".into(),
            holds: Some(allocations < 0.05),
        },
    ])
}

fn instructions() -> Result<Figure> {
    const LIMIT: f64 = 700.0;
    let arguments = format!("dispatch --messages {}", MESSAGES.1);
    let mut figure = Figure {
        what: "dispatch of a message, instructions",
        command: format!("valgrind --tool=callgrind target/perf/bench {arguments}"),
        measured: String::new(),
        limit: format!("≤ {LIMIT}"),
        holds: None,
    };
    if let Err(error) = services::program("valgrind") {
        println!("SKIPPED: instructions are not counted: {error:#}");
        return Ok(figure);
    }
    let (few, many) = (callgrind(MESSAGES.0)?, callgrind(MESSAGES.1)?);
    #[expect(clippy::cast_precision_loss, reason = "there are not so many")]
    let each = (many - few) / (MESSAGES.1 - MESSAGES.0) as f64;
    (figure.measured, figure.holds) = (format!("{each:.0}"), Some(each <= LIMIT));
    Ok(figure)
}

/// The instructions of a whole run.
fn callgrind(messages: u64) -> Result<f64> {
    let out = process::built("target/callgrind.out");
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=callgrind".into(), format!("--callgrind-out-file={}", out.display())])
        .arg(process::built("target/perf/bench"))
        .args(["dispatch", "--messages", &messages.to_string()])
        .current_dir(process::root());
    println!("$ {}", process::shown(&command));
    let output = command.output().context("valgrind did not start")?;
    let _ = std::fs::remove_file(out);
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("valgrind: {}: {said}", output.status);
    }
    let collected = said.lines().find_map(|line| line.split("Collected : ").nth(1));
    let collected = collected.context("callgrind counted nothing")?;
    collected.trim().parse().context("callgrind")
}

fn commit() -> Result<[Figure; 2]> {
    let (command, said) = bench("commit --writers 64 --rounds 9")?;
    let rounds = said.lines().filter(|line| line.starts_with("round "));
    let each: Result<Vec<u32>> = rounds.map(|line| before(line, " each;")).collect();
    let least = each?.into_iter().min().context("no round was measured")?;
    let ratio: f64 = after(&said, "median ratio to raw ")?;
    // What a flush takes is in both; the less it is, the more the rest of the work counts.
    let flush: u32 = before(&said, " µs a flush")?;
    let limit = if flush < 1000 { 0.55 } else { 0.8 };
    Ok([
        Figure {
            what: "commits a durable write, 64 writers, least",
            command: command.clone(),
            measured: least.to_string(),
            limit: "≥ 32".into(),
            holds: Some(least >= 32),
        },
        Figure {
            what: "commits a second, of raw rusqlite at equal batch",
            command,
            measured: format!("{ratio:.2}"),
            limit: format!("≥ {limit:.2}"),
            holds: Some(ratio >= limit),
        },
    ])
}

fn execute() -> Result<Figure> {
    let (command, said) = bench("execute")?;
    let writes: u32 = before(&said, " durable writes")?;
    Ok(Figure {
        what: "durable writes of 100 `execute` on one stream",
        command,
        measured: writes.to_string(),
        limit: "≤ 5".into(),
        holds: Some(writes <= 5),
    })
}

const IN_A_FILE: [&str; 3] = [
    "a saga of four steps: durable writes",
    "a saga of four steps: time to that of its fsyncs",
    "sagas a second: 64 in flight to one",
];
const ON_POSTGRES: [&str; 3] = [
    "PostgreSQL, a saga of four steps: durable writes",
    "PostgreSQL, a saga: time to that of its fsyncs",
    "PostgreSQL, sagas a second: 64 in flight to one",
];

/// A saga of four steps, one and 64 in flight, beside the fsyncs of its durable writes.
fn saga(what: &[&'static str; 3], arguments: &str, command: &str) -> Result<[Figure; 3]> {
    let (_, said) = bench(arguments)?;
    let (writes, latency, gain) = of_sagas(&said)?;
    let figure = |number: usize, figure: f64, limit: &str, holds| Figure {
        what: what[number],
        command: command.to_owned(),
        measured: format!("{figure:.1}"),
        limit: limit.into(),
        holds: Some(holds),
    };
    Ok([
        // One begins it and nine are on its way; those of watermarks are shared by all in a tenth of
        // a second.
        figure(0, writes, "≤ 20", writes <= 20.0),
        // On a busy machine an fsync takes ten times as long in one second as in the next.
        figure(1, latency, "none", true),
        figure(2, gain, "≥ 3", gain >= 3.0),
    ])
}

/// Durable writes of one, its time to that of its fsyncs, and what 64 in flight gain.
fn of_sagas(said: &str) -> Result<(f64, f64, f64)> {
    let writes = before(said, " durable writes each, fsync")?;
    let (_, one) = said.split_once("one in flight p50").context("not one in flight")?;
    let (_, many) = one.split_once("64 in flight").context("not 64 in flight")?;
    Ok((writes, after(one, "; ratio ")?, after(many, "; ratio ")?))
}

/// Publishing and consuming beside raw rdkafka and raw lapin.
pub(crate) fn brokers() -> Result<Vec<Figure>> {
    const BROKERS: [(Service, u32); 2] = [(Service::Kafka, 500_000), (Service::Rabbitmq, 150_000)];
    let with_clients = build_with_clients()?;
    let needed = [Service::Kafka, Service::Rabbitmq, Service::Postgres];
    let _stopped_afterwards = ForTests::up(&needed);
    let mut urls = services::up(&needed)?;
    let (_, database) = urls.pop().context("PostgreSQL has no URL")?;
    let mut figures = vec![];
    for ((service, url), (_, messages)) in urls.iter().zip(BROKERS) {
        let (_, said) = bench(&format!("brokers --broker {url} --messages {messages}"))?;
        let command = format!("{with_clients} -- brokers --broker … --messages {messages}");
        for part in ["publish", "consume"] {
            figures.extend(beside_raw(*service, part, &command, &said)?);
        }
        let (_, said) = bench(&format!("inbox --broker {url} --database {database}"))?;
        figures.push(Figure {
            what: match service {
                Service::Kafka => "Kafka to PostgreSQL: to bare array inserts",
                _ => "RabbitMQ to PostgreSQL: to bare array inserts",
            },
            command: format!("{with_clients} -- inbox --broker … --database …"),
            measured: format!("{:.2}", after::<f64>(&said, "inbox: to bare arrays ")?),
            limit: "none".into(),
            holds: Some(true),
        });
    }
    Ok(figures)
}

/// Builds the bench with all clients; how to run it so.
fn build_with_clients() -> Result<&'static str> {
    const BENCH: &str = "-p bench --no-default-features --features kafka,rabbitmq,postgres";
    process::run(process::cargo(&format!("build --profile perf {BENCH}")))?;
    Ok("cargo run --profile perf -p bench --no-default-features --features kafka,rabbitmq,postgres")
}

/// Group commit beside pgbench, what readers that find nothing cost, and a view from the beginning.
fn databases() -> Result<Vec<Figure>> {
    const FIGURES: [(&str, &str, f64); 5] = [
        ("PostgreSQL, 64 writers: to pgbench, 64 single INSERTs", "64 writers to 64 singles ", 3.0),
        ("PostgreSQL, 64 writers: to pgbench, UNNEST of 100", "64 writers to UNNEST ", 0.35),
        ("PostgreSQL, one writer: to pgbench, one", "one writer to one single ", 0.7),
        ("PostgreSQL, 64 writers: with 100 idle readers", "with readers to without ", 0.95),
        ("PostgreSQL, 1M events into a view: raw to ours", "replay: raw to ours ", 0.8),
    ];
    let with_clients = build_with_clients()?;
    let _stopped_afterwards = ForTests::up(&[Service::Postgres]);
    let (_, url) = services::up(&[Service::Postgres])?.pop().context("PostgreSQL has no URL")?;
    let (_, mut said) = bench(&format!("postgres --database {url}"))?;
    said += &bench(&format!("replay --database {url}"))?.1;
    let figures = FIGURES.iter().map(|(what, words, limit)| {
        let ratio: f64 = after(&said, words)?;
        Ok(Figure {
            what,
            command: match words.strip_prefix("replay") {
                Some(_) => format!("{with_clients} -- replay --database …"),
                None => format!("{with_clients} -- postgres --database …"),
            },
            measured: format!("{ratio:.2}"),
            limit: format!("≥ {limit:.2}"),
            holds: Some(ratio >= *limit),
        })
    });
    let mut figures = figures.collect::<Result<Vec<_>>>()?;
    let arguments = format!("saga --database {url}");
    let command = format!("{with_clients} -- saga --database …");
    figures.extend(saga(&ON_POSTGRES, &arguments, &command)?);
    Ok(figures)
}

/// Rate and processor time of one part, as ratios to the raw client that does the same.
fn beside_raw(service: Service, part: &str, command: &str, said: &str) -> Result<[Figure; 2]> {
    let what = match (service, part) {
        (Service::Kafka, "publish") => ["Kafka, publish: rate", "Kafka, publish: CPU"],
        (Service::Kafka, _) => ["Kafka, consume: rate", "Kafka, consume: CPU"],
        (_, "publish") => ["RabbitMQ, publish: rate", "RabbitMQ, publish: CPU"],
        _ => ["RabbitMQ, consume: rate", "RabbitMQ, consume: CPU"],
    };
    let said = said.split_once(&format!("\n{part}")).with_context(|| format!("no {part}"))?.1;
    let ratios = said.find(": rate ").map_or(said, |start| &said[start..]);
    let rate: f64 = after(ratios, ": rate ")?;
    let cpu: f64 = after(ratios, ", CPU ")?;
    let figure = |what, ratio: f64, limit: &str, holds| Figure {
        what,
        command: command.to_owned(),
        measured: format!("{ratio:.2}"),
        limit: limit.into(),
        holds: Some(holds),
    };
    Ok([figure(what[0], rate, "≥ 0.90", rate >= 0.9), figure(what[1], cpu, "≤ 1.25", cpu <= 1.25)])
}

/// Runs the bench; how, and what it said.
fn bench(arguments: &str) -> Result<(String, String)> {
    let command = process::program("target/perf/bench", arguments);
    let said = process::shown_result(command)?;
    ensure!(said.success, "the bench failed: {arguments}");
    let said = said.said;
    Ok((format!("cargo run --profile perf -p bench -- {arguments}"), said))
}

/// The number that stands just before the words.
pub(crate) fn before<T: FromStr>(said: &str, words: &str) -> Result<T> {
    let number = said.split_once(words).and_then(|(said, _)| said.split_whitespace().next_back());
    number.and_then(|number| number.parse().ok()).with_context(|| format!("no{words} in: {said}"))
}

/// The number that stands just after the words.
fn after<T: FromStr>(said: &str, words: &str) -> Result<T> {
    let number = said.split_once(words).and_then(|(_, said)| said.split_whitespace().next());
    let number = number.and_then(|number| number.trim_end_matches(',').parse().ok());
    number.with_context(|| format!("no {words}in: {said}"))
}

#[cfg(test)]
mod tests {
    use super::{after, before, of_sagas};

    #[test]
    fn figures_are_read_off_what_the_bench_says() {
        let said = "dispatch: 1000000 messages, 92 ns each, 0.0012 allocations each\n";
        assert_eq!(before::<u64>(said, " ns each").unwrap(), 92);
        assert_eq!(before::<String>(said, " allocations each").unwrap(), "0.0012");
        let ratio = after::<String>("median ratio to raw 0.93\n", "ratio to raw ").unwrap();
        assert_eq!(ratio, "0.93");
        assert_eq!(after::<String>("lapin: rate 0.93, CPU 1.07", ": rate ").unwrap(), "0.93");
        assert!(before::<u64>(said, " durable writes").is_err());
        let said = "saga: an entry by raw rusqlite 212µs; ratio to as many of them 1.55\n\
                    saga: one in flight p50 3.3ms, p95 4.7ms, 10.1 durable writes each, fsync p50 \
                    106µs, together 1.07ms; ratio 3.09\n\
                    saga: 285/s one in flight, 1283/s 64 in flight (p50 48ms, 0.2 durable writes \
                    each); ratio 4.5\n";
        assert_eq!(of_sagas(said).unwrap(), (10.1, 3.09, 4.5));
    }
}
