//! What every consumer promises on every database and every broker, one test each; run them all
//! by [`consumer_conformance!`](crate::consumer_conformance).
//!
//! The tests run whole apps on real time, and know them by what they do: entries of the log,
//! watermarks and parked keys as operators see them, and what handlers note. Of timing they assert
//! nothing.
//!
//! ```
//! use sillage_core::{Broker, Database};
//! use sillage_testkit::{Memory, MemoryBroker, conformance::ConsumerFixture};
//! use std::sync::Arc;
//!
//! struct Fixture(Memory, MemoryBroker);
//!
//! impl ConsumerFixture for Fixture {
//!     async fn database(&self) -> Arc<dyn Database> {
//!         Arc::new(self.0.clone())
//!     }
//!     async fn broker(&self) -> Option<Arc<dyn Broker>> {
//!         Some(Arc::new(self.1.clone()))
//!     }
//! }
//!
//! fn new() -> Fixture {
//!     Fixture(Memory::new(Arc::new(sillage::SystemClock)), MemoryBroker::new(4, true))
//! }
//!
//! sillage_testkit::consumer_conformance!(new());
//! ```
//!
//! *Guarantees.* Each test has a database of its own. A broker that others use as well is set
//! [`Apart`](crate::Apart) by its fixture.

mod desk;
mod failing;
mod handling;
mod operating;
mod reading;
mod sharing;
mod stopping;
mod strangers;
mod world;

pub use failing::*;
pub use handling::*;
pub use operating::*;
pub use reading::*;
pub use sharing::*;
pub use stopping::*;
pub use strangers::*;

/// Expands to one `#[test]` for each promise of [`consumer`](crate::conformance::consumer). The
/// fixture is an expression that makes a new one for each test; it may `await`.
#[macro_export]
macro_rules! consumer_conformance {
    ($fixture:expr) => {
        $crate::consumer_conformance! { @each $fixture;
            // handling
            effects_are_committed_and_caused,
            each_delivery_has_its_effects_once,
            two_keys_overlap,
            one_key_is_handled_in_order_one_at_a_time,
            so_many_keys_are_handled_at_once,
            what_a_handler_loaded_is_unchanged_at_its_commit,
            an_aggregate_decides_on_what_it_read,
            // reading
            an_event_without_a_handler_is_ignored_and_counted,
            a_strict_consumer_ignores_nothing,
            what_cannot_be_read_is_a_dead_letter_with_its_key,
            a_newer_version_is_tried_as_it_is_and_else_parked,
            // failing
            a_failing_key_is_parked_and_others_flow,
            a_parked_key_is_tried_again_in_its_order,
            a_permanent_failure_is_dead_at_once,
            a_panic_is_dead_at_once,
            a_handler_over_its_time_limit_fails,
            what_is_unavailable_spends_no_attempt,
            every_delivery_is_accounted_for,
            // operating
            a_redrive_goes_on_in_order_and_twice_is_harmless,
            a_redrive_reaches_only_the_consumer_that_failed,
            skip_goes_on_restore_takes_it_back_and_edit_replaces,
            what_has_no_handler_does_not_block_a_redriven_key,
            external_calls_repeat_their_idempotency_key,
            a_paused_consumer_waits_until_it_is_resumed,
            // stopping
            a_drained_app_leaves_nothing_to_redeliver,
            what_ended_out_of_turn_is_counted,
            an_app_that_is_gone_without_draining_doubles_nothing,
            what_a_dead_process_had_parked_is_redriven_by_another,
            // sharing
            two_apps_share_a_consumer,
            apps_that_come_and_go_lose_double_and_reorder_nothing,
            a_broadcast_reaches_every_app,
            consumers_of_one_topic_each_get_everything,
            // strangers
            what_says_nothing_of_itself_is_a_dead_letter,
            equal_ids_of_two_sources_are_two_messages,
            what_a_topic_does_not_take_is_parked_in_the_relay,
            a_topic_that_is_deleted_stops_nobody_else,
            cuts_between_app_and_broker_lose_double_and_reorder_nothing,
            what_is_cut_off_while_a_breaker_is_open_comes_again,
        }
    };
    (@each $fixture:expr; $($test:ident,)+) => {$(
        #[test]
        fn $test() {
            $crate::conformance::run(async {
                let fixture = $fixture;
                let test = $crate::conformance::consumer::$test(&fixture);
                let finish = $crate::conformance::ConsumerFixture::finish(&fixture);
                $crate::conformance::and_finish(test, finish).await;
            });
        }
    )+};
}
