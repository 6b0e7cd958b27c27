//! Where the log ends, as this process knows it: one task reads it for everybody.
//!
//! Whoever asks is told what is true after the question; those who ask at the same time share one
//! read. Locks are looked at only when the sequence has moved, or an entry is held back. Those who
//! wait for changes are woken after commits of this process and by notifications of others, and at
//! the latest when the task looks again: by entries that are theirs, as the task reads what was
//! appended, once for all. At once where few wait, and the more wait the more rarely.

use crate::{
    error::describe,
    link::{Link, Way},
    log::Log,
    read::{Part, latest},
    recent::{Own, Recent},
    rows::unsigned,
};
use sillage_core::{Clock, Error, Filter, Page, Position, Recorded, Result, Waiters};
use sqlx::{PgConnection, Row, postgres::PgRow};
use std::{
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering, fence},
    },
    time::Duration,
};
use tokio::sync::{Mutex, Notify, mpsc, oneshot};

/// How soon others' commits are looked for, at first and at the latest, while somebody waits: where
/// they are told by notifications, and where they are not.
const TOLD: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(1));
const UNTOLD: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(160));

/// Notifications are sent at most once in this time.
const DEBOUNCE: Duration = Duration::from_millis(10);

/// So long is the rest after a look, for each entry that it found: if they were for nobody, and if they
/// were for somebody; and for each reader that was woken. And the longest. Where entries come one by one
/// nobody rests; where thousands come in a second, a look is for many of them.
const REST: [Duration; 3] =
    [Duration::from_micros(200), Duration::from_micros(20), Duration::from_micros(50)];
const LONGEST_REST: Duration = Duration::from_millis(20);

/// When a transaction has held back readers for this long, it is named, and then as often.
const HELD: Duration = Duration::from_secs(10);

/// Where the log ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The last position given out.
    pub(crate) last: u64,
    /// The highest position under which no entry can still appear.
    pub(crate) stable: u64,
    /// Entries up to here are gone.
    pub(crate) trimmed_before: u64,
    /// How often entries were removed or put back.
    pub(crate) rewritten: u64,
}

type Ask = oneshot::Sender<Result<Seen>>;

/// What this process knows of the log's end.
pub(crate) struct Tail {
    /// Those who wait, and what they were told.
    waiters: Waiters,
    /// How many of them have found something since.
    woken: Arc<AtomicU32>,
    /// What was appended here; behind PgBouncer nobody would notice that the server is another one.
    own: Option<Arc<std::sync::Mutex<Own>>>,
    /// Nobody waited when the task looked last.
    rests: Arc<AtomicBool>,
    asks: mpsc::UnboundedSender<Ask>,
    /// Something was committed here, or somebody said so, or somebody begins to wait.
    look: Arc<Notify>,
    /// Something was committed here that others should hear of.
    tell: Arc<Notify>,
}

impl Tail {
    /// Starts the task; it ends when this is gone.
    pub(crate) fn start(log: Arc<Log>, way: Way, recent: Arc<Mutex<Recent>>) -> Arc<Tail> {
        let waiters = Waiters::default();
        let (asks, asked) = mpsc::unbounded_channel();
        let (look, tell) = (Arc::<Notify>::default(), Arc::<Notify>::default());
        let (woken, rests) = (Arc::<AtomicU32>::default(), Arc::<AtomicBool>::default());
        let own = (!way.pooler).then(Arc::<std::sync::Mutex<Own>>::default);
        let watcher = Watcher {
            log: log.clone(),
            clock: way.clock.clone(),
            link: Link::new(way.clone()),
            seen: Seen::default(),
            recent,
            waiters: waiters.clone(),
            tired: (way.clock.elapsed(), Duration::ZERO),
            woken: woken.clone(),
            own: own.clone(),
            rests: rests.clone(),
            look: look.clone(),
            held: None,
        };
        if !way.pooler {
            tokio::spawn(listen(log.clone(), way.clone(), look.clone(), asks.downgrade()));
        }
        tokio::spawn(watcher.run(asked));
        tokio::spawn(notify(log, way, tell.clone(), asks.downgrade()));
        Arc::new(Tail { waiters, woken, own, rests, asks, look, tell })
    }

    /// Where the log ends: at least all that was committed before this call.
    pub(crate) async fn ask(&self) -> Result<Seen> {
        let (ask, answer) = oneshot::channel();
        let stopped = |error| Error::unavailable("the task that reads has stopped").because(error);
        let _ = self.asks.send(ask);
        answer.await.map_err(stopped)?
    }

