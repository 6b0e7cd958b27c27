//! The reference database passes the suite it is the reference for.

use sillage_core::Database;
use sillage_testkit::{ManualClock, Memory, conformance::DatabaseFixture};
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

/// A test that the macro does not name would never run.
#[test]
fn the_macro_names_every_test() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/conformance");
    let read = |path: &Path| fs::read_to_string(path).unwrap();
    let listed = read(&source.join("mod.rs"));
    for file in fs::read_dir(source.join("database")).unwrap() {
        let text = read(&file.unwrap().path());
        for test in text.split("\npub async fn ").skip(1) {
            let name = test.split('<').next().unwrap();
            assert!(listed.contains(&format!("\n            {name},\n")), "`{name}` is not run");
        }
    }
}
