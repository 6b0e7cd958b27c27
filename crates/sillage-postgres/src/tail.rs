//! Where the log ends, as this process knows it: one task reads it for everybody.
//!
//! Whoever asks is told what is true after the question; those who ask at the same time share one
//! read. Locks are looked at only when the sequence has moved, or an entry is held back. Those who
//! wait for changes are woken after commits of this process and by notifications of others, and at
//! the latest when the task looks again: at once where few wait, and the more wait the more rarely,
//! as each of them reads then.

use crate::{
    error::describe,
    link::{Link, Way},
    log::Log,
    rows::unsigned,
};
use sillage_core::{Clock, Error, Position, Result};
use sqlx::{PgConnection, Row, postgres::PgRow};
use std::{sync::Arc, time::Duration};
use tokio::sync::{Notify, mpsc, oneshot, watch};

/// How soon others' commits are looked for, at first and at the latest, while somebody waits: where
/// they are told by notifications, and where they are not.
const TOLD: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(1));
const UNTOLD: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(160));

/// Notifications are sent at most once in this time.
const DEBOUNCE: Duration = Duration::from_millis(10);

/// So long is the rest between two wake-ups, for each who waits: a hundred are woken at most forty
/// times a second.
const REST: Duration = Duration::from_micros(250);

/// When a transaction has held back readers for this long, it is named, and then as often.
const HELD: Duration = Duration::from_secs(10);

/// Where the log ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The last position given out.
    pub(crate) last: u64,
    /// The highest position under which no entry can still appear.
    pub(crate) stable: u64,
    /// How often timers were set, by the database's count.
    pub(crate) timers: u64,
    /// Entries up to here are gone.
    pub(crate) trimmed_before: u64,
    /// How often entries were removed or put back.
    pub(crate) rewritten: u64,
}

/// What those who wait were told last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Told {
    seen: Seen,
    /// How often this process has set a timer.
    own_timers: u64,
}

type Ask = oneshot::Sender<Result<Seen>>;

/// What this process knows of the log's end.
pub(crate) struct Tail {
    told: watch::Sender<Told>,
    asks: mpsc::UnboundedSender<Ask>,
    /// Something was committed here, or somebody said so, or somebody begins to wait.
    look: Arc<Notify>,
    /// Something was committed here that others should hear of; a timer, if the channel says so.
    tell: mpsc::UnboundedSender<bool>,
}

impl Tail {
    /// Starts the task; it ends when this is gone.
    pub(crate) fn start(log: Arc<Log>, way: Way) -> Arc<Tail> {
        let (told, _) = watch::channel(Told::default());
        let (asks, asked) = mpsc::unbounded_channel();
        let (tell, to_tell) = mpsc::unbounded_channel();
        let look = Arc::<Notify>::default();
        let watcher = Watcher {
            log: log.clone(),
            clock: way.clock.clone(),
            link: Link::new(way.clone()),
            seen: Seen::default(),
            told: told.clone(),
            woken: way.clock.elapsed(),
            look: look.clone(),
            held: None,
        };
        if !way.pooler {
            tokio::spawn(listen(log.clone(), way.clone(), look.clone(), asks.downgrade()));
        }
        tokio::spawn(watcher.run(asked));
        tokio::spawn(notify(log, way, to_tell));
        Arc::new(Tail { told, asks, look, tell })
    }

    /// Where the log ends: at least all that was committed before this call.
    pub(crate) async fn ask(&self) -> Result<Seen> {
        let (ask, answer) = oneshot::channel();
        let stopped = |error| Error::unavailable("the task that reads has stopped").because(error);
        let _ = self.asks.send(ask);
        answer.await.map_err(stopped)?
    }

    /// Commits of this process were accepted that appended or, perhaps, set a timer.
    pub(crate) fn committed(&self, timer: bool) {
        if timer {
            self.told.send_modify(|told| told.own_timers += 1);
        }
        self.look.notify_one();
        let _ = self.tell.send(timer);
    }

    /// Completes when the log is stable past `position`, or a timer was set since this call.
    pub(crate) fn wait(&self, position: Position) -> impl Future<Output = ()> + Send + use<> {
        let mut told = self.told.subscribe();
        let before = *told.borrow_and_update();
        // Where others wait already, the task is looking.
        if self.told.receiver_count() == 1 {
            self.look.notify_one();
        }
        async move {
            let news = |told: &Told| {
                told.seen.stable > position.0
                    || told.own_timers != before.own_timers
                    || told.seen.timers != before.seen.timers
            };
            if told.wait_for(news).await.is_err() {
                // The database handle is gone; nothing changes any more.
                std::future::pending::<()>().await;
            }
        }
    }
}

