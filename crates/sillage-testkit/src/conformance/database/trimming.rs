//! Trimming: what goes from the log, what stays, and that a reader can tell.

use super::super::{DatabaseFixture, values::*};
use sillage_core::{ErrorKind, Expected, Filter, Message, Position, Recorded, Version, Write};

fn trim(stream: Option<&str>, through: Position) -> Write {
    Write::Trim { stream: stream.map(Into::into), through }
}

/// `a`, `b` and so on, the vowels in stream `s`.
async fn filled(database: &Handle) -> Vec<Recorded> {
    for id in ["a", "b", "c", "d", "e", "f"] {
        let write = if "aeiou".contains(id) { append("s", id) } else { entry(message(id)) };
        accept(database, writes([write])).await;
    }
    log(database).await
}

/// Entries without a stream go up to the position; those of streams stay where they are. A page
/// says up to where, on every handle.
pub async fn entries_without_a_stream_are_trimmed<F: DatabaseFixture>(fixture: &F) {
    let (database, other) = (fixture.open().await, fixture.open().await);
    let all = filled(&database).await;
    let through = all[2].position;
    accept(&database, writes([trim(None, through)])).await;
    for handle in [&database, &other] {
        let page = handle.log(Position(0), &Filter::default(), ALL).await.unwrap();
        assert_eq!(ids(&page.entries), ["a", "d", "e", "f"]);
        assert_eq!(page.trimmed_before, through);
        assert_eq!(page.through, all[5].position);
        let names = Filter { names: vec!["nothing".into()], ..Filter::default() };
        let page = handle.log(Position(0), &names, ALL).await.unwrap();
        assert_eq!((page.entries.len(), page.trimmed_before), (0, through));
        assert_eq!(ids(&stream(handle, "s").await), ["a", "e"]);
        assert_eq!(handle.head().await.unwrap().last, all[5].position);
    }
    // It never goes back.
    accept(&database, writes([trim(None, all[0].position)])).await;
    let page = database.log(Position(0), &Filter::default(), ALL).await.unwrap();
    assert_eq!((ids(&page.entries).len(), page.trimmed_before), (4, through));
}

/// Also where everything goes: positions are not given out again.
pub async fn a_log_that_is_trimmed_whole_goes_on<F: DatabaseFixture>(fixture: &F) {
    let database = fixture.open().await;
    let committed = accept(&database, writes([entry(message("1")), entry(message("2"))])).await;
    accept(&database, writes([trim(None, committed.position)])).await;
    assert_eq!(database.head().await.unwrap().last, committed.position);
    let page = database.log(Position(0), &Filter::default(), ALL).await.unwrap();
    assert_eq!((page.entries.len(), page.through), (0, committed.position));
    let later = accept(&database, writes([entry(message("3"))])).await;
    assert!(later.position > committed.position);
    assert_eq!(ids(&log(&database).await), ["3"]);
}

/// A trim is part of its commit, and is not made where a condition fails.
pub async fn a_trim_is_conditional<F: DatabaseFixture>(fixture: &F) {
    let database = fixture.open().await;
    let all = filled(&database).await;
    let refused = when([stream_is("s", Expected::NoStream)], [trim(None, all[5].position)]);
    refuse(&database, refused).await;
    let page = database.log(Position(0), &Filter::default(), ALL).await.unwrap();
    assert_eq!((page.entries.len(), page.trimmed_before), (6, Position(0)));
}

/// What was trimmed is not known any more: its (source, id) is new.
pub async fn an_identity_goes_with_its_entry<F: DatabaseFixture>(fixture: &F) {
    let database = fixture.open().await;
    let all = filled(&database).await;
    assert!(is_already_handled(&try_one(&database, writes([entry(message("b"))])).await));
    accept(&database, writes([trim(None, all[1].position)])).await;
    accept(&database, writes([entry(message("b"))])).await;
    assert!(is_already_handled(&try_one(&database, writes([entry(message("c"))])).await));
}

/// A stream whose entries go keeps its version; reading it from before them is an error, from
/// behind them it is as ever.
pub async fn a_trimmed_stream_keeps_its_version<F: DatabaseFixture>(fixture: &F) {
    let database = fixture.open().await;
    let all = filled(&database).await;
    accept(&database, writes([append("t", "x")])).await;
    accept(&database, writes([trim(Some("s"), all[4].position)])).await;
    assert_eq!(ids(&log(&database).await), ["b", "c", "d", "f", "x"]);
    assert_eq!(ids(&stream(&database, "t").await), ["x"]);
    let gone = database.stream("s", Version(0), ALL).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::Trimmed, "{gone}");
    assert_eq!(database.stream("s", Version(1), 1).await.unwrap_err().kind(), ErrorKind::Trimmed);
    assert_eq!(database.stream("s", Version(2), ALL).await.unwrap(), []);
    refuse(&database, when([stream_is("s", Expected::NoStream)], [append("s", "n")])).await;
    let next = when([stream_is("s", Expected::Exact(Version(2)))], [append("s", "n")]);
    accept(&database, next).await;
    let later = database.stream("s", Version(2), ALL).await.unwrap();
    assert_eq!(later[0].stream, Some(("s".into(), Version(3))));
    assert_eq!(database.stream("s", Version(0), ALL).await.unwrap_err().kind(), ErrorKind::Trimmed);
    let page = database.log(Position(0), &Filter::default(), ALL).await.unwrap();
    assert_eq!(page.trimmed_before, Position(0), "only entries without a stream count");
}

/// Entries of a stream come back to where they were, once.
pub async fn a_trimmed_stream_is_restored<F: DatabaseFixture>(fixture: &F) {
    let database = fixture.open().await;
    let all = filled(&database).await;
    let of_it: Vec<Recorded> = stream(&database, "s").await;
    accept(&database, writes([trim(Some("s"), all[5].position)])).await;
    accept(&database, writes([append("s", "g")])).await;
    let restore = || writes(of_it.iter().cloned().map(Write::Restore).collect::<Vec<_>>());
    accept(&database, restore()).await;
    assert!(is_already_handled(&try_one(&database, restore()).await));
    let restored = stream(&database, "s").await;
    assert_eq!(ids(&restored), ["a", "e", "g"]);
    assert_eq!(restored[..2], of_it[..], "with positions, versions and all fields");
    assert_eq!(log(&database).await[..6], all[..]);
    let again = Message { payload: "again".into(), ..message("a") };
    assert!(is_already_handled(&try_one(&database, writes([entry(again)])).await));
    accept(&database, writes([append("s", "h"), entry(message("i"))])).await;
    assert_eq!(ids(&stream(&database, "s").await), ["a", "e", "g", "h"]);
}
