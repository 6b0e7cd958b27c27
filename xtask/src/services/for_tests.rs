//! Servers for one run of the tests.
//!
//! *Guarantees.* A server that somebody brought up by hand stays up. Any other is stopped after the
//! last of the runs that use it, also if the run that started it was interrupted.

use super::place::Place;
use super::{Service, Variable, down, start_each, variables};
use anyhow::Result;
use rustix::fs::{FlockOperation, flock};
use std::env;
use std::fs::File;
use std::process::Command;

/// Whoever says so wants the server also when no test runs.
const WANTED: &str = "wanted";
/// Held by each run that uses the server.
const IN_USE: &str = "in-use";

/// Servers that are up as long as this lives.
pub(crate) struct ForTests {
    uses: Vec<Use>,
    variables: Vec<Variable>,
}

/// A server that this run uses.
struct Use {
    service: Service,
    file: File,
}

impl ForTests {
    /// Brings up those that the user has not: a variable that is set wins. Says which cannot be had.
    pub(crate) fn up(services: &[Service]) -> Self {
        let ours = services.iter().filter(|service| given(**service).is_none());
        let mut uses: Vec<Use> =
            ours.filter_map(|service| told(*service, hold(*service))).collect();
        let held: Vec<Service> = uses.iter().map(|held| held.service).collect();
        let started = start_each(&held);
        let missing = started
            .into_iter()
            .filter_map(|(service, started)| told(service, started).is_none().then_some(service));
        let missing: Vec<Service> = missing.collect();
        uses.retain(|held| !missing.contains(&held.service));
        let there: Vec<Service> = uses.iter().map(|held| held.service).collect();
        let variables = variables(&there).unwrap_or_default();
        ForTests { uses, variables }
    }

    /// Leaves them up also afterwards.
    pub(crate) fn keep(&self) -> Result<()> {
        self.uses.iter().try_for_each(|held| want(held.service))
    }

    /// Tells a command where they are.
    pub(crate) fn tell(&self, command: &mut Command) {
        for Variable { name, value } in &self.variables {
            if env::var_os(name).is_none() {
                command.env(name, value);
            }
        }
    }
}

impl Drop for ForTests {
    fn drop(&mut self) {
        for Use { service, file } in self.uses.drain(..).rev() {
            told(service, release(service, &file));
        }
    }
}

/// From now on no test stops it.
pub(super) fn want(service: Service) -> Result<()> {
    service.place()?.write(WANTED, "").map(drop)
}

/// From now on the last test that uses it stops it.
pub(super) fn unwant(place: &Place) {
    let _ = std::fs::remove_file(place.path(WANTED)); // it was not wanted
}

/// Where it is, if the user says so.
pub(super) fn given(service: Service) -> Option<String> {
    let variables = service.variables().unwrap_or_default();
    env::var(variables.first()?.name).ok()
}

fn hold(service: Service) -> Result<Use> {
    let place = service.place()?;
    place.make("")?;
    let file = place.open(IN_USE)?;
    flock(&file, FlockOperation::LockShared)?;
    Ok(Use { service, file })
}

/// Stops it unless it is wanted, or another run uses it.
fn release(service: Service, file: &File) -> Result<()> {
    let is_last = flock(file, FlockOperation::NonBlockingLockExclusive).is_ok();
    let is_wanted = service.place()?.path(WANTED).exists();
    if is_last && !is_wanted { down(service) } else { Ok(()) }
}

/// Tests can do without: what went wrong is said, and that is all.
fn told<T>(service: Service, result: Result<T>) -> Option<T> {
    result.map_err(|error| println!("{}: not to be had: {error:#}", service.name())).ok()
}
