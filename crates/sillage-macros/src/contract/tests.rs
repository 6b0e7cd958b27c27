//! What `Event` and `Command` generate, and how they refuse.

use super::Kind;
use crate::testing;

fn event(input: &str) -> String {
    testing::flat(|input| super::derive(input, Kind::Event), input)
}

fn command(input: &str) -> String {
    testing::flat(|input| super::derive(input, Kind::Command), input)
}

fn has(code: &str, parts: &[&str]) {
    for part in parts {
        assert!(code.contains(&part.replace(' ', "")), "{part}\nis not in\n{code}");
    }
}

fn refused(cases: &[(&str, &str, &str)]) {
    for (input, at, what) in cases {
        let kind = if input.contains("#[command") { Kind::Command } else { Kind::Event };
        testing::fails(|input| super::derive(input, kind), input, at, what);
    }
}

#[test]
fn an_event_has_name_version_topic_and_key() {
    let code = event(
        "#[event(name = \"order.created\")] struct Created { #[event(key)] order_id: OrderId, n: u8 }",
    );
    has(
        &code,
        &[
            "impl ::sillage::Contract for Created",
            "const NAME: &'static str = \"order.created\";",
            "const VERSION: u32 = 1u32;",
            "const TOPIC: ::core::option::Option<&'static str> = ::core::option::Option::Some(\"order\");",
            "{ ::core::option::Option::Some(::sillage::Key::of(&self.order_id)) }",
            "impl ::sillage::Event for Created {}",
        ],
    );
    assert!(!code.contains("upcast") && !code.contains("Answered"), "{code}");
}

#[test]
fn older_versions_are_read_through_their_type() {
    let code = event(
        "#[event(name = \"a.b\", version = 3, was = old::V2)] struct A { #[event(key)] id: u8 }",
    );
    has(
        &code,
        &[
            "const VERSION: u32 = 3u32;",
            "fn upcast(version: u32, payload: &[u8],) -> ::core::result::Result<Self, ::sillage::DecodeError>",
            "::core::assert!(<old::V2 as ::sillage::Contract>::VERSION + 1 == 3u32,",
            "<old::V2 as ::sillage::Contract>::read(version, payload).map(<Self as ::core::convert::From<old::V2>>::from)",
        ],
    );
}

#[test]
fn the_topic_is_the_first_part_unless_said() {
    let topic = |said: &str| format!("#[event(name = \"a.b.c\", keyless {said})] struct A;");
    has(&event(&topic("")), &["Option::Some(\"a\")"]);
    has(&event(&topic(", topic = \"x.y\"")), &["Option::Some(\"x.y\")"]);
    has(&event(&topic(", internal")), &["&'static str> = ::core::option::Option::None;"]);
    has(&event("#[event(name = \"single\", keyless)] struct A;"), &["Option::Some(\"single\")"]);
}

#[test]
fn arguments_may_be_spread_over_attributes() {
    let code = event("#[event(name = \"a.b\")] #[event(version = 2, keyless)] struct A;");
    has(
        &code,
        &[
            "\"a.b\"",
            "2u32",
            "-> ::core::option::Option<::sillage::Key> { ::core::option::Option::None }",
        ],
    );
}

#[test]
fn a_tuple_field_may_be_the_key() {
    has(
        &event("#[event(name = \"a.b\")] struct A(u8, #[event(key)] u8);"),
        &["::sillage::Key::of(&self.1)"],
    );
}

