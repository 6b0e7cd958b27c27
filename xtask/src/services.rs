//! Real servers for tests, below `target/services`, without Docker: `cargo xtask services`.
//!
//! *Guarantees.* A server that is up is left alone. All listen on the loopback only, never run as
//! root, and outlive the task. What they have stored stays when they are stopped or killed.

mod certificates;
mod for_tests;
pub(crate) mod foreign;
mod install;
mod kafka;
mod pgbouncer;
mod pid;
mod place;
mod postgres;
mod probe;
mod rabbitmq;
mod room;
mod start;
mod toxiproxy;
mod wait;

use anyhow::{Context, Result, ensure};
use certificates::Certificates;
use clap::{Subcommand, ValueEnum};
pub(crate) use for_tests::ForTests;
pub(crate) use install::program;
use place::Place;
pub(crate) use room::Room;
use rustix::process::{Pid, Signal, WaitOptions, waitpid};
use start::Starting;
use std::process::Command;
use std::time::Duration;

/// A server ends cleanly within this.
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// Whoever is killed is gone within this.
const KILL_LIMIT: Duration = Duration::from_secs(20);

#[derive(Subcommand)]
pub(crate) enum Services {
    /// Install what is missing, start what is down, print where each is
    Up(Named),
    /// Stop cleanly
    Down(Named),
    /// Kill (SIGKILL): what a crash does
    Kill(Named),
    /// Print state, address and process; exits with 1 if one is down
    Status(Named),
    /// Print all addresses as variables of the environment: `env $(cargo xtask services urls) …`
    Urls(Named),
    /// Install the clients of others that tests of the wire format run, print where they are
    Clients,
}

#[derive(clap::Args)]
pub(crate) struct Named {
    /// Which servers; all if none is named
    #[arg(value_enum)]
    services: Vec<Service>,
}

impl Named {
    fn services(&self) -> &[Service] {
        if self.services.is_empty() { Service::value_variants() } else { &self.services }
    }
}

/// A server that tests may need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Service {
    Kafka,
    Rabbitmq,
    Postgres,
    Pgbouncer,
    Toxiproxy,
}

/// A variable of the environment, in which tests find the address of a server.
pub(crate) struct Variable {
    name: &'static str,
    value: String,
}

impl Variable {
    fn new(name: &'static str, value: String) -> Self {
        Variable { name, value }
    }
}

/// A way to a server through a proxy, which somebody has to make.
pub(crate) struct Detour {
    /// The server's address, through the proxy.
    pub(crate) url: String,
    /// The ports that the proxy listens on, and that it connects to.
    pub(crate) proxy: u16,
    pub(crate) server: u16,
}

/// How one kind of server is installed, started and stopped.
trait Server {
    /// Its addresses, the plain one first.
    fn variables(&self, place: &Place) -> Vec<Variable>;

    /// The port of the plain address.
    fn port(&self, place: &Place) -> u16;

    /// The server that it is of no use without.
    fn needs(&self) -> Option<Service> {
        None
    }

    /// A way to it through a proxy, where tests use one.
    fn detour(&self, _place: &Place) -> Option<Detour> {
        None
    }

    /// Makes room for one run, on the server with this address; the room's address.
    fn make_room(&self, _place: &Place, server: &str, _name: &str) -> Result<String> {
        Ok(server.to_owned())
    }

    /// Removes what was made in a room, and nothing else.
    fn remove_room(&self, _place: &Place, _server: &str, _name: &str) -> Result<()> {
        Ok(())
    }

    /// Gets what is missing.
    fn install(&self, place: &Place) -> Result<()>;

    /// Writes its configuration, makes its data if there are none; how to start it.
    fn prepare(&self, place: &Place) -> Result<Command>;

    /// Whether it writes the number of its process itself.
    fn writes_pid(&self) -> bool {
        false
    }

    /// Whether it is ready for clients.
    fn answers(&self, place: &Place) -> bool;

    /// Tells it to stop, in the way that is clean.
    fn stop(&self, _place: &Place, pid: Pid) -> Result<()> {
        pid::signal(pid, Signal::TERM)
    }

    /// Ends what it leaves behind, also when it was killed.
    fn clear(&self, _place: &Place) -> Result<()> {
        Ok(())
    }
}

/// Does what the command line says.
pub(crate) fn run(services: &Services) -> Result<()> {
    match services {
        Services::Up(named) => {
            for (service, url) in up(named.services())? {
                println!("{url}");
                for_tests::want(service)?;
            }
            Ok(())
        }
        Services::Down(named) => {
            named.services().iter().rev().try_for_each(|service| down(*service))
        }
        Services::Kill(named) => named.services().iter().try_for_each(|service| kill(*service)),
        Services::Status(named) => status(named.services()),
        Services::Urls(named) => urls(named.services()),
        Services::Clients => {
            println!("{}", foreign::get()?.display());
            Ok(())
        }
    }
}

/// Starts those that are down, and waits until all answer; their plain addresses.
pub(crate) fn up(services: &[Service]) -> Result<Vec<(Service, String)>> {
    for (service, started) in start_each(services) {
        started.context(service.name())?;
    }
    services.iter().map(|service| Ok((*service, service.url()?))).collect()
}

/// The plain addresses of servers: the user's own where a variable names one, else ours, which are
/// started.
pub(crate) fn at_hand(services: &[Service]) -> Result<Vec<String>> {
    let is_ours = |service: &Service| for_tests::given(*service).is_none();
    up(&services.iter().copied().filter(is_ours).collect::<Vec<_>>())?;
    let url = |service: &Service| for_tests::given(*service).map_or_else(|| service.url(), Ok);
    services.iter().map(url).collect()
}

