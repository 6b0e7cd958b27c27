//! What a reader reads that is far behind the end of the log.

use crate::support::{DIRECT, POOLED, Schema, commit, message, run};
use sillage_core::{Database, Filter, Message, Position, Text, Write};

/// More than a reader has to be behind, so that it does not ask for each page where the log ends.
const ENTRIES: u64 = 60_000;

/// However long its pages are, with positions that nobody has, and with entries that it does not want.
#[test]
fn a_reader_far_behind_reads_every_entry_once() {
    for variable in [DIRECT, POOLED] {
        let Some(schema) = Schema::new(variable) else { return };
        run(async {
            let database = schema.open().await;
            let (mut all, mut wanted): (Vec<_>, Vec<_>) = (vec![], vec![]);
            for first in (0..ENTRIES).step_by(1_000) {
                let names = (first..first + 1_000).map(name);
                let writes: Vec<_> = (first..).zip(names.clone()).map(entry).collect();
                let committed = database.commit(vec![commit(writes)]).await.remove(0).unwrap();
                let begin = committed.position.0 - 999;
                all.extend(begin..=committed.position.0);
                wanted.extend(names.zip(begin..).filter(|(name, _)| *name == RARE).map(|it| it.1));
                if first == 20_000 {
                    let skip = "SELECT nextval('@@.log_position') FROM generate_series(1, 2345)";
                    schema.run(&mut schema.shell().await, skip).await;
                }
            }
            let rare = Filter { names: vec![RARE.into()], ..Filter::default() };
            for max in [999, 1_000, 1_001, 4_000, 30_000, usize::MAX] {
                assert_eq!(read(&database, &Filter::default(), max).await, all, "{max} a page");
                assert_eq!(read(&database, &rare, max).await, wanted, "{max} a page, filtered");
            }
        });
    }
}

const RARE: &str = "test.rare";

/// None at all for a while, then all, then some.
fn name(number: u64) -> &'static str {
    let is_rare = match number {
        0..15_000 => false,
        15_000..25_000 => true,
        _ => number.is_multiple_of(3),
    };
    if is_rare { RARE } else { "test.happened" }
}

fn entry((number, name): (u64, &'static str)) -> Write {
    let message = Message { name: Text::from(name), ..message(&format!("{number}")) };
    Write::Append { stream: None, message: message.into() }
}

/// The positions of all that match, page after page.
async fn read(database: &dyn Database, filter: &Filter, max: usize) -> Vec<u64> {
    let (mut at, mut found) = (Position(0), vec![]);
    loop {
        let page = database.log(at, filter, max).await.unwrap();
        assert!(page.entries.len() <= max);
        assert!(
            page.entries.iter().all(|entry| at < entry.position && entry.position <= page.through)
        );
        if page.through == at {
            return found;
        }
        at = page.through;
        found.extend(page.entries.iter().map(|entry| entry.position.0));
    }
}
