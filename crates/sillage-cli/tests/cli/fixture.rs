//! A shop whose billing cannot handle one order, and the binary on its database.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sillage::{admin::Admin, prelude::*};
use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(name = "order.created")]
pub(crate) struct Created {
    #[event(key)]
    pub(crate) order_id: String,
    pub(crate) note: String,
}

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(name = "payment.failed")]
pub(crate) struct PaymentFailed {
    #[event(key)]
    pub(crate) order_id: String,
    pub(crate) why: String,
}

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(name = "order.cancelled")]
pub(crate) struct Cancelled {
    #[event(key)]
    pub(crate) order_id: String,
}

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(name = "email.due")]
pub(crate) struct EmailDue {
    #[event(key)]
    pub(crate) order_id: String,
}

#[derive(Document, Serialize, Deserialize, Clone, Debug, Default)]
#[document(collection = "orders")]
pub(crate) struct OrderView {
    #[document(id)]
    order_id: String,
}

/// What a hostile customer writes: it would clear the screen.
pub(crate) const HOSTILE: &str = "gone \u{1b}[2J\u{9b}31m";

async fn cancel_order(failed: PaymentFailed) -> Effects {
    publish(Cancelled { order_id: failed.order_id })
}

/// Fails for the key `bad` while it is broken, and for every order whose note says so.
pub(crate) fn shop(broken: &Arc<AtomicBool>) -> Service {
    let broken = broken.clone();
    let bill = move |order: Created| {
        let broken = broken.clone();
        async move {
            if (order.order_id.starts_with("bad") && broken.load(Ordering::SeqCst))
                || order.note == "spoilt"
            {
                return Err(Failure::transient(HOSTILE));
            }
            let why = "card_declined".to_owned();
            let due = EmailDue { order_id: order.order_id.clone() };
            Ok(publish(PaymentFailed { order_id: order.order_id, why }).and(schedule(
                after(hours(1)),
                "email",
                due,
            )))
        }
    };
    let orders = Projection::<OrderView>::new("orders", 1)
        .on::<Cancelled>(|view, event| view.order_id.clone_from(&event.order_id));
    Service::new("shop")
        .consumer(Consumer::new("billing").on(bill).retry(Retry::never()))
        .consumer(Consumer::new("orders").on(cancel_order))
        .projection(orders)
}

pub(crate) fn created(id: &str) -> Created {
    Created { order_id: id.into(), note: "fragile".into() }
}

/// A folder of its own with a database that a shop has filled: two orders of the key `bad`, the
/// first a dead letter, and one of `o-1` that is through.
pub(crate) struct Fixture {
    pub(crate) folder: PathBuf,
}

static FOLDERS: AtomicU64 = AtomicU64::new(0);

impl Fixture {
    /// A folder with an empty database.
    pub(crate) async fn empty() -> Self {
        let number = FOLDERS.fetch_add(1, Ordering::SeqCst);
        let name = format!("cli-{}-{number}", std::process::id());
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&folder).unwrap();
        let fixture = Fixture { folder };
        drop(fixture.database().await);
        fixture
    }

    pub(crate) async fn filled() -> Self {
        let fixture = Fixture::empty().await;
        let app = fixture.start(&Arc::new(AtomicBool::new(true))).await;
        let orders = publish(created("bad")).and(publish(created("bad")));
        app.service("shop").commit(orders).await.unwrap();
        app.service("shop").commit(publish(created("o-1"))).await.unwrap();
        let admin = fixture.admin().await;
        let settled = || async {
            let letters = admin.dead_letters(None, false).await.unwrap();
            let waiting: u64 = letters.iter().map(|letter| letter.deliveries).sum();
            let consumers = admin.consumers().await.unwrap();
            let lag: u64 = consumers.iter().map(|c| c.lag.unwrap()).sum();
            let projected = admin.projections().await.unwrap().iter().any(|p| p.position.0 >= 5);
            waiting == 2 && lag == 0 && projected
        };
        until(settled).await;
        app.drain().await;
        fixture
    }

    pub(crate) fn url(&self) -> String {
        format!("sqlite:{}", self.folder.join("shop.db").display())
    }

    pub(crate) async fn database(&self) -> Arc<dyn sillage::Database> {
        sillage::connect(&self.url()).await.unwrap()
    }

    pub(crate) async fn admin(&self) -> Admin {
        Admin::new(self.database().await, "test")
    }

    pub(crate) async fn start(&self, broken: &Arc<AtomicBool>) -> Running {
        App::new(self.database().await).service(shop(broken)).start().await.unwrap()
    }

    /// The binary in this folder, with nothing said by the environment.
    pub(crate) fn bare(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sillage"));
        let inherited = ["SILLAGE_DATABASE", "SILLAGE_OUTPUT", "SILLAGE_TIMEOUT", "NO_COLOR"];
        let others = ["SILLAGE_BROKER", "XDG_CONFIG_HOME", "VISUAL", "EDITOR"];
        for variable in inherited.into_iter().chain(others) {
            command.env_remove(variable);
        }
        command.env("HOME", &self.folder).current_dir(&self.folder);
        command.args(args).stdin(Stdio::null());
        command
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = self.bare(args);
        command.env("SILLAGE_DATABASE", self.url());
        command
    }

    /// Runs it to its end.
    pub(crate) async fn run(&self, args: &[&str]) -> Ran {
        Ran::fed(self.command(args), "").await
    }

    /// Runs it with something on its standard input.
    pub(crate) async fn run_with(&self, args: &[&str], input: &str) -> Ran {
        Ran::fed(self.command(args), input).await
    }

    pub(crate) async fn json(&self, args: &[&str]) -> Value {
        let ran = self.run(&[args, &["-o", "json"]].concat()).await;
        ran.exits(0).json()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Waits for a condition of a real app; a test that never sees it is stopped by its harness.
pub(crate) async fn until<F: Future<Output = bool>>(condition: impl Fn() -> F) {
    use sillage::Clock as _;
    for _ in 0..3_000 {
        if condition().await {
            return;
        }
        sillage::SystemClock.sleep(ms(20)).await;
    }
    panic!("it did not happen within a minute");
}

/// What the binary said.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// Of a command with this on its standard input.
    pub(crate) async fn fed(mut command: Command, input: &str) -> Ran {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let input = input.to_owned();
        let output = tokio::task::spawn_blocking(move || {
            let mut child = command.spawn()?;
            // It may refuse before it has read all.
            let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
            child.wait_with_output()
        });
        Ran::of(output.await.unwrap().unwrap())
    }

    fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    pub(crate) fn exits(self, code: i32) -> Self {
        let Ran { out, err, .. } = &self;
        assert_eq!(self.code, Some(code), "stdout: {out}\nstderr: {err}");
        self
    }

    /// Fails like this, with a sentence that has `what` in it, and a next step.
    pub(crate) fn fails(self, code: i32, what: &str) -> Self {
        let ran = self.exits(code);
        let lines: Vec<_> = ran.err.lines().rev().take(2).collect();
        assert!(lines[0].starts_with("next: "), "{}", ran.err);
        assert!(lines[1].starts_with("error: ") && lines[1].contains(what), "{}", ran.err);
        ran
    }

    pub(crate) fn json(&self) -> Value {
        let parsed = serde_json::from_str(&self.out);
        parsed.unwrap_or_else(|error| panic!("{error}: {}", self.out))
    }

    pub(crate) fn lines(&self) -> Vec<&str> {
        self.out.lines().collect()
    }
}
