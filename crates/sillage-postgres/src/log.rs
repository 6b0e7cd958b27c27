//! The log of one schema: its statements, and what names it on this server.

use crate::{config::Config, rows::Bound, sql::Sql};
use sillage_core::Clock;
use sqlx::{SqlStr, postgres::types::Oid};
use std::sync::Arc;

/// What every statement needs.
pub(crate) struct Log {
    pub(crate) sql: Sql,
    /// Where it is, for people.
    pub(crate) place: String,
    /// The oid of the log's table: what advisory locks and notifications are named by.
    pub(crate) oid: Oid,
    /// The oid of the sequence that positions come from.
    pub(crate) sequence: Oid,
    /// What limits users' SQL.
    pub(crate) clock: Arc<dyn Clock>,
    pooler: bool,
}

impl Log {
    pub(crate) fn new(config: &Config, [oid, sequence]: [Oid; 2], clock: Arc<dyn Clock>) -> Log {
        Log {
            sql: Sql::new(&config.schema),
            place: config.place(),
            oid,
            sequence,
            clock,
            pooler: config.pooler,
        }
    }

    /// A statement that is prepared once a connection, where that outlives the transaction.
    pub(crate) fn query(&self, sql: &SqlStr) -> Bound {
        sqlx::query(sql.clone()).persistent(!self.pooler)
    }

    /// The channel on which processes tell each other that something was committed.
    pub(crate) fn channel(&self) -> String {
        format!("sillage_{}", self.oid.0)
    }
}
