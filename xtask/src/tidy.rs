//! What no lint checks: sizes, words, forbidden text, the floor plan. Each finding says what to do.

mod floor_plan;
mod size;
mod text;
mod words;

use crate::process;
use anyhow::{Context, Result, bail};
use std::fmt;
use std::fs;
use std::path::Path;

/// Checks all files of the repository.
pub(crate) fn run() -> Result<()> {
    let mut sources = Vec::new();
    collect(process::root(), &mut sources)?;
    let mut findings = floor_plan::check(&sources)?;
    let machine = text::machine_paths();
    for source in &sources {
        findings.extend(size::check(source));
        findings.extend(text::check(source, &machine));
        findings.extend(words::check(source));
    }
    findings.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
    for finding in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        bail!("tidy: {} to mend", findings.len());
    }
    println!("tidy: {} files, nothing to mend", sources.len());
    Ok(())
}

/// A text file of the repository.
struct Source {
    /// From the root, with `/`.
    path: String,
    text: String,
}

impl Source {
    /// Its lines, numbered from 1.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.text.lines())
    }

    fn extension(&self) -> &str {
        Path::new(&self.path).extension().and_then(|found| found.to_str()).unwrap_or_default()
    }

    fn finding(&self, line: usize, what: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding { path: self.path.clone(), line, what: what.into(), remedy: remedy.into() }
    }
}

/// Something to mend.
#[derive(Debug, PartialEq)]
struct Finding {
    path: String,
    line: usize,
    what: String,
    remedy: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.path, self.line, self.what, self.remedy)
    }
}

/// Build output, repository data and what a running shop leaves behind are not sources.
fn is_source_folder(name: &str) -> bool {
    let hidden = name.starts_with('.') && !matches!(name, ".ci" | ".cargo" | ".github");
    name != "target" && !hidden
}

fn is_source_file(name: &str) -> bool {
    const EXTENSIONS: [&str; 13] = [
        "rs", "sql", "toml", "sh", "md", "txt", "out", "stderr", "yml", "yaml", "html", "css", "js",
    ];
    let extension = Path::new(name).extension().and_then(|found| found.to_str());
    extension.map_or(name == "run", |found| EXTENSIONS.contains(&found))
}

fn collect(folder: &Path, sources: &mut Vec<Source>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if path.is_dir() {
            if is_source_folder(name) {
                collect(&path, sources)?;
            }
        } else if is_source_file(name) {
            sources.push(read(&path)?);
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<Source> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Ok(Source { path: process::relative(path), text })
}

#[cfg(test)]
mod tests {
    use super::{Source, is_source_file, is_source_folder};

    pub(super) fn source(path: &str, text: &str) -> Source {
        Source { path: path.into(), text: text.into() }
    }

    #[test]
    fn a_finding_says_where_what_and_what_to_do() {
        let finding = source("a/b.rs", "").finding(7, "is wrong", "mend it");
        assert_eq!(finding.to_string(), "a/b.rs:7: is wrong: mend it");
    }

    #[test]
    fn only_sources_are_read() {
        assert!(is_source_folder(".ci") && is_source_folder("src"));
        assert!(!is_source_folder(".git") && !is_source_folder("target"));
        assert!(is_source_file("run") && is_source_file("a.sql"));
        assert!(!is_source_file("shop.db") && !is_source_file("LICENSE-MIT"));
    }
}
