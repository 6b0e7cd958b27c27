//! Everything a change has to pass. A step that fails does not keep the later ones from running.

use crate::{bench, examples, pairs, process, test, tidy};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::time::{Duration, Instant};

/// A first build must not put anyone off: seconds for the shop, in release, on two cores.
const COLD_BUILD_LIMIT: u64 = 240;

struct Step {
    name: &'static str,
    run: fn() -> Result<()>,
}

/// Services apart, on both brokers, with bad connections, frozen processes and rebalances.
const TROUBLES: &str = "xtask faults --broker kafka,rabbitmq --troubles network,freezes,members \
                        --short";

const STEPS: [Step; 10] = [
    Step { name: "format", run: || process::run(process::cargo("fmt --all --check")) },
    Step { name: "tidy", run: tidy::run },
    Step { name: "clippy", run: clippy },
    Step { name: "tests", run: test::targets },
    Step { name: "doctests", run: test::docs },
    Step { name: "examples", run: examples::run },
    Step { name: "pairs", run: pairs::short },
    Step { name: "counts", run: bench::counts },
    // A process of its own: it ends what it started when it is interrupted.
    Step { name: "faults", run: || process::run(process::cargo("xtask faults --short")) },
    Step { name: "troubles", run: || process::run(process::cargo(TROUBLES)) },
];

/// Minutes long and blind to what changed: only where `CI` is `true`.
const COLD_BUILD: Step = Step { name: "cold build", run: cold_build };

/// Runs the steps, then prints a table of them.
pub(crate) fn run() -> Result<()> {
    let steps = STEPS.iter().chain(process::in_ci().then_some(&COLD_BUILD));
    let done: Vec<Done> = steps.map(Done::by).collect();
    println!("\n{:<12}{:>8}  result", "step", "seconds");
    for step in &done {
        println!("{step}");
    }
    let failed: Vec<&str> = done.iter().filter(|step| !step.passed).map(|step| step.name).collect();
    ensure!(
        failed.is_empty(),
        "{} of {} steps failed: {}",
        failed.len(),
        done.len(),
        failed.join(", ")
    );
    Ok(())
}

struct Done {
    name: &'static str,
    took: Duration,
    passed: bool,
}

impl Done {
    fn by(step: &Step) -> Self {
        let name = step.name;
        println!("\n== {name}");
        let (took, result) = timed(step.run);
        if let Err(error) = &result {
            println!("{error:#}");
        }
        let done = Done { name, took, passed: result.is_ok() };
        println!("== {done}");
        done
    }
}

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let result = if self.passed { "passed" } else { "FAILED" };
        write!(f, "{:<12}{:>8.1}  {result}", self.name, self.took.as_secs_f64())
    }
}

fn clippy() -> Result<()> {
    process::run(process::cargo("clippy --workspace --all-targets -- -D warnings"))?;
    // What is there only with the clients of servers.
    let all = "sillage/full,shop/kafka,shop/rabbitmq,sillage-cli/kafka,sillage-cli/rabbitmq,\
               shop/postgres,sillage-cli/postgres,bench/kafka,bench/rabbitmq,\
               bench/postgres";
    process::run(process::cargo(&format!(
        "clippy --workspace --all-targets --features {all} -- -D warnings"
    )))
}

fn cold_build() -> Result<()> {
    let target = process::root().join("target/cold");
    if target.exists() {
        fs::remove_dir_all(&target).with_context(|| target.display().to_string())?;
    }
    process::run(process::cargo("fetch"))?; // the network is not what is measured
    let (took, built) =
        timed(|| process::run(process::cargo("build --release -p shop --target-dir target/cold")));
    built?;
    let seconds = took.as_secs();
    println!("cold release build of the shop: {seconds} s (limit {COLD_BUILD_LIMIT} s)");
    if seconds > COLD_BUILD_LIMIT {
        // Said, not failed: how long it takes depends on what else the machine does.
        println!("over the limit: see what `cargo build --timings` blames");
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "builds are timed by the real clock")]
fn timed<T>(run: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let result = run();
    (start.elapsed(), result)
}
