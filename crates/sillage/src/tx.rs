//! A handler's own transaction, which is committed with what the handler returns.
//!
//! *Guarantees.* What is done in it, the inbox, the effects and the state are one transaction: a
//! handler that fails, or whose commit is refused, leaves nothing of it. It is not run again where it
//! was committed.

use crate::handler::{Context, Extract, Needs};
use sillage_core::{Failure, Transaction};
use std::{
    any::{Any, type_name},
    ops::{Deref, DerefMut},
    sync::Arc,
};
use tokio::sync::{Mutex, OwnedMutexGuard};

/// The transaction in which the effects of the handler are committed, for reading and writing tables
/// of the user's own. It dereferences to the connection. On PostgreSQL: `Tx<Pg>`.
///
/// ```
/// # #[cfg(feature = "postgres")] mod doc {
/// use sillage::postgres::{Pg, sqlx::query};
/// # use sillage::prelude::*;
/// # use serde::{Serialize, Deserialize};
/// # #[derive(Event, Serialize, Deserialize)] #[event(name = "order.created")]
/// # struct OrderCreated { #[event(key)] order_id: String, total: i64 }
/// # #[derive(Event, Serialize, Deserialize)] #[event(name = "invoice.sent")]
/// # struct InvoiceSent { #[event(key)] order_id: String }
///
/// async fn invoice(order: OrderCreated, mut tx: Tx<Pg>) -> Result<Effects, Failure> {
///     let insert = query("INSERT INTO invoices (order_id, total) VALUES ($1, $2)");
///     insert.bind(&order.order_id).bind(order.total).execute(&mut *tx).await?;
///     Ok(publish(InvoiceSent { order_id: order.order_id }))
/// }
/// # }
/// ```
///
/// It costs one transaction, with its own durable write, a delivery: there is no group commit, and
/// at most 32 are under way in a process; more wait. It holds the rows that it wrote until it is
/// committed: commits about the same rows wait, no others do. Where SQL alone will do, the effect `sql`
/// shares its commit with others, and there is one on every database.
///
/// A handler takes at most one, does not end it, and does not keep it: it is gone when the handler
/// returns. A database without such transactions is refused when the app starts. In a replay, which
/// commits nothing, there is none: such a handler fails there.
pub struct Tx<T>(OwnedMutexGuard<T>);

impl<T: Transaction + Deref> Deref for Tx<T> {
    type Target = T::Target;
    fn deref(&self) -> &T::Target {
        &self.0
    }
}

impl<T: Transaction + DerefMut> DerefMut for Tx<T> {
    fn deref_mut(&mut self) -> &mut T::Target {
        &mut self.0
    }
}

impl<T: Transaction> Extract for Tx<T> {
    fn needs(needs: &mut Needs) {
        needs.database = true;
        needs.transactions.push(Wanted { name: type_name::<T>(), fits: |found| found.is::<T>() });
    }

    async fn extract(context: &Context) -> Result<Self, Failure> {
        let begun = context.database()?.begin().await.map_err(|error| {
            if error.is_transient() {
                Failure::unavailable("database", error)
            } else {
                Failure::permanent(error)
            }
        })?;
        let own = begun.as_any().downcast::<T>();
        let own = own.map_err(|_| Failure::permanent(another(type_name::<T>())))?;
        let place = Arc::new(Mutex::new(*own));
        let lent = place.clone().try_lock_owned().map_err(|_| taken())?;
        context.transaction.set(Box::new(place)).map_err(|_| taken())?;
        Ok(Tx(lent))
    }
}

fn taken() -> Failure {
    Failure::permanent("a handler takes one `Tx`: this one takes two")
}

/// What a handler is told whose database has other transactions.
pub(crate) fn another(name: &str) -> String {
    format!("the transactions of this app's database are no `{name}`")
}

/// A kind of transaction that a handler takes.
pub(crate) struct Wanted {
    pub(crate) name: &'static str,
    pub(crate) fits: fn(&(dyn Any + Send)) -> bool,
}

/// A transaction that a handler may hold.
pub(crate) trait Lent: Send + Sync {
    /// What is to be committed, once the handler has returned; `None`: it is still held.
    fn take_back(self: Box<Self>) -> Option<Box<dyn Transaction>>;
}

impl<T: Transaction> Lent for Arc<Mutex<T>> {
    fn take_back(self: Box<Self>) -> Option<Box<dyn Transaction>> {
        let own = Arc::try_unwrap(*self).ok()?;
        Some(Box::new(own.into_inner()))
    }
}

/// The transaction of a handler that returned.
///
/// # Errors
/// A permanent failure where it was kept.
pub(crate) fn taken_back(
    lent: Option<Box<dyn Lent>>,
) -> Result<Option<Box<dyn Transaction>>, Failure> {
    let kept = || {
        Failure::permanent(
            "the handler has returned and its `Tx` is still held: what it did is rolled back; end \
             what uses it before the handler returns",
        )
    };
    lent.map(|lent| lent.take_back().ok_or_else(kept)).transpose()
}
