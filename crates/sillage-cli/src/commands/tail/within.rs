//! Following the log.

use super::{From, Place, Tail, Wanted};
use crate::session::Session;
use anyhow::Result;
use sillage::{Database, Filter, Position};
use std::time::Duration;

/// Entries read at once.
const PAGE: usize = 200;
/// The log is looked at at least so often.
const EVERY: Duration = Duration::from_secs(1);

impl Tail {
    pub(super) async fn within(&self, session: &mut Session) -> Result<()> {
        let admin = session.admin().await?;
        let database = &**admin.database();
        let from = self.from();
        let now = database.now().await?;
        let wanted = Wanted { tail: self, times: from.times(now) };
        let head = database.head().await?.stable;
        let after = match from {
            From::End => head,
            From::At(position) => Position(position.0.saturating_sub(1)),
            From::Last(count) => wanted.before_last(database, head, count).await?,
            From::Start | From::Time(..) => Position(0),
        };
        let until = (self.until_end || wanted.times.1.is_some()).then_some(head);
        self.begin("POSITION", session)?;
        self.follow(&wanted, database, (after, until), session).await
    }

    async fn follow(
        &self,
        wanted: &Wanted<'_>,
        database: &dyn Database,
        (mut after, until): (Position, Option<Position>),
        session: &mut Session,
    ) -> Result<()> {
        let mut left = self.limit.unwrap_or(usize::MAX);
        let mut trimmed = Position(0);
        let filter = wanted.filter();
        loop {
            if left == 0 || until.is_some_and(|until| after >= until) {
                return Ok(());
            }
            let page = database.log(after, &filter, PAGE).await?;
            if page.trimmed_before > after.max(trimmed) {
                trimmed = page.trimmed_before;
                session.out.note(format!("entries up to position {trimmed} are gone"));
            }
            for entry in &page.entries {
                if until.is_some_and(|until| entry.position > until) || left == 0 {
                    return Ok(());
                }
                if wanted.takes(entry) {
                    self.show(&Place::Log(entry.position), entry, session)?;
                    left -= 1;
                }
            }
            session.out.flush()?;
            if page.through <= after {
                if until.is_some() {
                    return Ok(());
                }
                tokio::select! {
                    () = database.changed(after, &filter) => {}
                    () = session.sleep(EVERY) => {}
                }
            }
            after = after.max(page.through);
        }
    }
}

impl Wanted<'_> {
    fn filter(&self) -> Filter {
        let Tail { topic, name, .. } = self.tail;
        Filter { topics: topic.clone(), names: name.clone(), ..Filter::default() }
    }

    /// The position before the last `count` entries that match.
    async fn before_last(
        &self,
        database: &dyn Database,
        head: Position,
        count: usize,
    ) -> Result<Position> {
        let (mut found, mut end, mut window) = (0, head, 1000);
        while end.0 > 0 && found < count {
            let start = Position(end.0.saturating_sub(window));
            let matching = self.between(database, start, end).await?;
            found += matching.len();
            if let Some(spare) = found.checked_sub(count) {
                return Ok(matching.get(spare).map_or(end, |first| Position(first.0 - 1)));
            }
            (end, window) = (start, window.saturating_mul(2));
        }
        Ok(end)
    }

    /// The positions of what matches after `start`, up to `end`.
    async fn between(
        &self,
        database: &dyn Database,
        start: Position,
        end: Position,
    ) -> Result<Vec<Position>> {
        let (mut found, mut at, filter) = (vec![], start, self.filter());
        while at < end {
            let page = database.log(at, &filter, PAGE).await?;
            let matching = page.entries.iter().filter(|entry| self.takes(entry));
            let positions = matching.map(|entry| entry.position);
            found.extend(positions.take_while(|position| *position <= end));
            if page.through <= at {
                break;
            }
            at = page.through;
        }
        Ok(found)
    }
}
