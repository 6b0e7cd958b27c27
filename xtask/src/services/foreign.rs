//! Clients of others, below `target/services/foreign`: tests of the wire format let them read what
//! we write and write what we read.
//!
//! | what | is |
//! |---|---|
//! | `python/bin/python` | Python with `confluent-kafka`, `cloudevents` and `pika` |
//! | `kcat` | Debian's |
//! | `kafka-go` | a program of `crates/sillage-kafka/tests/foreign/kafka-go` |
//!
//! *Guarantees.* What is there in the wanted version is left alone: the second time nothing is run.

use super::Variable;
use super::install::{self, Package};
use super::place::Place;
use crate::process;
use anyhow::{Context, Result};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const VARIABLE: &str = "SILLAGE_TEST_FOREIGN";
const REQUIREMENTS: &str = "xtask/src/services/foreign/requirements.txt";
const MODULE: &str = "crates/sillage-kafka/tests/foreign/kafka-go";

/// Gets what is missing, unless the user says where they are. Tests can do without: what went
/// wrong is said, and that is all.
pub(crate) fn for_tests() {
    if std::env::var_os(VARIABLE).is_none()
        && let Err(error) = get()
    {
        println!("foreign clients: not to be had: {error:#}");
    }
}

/// Gets what is missing; where they are.
pub(super) fn get() -> Result<PathBuf> {
    let place = Place::of("foreign")?;
    let _lock = place.lock()?;
    kcat(&place)?;
    once(&place.path("python"), &[REQUIREMENTS.into()], python)?;
    once(&place.path("kafka-go"), &sources(), kafka_go)?;
    Ok(place.folder().to_owned())
}

/// Where tests find them, if all are there.
pub(super) fn variable() -> Result<Option<Variable>> {
    let place = Place::of("foreign")?;
    let is_there = place.path("kcat").exists()
        && is_made(&place.path("python"), &made_of(&[REQUIREMENTS.into()])?)
        && is_made(&place.path("kafka-go"), &made_of(&sources())?);
    let value = place.folder().to_string_lossy().into_owned();
    Ok(is_there.then(|| Variable::new(VARIABLE, value)))
}

fn sources() -> [String; 3] {
    ["go.mod", "go.sum", "main.go"].map(|name| format!("{MODULE}/{name}"))
}

/// Makes something of files, unless it was made of just these.
fn once(what: &Path, files: &[String], make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let wanted = made_of(files)?;
    if is_made(what, &wanted) {
        return Ok(());
    }
    // What is interrupted has not been made.
    let stamp = stamp(what);
    remove(&stamp)?;
    make(what).with_context(|| process::relative(what))?;
    fs::write(&stamp, wanted).with_context(|| process::relative(&stamp))
}

/// Tells what something was made of, once it is finished.
fn stamp(what: &Path) -> PathBuf {
    what.with_extension("made-of")
}

fn is_made(what: &Path, wanted: &str) -> bool {
    fs::read_to_string(stamp(what)).is_ok_and(|made| made == wanted) && what.exists()
}

fn made_of(files: &[String]) -> Result<String> {
    let text = |file: &String| fs::read_to_string(process::root().join(file)).context(file.clone());
    files.iter().map(text).collect()
}

/// So that it is found where the others are.
fn kcat(place: &Place) -> Result<()> {
    const KCAT: &str = "/usr/bin/kcat";
    let link = place.path("kcat");
    if !link.exists() {
        install::packages(&[Package { name: "kcat", is_there: Path::new(KCAT).exists() }])?;
        remove(&link)?; // it may lead nowhere
        std::os::unix::fs::symlink(KCAT, &link).with_context(|| process::relative(&link))?;
    }
    Ok(())
}

fn python(folder: &Path) -> Result<()> {
    install::packages(&[Package { name: "python3-venv", is_there: has_venv() }])?;
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| process::relative(folder))?;
    }
    let mut venv = Command::new("python3");
    venv.args(["-m", "venv"]).arg(folder);
    install::run(venv)?;
    let mut pip = Command::new(folder.join("bin/python"));
    pip.args(["-m", "pip", "install", "--no-input", "--disable-pip-version-check"]);
    pip.args(["--only-binary", ":all:", "-r"]).arg(process::root().join(REQUIREMENTS));
    install::run(pip)
}

/// Debian has the module that fills a new environment in a package of its own.
fn has_venv() -> bool {
    let mut command = Command::new("python3");
    command.args(["-c", "import ensurepip, venv"]).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn kafka_go(program: &Path) -> Result<()> {
    install::packages(&[Package { name: "golang", is_there: install::has("go") }])?;
    let mut go = Command::new("go");
    go.args(["build", "-trimpath", "-mod=readonly", "-o"]).arg(program).arg(".");
    go.current_dir(process::root().join(MODULE));
    install::run(go)
}

fn remove(file: &Path) -> Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| process::relative(file))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{REQUIREMENTS, is_made, made_of, once, sources, stamp};
    use std::fs;

    #[test]
    fn what_is_there_is_made_again_only_of_other_files() {
        let folder = std::env::temp_dir().join(format!("sillage-foreign-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (what, files) = (folder.join("made"), [REQUIREMENTS.into()]);
        let mut times = 0;
        let mut make = |fails: bool| {
            once(&what, &files, |what| {
                times += 1;
                fs::write(what, "")?;
                anyhow::ensure!(!fails, "interrupted");
                Ok(())
            })
        };
        make(true).unwrap_err();
        make(false).unwrap();
        make(false).unwrap();
        fs::write(stamp(&what), "other files").unwrap();
        make(true).unwrap_err();
        assert!(!is_made(&what, &made_of(&files).unwrap()));
        make(false).unwrap();
        assert_eq!(times, 4);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn every_version_is_pinned() {
        let requirements = made_of(&[REQUIREMENTS.into()]).unwrap();
        let loose = |line: &&str| !line.starts_with('#') && !line.contains("==");
        assert_eq!(requirements.lines().find(loose), None);
        assert!(made_of(&sources()).unwrap().contains("kafka-go v0.4.51"));
    }
}