    /// Commits were accepted: of this process, that appended this, or of somebody who says so.
    pub(crate) fn committed(&self, appended: Vec<Recorded>) {
        if let Some(own) = &self.own {
            own.lock().unwrap_or_else(PoisonError::into_inner).add(appended);
        }
        self.look.notify_one();
        self.tell.notify_one();
    }

    /// Completes when there may be something stable for who waits.
    pub(crate) fn wait(
        &self,
        position: Position,
        filter: &Filter,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (told, woken) = (self.waiters.wait(position, filter.clone()), self.woken.clone());
        // Where others wait already, the task is looking. It has looked whether somebody waits after
        // it said that it rests, or finds out here.
        fence(Ordering::SeqCst);
        if self.rests.swap(false, Ordering::SeqCst) {
            self.look.notify_one();
        }
        async move {
            told.await;
            woken.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What there is for who waited, where it is in memory.
    pub(crate) fn page(&self, after: Position, filter: &Filter, max: usize) -> Option<Page> {
        self.waiters.page(after, filter, max)
    }
}

/// The task that reads.
struct Watcher {
    log: Arc<Log>,
    clock: Arc<dyn Clock>,
    link: Link,
    seen: Seen,
    /// The end of the log in memory.
    recent: Arc<Mutex<Recent>>,
    /// Those who wait, and what they were told.
    waiters: Waiters,
    /// Since when nobody was woken, and what the last time cost by its entries.
    tired: (Duration, Duration),
    /// How many readers were woken since.
    woken: Arc<AtomicU32>,
    /// What was appended here.
    own: Option<Arc<std::sync::Mutex<Own>>>,
    /// Nobody waited when it looked last.
    rests: Arc<AtomicBool>,
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
            let is_waited_for = self.is_waited_for();
            let mut has_moved = is_wanted;
            tokio::select! {
                biased;
                count = asked.recv_many(&mut waiting, usize::MAX) => if count == 0 { return },
                () = self.look.notified(), if !is_wanted => {
                    pause = first;
                    // Where nobody waits, whoever begins to wait says so.
                    let is_waited_for = self.is_waited_for();
                    is_wanted = is_waited_for && !self.rest().is_zero();
                    if is_wanted || !is_waited_for {
                        continue;
                    }
                    has_moved = true;
                }
                () = self.clock.sleep(self.rest()), if is_wanted => {}
                () = self.clock.sleep(pause), if is_waited_for => pause = (pause * 2).min(most),
            }
            let before = self.seen;
            let read = self.read(has_moved).await;
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
            is_wanted = !self.tell().await;
            self.name_who_holds().await;
            for ask in waiting.drain(..) {
                let _ = ask.send(match &read {
                    Ok(()) => Ok(self.seen),
                    Err(error) => Err(Error::new(error.kind(), error.to_string())),
                });
            }
        }
    }

    /// Whether somebody waits; else the next one that does says so.
    fn is_waited_for(&self) -> bool {
        if self.waiters.count() > 0 {
            return true;
        }
        self.rests.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        self.waiters.count() > 0
    }

    /// For how long nobody may be woken; nothing shorter than a timer can tell.
    fn rest(&self) -> Duration {
        let (since, by_entries) = self.tired;
        let by_readers = REST[2].saturating_mul(self.woken.load(Ordering::Relaxed));
        let rest = (by_entries + by_readers).min(LONGEST_REST);
        let left = rest.saturating_sub(self.clock.elapsed().saturating_sub(since));
        if left < Duration::from_millis(1) { Duration::ZERO } else { left }
    }

    /// Wakes those who wait, if there is news for them. `false`: there is, and it is too early.
    async fn tell(&mut self) -> bool {
        let (told, stable) = (self.waiters.through(), Position(self.seen.stable));
        if stable <= told || self.waiters.count() == 0 {
            return true;
        }
        if !self.rest().is_zero() {
            return false;
        }
        let entries = self.appended(told).await;
        let count =
            entries.as_ref().map_or(u32::MAX, |e| u32::try_from(e.len()).unwrap_or(u32::MAX));
        self.woken.store(0, Ordering::Relaxed);
        let woken = match entries {
            Some(entries) => self.waiters.appended(told, stable, entries),
            None => self.waiters.grown(stable),
        };
        let each = REST[usize::from(woken > 0)];
        self.tired = (self.clock.elapsed(), each.saturating_mul(count).min(LONGEST_REST));
        true
    }

