//! Programs of others, run as child processes that print one JSON value a line.

use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{self, ChildStdout, Command},
    time::timeout,
};

/// Longer than anything takes; somewhat longer than the programs themselves wait, which then say
/// what they miss.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// The folder of the programs.
pub(crate) struct Programs(PathBuf);

impl Programs {
    /// Where they are, or the test is skipped.
    pub(crate) fn find() -> Option<Programs> {
        sillage_testkit::servers::url("SILLAGE_TEST_FOREIGN").map(|folder| Programs(folder.into()))
    }

    /// One of the programs.
    pub(crate) fn program(&self, name: &str) -> Command {
        Command::new(self.0.join(name))
    }

    /// A script among the tests of the crate that is tested.
    pub(crate) fn script(&self, name: &str) -> Command {
        let mut command = self.program("python/bin/python");
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign");
        // -I: whatever is set for people's own Python does not count.
        command.args(["-I", "-B"]).arg(tests.join(name));
        command
    }
}

/// A program that runs; it is ended with the test.
pub(crate) struct Child {
    child: process::Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Child {
    /// Starts it with this input.
    pub(crate) async fn start(mut command: Command, input: &str) -> Child {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).await.unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Child { child, lines }
    }

    /// The next line; `None`: it prints no more.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        let line = timeout(PATIENCE, self.lines.next_line()).await.expect("it prints nothing");
        let line = line.unwrap()?;
        Some(serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}")))
    }

    /// All other lines; it must end well.
    pub(crate) async fn rest(mut self) -> Vec<Value> {
        let mut all = vec![];
        while let Some(value) = self.next().await {
            all.push(value);
        }
        let status = timeout(PATIENCE, self.child.wait()).await.expect("it does not end").unwrap();
        assert!(status.success(), "{status}; its standard error says why");
        all
    }
}

/// Runs a program to its end; what it printed.
pub(crate) async fn run(command: Command, input: &str) -> Vec<Value> {
    Child::start(command, input).await.rest().await
}

/// Values as programs read them.
pub(crate) fn lines(values: &[Value]) -> String {
    values.iter().map(|value| value.to_string() + "\n").collect()
}
