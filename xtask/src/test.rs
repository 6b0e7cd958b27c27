//! All tests: those of every target, with the servers they need, then those in the docs.

use crate::process;
use crate::services::{ForTests, Service, foreign};
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::process::Command;

/// What tests talk to.
const NEEDED: [Service; 5] =
    [Service::Kafka, Service::Rabbitmq, Service::Postgres, Service::Pgbouncer, Service::Toxiproxy];

/// Names the file in which tests write that they had to be skipped.
const SKIPPED: &str = "SILLAGE_TEST_SKIPPED";

/// TLS and SCRAM of Kafka's client are built with the system's OpenSSL: a client of its own, of a
/// minute and a half, so that nobody waits for it who builds the rest.
const SECURE: &str = "test -p sillage-kafka --features ssl --test kafka secure";
/// Says whether its headers are there: Debian has them in `libssl-dev`.
const OPENSSL: &str = "pkg-config --exists openssl";

#[derive(clap::Args)]
pub(crate) struct Test {
    /// Leave the servers up that the tests need
    #[arg(long)]
    keep: bool,
}

/// Runs both, the second also when the first failed.
pub(crate) fn run(test: &Test) -> Result<()> {
    match (targets_with(test.keep), docs()) {
        (Ok(()), Ok(())) => Ok(()),
        (Err(error), Ok(())) | (Ok(()), Err(error)) => Err(error),
        (Err(targets), Err(docs)) => bail!("{targets:#}\n{docs:#}"),
    }
}

/// Unit and integration tests, and that examples and benches build.
pub(crate) fn targets() -> Result<()> {
    targets_with(false)
}

/// The examples in the docs.
pub(crate) fn docs() -> Result<()> {
    process::run(process::cargo("test --workspace --doc --no-fail-fast"))
}

fn targets_with(keep: bool) -> Result<()> {
    foreign::for_tests();
    let servers = ForTests::up(&NEEDED);
    if keep {
        servers.keep()?;
    }
    let file = process::root().join(format!("target/skipped-{}.txt", std::process::id()));
    let mut command = process::cargo("test --workspace --all-targets --no-fail-fast");
    servers.tell(&mut command);
    command.env(SKIPPED, &file);
    let result = process::run(command);
    let (secure, without) = secure(&servers, &file);
    let skipped = take(&file).with_context(|| process::relative(&file))? + without;
    println!("{}", told(&skipped));
    result.and(secure)?;
    ensure!(skipped.is_empty() || !process::in_ci(), "no test may be skipped where `CI` is `true`");
    Ok(())
}

/// Runs what needs OpenSSL; a line of what was skipped.
fn secure(servers: &ForTests, skipped: &Path) -> (Result<()>, &'static str) {
    let mut words = OPENSSL.split_whitespace();
    let has_openssl = Command::new(words.next().unwrap_or_default()).args(words).status();
    if !has_openssl.is_ok_and(|status| status.success()) {
        return (Ok(()), "sillage-kafka secure: OpenSSL is not here (libssl-dev, pkg-config)\n");
    }
    let mut command = process::cargo(SECURE);
    servers.tell(&mut command);
    command.env(SKIPPED, skipped);
    (process::run(command), "")
}

/// What is in the file, if there is one; then there is none.
fn take(file: &Path) -> io::Result<String> {
    match fs::read_to_string(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error),
        Ok(text) => fs::remove_file(file).map(|()| text),
    }
}

/// How many, then which.
fn told(skipped: &str) -> String {
    let mut lines: Vec<&str> = skipped.lines().collect();
    lines.sort_unstable();
    let tests = if lines.len() == 1 { "test" } else { "tests" };
    let first = format!("{} {tests} skipped", lines.len());
    [vec![&*first], lines].concat().join("\n  ")
}

#[cfg(test)]
mod tests {
    use super::told;

    #[test]
    fn skipped_tests_are_counted_and_named() {
        assert_eq!(told(""), "0 tests skipped");
        assert_eq!(told("b: X is not set\n"), "1 test skipped\n  b: X is not set");
        assert_eq!(told("b\na\n"), "2 tests skipped\n  a\n  b");
    }
}
