//! Decisions over several streams in one commit.

use super::{Aggregate, Decider, ExecuteError, TRIES, local_stream};
use crate::{
    handler::{Beside, Context, Extract, Needs},
    service::ServiceHandle,
};
use sillage_core::{
    BoxFuture, CommitError, Committed, Condition, Database, Effects, Error, Failure, Result, Text,
};
use std::{fmt::Display, sync::Arc, time::Duration};

/// Decisions on several aggregates that are committed together or not at all.
///
/// ```no_run
/// # use sillage::prelude::*;
/// # async fn doc<Account: Decider<Command = i64, Refusal = String>>(bank: ServiceHandle)
/// # -> Result<(), Box<dyn std::error::Error>> {
/// bank.together::<String>()
///     .decide::<Account>("alice", -50)
///     .decide::<Account>("bob", 50)
///     .commit()
///     .await?;
/// # Ok(()) }
/// ```
#[must_use = "nothing is decided until it is committed"]
pub struct Together<'a, R> {
    handle: &'a ServiceHandle,
    decisions: Vec<(String, Box<dyn Decision<R>>)>,
}

type Decided<R> = Result<(Effects, Condition), ExecuteError<R>>;

trait Decision<R>: Send + Sync {
    fn decide<'a>(
        &'a self,
        database: &'a dyn Database,
        service: &'a Text,
    ) -> BoxFuture<'a, Decided<R>>;
}

struct One<D: Decider> {
    id: String,
    command: D::Command,
}

impl<D: Decider<Command: Sync, Refusal: Into<R>>, R: 'static> Decision<R> for One<D> {
    fn decide<'a>(
        &'a self,
        database: &'a dyn Database,
        service: &'a Text,
    ) -> BoxFuture<'a, Decided<R>> {
        Box::pin(async move {
            let loaded = Aggregate::<D>::load(database, service, self.id.clone()).await;
            let (aggregate, unchanged) =
                loaded.map_err(|failure| ExecuteError::Database(super::unfolded(failure)))?;
            let effects = aggregate.decide(self.command.clone());
            let effects = effects.map_err(|refused| ExecuteError::Refused(refused.0.into()))?;
            Ok((effects, unchanged))
        })
    }
}

impl<'a, R: Send + 'static> Together<'a, R> {
    pub(crate) fn new(handle: &'a ServiceHandle) -> Self {
        Together { handle, decisions: vec![] }
    }

    /// One more decision, each on an aggregate of its own.
    pub fn decide<D>(mut self, id: impl Display, command: D::Command) -> Self
    where
        D: Decider<Command: Sync, Refusal: Into<R>>,
    {
        let id = id.to_string();
        let stream = local_stream::<D>(&id);
        self.decisions.push((stream, Box::new(One::<D> { id, command })));
        self
    }

    /// Decides on the present state of all of them, and appends all that was decided, or nothing:
    /// the first refusal is the answer. Where another process changes one of the streams meanwhile,
    /// all are decided again.
    pub async fn commit(self) -> Result<Committed, ExecuteError<R>> {
        for (index, (stream, _)) in self.decisions.iter().enumerate() {
            if self.decisions[..index].iter().any(|(other, _)| other == stream) {
                let twice = format!("two decisions on `{stream}` in one commit: make them one");
                return Err(ExecuteError::Database(Error::invalid(twice)));
            }
        }
        for tries in 0..TRIES {
            let (mut effects, mut conditions) = (Effects::none(), vec![]);
            for (_, decision) in &self.decisions {
                let (database, service, _) = self.handle.place();
                let (decided, unchanged) = decision.decide(database, service).await?;
                effects = effects.and(decided);
                conditions.push(unchanged);
            }
            match self.handle.commit_if(effects, conditions).await {
                Err(CommitError::Conflict { .. } | CommitError::AlreadyHandled) => {}
                answer => return answer.map_err(ExecuteError::from),
            }
            // Of many that race one wins at a time: the others spread.
            let within = Duration::from_millis(1 << tries.min(8));
            self.handle.place().2.sleep(within.mul_f64(rand::random())).await;
        }
        Err(ExecuteError::Conflict)
    }
}

/// Loads any aggregates of the service in a handler; each stream that was read must be unchanged
/// when the effects are committed.
#[derive(Clone)]
pub struct Aggregates {
    service: Text,
    database: Arc<dyn Database>,
    beside: Arc<Beside>,
}

impl Aggregates {
    /// The aggregate of that id.
    pub async fn load<D: Decider>(&self, id: impl Display) -> Result<Aggregate<D>, Failure> {
        let loaded = Aggregate::load(&*self.database, &self.service, id.to_string()).await?;
        let (aggregate, unchanged) = loaded;
        self.beside.require(unchanged);
        Ok(aggregate)
    }
}

impl Extract for Aggregates {
    fn needs(needs: &mut Needs) {
        needs.database = true;
    }

    async fn extract(context: &Context) -> Result<Self, Failure> {
        let (service, beside) = (context.shared.service.clone(), context.beside().clone());
        Ok(Aggregates { service, database: context.database()?.clone(), beside })
    }
}
