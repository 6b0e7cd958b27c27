//! Each example of `sillage` prints exactly what the `.out` file beside it says.

use crate::process;
use crate::services::{self, ForTests, Service};
use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::{fs, io};

/// Names the database to an example that needs a server; one that reads it is run with PostgreSQL.
const DATABASE: &str = "DATABASE_URL";

/// Runs all examples, and fails after the last if one of them differs. One that needs a server which
/// is not to be had is skipped, and named; where `CI` is `true` that fails.
pub(crate) fn run() -> Result<()> {
    let examples = named("rs")?;
    for expected in named("out")? {
        let example = expected.with_extension("rs");
        ensure!(
            example.exists(),
            "{} has no example beside it: remove it",
            process::relative(&expected)
        );
    }
    let (mut wrong, mut skipped, mut server) = (vec![], 0, None);
    for example in &examples {
        match check(example, &mut server) {
            Ok(true) => {}
            Ok(false) => skipped += 1,
            Err(error) => wrong.push(format!("{error:#}")),
        }
    }
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\n"));
    }
    println!("examples: {} printed what they should", examples.len() - skipped);
    ensure!(skipped == 0 || !process::in_ci(), "no example may be skipped where `CI` is `true`");
    Ok(())
}

fn named(extension: &str) -> Result<Vec<PathBuf>> {
    let folder = process::root().join("crates/sillage/examples");
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).context(folder.display().to_string()),
    };
    let paths: io::Result<Vec<PathBuf>> = entries.map(|entry| Ok(entry?.path())).collect();
    let mut paths = paths?;
    paths.retain(|path| path.extension().is_some_and(|found| found == extension));
    paths.sort();
    Ok(paths)
}

/// False where it was skipped. The server is started for the first example that needs it.
fn check(example: &Path, server: &mut Option<ForTests>) -> Result<bool> {
    let name = example.file_stem().unwrap_or_default().to_string_lossy();
    let beside = example.with_extension("out");
    let expected = fs::read_to_string(&beside).with_context(|| {
        format!("example {name}: save what it should print as {}", process::relative(&beside))
    })?;
    println!("example {name}");
    let mut command = process::cargo(&format!("run -q -p sillage --example {name}"));
    if fs::read_to_string(example)?.contains(DATABASE) {
        server.get_or_insert_with(|| ForTests::up(&[Service::Postgres]));
        match services::at_hand(&[Service::Postgres]) {
            Ok(urls) => command
                .args(["--features", "postgres"])
                .envs(urls.first().map(|url| (DATABASE, url))),
            Err(error) => {
                println!("SKIPPED: example {name}: {error:#}");
                return Ok(false);
            }
        };
    }
    let actual = process::output(command)?;
    match difference(&expected, &actual) {
        None => Ok(true),
        Some(difference) => bail!("example {name}: {difference}"),
    }
}

/// The first line that differs; `None` when the texts are equal to the byte.
fn difference(expected: &str, actual: &str) -> Option<String> {
    if expected == actual {
        return None;
    }
    let (mut expected, mut actual) = (expected.split('\n'), actual.split('\n'));
    for line in 1.. {
        match (expected.next(), actual.next()) {
            (None, None) => break,
            (wanted, found) if wanted == found => {}
            (wanted, found) => {
                let quoted = |line: Option<&str>| {
                    line.map_or_else(|| "no more lines".to_owned(), |line| format!("{line:?}"))
                };
                return Some(format!(
                    "line {line} should be {}, but is {}",
                    quoted(wanted),
                    quoted(found)
                ));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::difference;

    #[test]
    fn outputs_are_compared_to_the_byte() {
        assert_eq!(difference("a\nb\n", "a\nb\n"), None);
        for (expected, actual, told) in [
            ("a\nb\n", "a\nc\n", "line 2 should be \"b\", but is \"c\""),
            ("a\n", "a", "line 2 should be \"\", but is no more lines"),
            ("a", "a\n", "line 2 should be no more lines, but is \"\""),
            ("a\n", "a\r\n", "line 1 should be \"a\", but is \"a\\r\""),
        ] {
            assert_eq!(difference(expected, actual).as_deref(), Some(told));
        }
    }
}
