//! A batch of commits as one SQL transaction; a batch that SQLite refuses is retried by halves.

use crate::{
    accept::Pass,
    changed::Grown,
    error::{is_the_file, refuse},
    statements::Statements,
};
use sillage_core::{Clock, Commit, CommitError, Committed};
use std::path::Path;

/// What became of one commit.
pub(crate) type Outcome = Result<Committed, CommitError>;

/// Applies the batch. One outcome a commit, in order, and how each transaction that succeeded has made
/// the log grow.
pub(crate) fn apply(
    statements: &mut Statements<'_>,
    path: &Path,
    clock: &dyn Clock,
    commits: &[Commit],
) -> (Vec<Outcome>, Vec<Grown>) {
    let outcomes = Vec::with_capacity(commits.len());
    let mut batch = Batch { statements, path, clock, outcomes, grown: vec![] };
    batch.apply(commits, false);
    (batch.outcomes, batch.grown)
}

struct Batch<'b, 'c> {
    statements: &'b mut Statements<'c>,
    path: &'b Path,
    clock: &'b dyn Clock,
    outcomes: Vec<Outcome>,
    grown: Vec<Grown>,
}

impl Batch<'_, '_> {
    fn apply(&mut self, commits: &[Commit], looks_up_ids: bool) {
        let clock = self.clock;
        // The time is read under the lock, so that it rises with the log.
        let done = self.statements.transaction(|statements| {
            Pass::begin(statements, clock.now(), looks_up_ids)?.run(commits)
        });
        match done {
            Ok((outcomes, grown)) => {
                self.outcomes.extend(outcomes);
                self.grown.push(grown);
            }
            Err(error) if is_the_file(&error) || looks_up_ids && commits.len() <= 1 => {
                tracing::warn!(commits = commits.len(), %error, "commits were not saved");
                let refused = commits.iter().map(|_| Err(refuse(self.path, &error)));
                self.outcomes.extend(refused);
            }
            Err(_) if !looks_up_ids => self.apply(commits, true),
            Err(error) => {
                tracing::debug!(commits = commits.len(), %error, "a batch is retried by halves");
                let (first, second) = commits.split_at(commits.len() / 2);
                self.apply(first, true);
                self.apply(second, true);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{file, migrate::migrate};
    use sillage_core::{ErrorKind, Write};
    use sillage_testkit::ManualClock;

    fn put(id: usize, bytes: usize) -> Commit {
        let write = Write::Put {
            collection: "c".into(),
            id: id.to_string().into(),
            sort: None,
            body: vec![b'x'; bytes].into(),
        };
        Commit { conditions: vec![], writes: vec![write] }
    }

    /// A bound on the file's pages fails as a full disk does.
    #[test]
    fn a_full_disk_fails_the_batch_and_spoils_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("full.db");
        let mut connection = file::writer(&path).unwrap();
        migrate(&path, &mut connection).unwrap();
        connection.pragma_update(None, "max_page_count", 60).unwrap();
        let mut statements = Statements::prepare(&connection).unwrap();
        let clock = ManualClock::default();
        let large: Vec<_> = (0..16).map(|id| put(id, 20_000)).collect();
        let (outcomes, grown) = apply(&mut statements, &path, &clock, &large);
        assert_eq!((outcomes.len(), grown.len()), (16, 0));
        for outcome in outcomes {
            let Err(CommitError::Failed(error)) = outcome else { panic!("{outcome:?}") };
            assert_eq!(error.kind(), ErrorKind::Full, "{error}");
        }
        let (outcomes, _) = apply(&mut statements, &path, &clock, &[put(99, 10)]);
        assert!(outcomes[0].is_ok(), "what has room is saved: {outcomes:?}");
        connection.pragma_update(None, "max_page_count", 1_000_000).unwrap();
        let (outcomes, _) = apply(&mut statements, &path, &clock, &large);
        assert!(outcomes.iter().all(Result::is_ok), "once there is room again: {outcomes:?}");
        let documents: i64 =
            connection.query_row("SELECT count(*) FROM documents", [], |row| row.get(0)).unwrap();
        assert_eq!(documents, 17);
    }
}