#[test]
fn a_command_has_its_own_topic_and_its_answers() {
    let code = command(
        "#[command(name = \"payment.charge\", done = Completed, failed = e::Failed)]
         struct Charge { #[command(key)] order_id: OrderId }",
    );
    has(
        &code,
        &[
            "Option::Some(\"payment.commands\")",
            "impl ::sillage::Command for Charge {}",
            "impl ::sillage::Answered for Charge { type Done = Completed; type Failed = e::Failed; }",
        ],
    );
}

#[test]
fn a_command_that_cannot_be_refused_fails_never() {
    let input = |more: &str| format!("#[command(name = \"a.b\", keyless {more})] struct A;");
    has(&command(&input(", done = B")), &["type Done = B; type Failed = ::sillage::Never;"]);
    assert!(!command(&input("")).contains("Answered"));
    has(&command(&input(", internal")), &["&'static str> = ::core::option::Option::None;"]);
}

#[test]
fn what_is_missing_is_asked_for_at_the_type() {
    refused(&[
        ("struct A { #[event(key)] b: u8 }", "A", "#[event(name = \"order.created\")]"),
        ("#[command(keyless)] struct A;", "A", "#[command(name = \"order.create\")]"),
        (
            "#[event(name = \"a\")] struct A { b: u8 }",
            "A",
            "#[event(key)], or say #[event(keyless)]",
        ),
        ("#[command(name = \"a\")] struct A;", "A", "#[command(key)], or say #[command(keyless)]"),
        ("#[event(name = \"a\")] enum A { B }", "A", "for a set of events derive `Events`"),
        ("#[event(name = \"a\")] union A { b: u8 }", "A", "a contract is a struct"),
        (
            "#[event(name = \"a\")] struct A<'a, T> { b: T }",
            "<'a, T>",
            "no type or lifetime parameters",
        ),
    ]);
}

#[test]
fn stored_names_keep_to_the_rule() {
    let rule = "only lower-case letters a-z, digits, `.`, `-` and `_`";
    refused(&[
        ("#[event(name = \"\")] struct A;", "\"\"", "cannot be empty"),
        (
            "#[event(name = \"order.Created\")] struct A;",
            "\"order.Created\"",
            &format!("{rule}, not 'C'"),
        ),
        (
            "#[event(name = \"order created\")] struct A;",
            "\"order created\"",
            &format!("{rule}, not ' '"),
        ),
        ("#[event(name = \"a\\0\")] struct A;", "\"a\\0\"", &format!("{rule}, not '\\0'")),
        ("#[event(name = \"commandé\")] struct A;", "\"commandé\"", &format!("{rule}, not 'é'")),
        ("#[event(name = \".a\")] struct A;", "\".a\"", "between dots, is empty"),
        ("#[event(name = \"a..b\")] struct A;", "\"a..b\"", "between dots, is empty"),
        ("#[event(name = \"a.\")] struct A;", "\"a.\"", "between dots, is empty"),
        ("#[event(name = \"a\", topic = \"A\")] struct A;", "\"A\"", &format!("{rule}, not 'A'")),
        ("#[event(name = \"a\", topic = \"\")] struct A;", "\"\"", "cannot be empty"),
        ("#[event(name = 7)] struct A;", "7", "expected string literal"),
    ]);
}

#[test]
fn versions_count_from_one() {
    refused(&[
        ("#[event(name = \"a\", version = 0)] struct A;", "0", "versions count from 1"),
        ("#[event(name = \"a\", version = 4294967296)] struct A;", "4294967296", "too large"),
        ("#[event(name = \"a\", version = \"2\")] struct A;", "\"2\"", "expected integer literal"),
        (
            "#[event(name = \"a\", alias = \"a\", keyless)] struct A;",
            "\"a\"",
            "this is the one it has",
        ),
        ("#[event(name = \"a\", was = B, keyless)] struct A;", "B", "`version` is at least 2"),
    ]);
}

#[test]
fn an_unknown_argument_is_told_what_was_expected() {
    refused(&[
        (
            "#[event(nam = \"a.b\")] struct A;",
            "nam",
            "unknown argument; expected `name`, `version`, `topic`, `internal`, `keyless`, `was`, `alias`",
        ),
        ("#[event(name = \"a\", done = B)] struct A;", "done", "unknown argument"),
        ("#[command(name::x = \"a\")] struct A;", "name::x", "`was`, `alias`, `done`, `failed`"),
        ("#[event(name = \"a\")] struct A { #[event(id)] b: u8 }", "id", "expected `key`"),
        ("#[event] struct A;", "event", "parentheses"),
        ("#[event(\"a.b\")] struct A;", "\"a.b\"", "expected"),
        ("#[event = \"a.b\"] struct A;", "=", "parentheses"),
    ]);
}

#[test]
fn what_contradicts_is_refused() {
    refused(&[
        ("#[event(name = \"a\", name = \"b\")] struct A;", "name = \"b\"", "said twice"),
        ("#[event(name = \"a\", internal, internal)] struct A;", "internal", "said twice"),
        ("#[event(name = \"a\", internal, topic = \"b\")] struct A;", "\"b\"", "no topic"),
        ("#[event(name = \"a\", keyless)] struct A(#[event(key)] u8);", "keyless", "keep one"),
        (
            "#[event(name = \"a\")] struct A(#[event(key)] u8, #[event(key)] u8);",
            "key",
            "only one mark `key`",
        ),
        ("#[event(name = \"a\")] struct A(#[event(key, key)] u8);", "key", "only one mark `key`"),
        ("#[command(name = \"a\", keyless, failed = B)] struct A;", "B", "`failed` needs `done`"),
    ]);
}
