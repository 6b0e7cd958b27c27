//! The suites that every backend passes: one named test a promise.
//!
//! A backend writes a fixture and calls the macro in `tests/conformance.rs`:
//!
//! ```
//! use sillage_core::Database;
//! use sillage_testkit::{ManualClock, Memory, conformance::DatabaseFixture};
//! use std::{sync::Arc, time::Duration};
//!
//! struct Fixture {
//!     clock: Arc<ManualClock>,
//!     memory: Memory,
//! }
//!
//! impl DatabaseFixture for Fixture {
//!     async fn open(&self) -> Arc<dyn Database> {
//!         Arc::new(self.memory.clone())
//!     }
//!     async fn pass(&self, time: Duration) {
//!         self.clock.advance(time);
//!     }
//! }
//!
//! impl Fixture {
//!     fn new() -> Self {
//!         let clock = Arc::new(ManualClock::default());
//!         Fixture { memory: Memory::new(clock.clone()), clock }
//!     }
//! }
//!
//! sillage_testkit::database_conformance!(Fixture::new());
//! ```
//!
//! *Guarantees.* Tests share nothing: each has a fixture of its own. None sleeps for a fixed
//! time; one that hangs fails after two minutes.

// A test's way to fail is to panic, and this module is made of tests that live in a library.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::missing_panics_doc)]
// `values` is the suite's own vocabulary, of which each file uses most.
#![allow(clippy::wildcard_imports)]

pub mod broker;
pub mod consumer;
pub mod database;
pub(crate) mod values;

pub use broker::BrokerFixture;
use sillage_core::{Broker, Database};
use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::Arc,
    task::Poll,
    time::Duration,
};

/// A database to be tested, empty at first.
pub trait DatabaseFixture: Send + Sync {
    /// Another handle on the same data, as another process would have.
    fn open(&self) -> impl Future<Output = Arc<dyn Database>> + Send;

    /// Lets at least this much of the database's time pass: moves its clock, or waits.
    fn pass(&self, time: Duration) -> impl Future<Output = ()> + Send;
}

/// What an app runs on: a database, empty at first, and a broker, unless the database's log is it.
pub trait ConsumerFixture: Send + Sync {
    /// Another handle on the same data, as another process would have. Its time is the machine's.
    fn database(&self) -> impl Future<Output = Arc<dyn Database>> + Send;

    /// Another handle on a broker that this fixture has for itself; `None`: the database's log.
    fn broker(&self) -> impl Future<Output = Option<Arc<dyn Broker>>> + Send {
        async { None }
    }

    /// Publishes this body under this key, as somebody does who knows nothing of us: without any
    /// header. `false`: nobody else can publish there.
    fn publish_bare(
        &self,
        topic: &str,
        key: &str,
        body: &str,
    ) -> impl Future<Output = bool> + Send {
        let _ = (topic, key, body);
        async { false }
    }

    /// Makes a topic that takes no messages of more bytes than this. `false`: there are none.
    fn make_narrow(&self, topic: &str, bytes: u32) -> impl Future<Output = bool> + Send {
        let _ = (topic, bytes);
        async { false }
    }

    /// Deletes a topic behind everybody's back. `false`: there are none.
    fn delete(&self, topic: &str) -> impl Future<Output = bool> + Send {
        let _ = topic;
        async { false }
    }

    /// Cuts all connections between apps and their broker, and refuses the first who comes back.
    /// Called once before there are any. `false`: there never are.
    fn cut(&self) -> impl Future<Output = bool> + Send {
        async { false }
    }

    /// Removes what a test left on the server, also one that failed.
    fn finish(&self) -> impl Future<Output = ()> + Send {
        async {}
    }
}

/// Runs one test to its end on a runtime with several threads; panics if it takes two minutes.
pub fn run(test: impl Future<Output = ()>) {
    const LIMIT: Duration = Duration::from_secs(120);
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build().expect("a runtime");
    let limited = async { tokio::time::timeout(LIMIT, Box::pin(test)).await };
    runtime.block_on(limited).expect("the test hangs: it has not ended within two minutes");
}

/// Runs a test, then what cleans up after it, also where the test panics.
#[doc(hidden)]
pub async fn and_finish(test: impl Future<Output = ()>, finish: impl Future<Output = ()>) {
    let mut test = Box::pin(test);
    let ended =
        poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| test.as_mut().poll(context))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(())) => Poll::Ready(Ok(())),
            Err(panic) => Poll::Ready(Err(panic)),
        });
    let ended = ended.await;
    finish.await;
    if let Err(panic) = ended {
        resume_unwind(panic);
    }
}