/// The task that reads.
struct Watcher {
    log: Arc<Log>,
    clock: Arc<dyn Clock>,
    link: Link,
    seen: Seen,
    told: watch::Sender<Told>,
    /// When those who wait were woken last.
    woken: Duration,
    /// Something was committed here, or somebody said so, or somebody begins to wait.
    look: Arc<Notify>,
    /// Since when something is held back, or was named last.
    held: Option<Duration>,
}

impl Watcher {
    async fn run(mut self, mut asked: mpsc::UnboundedReceiver<Ask>) {
        let mut waiting = vec![];
        let (first, most) = if self.link.way.pooler { UNTOLD } else { TOLD };
        let mut pause = first;
        // There is something to tell, or may be.
        let mut is_wanted = false;
        loop {
            let is_waited_for = self.told.receiver_count() > 0;
            tokio::select! {
                biased;
                count = asked.recv_many(&mut waiting, usize::MAX) => if count == 0 { return },
                () = self.look.notified(), if !is_wanted => {
                    pause = first;
                    // Where nobody waits, whoever begins to wait says so.
                    let is_waited_for = self.told.receiver_count() > 0;
                    is_wanted = is_waited_for && !self.rest().is_zero();
                    if is_wanted || !is_waited_for {
                        continue;
                    }
                }
                () = self.clock.sleep(self.rest()), if is_wanted => {}
                () = self.clock.sleep(pause), if is_waited_for => pause = (pause * 2).min(most),
            }
            let before = self.seen;
            let read = self.read().await;
            if read.is_ok() {
                if self.seen.last != before.last {
                    pause = first;
                }
                if self.seen.stable < self.seen.last {
                    // Something is held back: it may be over soon, and nobody will say so.
                    pause = pause.min(UNTOLD.1);
                }
            } else {
                pause = most;
            }
            is_wanted = !self.tell();
            self.name_who_holds().await;
            for ask in waiting.drain(..) {
                let _ = ask.send(match &read {
                    Ok(()) => Ok(self.seen),
                    Err(error) => Err(Error::new(error.kind(), error.to_string())),
                });
            }
        }
    }

    /// For how long nobody may be woken; nothing shorter than a timer can tell.
    fn rest(&self) -> Duration {
        let waiting = u32::try_from(self.told.receiver_count()).unwrap_or(u32::MAX);
        let since = self.clock.elapsed().saturating_sub(self.woken);
        let rest = REST.saturating_mul(waiting).saturating_sub(since);
        if rest < Duration::from_millis(1) { Duration::ZERO } else { rest }
    }

    /// Wakes those who wait, if there is news for them. `false`: there is, and it is too early.
    fn tell(&mut self) -> bool {
        if self.told.borrow().seen == self.seen {
            return true;
        }
        if !self.rest().is_zero() {
            return false;
        }
        self.woken = self.clock.elapsed();
        self.told.send_modify(|told| told.seen = self.seen);
        true
    }

    async fn read(&mut self) -> Result<()> {
        let read = self.read_on_link().await.map_err(|error| describe(&self.log.place, error));
        let now = match read {
            Ok(now) => now,
            Err(error) => {
                // Readers will meet it and say so.
                tracing::debug!(%error, "the end of the log cannot be read");
                return Err(error);
            }
        };
        // A transaction may hold a lower one than others have passed: it writes above them all
        // the same. Only a log that was restored goes back.
        let least = if now.last < self.seen.last { 0 } else { self.seen.stable };
        self.seen = Seen { stable: now.stable.max(least), ..now };
        Ok(())
    }

    /// Says which transaction holds readers back, if one does so for long.
    async fn name_who_holds(&mut self) {
        let seen = self.seen;
        if seen.stable >= seen.last {
            self.held = None;
            return;
        }
        let now = self.clock.elapsed();
        let since = *self.held.get_or_insert(now);
        if now.saturating_sub(since) < HELD {
            return;
        }
        self.held = Some(now);
        let Ok(Some((pid, state, seconds))) = self.holder().await else { return };
        tracing::warn!(
            pid,
            state,
            seconds,
            stable = seen.stable,
            last = seen.last,
            "a transaction holds back all readers of the log: end it, if it is forgotten \
             (SELECT pg_terminate_backend(pid))"
        );
    }

