//! The processes of one trial: started, killed, started again, drained.
//!
//! *Guarantees.* Whatever becomes of a trial, its processes end with the [`Stage`]. Every port is on
//! the loopback, and below those that the system gives to callers: a caller of a dead process
//! would else meet itself there.

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use std::fmt::Display;
use std::fs::{self, File};
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

/// How long a process may take from SIGTERM to its end: a shop drains for 30 s at most.
const DRAIN_LIMIT: Duration = Duration::from_secs(40);
/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// How long a process may take to listen.
const START_LIMIT: Duration = Duration::from_secs(30);
/// Stands in a process's log where it was started.
const STARTED: &str = "== shop";
/// Each failed try of a handling as well.
const LOGGED: &str = "info,sillage::runtime::member::outcome=debug";
/// The share of handlings that fail in processes apart.
const FAILING: f64 = 0.05;
/// What the log says of one of them.
const FAILED: &str = "`fail_handlers` lets fail";
/// The gateway is the first process.
pub(super) const GATEWAY: usize = 0;

/// Which services each shop process runs; `None`: all. The first one has the HTTP API.
pub(super) type Layout = &'static [Option<&'static str>];

/// The services of the shop, each of which may have a process and a database of its own. The
/// first two have the HTTP API.
pub(super) const SERVICES: [&str; 7] =
    ["order", "customer", "payment", "inventory", "shipping", "email", "analytics"];

/// The processes of one trial, in a folder of their own.
pub(super) struct Stage {
    pub(super) folder: PathBuf,
    shop: PathBuf,
    api: u16,
    customers: u16,
    gateway: u16,
    /// The database of all processes, where it is not in the folder.
    pub(super) database: Option<String>,
    processes: Vec<Process>,
    /// Processes that share another's database and consumers, for a while.
    guests: Vec<Process>,
    opened: Instant,
    timeline: File,
}

struct Process {
    name: String,
    arguments: String,
    child: Option<Child>,
}

impl Stage {
    /// Starts a gateway and shop processes in a folder that is emptied first.
    pub(super) fn open(shop: &Path, folder: &Path, layout: Layout) -> Result<Self> {
        let mut stage = Stage::empty(shop, folder)?;
        stage.start_all(layout)?;
        Ok(stage)
    }

    /// Starts a gateway, and a process with a database of its own for each service, with this
    /// broker between them.
    pub(super) fn open_apart(shop: &Path, folder: &Path, broker: &str) -> Result<Self> {
        let mut stage = Stage::empty(shop, folder)?;
        let gateway = format!("gateway --port {}", stage.gateway);
        stage.processes.push(Process::new("gateway", gateway));
        for (service, port) in SERVICES.iter().zip([stage.api, stage.customers, 0, 0, 0, 0, 0]) {
            let arguments = format!(
                "serve --services {service} --data . --database sqlite:{service}.db --broker \
                 {broker} --listen 127.0.0.1:{port} --gateway http://127.0.0.1:{} \
                 --fail-handlers {FAILING}",
                stage.gateway
            );
            stage.processes.push(Process::new(service, arguments));
        }
        (0..stage.size()).try_for_each(|process| stage.start(process))?;
        Ok(stage)
    }

    /// Starts a gateway and two shop processes on this database.
    pub(super) fn open_on(shop: &Path, folder: &Path, database: &str) -> Result<Self> {
        let mut stage = Stage::empty(shop, folder)?;
        stage.database = Some(database.to_owned());
        stage.start_all(&[None, Some("payment,inventory")])?;
        Ok(stage)
    }

