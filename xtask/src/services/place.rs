//! Where one server lives: its folder below `target/services`, its ports, and whom it runs as.

use super::pid;
use crate::process;
use anyhow::{Context, Result, ensure};
use rustix::fs::{FlockOperation, Mode, flock};
use rustix::process::{Pid, geteuid, umask};
use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Names the port that all others are counted from.
pub(super) const PORT: &str = "SILLAGE_SERVICES_PORT";
const DEFAULT_PORT: u16 = 24_000;
/// More than any server's offset.
const PORTS: u16 = 500;

/// Whom servers run as if we are root, whom PostgreSQL, for one, refuses: user and group `nobody`.
const NOBODY: u32 = 65_534;

/// A server's folder and ports.
pub(super) struct Place {
    folder: PathBuf,
    /// What its ports are counted from.
    base: u16,
}

impl Place {
    pub(super) fn of(name: &str) -> Result<Self> {
        Ok(Place { folder: services().join(name), base: base(env::var(PORT).ok().as_deref())? })
    }

    /// That of another server.
    pub(super) fn beside(&self, name: &str) -> Self {
        Place { folder: self.folder.with_file_name(name), base: self.base }
    }

    /// Makes the folder, for one process at a time: the others wait as long as the file is held.
    pub(super) fn lock(&self) -> Result<File> {
        if geteuid().is_root() {
            reachable(&self.folder)?;
            umask(Mode::from_raw_mode(0o022)); // what we write, `nobody` reads
        }
        self.make("")?;
        let file = self.open("lock")?;
        flock(&file, FlockOperation::LockExclusive)?;
        Ok(file)
    }

    /// A file to hold.
    pub(super) fn open(&self, below: &str) -> Result<File> {
        let path = self.path(below);
        let mut options = File::options();
        options.write(true).create(true).truncate(false);
        options.open(&path).with_context(|| process::relative(&path))
    }

    pub(super) fn port(&self, offset: u16) -> u16 {
        self.base + offset
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Something in the folder.
    pub(super) fn path(&self, below: &str) -> PathBuf {
        self.folder.join(below)
    }

    /// What the server wrote to its output since it was started last.
    pub(super) fn log(&self) -> PathBuf {
        self.path("server.log")
    }

    /// Holds the number of the server's process.
    pub(super) fn pid_file(&self) -> PathBuf {
        self.path("pid")
    }

    /// The server's process, if it lives.
    pub(super) fn pid(&self) -> Option<Pid> {
        pid::ours(&self.pid_file(), &self.folder)
    }

    /// A folder that the server may write to; it may be there already.
    pub(super) fn make(&self, below: &str) -> Result<PathBuf> {
        let path = if below.is_empty() { self.folder.clone() } else { self.path(below) };
        fs::create_dir_all(&path).with_context(|| process::relative(&path))?;
        give(&path)?;
        Ok(path)
    }

    /// A file that the server may read.
    pub(super) fn write(&self, below: &str, text: &str) -> Result<PathBuf> {
        let path = self.path(below);
        fs::write(&path, text).with_context(|| process::relative(&path))?;
        Ok(path)
    }

    /// A program run in the folder as the server's user.
    pub(super) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        self.wrapped("env", program.as_ref())
    }

    /// The same in a session of its own: it lives on when we end.
    pub(super) fn daemon(&self, program: impl AsRef<OsStr>) -> Command {
        self.wrapped("setsid", program.as_ref())
    }

    /// Each wrapper becomes what it runs: the number of the process stays.
    fn wrapped(&self, wrapper: &str, program: &OsStr) -> Command {
        let mut command = Command::new(wrapper);
        if geteuid().is_root() {
            command.args(["setpriv", "--clear-groups", "--inh-caps=-all"]);
            command.args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")]);
        }
        command.arg(program).current_dir(&self.folder).stdin(Stdio::null());
        command.env("HOME", self.path("home")).env("LANG", "C.UTF-8");
        command
    }
}

/// Makes the servers' user the owner.
pub(super) fn give(path: &Path) -> Result<()> {
    if geteuid().is_root() {
        chown(path, Some(NOBODY), Some(NOBODY)).with_context(|| process::relative(path))?;
    }
    Ok(())
}

/// The folder of all servers.
pub(super) fn services() -> PathBuf {
    process::root().join("target/services")
}

fn base(port: Option<&str>) -> Result<u16> {
    let Some(port) = port else { return Ok(DEFAULT_PORT) };
    let port: u16 = port.parse().with_context(|| format!("{PORT}={port}"))?;
    ensure!(
        (1024..=u16::MAX - PORTS).contains(&port),
        "{PORT}={port}: the {PORTS} ports from there on are used"
    );
    Ok(port)
}

/// Fails if `nobody` cannot get to the folder, of which the last parts may not exist yet.
fn reachable(folder: &Path) -> Result<()> {
    for above in folder.ancestors() {
        let mode = match fs::metadata(above) {
            Ok(metadata) => metadata.mode(),
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error).context(above.display().to_string()),
        };
        ensure!(
            mode & 0o001 != 0,
            "servers run as `nobody`, who cannot enter {}: `chmod o+x` it, or work as a user \
             other than root",
            above.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{base, reachable};
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn ports_are_counted_from_one_that_leaves_room() {
        assert_eq!(base(None).unwrap(), 24_000);
        assert_eq!(base(Some("31000")).unwrap(), 31_000);
        for wrong in ["", "x", "80", "65400"] {
            assert!(base(Some(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_closed_folder_above_is_named() {
        let closed = std::env::temp_dir().join(format!("sillage-{}", std::process::id()));
        let folder = closed.join("target/services/kafka");
        fs::create_dir_all(&closed).unwrap();
        fs::set_permissions(&closed, Permissions::from_mode(0o755)).unwrap();
        reachable(&folder).unwrap();
        fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
        let error = reachable(&folder).unwrap_err().to_string();
        assert!(error.contains(&format!("enter {}: ", closed.display())), "{error}");
        fs::remove_dir(&closed).unwrap();
    }
}