    async fn holder(&mut self) -> sqlx::Result<Option<(i32, String, i64)>> {
        let mut open = self.link.open().await?;
        let way = self.link.way.clone();
        let done = way.limited(async {
            way.begin_reading(&mut open).await?;
            let query = self.log.query(&self.log.sql.holding).bind(self.log.oid);
            let row = query.fetch_optional(&mut open).await;
            let read = |row: PgRow| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?));
            let done = row.and_then(|row| row.map(read).transpose());
            way.end_reading(&mut open, done).await
        });
        let done = done.await;
        self.link.keep(open, &done);
        done
    }

    async fn read_on_link(&mut self) -> sqlx::Result<Seen> {
        let before = self.seen;
        let mut open = self.link.open().await?;
        let way = self.link.way.clone();
        let done = way.limited(async {
            way.begin_reading(&mut open).await?;
            let done = look(&self.log, &mut open, before).await;
            way.end_reading(&mut open, done).await
        });
        let done = done.await;
        self.link.keep(open, &done);
        done
    }
}

/// Reads where the log ends, given what was seen before.
async fn look(log: &Log, connection: &mut PgConnection, before: Seen) -> sqlx::Result<Seen> {
    let query = log.query(&log.sql.seen).bind(log.sequence).bind(log.timers);
    let row = query.fetch_one(&mut *connection).await?;
    let (last, timers) = (unsigned(&row, 0)?, unsigned(&row, 1)?);
    let (trimmed_before, rewritten) = (unsigned(&row, 2)?, unsigned(&row, 3)?);
    if last == before.last && before.stable == last {
        return Ok(Seen { timers, trimmed_before, rewritten, ..before });
    }
    let query = log.query(&log.sql.stable).bind(log.oid).bind(log.sequence);
    let row = query.fetch_one(connection).await?;
    let (last, stable) = (unsigned(&row, 0)?, unsigned(&row, 1)?);
    Ok(Seen { last, stable, timers, trimmed_before, rewritten })
}

/// Tells other processes that something was committed, outside the commits: a notification inside
/// would take a lock of the whole server.
async fn notify(log: Arc<Log>, way: Way, mut told: mpsc::UnboundedReceiver<bool>) {
    let clock = way.clock.clone();
    let mut link = Link::new(way);
    let mut waiting = vec![];
    while told.recv_many(&mut waiting, usize::MAX).await > 0 {
        let timer = waiting.drain(..).any(|timer| timer);
        if let Err(error) = send(&log, &mut link, timer).await {
            tracing::debug!(%error, "other processes are not told, and will look by themselves");
        }
        clock.sleep(DEBOUNCE).await;
    }
}

async fn send(log: &Log, link: &mut Link, timer: bool) -> sqlx::Result<()> {
    let mut open = link.open().await?;
    let way = link.way.clone();
    let done = way.limited(async {
        way.begin_reading(&mut open).await?;
        let query = log.query(&log.sql.notify).bind(log.channel());
        let query = query.bind(timer.then_some(log.timers));
        let done = query.execute(&mut open).await.map(drop);
        way.end_reading(&mut open, done).await
    });
    let done = done.await;
    link.keep(open, &done);
    done
}

/// Hears of others' commits, until the tail is gone.
async fn listen(log: Arc<Log>, way: Way, look: Arc<Notify>, alive: mpsc::WeakUnboundedSender<Ask>) {
    let pool = sqlx::postgres::PgPoolOptions::new().max_connections(1).max_lifetime(None);
    let pool = pool.idle_timeout(None).connect_lazy_with(way.options.clone());
    while alive.upgrade().is_some() {
        let heard = async {
            let mut listener = sqlx::postgres::PgListener::connect_with(&pool).await?;
            listener.listen(&log.channel()).await?;
            look.notify_one();
            while listener.try_recv().await?.is_some() {
                look.notify_one();
            }
            Ok::<_, sqlx::Error>(())
        };
        tokio::select! {
            biased;
            heard = heard => if let Err(error) = heard {
                tracing::debug!(%error, "no notifications are heard for now");
                way.clock.sleep(TOLD.1).await;
            },
            () = gone(&alive, &*way.clock) => return,
        }
    }
}

/// Completes soon after the tail is gone.
async fn gone(alive: &mpsc::WeakUnboundedSender<Ask>, clock: &dyn Clock) {
    while alive.upgrade().is_some() {
        clock.sleep(TOLD.1).await;
    }
}