/// Starts them and what they need at the same time; what became of each.
fn start_each(services: &[Service]) -> Vec<(Service, Result<()>)> {
    let all = with_needs(services).into_iter();
    let begun: Vec<_> = all.map(|service| (service, Starting::begin(service))).collect();
    let finish = |begun: Result<Starting>| begun.and_then(Starting::finish);
    begun.into_iter().map(|(service, begun)| (service, finish(begun))).collect()
}

/// Each once, after what it needs.
fn with_needs(services: &[Service]) -> Vec<Service> {
    let mut all = Vec::new();
    for service in services {
        for service in service.server().needs().into_iter().chain([*service]) {
            if !all.contains(&service) {
                all.push(service);
            }
        }
    }
    all
}

/// Stops it cleanly.
pub(crate) fn down(service: Service) -> Result<()> {
    let (server, place) = (service.server(), service.place()?);
    let _lock = place.lock()?;
    for_tests::unwant(&place);
    if let Some(pid) = place.pid() {
        eprintln!("{}: stopping", service.name());
        server.stop(&place, pid).context(service.name())?;
        pid::gone(&place.pid_file(), place.folder(), STOP_LIMIT).context(service.name())?;
    }
    server.clear(&place).context(service.name())
}

/// Kills it, and waits until it is gone.
pub(crate) fn kill(service: Service) -> Result<()> {
    let place = service.place()?;
    let Some(pid) = place.pid() else { return Ok(()) };
    eprintln!("{}: killing", service.name());
    pid::signal(pid, Signal::KILL).context(service.name())?;
    // One that this process has started would else keep its number, which PostgreSQL takes for life.
    let _ = waitpid(Some(pid), WaitOptions::empty()); // it is a child of somebody else
    pid::gone(&place.pid_file(), place.folder(), KILL_LIMIT).context(service.name())
}

fn status(services: &[Service]) -> Result<()> {
    let mut not_up = Vec::new();
    for service in services {
        let (place, url) = (service.place()?, service.url()?);
        let pid = place.pid();
        let state = match pid {
            None => "down",
            Some(_) if service.server().answers(&place) => "up",
            Some(_) => "silent",
        };
        if state != "up" {
            not_up.push(service.name());
        }
        let pid = pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        println!("{:<10} {state:<7} {pid:>8}  {url}", service.name());
    }
    ensure!(not_up.is_empty(), "not up: {}", not_up.join(", "));
    Ok(())
}

fn urls(services: &[Service]) -> Result<()> {
    for Variable { name, value } in variables(services)? {
        println!("{name}={value}");
    }
    Ok(())
}

/// All their addresses, whom to trust, and where the clients of others are.
fn variables(services: &[Service]) -> Result<Vec<Variable>> {
    let mut all = Vec::new();
    for service in services {
        all.extend(service.variables()?);
    }
    let ca = Certificates::of(&Place::of("tls")?).ca;
    if ca.exists() {
        all.push(Variable::new("SILLAGE_TEST_CA", ca.to_string_lossy().into_owned()));
    }
    all.extend(foreign::variable()?);
    Ok(all)
}

impl Service {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Service::Kafka => "kafka",
            Service::Rabbitmq => "rabbitmq",
            Service::Postgres => "postgres",
            Service::Pgbouncer => "pgbouncer",
            Service::Toxiproxy => "toxiproxy",
        }
    }

    fn server(self) -> &'static dyn Server {
        match self {
            Service::Kafka => &kafka::Kafka,
            Service::Rabbitmq => &rabbitmq::Rabbitmq,
            Service::Postgres => &postgres::Postgres,
            Service::Pgbouncer => &pgbouncer::Pgbouncer,
            Service::Toxiproxy => &toxiproxy::Toxiproxy,
        }
    }

    fn place(self) -> Result<Place> {
        Place::of(self.name())
    }

    fn variables(self) -> Result<Vec<Variable>> {
        Ok(self.server().variables(&self.place()?))
    }

    /// A way to it through a proxy.
    pub(crate) fn detour(self) -> Result<Detour> {
        let detour = self.server().detour(&self.place()?);
        detour.with_context(|| format!("there is no way to {} through a proxy", self.name()))
    }

    /// Its plain address, as `--broker` and `--database` take it.
    fn url(self) -> Result<String> {
        let plain = self.variables()?.into_iter().next().context("it has no address")?;
        Ok(plain.value)
    }
}

#[cfg(test)]
mod tests {
    use super::Service::{self, Kafka, Pgbouncer, Postgres};
    use super::with_needs;
    use clap::ValueEnum;

    #[test]
    fn each_is_started_once_and_after_what_it_needs() {
        assert_eq!(with_needs(&[Pgbouncer, Kafka, Postgres]), [Postgres, Pgbouncer, Kafka]);
        assert_eq!(with_needs(&[Kafka, Kafka]), [Kafka]);
    }

    #[test]
    fn no_two_addresses_are_the_same() {
        let services = Service::value_variants().iter();
        let all: Vec<_> = services.flat_map(|service| service.variables().unwrap()).collect();
        for (at, one) in all.iter().enumerate() {
            let same = |other: &super::Variable| other.value == one.value || other.name == one.name;
            assert!(!all[..at].iter().any(same), "{}", one.name);
        }
    }
}
