//! A server on its way up. Several start at the same time: all are begun, then all are waited for.

use super::install::last_lines;
use super::place::{PORT, Place};
use super::wait::{Deadline, until};
use super::{Service, probe};
use crate::process;
use anyhow::{Context, Result, bail, ensure};
use std::fs::{self, File};
use std::process::Child;
use std::time::Duration;

/// Within this a server answers, also on a machine that is busy, and after a crash.
const START_LIMIT: Duration = Duration::from_secs(120);
/// For so long a server that was killed may leave behind what the next one trips over: a lock
/// file, a port, a child that is still ending.
const LEFTOVER_LIMIT: Duration = Duration::from_secs(10);

/// A server that was started, or was there already.
pub(super) struct Starting {
    service: Service,
    place: Place,
    /// `None` if it was there already.
    child: Option<Child>,
    leftovers: Deadline,
    /// Two at once would both start it.
    _lock: File,
}

impl Starting {
    /// Installs and starts it unless it lives.
    pub(super) fn begin(service: Service) -> Result<Self> {
        let place = service.place()?;
        let lock = place.lock()?;
        let lives = place.pid().is_some();
        let leftovers = Deadline::after(LEFTOVER_LIMIT);
        let mut starting = Starting { service, place, child: None, leftovers, _lock: lock };
        if !lives {
            service.server().install(&starting.place)?;
            eprintln!("{}: starting", service.name());
            starting.leftovers = Deadline::after(LEFTOVER_LIMIT);
            starting.wait_for_port()?;
            starting.launch()?;
        }
        Ok(starting)
    }

    /// Waits until it answers.
    pub(super) fn finish(mut self) -> Result<()> {
        if !until(START_LIMIT, || self.answers())? {
            let (limit, log) = (START_LIMIT.as_secs(), last_lines(&self.place.log()));
            bail!("lives, but does not answer within {limit} s: {log}");
        }
        if self.child.is_some() {
            eprintln!("{}: up", self.service.name());
        }
        Ok(())
    }

    fn answers(&mut self) -> Result<bool> {
        let ended = self.child.as_mut().map(Child::try_wait).transpose()?.flatten();
        let Some(status) = ended else { return Ok(self.service.server().answers(&self.place)) };
        if self.leftovers.has_passed() {
            bail!("stopped by itself ({status}): {}", last_lines(&self.place.log()));
        }
        self.launch()?;
        Ok(false)
    }

    fn wait_for_port(&self) -> Result<()> {
        let port = self.service.server().port(&self.place);
        let is_free = until(LEFTOVER_LIMIT, || Ok(probe::is_free(port)))?;
        ensure!(is_free, "port {port} is another program's: stop that, or set {PORT}");
        Ok(())
    }

    fn launch(&mut self) -> Result<()> {
        let server = self.service.server();
        let mut command = server.prepare(&self.place)?;
        let (log, pid) = (self.place.log(), self.place.pid_file());
        let _ = fs::rename(&log, log.with_extension("log.before"));
        let _ = fs::remove_file(&pid); // that of one which is gone
        let file = File::create(&log).with_context(|| process::relative(&log))?;
        command.stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().context("did not start")?;
        if !server.writes_pid() {
            fs::write(&pid, child.id().to_string()).with_context(|| process::relative(&pid))?;
        }
        self.child = Some(child);
        Ok(())
    }
}
