//! Each example of `sillage` prints exactly what the `.out` file beside it says.

use crate::process;
use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::{fs, io};

/// Runs all examples, and fails after the last if one of them differs.
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
    let wrong: Vec<String> = examples
        .iter()
        .filter_map(|example| check(example).err().map(|error| format!("{error:#}")))
        .collect();
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\n"));
    }
    println!("examples: {} printed what they should", examples.len());
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

fn check(example: &Path) -> Result<()> {
    let name = example.file_stem().unwrap_or_default().to_string_lossy();
    let beside = example.with_extension("out");
    let expected = fs::read_to_string(&beside).with_context(|| {
        format!("example {name}: save what it should print as {}", process::relative(&beside))
    })?;
    println!("example {name}");
    let actual = process::output(process::cargo(&format!("run -q -p sillage --example {name}")))?;
    match difference(&expected, &actual) {
        None => Ok(()),
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
