//! One word per concept: public names of the crates keep to the glossary in `ARCHITECTURE.md`.
//!
//! A scan of tokens, line by line: rustfmt keeps `pub`, the kind of item and its name together.

use super::{Finding, Source};

/// `(never, instead)`, in snake case. Only words that mean nothing else in a public name.
const WORDS: [(&str, &str); 28] = [
    ("adapter", "backend"),
    ("aggregate_root", "aggregate"),
    ("bookmark", "checkpoint"),
    ("callback", "handler"),
    ("compliance", "conformance"),
    ("cursor", "reader or checkpoint"),
    ("dead_letter_queue", "dead letters"),
    ("dedup", "inbox"),
    ("delayed_message", "timer"),
    ("entity", "aggregate or document"),
    ("envelope", "message"),
    ("forwarder", "relay"),
    ("high_water", "stable position"),
    ("high_watermark", "stable position"),
    ("listener", "consumer"),
    ("orchestration_engine", "saga"),
    ("orchestrator", "saga"),
    ("outbox_processor", "relay"),
    ("poison", "dead letter"),
    ("provider", "backend"),
    ("read_model", "view"),
    ("requeue", "park"),
    ("requeued", "parked"),
    ("retry_count", "attempt"),
    ("revision", "version"),
    ("shard", "lane or partition"),
    ("unit_of_work", "commit"),
    ("worker", "handler, lane or member"),
];

pub(super) fn check(source: &Source) -> Vec<Finding> {
    if !source.path.starts_with("crates/") || source.extension() != "rs" {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (number, line) in source.lines() {
        let Some(name) = public_name(line) else { continue };
        for (never, instead) in WORDS.iter().filter(|(never, _)| contains(name, never)) {
            let what = format!("public name `{name}` has the word `{never}`");
            findings.push(source.finding(number, what, format!("say {instead}")));
        }
    }
    findings
}

/// The name of the public item or field that this line declares.
fn public_name(line: &str) -> Option<&str> {
    let line = line.split("//").next().unwrap_or_default();
    let mut words = tokens(line.trim_start().strip_prefix("pub ")?);
    let mut token = words.next()?;
    if token == "async" {
        token = words.next()?;
    }
    let named = match token {
        "struct" | "enum" | "union" | "trait" | "mod" | "type" | "fn" => words.next()?,
        "const" | "static" => words.find(|word| *word != "fn")?,
        field if words.next() == Some(":") => field,
        _ => return None,
    };
    Some(named)
}

/// Identifiers as they are; of everything else what stands together without a space.
fn tokens(line: &str) -> impl Iterator<Item = &str> {
    let identifier = |c: char| c.is_alphanumeric() || c == '_';
    let mut rest = line;
    std::iter::from_fn(move || {
        rest = rest.trim_start();
        let is_identifier = identifier(rest.chars().next()?);
        let other = |c: char| c.is_whitespace() || identifier(c) != is_identifier;
        let (token, after) = rest.split_at(rest.find(other).unwrap_or(rest.len()));
        rest = after;
        Some(token)
    })
}

/// Whether the words of `name` contain `never`, also in the plural.
fn contains(name: &str, never: &str) -> bool {
    let name = format!("_{}_", snake_case(name));
    name.contains(&format!("_{never}_")) || name.contains(&format!("_{never}s_"))
}

fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    let mut previous = '_';
    let mut letters = name.chars().peekable();
    while let Some(letter) = letters.next() {
        let next_is_lower = letters.peek().is_some_and(|next| next.is_lowercase());
        let begins = letter.is_uppercase() && (!previous.is_uppercase() || next_is_lower);
        if begins && previous != '_' {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
        previous = letter;
    }
    snake
}

#[cfg(test)]
mod tests {
    use super::{check, contains, public_name, snake_case};
    use crate::tidy::tests::source;

    #[test]
    fn public_names_are_read_off_a_line() {
        for (line, name) in [
            ("pub struct Lane<T> {", Some("Lane")),
            ("    pub async fn drain(&self) {", Some("drain")),
            ("pub const fn secs(n: u64) -> Duration {", Some("secs")),
            ("pub const MAX: usize = 3;", Some("MAX")),
            ("pub static NAME: &str = \"\";", Some("NAME")),
            ("pub mod lane;", Some("lane")),
            ("    pub attempt: u32, // of a worker", Some("attempt")),
            ("pub use worker::Lane;", None),
            ("pub(crate) struct Worker;", None),
            ("// pub struct Worker;", None),
            ("struct Worker;", None),
        ] {
            assert_eq!(public_name(line), name, "{line}");
        }
    }

    #[test]
    fn words_are_found_in_any_case_and_number() {
        assert_eq!(snake_case("HTTPWorkerPool2"), "http_worker_pool2");
        assert_eq!(snake_case("HIGH_WATER"), "high_water");
        assert!(contains("DeadLetterQueue", "dead_letter_queue"));
        assert!(contains("HIGH_WATER_MARK", "high_water") && contains("lane_workers", "worker"));
        assert!(!contains("networker", "worker") && !contains("Recorded", "record"));
    }

    #[test]
    fn only_the_crates_are_bound() {
        let text = "mod a;\npub struct Envelope;";
        let findings = check(&source("crates/a/src/lib.rs", text));
        assert_eq!(
            findings[0].to_string(),
            "crates/a/src/lib.rs:2: public name `Envelope` has the word `envelope`: say message"
        );
        assert_eq!(findings.len(), 1);
        assert!(check(&source("shop/src/lib.rs", text)).is_empty());
    }
}
