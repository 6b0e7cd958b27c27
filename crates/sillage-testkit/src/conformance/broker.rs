//! What every [`Broker`] promises, one test each; run them all by
//! [`broker_conformance!`](crate::broker_conformance).
//!
//! The tests know only the port, and run on real time against a real broker, which other tests
//! may be using: each takes names of its own. Where the broker does not assign partitions itself,
//! the suite shares them out as the runtime does.
//!
//! ```
//! use sillage_core::{Clock, Database};
//! use sillage_testkit::{Memory, conformance::{ConsumerFixture, broker::Embedded}};
//! use std::sync::Arc;
//!
//! struct Fixture(Memory);
//!
//! impl ConsumerFixture for Fixture {
//!     async fn database(&self) -> Arc<dyn Database> {
//!         Arc::new(self.0.clone())
//!     }
//! }
//!
//! fn new() -> Fixture {
//!     Fixture(Memory::new(Arc::new(sillage::SystemClock)))
//! }
//!
//! sillage_testkit::broker_conformance!(Embedded(new()));
//! ```
//!
//! *Guarantees.* Each test leaves its topics and consumers behind, unless its fixture removes them,
//! and nothing else. What should come is waited for; only of a paused or unwanted delivery, which
//! never comes, a test has to be satisfied with what came behind it.

mod case;
mod embedded;
mod group;
mod joined;
mod order;
mod publishing;
mod receiving;
mod settling;
mod sharing;
mod starting;
mod topology;

pub use embedded::{Embedded, store_watermarks};
pub use order::*;
pub use publishing::*;
pub use receiving::*;
pub use settling::*;
pub use sharing::*;
pub use starting::*;
pub use topology::*;

use sillage_core::{Broker, Settled};
use std::{sync::Arc, time::Duration};

/// A broker to be tested. It may hold what other tests left there.
pub trait BrokerFixture: Send + Sync {
    /// Another handle on the same broker, as another process would have.
    fn open(&self) -> impl Future<Output = Arc<dyn Broker>> + Send;

    /// Stores what a consumer has settled, where the place is not kept by the broker but in the
    /// database: called before [`Settler::settle`](sillage_core::Settler::settle), as the runtime
    /// writes the watermark before it. Nothing to do for others.
    fn settled(&self, consumer: &str, settled: &[Settled]) -> impl Future<Output = ()> + Send {
        let _ = (consumer, settled);
        async {}
    }

    /// Whether a consumer gets nothing that was published before it first subscribed, wherever it
    /// wants to start. Then its start is not tested, and elsewhere it subscribes once before
    /// anything is published.
    fn begins_at_subscription(&self) -> bool {
        false
    }

    /// How long a test waits for what should come: longer than a member that is gone without a
    /// word keeps its partitions.
    fn patience(&self) -> Duration {
        Duration::from_secs(60)
    }

    /// Removes what a test left on the server, also one that failed.
    fn finish(&self) -> impl Future<Output = ()> + Send {
        async {}
    }
}

/// Expands to one `#[test]` for each promise of [`broker`](crate::conformance::broker). The
/// fixture is an expression that makes a new one for each test; it may `await`.
#[macro_export]
macro_rules! broker_conformance {
    ($fixture:expr) => {
        $crate::broker_conformance! { @each $fixture;
            // publishing
            a_message_arrives_whole,
            a_large_message_arrives_whole,
            receipts_come_in_the_order_of_the_batch,
            a_message_over_the_limit_is_refused_alone,
            hostile_names_and_headers_are_harmless,
            // order
            a_key_arrives_in_the_order_of_publishing,
            batches_in_flight_keep_their_order,
            what_is_published_first_comes_first_whoever_waits_for_it,
            messages_without_a_key_arrive_once_each,
            a_key_is_in_one_partition,
            // receiving
            a_call_that_is_dropped_at_any_moment_loses_and_doubles_nothing,
            a_paused_partition_waits_and_the_others_go_on,
            pauses_at_any_moment_lose_and_double_nothing,
            // settling
            what_was_settled_does_not_come_again,
            what_was_not_settled_comes_again,
            the_settled_place_never_passes_what_is_unfinished,
            a_member_that_is_gone_without_a_word_loses_nothing,
            what_is_given_up_comes_again_from_the_settled_place,
            no_old_batch_comes_behind_a_new_assignment,
            nothing_settled_is_harmless,
            // sharing
            consumers_each_get_everything,
            members_share_the_work,
            a_joining_member_gets_a_share,
            a_leaving_members_share_goes_on,
            members_that_come_and_go_keep_the_order,
            // starting
            a_consumer_starts_at_the_earliest_message,
            a_consumer_starts_at_the_latest_message,
            a_consumer_starts_at_the_last_messages,
            a_consumer_starts_at_a_time,
            where_a_consumer_starts_is_stored_once,
            a_broadcast_reaches_every_member,
            a_broadcast_stores_nothing,
            // topology
            topics_are_made_once,
            topics_are_made_once_by_many,
            other_partitions_are_told_and_left_alone,
            topics_tell_what_there_is,
            progress_tells_what_is_settled,
            progress_is_each_consumers_own,
        }
    };
    (@each $fixture:expr; $($test:ident,)+) => {$(
        #[test]
        fn $test() {
            $crate::conformance::run(async {
                let fixture = $fixture;
                let test = $crate::conformance::broker::$test(&fixture);
                let finish = $crate::conformance::BrokerFixture::finish(&fixture);
                $crate::conformance::and_finish(test, finish).await;
            });
        }
    )+};
}
