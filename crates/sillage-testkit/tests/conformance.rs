//! The reference database passes the suites it is the reference for.

use sillage::SystemClock;
use sillage_core::Database;
use sillage_testkit::{
    ManualClock, Memory,
    conformance::{ConsumerFixture, DatabaseFixture},
};
use std::{fs, path::Path, sync::Arc, time::Duration};

struct Fixture {
    clock: Arc<ManualClock>,
    memory: Memory,
}

impl Fixture {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::default());
        Fixture { memory: Memory::new(clock.clone()), clock }
    }
}

impl DatabaseFixture for Fixture {
    async fn open(&self) -> Arc<dyn Database> {
        Arc::new(self.memory.clone())
    }

    async fn pass(&self, time: Duration) {
        self.clock.advance(time);
    }
}

sillage_testkit::database_conformance!(Fixture::new());

/// On the machine's time.
struct OnTime(Memory);

impl OnTime {
    fn new() -> Self {
        OnTime(Memory::new(Arc::new(SystemClock)))
    }
}

impl ConsumerFixture for OnTime {
    async fn database(&self) -> Arc<dyn Database> {
        Arc::new(self.0.clone())
    }
}

mod broker {
    use super::OnTime;
    use sillage_testkit::conformance::broker::Embedded;
    sillage_testkit::broker_conformance!(Embedded(OnTime::new()));
}

/// A test that the macro does not name would never run.
#[test]
fn the_macros_name_every_test() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/conformance");
    let read = |path: &Path| fs::read_to_string(path).unwrap();
    let suites = [("database", "mod.rs"), ("broker", "broker.rs"), ("consumer", "consumer.rs")];
    for (suite, list) in suites {
        let listed = read(&source.join(list));
        for file in fs::read_dir(source.join(suite)).unwrap() {
            let text = read(&file.unwrap().path());
            for test in text.split("\npub async fn ").skip(1) {
                let name = test.split(['<', '(']).next().unwrap();
                let is_helper = !test.contains("fixture: &F");
                let runs = listed.contains(&format!("\n            {name},\n"));
                assert!(runs || is_helper, "`{name}` is not run");
            }
        }
    }
}

mod consumer {
    use super::OnTime;
    sillage_testkit::consumer_conformance!(OnTime::new());
}
