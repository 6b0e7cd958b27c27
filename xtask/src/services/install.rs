//! Getting what is missing: Debian's packages, and programs that others have to be asked for.

use super::place::services;
use crate::process;
use anyhow::{Context, Result, bail, ensure};
use rustix::process::geteuid;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, iter};

/// What a program says at its end is what matters if it fails.
const LAST_LINES: usize = 8;

/// A package of Debian's, and whether what it is for is there.
pub(super) struct Package {
    pub(super) name: &'static str,
    pub(super) is_there: bool,
}

/// Installs those that are missing.
pub(super) fn packages(packages: &[Package]) -> Result<()> {
    let missing = packages.iter().filter(|package| !package.is_there).map(|package| package.name);
    let missing = missing.collect::<Vec<_>>().join(" ");
    if missing.is_empty() {
        return Ok(());
    }
    let install = format!("apt-get install -y --no-install-recommends {missing}");
    ensure!(has("apt-get"), "missing here, where there is no apt-get: {missing}");
    ensure!(geteuid().is_root(), "missing: {missing}: run `sudo {install}`");
    if !has_lists() {
        apt("apt-get update")?;
    }
    // Lists that are old name versions that are no longer there.
    apt(&install).or_else(|_| apt("apt-get update").and_then(|()| apt(&install)))
}

/// Installs a program that is in the package of its name.
pub(crate) fn program(name: &'static str) -> Result<()> {
    packages(&[Package { name, is_there: has(name) }])
}

/// Whether the program is on the path.
pub(super) fn has(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// The newest of the versions of something: `folder/name*`.
pub(super) fn newest(folder: &str, name: &str) -> Option<PathBuf> {
    let paths = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    let version = |path: &PathBuf| {
        let version = path.file_name()?.to_str()?.strip_prefix(name)?;
        version.split('.').map(|part| part.parse().ok()).collect::<Option<Vec<u32>>>()
    };
    paths.filter_map(|path| Some((version(&path)?, path))).max().map(|(_, path)| path)
}

/// Runs it to the end, with its output in `install.log`.
pub(super) fn run(mut command: Command) -> Result<()> {
    let shown = process::shown(&command);
    eprintln!("$ {}", shown.replace(&format!("{}/", process::root().display()), ""));
    let path = services().join("install.log");
    fs::create_dir_all(services()).with_context(|| process::relative(&services()))?;
    let log = File::create(&path).with_context(|| process::relative(&path))?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let status = command.status().with_context(|| format!("`{shown}` did not start"))?;
    if !status.success() {
        bail!("`{shown}` failed: {status}\n{}", last_lines(&path));
    }
    Ok(())
}

/// The end of a log.
pub(super) fn last_lines(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let shown = &lines[lines.len().saturating_sub(LAST_LINES)..];
    let path = process::relative(log);
    iter::once(&*path).chain(shown.iter().copied()).collect::<Vec<_>>().join("\n  ")
}

fn apt(command: &str) -> Result<()> {
    let mut words = command.split_whitespace();
    let mut apt = Command::new(words.next().unwrap_or_default());
    apt.args(["-o", "DPkg::Lock::Timeout=300"]).args(words);
    apt.env("DEBIAN_FRONTEND", "noninteractive"); // nobody is there to answer a package's questions
    run(apt)
}

fn has_lists() -> bool {
    let lists = fs::read_dir("/var/lib/apt/lists").into_iter().flatten().flatten();
    lists.into_iter().any(|list| list.file_name().to_string_lossy().contains("_Packages"))
}

#[cfg(test)]
mod tests {
    use super::newest;

    #[test]
    fn versions_are_compared_as_numbers() {
        let folder = std::env::temp_dir().join(format!("sillage-install-{}", std::process::id()));
        for name in ["server-3.9.1", "server-3.10.8", "server-old", "other-4"] {
            std::fs::create_dir_all(folder.join(name)).unwrap();
        }
        let found = newest(folder.to_str().unwrap(), "server-");
        assert_eq!(found, Some(folder.join("server-3.10.8")));
        assert_eq!(newest(folder.to_str().unwrap(), "absent-"), None);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
