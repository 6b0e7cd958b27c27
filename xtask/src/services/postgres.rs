//! PostgreSQL: one cluster of Debian's, with all that makes it durable switched on.

use super::install::{self, Package};
use super::pid;
use super::place::Place;
use super::{Server, Variable};
use crate::process;
use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, geteuid};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

const PLAIN: u16 = 32;
pub(super) const USER: &str = "postgres";
pub(super) const PASSWORD: &str = "secret";

/// Debian's package else makes a cluster of its own, which starts with the system.
const NO_MAIN: &str = "/etc/postgresql-common/createcluster.d/no-main.conf";

pub(super) struct Postgres;

impl Server for Postgres {
    fn variables(&self, place: &Place) -> Vec<Variable> {
        vec![Variable::new("SILLAGE_TEST_POSTGRES", url(port(place)))]
    }

    fn port(&self, place: &Place) -> u16 {
        port(place)
    }

    fn install(&self, _place: &Place) -> Result<()> {
        let package = Package { name: "postgresql-15", is_there: installed().is_some() };
        if !package.is_there && geteuid().is_root() {
            no_main_cluster().context(NO_MAIN)?;
        }
        install::packages(&[package])
    }

    fn prepare(&self, place: &Place) -> Result<Command> {
        let data = place.path("data");
        if !data.exists() {
            make_data(place)?;
        }
        let settings = format!(include_str!("postgres/postgresql.conf"), port = port(place));
        let settings = place.write("postgresql.conf", &settings)?;
        let mut command = place.daemon(program("postgres")?);
        command.arg("-D").arg(data);
        command.arg("-c").arg(format!("config_file={}", settings.display()));
        Ok(command)
    }

    fn answers(&self, place: &Place) -> bool {
        accepts(place, port(place))
    }

    /// SIGTERM would wait until all clients have gone.
    fn stop(&self, _place: &Place, pid: Pid) -> Result<()> {
        pid::signal(pid, Signal::INT)
    }
}

/// Where clients find the server itself.
pub(super) fn port(place: &Place) -> u16 {
    place.port(PLAIN)
}

pub(super) fn url(port: u16) -> String {
    format!("postgres://{USER}:{PASSWORD}@127.0.0.1:{port}/postgres")
}

/// Whether something there takes clients.
pub(super) fn accepts(place: &Place, port: u16) -> bool {
    let Ok(program) = program("pg_isready") else { return false };
    let mut command = place.command(program);
    command.args(["-q", "-h", "127.0.0.1", "-U", USER, "-p", &port.to_string()]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn installed() -> Option<PathBuf> {
    let programs = install::newest("/usr/lib/postgresql", "")?.join("bin");
    programs.join("initdb").exists().then_some(programs)
}

fn program(name: &str) -> Result<PathBuf> {
    Ok(installed().context("PostgreSQL is not installed")?.join(name))
}

fn no_main_cluster() -> Result<()> {
    if let Some(folder) = PathBuf::from(NO_MAIN).parent() {
        fs::create_dir_all(folder)?;
    }
    Ok(fs::write(NO_MAIN, "create_main_cluster = false\n")?)
}

/// Makes the data folder; one that was not finished is not taken for one that was.
fn make_data(place: &Place) -> Result<()> {
    let part = place.path("data.part");
    if part.exists() {
        fs::remove_dir_all(&part).with_context(|| process::relative(&part))?;
    }
    place.make("data.part")?;
    fs::set_permissions(&part, Permissions::from_mode(0o700))?;
    let password = place.write("password", PASSWORD)?;
    let log = place.path("initdb.log");
    let output = File::create(&log).with_context(|| process::relative(&log))?;
    let mut command = place.command(program("initdb")?);
    command
        .args(["-U", USER, "-A", "scram-sha-256", "-E", "UTF8", "--locale=C.UTF-8"])
        .arg("--data-checksums")
        .arg("--pwfile")
        .arg(password)
        .arg("-D")
        .arg(&part)
        .stdout(output.try_clone()?)
        .stderr(output);
    let status = command.status().context("initdb did not start")?;
    ensure!(status.success(), "the data folder cannot be made: {}", install::last_lines(&log));
    fs::rename(&part, place.path("data")).with_context(|| process::relative(&part))
}