/// Expands to one `#[test]` for each promise of [`database`]. The fixture is an expression that
/// makes a new one for each test; it may `await`.
#[macro_export]
macro_rules! database_conformance {
    ($fixture:expr) => {
        $crate::database_conformance! { @each $fixture;
            // commits
            a_commit_is_applied_whole,
            a_refused_commit_leaves_nothing,
            commits_of_a_batch_stand_alone,
            later_commits_see_earlier_ones_of_their_batch,
            conditions_see_the_state_before_the_own_writes,
            conditions_answer_by_rank_then_in_their_order,
            writes_are_applied_in_their_order,
            one_winner_per_stream_version,
            one_winner_per_document_version,
            conflicts_name_both_versions,
            any_version_and_version_zero_are_understood,
            a_guilty_commit_fails_alone,
            what_is_at_the_limit_is_accepted,
            a_committed_position_is_that_of_the_last_entry,
            every_commit_has_an_answer_in_its_place,
            writes_are_seen_by_every_read_that_starts_after_the_answer,
            what_is_committed_is_there_after_a_restart,
            a_commit_that_is_tried_again_is_not_doubled,
            a_retry_is_known_by_its_messages,
            a_caller_that_goes_away_leaves_a_whole_commit_or_none,
            // log
            positions_rise_and_stream_versions_are_gapless,
            payloads_and_bodies_are_opaque,
            every_field_of_a_message_comes_back,
            an_identity_is_in_the_log_once,
            a_message_twice_in_a_commit_is_rejected,
            an_identity_is_appended_once_by_many,
            every_reader_sees_every_entry_in_order,
            a_filter_takes_only_what_matches,
            pages_of_a_filter_leave_nothing_out,
            a_rare_match_far_along_the_log_is_found,
            a_read_nobody_polls_holds_up_nobody,
            through_moves_where_nothing_matched,
            through_is_right_at_the_bounds_of_a_page,
            the_head_is_where_the_log_ends,
            a_stream_is_read_in_pages,
            changed_completes_after_another_handle_has_committed,
            changed_completes_at_once_when_the_log_is_ahead,
            // documents
            versions_of_documents_count_their_puts,
            documents_are_made_replaced_and_deleted_under_conditions,
            documents_come_in_the_order_asked,
            documents_are_listed_by_id,
            prefixes_are_taken_as_they_are,
            documents_are_listed_by_sort_key,
            documents_with_equal_sort_keys_have_one_order,
            sort_keys_and_ids_are_ordered_by_their_bytes,
            documents_are_due_when_their_time_has_come,
            a_delay_counts_from_the_commit_on_database_time,
            what_must_be_below_only_rises,
            database_time_goes_on,
            // inbox
            a_first_time_is_once,
            a_first_time_is_once_among_many,
            a_delivery_is_named_by_consumer_source_and_id,
            decisions_come_in_the_order_asked,
            a_decision_is_a_condition,
            a_decision_replaces_the_one_before_it,
            forget_takes_only_bound_rows_up_to_the_offset,
            // leases
            a_lease_has_one_owner,
            a_lease_is_taken_once_by_many,
            renewing_keeps_the_epoch_and_moves_the_end,
            an_expired_lease_moves_with_a_higher_epoch,
            a_released_lease_moves_at_once_with_a_higher_epoch,
            a_lease_is_released_by_its_owner_only,
            a_commit_under_an_old_epoch_is_fenced,
            nothing_of_an_old_epoch_comes_after_the_new_owner,
            // trimming
            entries_without_a_stream_are_trimmed,
            a_log_that_is_trimmed_whole_goes_on,
            a_trim_is_conditional,
            an_identity_goes_with_its_entry,
            a_trimmed_stream_keeps_its_version,
            a_trimmed_stream_is_restored,
            // equivalence
            equivalent_to_memory,
        }
    };
    (@each $fixture:expr; $($test:ident,)+) => {$(
        #[test]
        fn $test() {
            $crate::conformance::run(async {
                let fixture = $fixture;
                $crate::conformance::database::$test(&fixture).await;
            });
        }
    )+};
}