    fn empty(shop: &Path, folder: &Path) -> Result<Self> {
        if folder.exists() {
            fs::remove_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        Ok(Stage {
            folder: folder.to_owned(),
            shop: shop.to_owned(),
            api: free_port()?,
            customers: free_port()?,
            gateway: free_port()?,
            database: None,
            processes: Vec::new(),
            guests: Vec::new(),
            opened: Instant::now(),
            timeline: File::create(folder.join("timeline.txt"))?,
        })
    }

    /// Starts a gateway and shop processes, in place of all that were killed.
    pub(super) fn start_all(&mut self, layout: Layout) -> Result<()> {
        let gateway = format!("gateway --port {}", self.gateway);
        self.processes = vec![Process::new("gateway", gateway)];
        for (services, number) in layout.iter().zip(1..) {
            let port = if number == 1 { self.api } else { 0 };
            let services = services.map(|names| format!(" --services {names}")).unwrap_or_default();
            let database = self.database.as_ref().map(|url| format!(" --database {url}"));
            let arguments = format!(
                "serve --data . --listen 127.0.0.1:{port} --gateway http://127.0.0.1:{}{services}{}",
                self.gateway,
                database.unwrap_or_default()
            );
            self.processes.push(Process::new(&format!("serve-{number}"), arguments));
        }
        (0..self.size()).try_for_each(|process| self.start(process))
    }

    /// Where the shop's HTTP API is.
    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.api)
    }

    /// Where customers are registered, where their service has a process of its own.
    pub(super) fn customers_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.customers)
    }

    /// The name of a process.
    pub(super) fn name(&self, index: usize) -> &str {
        &self.processes[index].name
    }

    /// Whether every process has said that it listens, since it was started last.
    pub(super) fn listens(&self) -> Result<bool> {
        all_listen(&self.folder, &self.processes)
    }

    /// How many processes there are, the gateway among them.
    pub(super) fn size(&self) -> usize {
        self.processes.len()
    }

    /// A command of the shop, in the trial's folder.
    pub(super) fn shop(&self, arguments: &str) -> Command {
        let mut command = Command::new(&self.shop);
        command
            .args(arguments.split_whitespace())
            .current_dir(&self.folder)
            .env_remove("SILLAGE_DATABASE")
            .env("RUST_LOG", LOGGED)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Starts a command of the shop whose output goes to a log of that name.
    pub(super) fn spawn(&self, name: &str, arguments: &str) -> Result<Child> {
        let path = self.folder.join(format!("{name}.log"));
        let mut log = File::options().create(true).append(true).open(path)?;
        writeln!(log, "{STARTED} {arguments}")?;
        let mut command = self.shop(arguments);
        command.stdout(log.try_clone()?).stderr(log);
        command.spawn().with_context(|| format!("`shop {arguments}` did not start"))
    }

    /// Sends SIGKILL to a process, and waits until it is gone.
    pub(super) async fn kill(&mut self, index: usize) -> Result<()> {
        self.check()?;
        if let Some(mut child) = self.processes[index].child.take() {
            child.kill().await.with_context(|| format!("{} lives", self.processes[index].name))?;
        }
        self.note(format_args!("killed {}", self.processes[index].name))
    }

    /// Starts a process, for the first time or again.
    pub(super) fn start(&mut self, index: usize) -> Result<()> {
        let Process { name, arguments, .. } = &self.processes[index];
        let child = self.spawn(name, arguments)?;
        self.note(format_args!("started {name}"))?;
        self.processes[index].child = Some(child);
        Ok(())
    }

    /// Tells the gateway to take its time, and to fail a tenth of the requests: half of those after
    /// the money has moved. It has forgotten that when it is started again.
    pub(super) async fn slow_gateway(&self, milliseconds: u64) -> Result<()> {
        let body = format!(r#"{{"delay_ms":{milliseconds},"error_share":0.1}}"#);
        let request = format!(
            "POST /faults HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        let end = Instant::now() + START_LIMIT;
        let mut answer = String::new();
        while !answer.starts_with("HTTP/1.1 200") {
            ensure!(Instant::now() < end, "the gateway does not answer: {answer:?}");
            sleep(LOOK).await;
            answer = ask(self.gateway, &request).await.unwrap_or_default();
        }
        Ok(())
    }

    /// What the shop's HTTP API answers, whole.
    pub(super) async fn get(&self, path: &str) -> Result<String> {
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n");
        ask(self.api, &request).await
    }

    /// Fails if a process stopped by itself.
    pub(super) fn check(&mut self) -> Result<()> {
        for Process { name, child, .. } in self.processes.iter_mut().chain(&mut self.guests) {
            let status = child.as_mut().and_then(|child| child.try_wait().transpose()).transpose();
            if let Some(status) = status? {
                *child = None;
                bail!("{name} stopped by itself ({status}): see {name}.log");
            }
        }
        Ok(())
    }

    /// Waits until the condition holds; fails after the limit, or if a process stops by itself.
    pub(super) async fn until(
        &mut self,
        what: impl Display,
        limit: Duration,
        mut holds: impl AsyncFnMut(&Stage) -> Result<bool>,
    ) -> Result<()> {
        let end = Instant::now() + limit;
        while !holds(self).await? {
            self.check()?;
            ensure!(Instant::now() < end, "not within {} s: {what}", limit.as_secs());
            sleep(LOOK).await;
        }
        self.note(what)
    }

    /// Sends SIGTERM to the shop processes, then to the gateway: each has to end well. One that is
    /// still starting would just end.
    pub(super) async fn drain(&mut self) -> Result<()> {
        self.until("all listen", START_LIMIT, async |stage| stage.listens()).await?;
        self.note("SIGTERM to all")?;
        let mut failed = Vec::new();
        for group in [(GATEWAY + 1)..self.size(), GATEWAY..(GATEWAY + 1)] {
            for process in &self.processes[group.clone()] {
                process.signal(Signal::TERM)?;
            }
            for Process { name, child, .. } in &mut self.processes[group] {
                let Some(mut child) = child.take() else { continue };
                match timeout(DRAIN_LIMIT, child.wait()).await {
                    Ok(status) if status.as_ref().is_ok_and(ExitStatus::success) => {}
                    Ok(status) => failed.push(format!("{name} ended by {:?}", status?.to_string())),
                    Err(_) => failed.push(format!("{name} did not drain")),
                }
            }
        }
        ensure!(failed.is_empty(), "{}", failed.join(", "));
        self.note("all drained")
    }

    /// How many handlings were made to fail.
    pub(super) fn made_to_fail(&self) -> Result<usize> {
        let mut count = 0;
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "log") {
                count += String::from_utf8_lossy(&fs::read(path)?).matches(FAILED).count();
            }
        }
        Ok(count)
    }

    /// A line of what happened, for whoever looks into a failed trial.
    pub(super) fn note(&self, what: impl Display) -> Result<()> {
        Ok(writeln!(&self.timeline, "{:8} ms  {what}", self.opened.elapsed().as_millis())?)
    }
}

