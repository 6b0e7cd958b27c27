//! Bugs planted in a copy of the source, each of which a test on a real server has to find:
//! `cargo xtask planted`.
//!
//! A test that passes on a system with the bug that it is there for could pass on anything. Each bug
//! is one that is easily written: the naive form of an algorithm that loses, doubles or reorders.

mod bugs;

use crate::process;
use crate::services::{ForTests, Service};
use anyhow::{Context, Result, bail, ensure};
use bugs::{BUGS, Bug};
use std::fs;
use std::path::Path;
use std::process::Command;

#[derive(clap::Args)]
pub(crate) struct Planted {
    /// Only bugs with this in their names
    name: Option<String>,
}

/// What of the repository a test of a backend needs.
const NEEDED: [&str; 8] =
    ["Cargo.toml", "Cargo.lock", "clippy.toml", ".cargo", "bench", "crates", "shop", "xtask"];

/// Plants each; fails if a test passes in spite of one.
pub(crate) fn run(planted: &Planted) -> Result<()> {
    let wanted = |bug: &&Bug| planted.name.as_ref().is_none_or(|name| bug.name.contains(name));
    let bugs: Vec<&Bug> = BUGS.iter().filter(wanted).collect();
    ensure!(!bugs.is_empty(), "there is no such bug");
    let servers = ForTests::up(&[Service::Kafka, Service::Rabbitmq, Service::Toxiproxy]);
    let folder = process::root().join("target/planted");
    copy(&folder)?;
    let mut missed = vec![];
    for bug in bugs {
        let found = bug.run(&folder, &servers).with_context(|| bug.name)?;
        missed.extend(found.is_none().then_some(bug.name));
        let found = found.map_or("NOT FOUND".to_owned(), |said| format!("found: {said}"));
        println!("planted: {}\n  {found} ({})", bug.name, bug.test());
    }
    ensure!(missed.is_empty(), "not found: {}", missed.join(", "));
    Ok(fs::remove_dir_all(&folder)?)
}

impl Bug {
    /// Plants it in the copy, and takes it out again; what the test says in between, if it fails.
    fn run(&self, folder: &Path, servers: &ForTests) -> Result<Option<String>> {
        let mut before = vec![];
        for (file, right, wrong) in self.edits {
            let path = folder.join(file);
            let source = fs::read_to_string(&path).context(*file)?;
            ensure!(source.matches(right).count() == 1, "{file} has not just once: {right}");
            fs::write(&path, source.replace(right, wrong))?;
            before.push((path, source));
        }
        let found = self.test_fails(folder, servers);
        for (path, source) in before.into_iter().rev() {
            fs::write(path, source)?;
        }
        found
    }

    fn test_fails(&self, folder: &Path, servers: &ForTests) -> Result<Option<String>> {
        let build = self.cargo(folder, "--no-run", servers).status()?;
        ensure!(build.success(), "with the bug it does not build");
        let output = self.cargo(folder, "-- --nocapture", servers).output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        if !said.contains("running 1 test") || said.contains("skipped: ") {
            bail!("the test was not run: {said}");
        }
        Ok((!output.status.success()).then(|| why(&said)))
    }

    /// What its test is called.
    fn test(&self) -> &str {
        self.test.rsplit(' ').next().unwrap_or(self.test)
    }

    fn cargo(&self, folder: &Path, more: &str, servers: &ForTests) -> Command {
        let mut command = process::cargo(&format!("test {} {more}", self.test));
        command.current_dir(folder);
        if std::env::var_os("CARGO_TARGET_DIR").is_none() {
            // What the bug has no part in is built already.
            command.env("CARGO_TARGET_DIR", process::root().join("target"));
        }
        servers.tell(&mut command);
        command
    }
}

/// The first words of a test that failed.
fn why(said: &str) -> String {
    let mut lines = said.lines().skip_while(|line| !line.contains(" panicked at "));
    let words = lines.nth(1).unwrap_or_default();
    words.chars().take(100).collect()
}

/// The source as it is, all of it new to cargo: what was built of another bug is not used.
fn copy(to: &Path) -> Result<()> {
    if to.exists() {
        fs::remove_dir_all(to).with_context(|| process::relative(to))?;
    }
    fs::create_dir_all(to).with_context(|| process::relative(to))?;
    let mut command = Command::new("cp");
    command.arg("-r").args(NEEDED).arg(to).current_dir(process::root());
    ensure!(command.status()?.success(), "the source cannot be copied");
    Ok(())
}
