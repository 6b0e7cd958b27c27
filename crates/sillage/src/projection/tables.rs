//! Projections into tables of the user's own: SQL for each event, with the checkpoint in the same
//! commit.

use super::{
    AnyProjection, Digest,
    fold::{Folded, Folder, Poison},
};
use sillage_core::{
    DecodeError, Effect, Effects, Event, Recorded, Result, Statement, Stored, Text,
};
use std::{collections::HashMap, ops::RangeInclusive, sync::Arc};

/// Events folded at once: others wait for a commit with the SQL of all of them.
const PAGE: usize = 64;

/// What an event does to the tables.
type Folds = HashMap<&'static str, Arc<Fold>>;
type Fold = dyn Fn(&Recorded) -> Result<Effects, DecodeError> + Send + Sync;

/// Folds events into tables of the user's own, on SQLite and PostgreSQL.
///
/// ```
/// # #[cfg(feature = "sqlite")] mod doc {
/// # use sillage::prelude::*;
/// # use serde::{Serialize, Deserialize};
/// # #[derive(Event, Serialize, Deserialize)] #[event(name = "order.created")]
/// # struct OrderCreated { #[event(key)] order_id: String, total: i64 }
/// use sillage::sqlite::sql;
///
/// fn orders() -> SqlProjection {
///     SqlProjection::new("orders", 1).on::<OrderCreated>(|order| {
///         let row = (order.order_id.clone(), order.total);
///         sql(move |tx| {
///             tx.execute("INSERT INTO orders (id, total) VALUES (?1, ?2)", (&row.0, row.1))?;
///             Ok(())
///         })
///     })
/// }
/// # }
/// ```
///
/// *Guarantees.* The tables at checkpoint p are the fold of the events up to p: the SQL of an event and
/// the checkpoint are one commit, in the order of the log, one process at a time. An event that cannot
/// be read, or whose SQL fails for good (a violated constraint), pauses the projection with the reason,
/// at its position; nothing of it is in the tables. What fails for now (a missing table, a lock) is tried
/// again every second, and health says so.
///
/// **Rebuilding.** The SQL names its tables, so a second fold beside the first would write them twice:
/// a rebuild is refused. Make the tables anew under another name, and deploy a higher version whose SQL
/// writes those: it is folded from the beginning of the log, beside what processes of the older version
/// go on writing. Read the new tables once `sillage projection show` says that it is live, then
/// `discard` the former one and drop its tables.
#[must_use = "a projection does nothing until it is given to a service"]
pub struct SqlProjection {
    name: &'static str,
    version: u32,
    folds: Folds,
    errors: Vec<String>,
}

impl SqlProjection {
    /// A projection of that name; a higher version writes tables of its own, from the beginning of the
    /// log.
    pub fn new(name: &'static str, version: u32) -> Self {
        SqlProjection { name, version, folds: HashMap::new(), errors: vec![] }
    }

    /// Runs the `sql` that this returns for an event. Other effects than `sql` pause the projection.
    pub fn on<E: Event>(
        mut self,
        fold: impl Fn(&Recorded<E>) -> Effects + Send + Sync + 'static,
    ) -> Self {
        let fold: Arc<Fold> = Arc::new(move |entry: &Recorded| {
            Ok(fold(&entry.with(E::read(entry.body.version, &entry.payload)?)))
        });
        let aliases = E::ALIASES.iter().map(|(alias, _)| *alias);
        for name in std::iter::once(E::NAME).chain(aliases) {
            if self.folds.insert(name, fold.clone()).is_some() {
                self.errors.push(format!("projection `{}` folds `{name}` twice", self.name));
            }
        }
        self
    }
}

impl AnyProjection for SqlProjection {
    fn name(&self) -> &'static str {
        self.name
    }
    fn version(&self) -> u32 {
        self.version
    }
    fn collection(&self) -> &'static str {
        ""
    }
    fn events(&self) -> Vec<Text> {
        self.folds.keys().map(|name| Text::from(*name)).collect()
    }
    fn errors(&self) -> Vec<String> {
        self.errors.clone()
    }
    fn folder(&self, _begins: bool) -> Box<dyn Folder> {
        Box::new(Statements { folds: self.folds.clone(), unwritten: vec![] })
    }
    fn writes_tables(&self) -> bool {
        true
    }
}

/// What is to be run with the next checkpoint.
struct Statements {
    folds: Folds,
    unwritten: Vec<Statement>,
}

impl Statements {
    fn fold_one(&mut self, entry: &Recorded) -> Result<(), String> {
        let Some(fold) = self.folds.get(&*entry.name) else { return Ok(()) };
        for effect in fold(entry).map_err(|error| error.to_string())? {
            let Effect::Sql(statement) = effect else {
                return Err(format!("a projection into tables returns `sql`, and no {effect:?}"));
            };
            self.unwritten.push(statement);
        }
        Ok(())
    }
}

impl Folder for Statements {
    fn pages(&self) -> RangeInclusive<usize> {
        PAGE..=PAGE
    }

    fn is_full(&self) -> bool {
        self.unwritten.len() >= PAGE
    }

    fn take_in(
        &mut self,
        entries: &mut dyn Iterator<Item = Recorded>,
    ) -> (Vec<String>, Option<Poison>) {
        for entry in entries {
            let before = self.unwritten.len();
            if let Err(why) = self.fold_one(&entry) {
                self.unwritten.truncate(before);
                return (vec![], Some(Poison { position: entry.position, why }));
            }
        }
        (vec![], None)
    }

    fn fold(&mut self, _needed: Vec<String>, _stored: &[Option<Stored>]) -> Result<()> {
        Ok(())
    }

    fn changed(&self) -> usize {
        self.unwritten.len()
    }

    fn write(&mut self, _digest: &mut Digest) -> Result<Vec<Folded>> {
        Ok(self.unwritten.drain(..).map(Folded::Sql).collect())
    }

    fn forget(&mut self) {
        self.unwritten.clear();
    }
}