/// Processes that come and go.
impl Stage {
    /// One more process of a service: it shares its database and its consumers.
    pub(super) fn join(&mut self, service: &str) -> Result<()> {
        let host = self.processes.iter().find(|process| process.name == service);
        let arguments = host.with_context(|| format!("no process {service}"))?.arguments.clone();
        let mut guest = Process::new(&format!("{service}-guest"), arguments);
        guest.child = Some(self.spawn(&guest.name, &guest.arguments)?);
        self.guests.push(guest);
        self.note(format_args!("{service}-guest joins"))
    }

    /// How many there are.
    pub(super) fn guests(&self) -> usize {
        self.guests.len()
    }

    /// Whether each of them has said that it listens.
    pub(super) fn guests_listen(&self) -> Result<bool> {
        all_listen(&self.folder, &self.guests)
    }

    /// One of them drains and ends, or is killed.
    pub(super) async fn leave(&mut self, guest: usize, politely: bool) -> Result<()> {
        let mut guest = self.guests.remove(guest);
        let name = guest.name.clone();
        if politely {
            guest.signal(Signal::TERM)?;
        }
        let Some(mut child) = guest.child.take() else { return Ok(()) };
        if politely {
            let status = timeout(DRAIN_LIMIT, child.wait()).await;
            let status = status.with_context(|| format!("{name} did not drain"))??;
            ensure!(status.success(), "{name} ended by {status}");
        } else {
            child.kill().await?;
        }
        self.note(format_args!("{name} left{}", if politely { "" } else { ", killed" }))
    }

    /// Sends a signal to the process of a service.
    pub(super) fn signal(&self, service: &str, signal: Signal) -> Result<()> {
        let of_it = |process: &&Process| process.name == service;
        self.processes.iter().find(of_it).map_or(Ok(()), |process| process.signal(signal))
    }

    /// The names and numbers of all processes that run.
    pub(super) fn pids(&self) -> impl Iterator<Item = (String, u32)> {
        self.processes.iter().filter_map(|process| Some((process.name.clone(), process.id()?)))
    }
}

async fn ask(port: u16, request: &str) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// Whether each has said that it listens, since it was started last.
fn all_listen(folder: &Path, processes: &[Process]) -> Result<bool> {
    for Process { name, .. } in processes {
        let log = fs::read_to_string(folder.join(format!("{name}.log")))?;
        let since = log.rsplit_once(STARTED).map_or(&*log, |(_, since)| since);
        if !since.contains("listens on") {
            return Ok(false);
        }
    }
    Ok(true)
}

impl Process {
    fn new(name: &str, arguments: String) -> Self {
        Process { name: name.to_owned(), arguments, child: None }
    }

    fn id(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        // A child that was not waited for keeps its number: no stranger is met.
        let id = self.id().and_then(|id| i32::try_from(id).ok());
        if let Some(pid) = id.and_then(Pid::from_raw) {
            kill_process(pid, signal).with_context(|| format!("{signal:?} to {}", self.name))?;
        }
        Ok(())
    }
}

/// No two trials get the same.
fn free_port() -> Result<u16> {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 10_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start: u16 = rand::random();
    NEXT.compare_exchange(0, start.max(1), Ordering::Relaxed, Ordering::Relaxed).ok();
    for _ in 0..COUNT {
        let port = FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port on the loopback");
}
