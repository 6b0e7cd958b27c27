//! Lists of documents: by id and by sort key, in the order of their bytes.

use super::super::{DatabaseFixture, values::*};
use sillage_core::{Range, Text};

fn with<'a>(prefix: &'a str, after: &'a str) -> Range<'a> {
    Range::Ids { prefix, after }
}

fn between<'a>(from: &'a str, until: &'a str) -> Range<'a> {
    Range::Sort { from, until }
}

/// Documents are listed by id: those with the prefix, after the given one, at most so many,
/// with and without sort keys.
pub async fn documents_are_listed_by_id<F: DatabaseFixture>(fixture: &F) {
    let database = fixture.open().await;
    let mut all: Vec<_> = ["b/2", "a/1", "b/1", "c", "b/10", "b"].map(|id| put("c", id, id)).into();
    all.push(sorted("c", "b/3", text("0")));
    all.push(put("other", "b/4", "x"));
    accept(&database, writes(all)).await;
    let list = async |range, max| listed(&database, "c", range, max).await.join(" ");
    assert_eq!(list(with("", ""), ALL).await, "a/1 b b/1 b/10 b/2 b/3 c");
    assert_eq!(list(with("b/", ""), ALL).await, "b/1 b/10 b/2 b/3");
    assert_eq!(list(with("b/", "b/10"), ALL).await, "b/2 b/3");
    assert_eq!(list(with("b/", "b/11"), ALL).await, "b/2 b/3");
    assert_eq!(list(with("b/", "a"), 2).await, "b/1 b/10");
    assert_eq!(list(with("b/", "c"), ALL).await, "");
    assert_eq!(list(with("", "b"), 2).await, "b/1 b/10");
    assert_eq!(list(with("", ""), 0).await, "");
    assert_eq!(list(with("x", ""), ALL).await, "");
    assert_eq!(listed(&database, "none", with("", ""), ALL).await, []);
    let mut seen = vec![];
    let mut after = Text::from("");
    while let Some(id) = listed(&database, "c", with("b", &after), 1).await.pop() {
        seen.push(id.clone());
        after = id;
    }
    assert_eq!(seen.join(" "), "b b/1 b/10 b/2 b/3");
    let whole = database.list("c", with("b/3", ""), 1).await.unwrap();
    assert_eq!(whole[0], document(&database, "c", "b/3").await.unwrap());
}

/// A prefix is the text as it is: no wild cards, no ignored case, to the end of Unicode.
pub async fn prefixes_are_taken_as_they_are<F: DatabaseFixture>(fixture: &F) {
    let database = fixture.open().await;
    let ids = [
        "%a",
        "*a",
        "?a",
        "A_1",
        "Ab1",
        "[a]",
        "\\a",
        "_a",
        "a%1",
        "a1",
        "a_1",
        "ab1",
        "é1",
        "ê",
        "\u{7f}a",
        "\u{d7ff}a",
        "\u{10ffff}",
        "\u{10ffff}a",
    ];
    accept(&database, writes(ids.map(|id| put("c", id, "x")))).await;
    let prefixes = [
        "",
        "%",
        "*",
        "?",
        "A",
        "[",
        "\\",
        "_",
        "a%",
        "a_",
        "a",
        "é",
        "e",
        "\u{7f}",
        "\u{d7ff}",
        "\u{10ffff}",
        "\u{10ffff}a",
    ];
    for prefix in prefixes {
        let mut expected: Vec<_> = ids.into_iter().filter(|id| id.starts_with(prefix)).collect();
        expected.sort_unstable();
        let found = listed(&database, "c", with(prefix, ""), ALL).await;
        assert_eq!(found.iter().map(|id| &**id).collect::<Vec<_>>(), expected, "{prefix:?}");
    }
}

/// Documents are listed by sort key, from the first up to, not including, the second; those
/// without a sort key never.
pub async fn documents_are_listed_by_sort_key<F: DatabaseFixture>(fixture: &F) {
    let database = fixture.open().await;
    let all = [("z", "10"), ("y", "20"), ("x", "30"), ("w", "40"), ("v", "")];
    accept(&database, writes(all.map(|(id, sort)| sorted("c", id, text(sort))))).await;
    accept(&database, writes([put("c", "without", "x"), sorted("other", "u", text("20"))])).await;
    let list = async |range, max| listed(&database, "c", range, max).await.join(" ");
    assert_eq!(list(between("", "99"), ALL).await, "v z y x w");
    assert_eq!(list(between("10", "40"), ALL).await, "z y x");
    assert_eq!(list(between("11", "400"), ALL).await, "y x w");
    assert_eq!(list(between("10", "40"), 2).await, "z y");
    assert_eq!(list(between("10", "40"), 0).await, "");
    assert_eq!(list(between("20", "20"), ALL).await, "");
    assert_eq!(list(between("40", "10"), ALL).await, "");
    let all = [sorted("c", "z", text("35")), put("c", "y", "no sort key now"), delete("c", "x")];
    accept(&database, writes(all)).await;
    assert_eq!(list(between("", "99"), ALL).await, "v z w");
}

/// Documents with the same sort key come by id, on every handle, however they were written.
pub async fn documents_with_equal_sort_keys_have_one_order<F: DatabaseFixture>(fixture: &F) {
    let handles = [fixture.open().await, fixture.open().await];
    for (number, id) in ["d", "b", "e", "a", "c"].into_iter().enumerate() {
        accept(&handles[number % 2], writes([sorted("c", id, text("same"))])).await;
    }
    let all = [sorted("c", "b", text("same")), sorted("c", "last", text("samf"))];
    accept(&handles[0], writes(all)).await;
    for handle in &handles {
        let found = listed(handle, "c", between("s", "t"), ALL).await.join(" ");
        assert_eq!(found, "a b c d e last");
        assert_eq!(listed(handle, "c", between("s", "t"), 3).await.join(" "), "a b c");
    }
}

/// Sort keys and ids are ordered by their bytes, not by a language.
pub async fn sort_keys_and_ids_are_ordered_by_their_bytes<F: DatabaseFixture>(fixture: &F) {
    let database = fixture.open().await;
    let mut texts = [
        "a",
        "B",
        "é",
        "Z",
        "~",
        "a b",
        "a-b",
        "ab",
        "aB",
        "_",
        "e",
        "ü",
        "10",
        "9",
        "\u{10ffff}",
        "\u{ffff}",
        "A",
        "a\u{300}",
        "-1",
        " ",
    ];
    let all: Vec<_> = texts.into_iter().map(|key| sorted("c", key, text(key))).collect();
    accept(&database, writes(all)).await;
    texts.sort_unstable();
    let by_id = listed(&database, "c", with("", ""), ALL).await;
    assert_eq!(by_id.iter().map(|id| &**id).collect::<Vec<_>>(), texts);
    let by_sort = listed(&database, "c", between("", "\u{10ffff}\u{10ffff}"), ALL).await;
    assert_eq!(by_sort.iter().map(|id| &**id).collect::<Vec<_>>(), texts);
    let some = listed(&database, "c", between("A", "a"), ALL).await;
    assert_eq!(some.join(" "), "A B Z _");
}