    /// What was appended after a position, if that is soon said.
    async fn appended(&mut self, after: Position) -> Option<Vec<Recorded>> {
        let recent = self.recent.clone();
        let mut recent = recent.lock().await;
        let Seen { stable, rewritten, .. } = self.seen;
        if !recent.is_near(stable) || recent.is_outdated(rewritten) {
            recent.begin(stable, rewritten);
        }
        let at = recent.through();
        if at < stable {
            let (read, trimmed_before, through) = match self.own((at, stable)) {
                Some(own) => (own, self.seen.trimmed_before, Position(stable)),
                None => self.entries((at, stable)).await.ok()?,
            };
            recent.extend(read, through.0, trimmed_before);
        }
        let is_all = recent.has(after.0) && recent.through() >= stable;
        is_all.then(|| recent.later(after.0).cloned().collect())
    }

    /// Entries after a position up to another, where all of them are from here.
    fn own(&self, (after, through): (u64, u64)) -> Option<Vec<Recorded>> {
        let own = self.own.as_ref()?;
        own.lock().unwrap_or_else(PoisonError::into_inner).take(after, through)
    }

    async fn entries(&mut self, (after, through): (u64, u64)) -> sqlx::Result<Part> {
        let (wanted, filter) = ((after, through, usize::MAX), Filter::default());
        self.on_link(async |log, c| latest(log, c, wanted, &filter).await).await
    }

    async fn read(&mut self, has_moved: bool) -> Result<()> {
        let before = (!has_moved).then_some(self.seen);
        let read = self.on_link(async |log, c| look(log, c, before).await).await;
        let read = read.map_err(|error| describe(&self.log.place, error));
        let now = match read {
            Ok(now) => now,
            Err(error) => {
                // Readers will meet it and say so. It may be back as an older one.
                tracing::debug!(%error, "the end of the log cannot be read");
                if let Some(own) = &self.own {
                    *own.lock().unwrap_or_else(PoisonError::into_inner) = Own::default();
                }
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
        let find = async |log: &Log, connection: &mut PgConnection| {
            let query = log.query(&log.sql.holding).bind(log.oid);
            let row = query.fetch_optional(connection).await?;
            let read = |row: PgRow| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?));
            row.map(read).transpose()
        };
        self.on_link(find).await
    }

    /// Runs a read on the task's own connection.
    async fn on_link<T>(
        &mut self,
        read: impl AsyncFnOnce(&Log, &mut PgConnection) -> sqlx::Result<T>,
    ) -> sqlx::Result<T> {
        let mut open = self.link.open().await?;
        let way = self.link.way.clone();
        let done = way.limited(async {
            way.begin_reading(&mut open).await?;
            let done = read(&self.log, &mut open).await;
            way.end_reading(&mut open, done).await
        });
        let done = done.await;
        self.link.keep(open, &done);
        done
    }
}

/// Reads where the log ends; where it is likely that nothing has moved, given what was seen before.
async fn look(
    log: &Log,
    connection: &mut PgConnection,
    before: Option<Seen>,
) -> sqlx::Result<Seen> {
    if let Some(before) = before {
        let query = log.query(&log.sql.seen).bind(log.sequence);
        let row = query.fetch_one(&mut *connection).await?;
        if unsigned(&row, 0)? == before.last && before.stable == before.last {
            let (trimmed_before, rewritten) = (unsigned(&row, 1)?, unsigned(&row, 2)?);
            return Ok(Seen { trimmed_before, rewritten, ..before });
        }
    }
    let query = log.query(&log.sql.stable).bind(log.oid).bind(log.sequence);
    let row = query.fetch_one(connection).await?;
    let (last, stable) = (unsigned(&row, 0)?, unsigned(&row, 1)?);
    let (trimmed_before, rewritten) = (unsigned(&row, 2)?, unsigned(&row, 3)?);
    Ok(Seen { last, stable, trimmed_before, rewritten })
}

/// Tells other processes that something was committed, outside the commits: a notification inside
/// would take a lock of the whole server.
async fn notify(log: Arc<Log>, way: Way, tell: Arc<Notify>, alive: mpsc::WeakUnboundedSender<Ask>) {
    let clock = way.clock.clone();
    let mut link = Link::new(way);
    loop {
        tokio::select! {
            biased;
            () = tell.notified() => {}
            () = gone(&alive, &*clock) => return,
        }
        if let Err(error) = send(&log, &mut link).await {
            tracing::debug!(%error, "other processes are not told, and will look by themselves");
        }
        clock.sleep(DEBOUNCE).await;
    }
}

async fn send(log: &Log, link: &mut Link) -> sqlx::Result<()> {
    let mut open = link.open().await?;
    let way = link.way.clone();
    let done = way.limited(async {
        way.begin_reading(&mut open).await?;
        let query = log.query(&log.sql.notify).bind(log.channel());
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
