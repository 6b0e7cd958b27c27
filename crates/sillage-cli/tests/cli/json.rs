//! Every command yields JSON.

use crate::{fixture::Fixture, saga::fill};
use serde_json::Value;
use std::collections::BTreeSet;

/// A run of every command, in an order in which each finds what it needs, with its exit code.
const RUNS: [(&str, i32); 58] = [
    ("tail --until-end", 0),
    ("tail nothing --until-end", 0),
    ("publish order --name order.noted --key o-9 --data {}", 0),
    ("trace o-1", 0),
    ("dlq list", 0),
    ("dlq list --all --parked", 0),
    ("dlq list --consumer nobody", 0),
    ("dlq show order/bad", 0),
    ("dlq redrive order/bad --dry-run", 0),
    ("dlq redrive order/bad --yes", 0),
    ("dlq redrive --all --yes", 0),
    ("dlq edit order/bad --set note=mended --dry-run", 0),
    ("dlq edit order/bad --set note=mended", 0),
    ("dlq skip order/bad --why spoilt --dry-run", 0),
    ("dlq skip order/bad --why spoilt", 0),
    ("dlq restore order/bad", 0),
    ("consumers list", 0),
    ("consumers show billing", 0),
    ("consumers pause billing --why maintenance", 0),
    ("consumers resume shop/billing", 0),
    ("consumers lag", 0),
    ("consumers accept-loss billing --yes", 0),
    ("projections list", 0),
    ("projections show orders", 0),
    ("projections rebuild orders", 0),
    ("projections compare orders --within 0s", 8),
    ("projections switch orders --force", 0),
    ("projections rollback orders --force", 0),
    ("projections discard orders --yes", 0),
    ("projections pause orders --why maintenance", 0),
    ("projections resume orders", 0),
    ("breakers list", 0),
    ("retention show", 0),
    ("retention readers", 0),
    ("streams list", 0),
    // Refused, as its readers have not passed it; and no such file.
    ("streams archive operator --to . --dry-run", 2),
    ("streams restore no.jsonl", 3),
    ("journal search --key o-1", 0),
    ("journal export --limit 1", 0),
    ("journal check", 0),
    ("replay --from 1 --to-topic again --as-new test --dry-run", 0),
    ("saga list", 0),
    ("saga list --stuck", 0),
    ("saga list --unknown", 0),
    ("saga show checkout/o-7", 0),
    ("saga diagram checkout", 0),
    ("saga diagram checkout --form svg --instance o-7", 0),
    ("saga retry o-7 --why test", 0),
    ("saga skip o-7 --why test", 0),
    ("saga cancel o-8 --why test", 0),
    ("timers list", 0),
    ("topics list", 0),
    ("topics show order", 0),
    ("topics create order", 0),
    ("doctor", 8),
    ("retention forget shop --yes", 0),
    ("completions bash", 0),
    ("config show --origin", 0),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_command_yields_json() {
    for format in ["json", "jsonl"] {
        let fixture = Fixture::filled().await;
        fill(&fixture).await;
        for (words, code) in RUNS {
            let args: Vec<_> = words.split(' ').chain(["-o", format]).collect();
            let ran = fixture.run(&args).await.exits(code);
            if [2, 3].contains(&code) {
                assert!(ran.out.is_empty(), "{words}: what is refused says nothing");
            } else if format == "json" {
                assert!(!ran.json().is_null(), "{words}");
            } else {
                for line in ran.lines() {
                    let parsed = serde_json::from_str::<Value>(line);
                    assert!(parsed.is_ok(), "{words}: {line}");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_is_in_the_table() {
    let fixture = Fixture::empty().await;
    let (mut leaves, mut open) = (BTreeSet::new(), vec![String::new()]);
    while let Some(command) = open.pop() {
        let args: Vec<_> = command.split_whitespace().chain(["--help"]).collect();
        let help = fixture.run(&args).await.exits(0).out;
        match help.split_once("Commands:\n") {
            None => drop(leaves.insert(command.trim().to_owned())),
            Some((_, rest)) => {
                let names = rest.lines().take_while(|line| !line.trim().is_empty());
                let names = names.filter_map(|line| line.split_whitespace().next());
                let names = names.filter(|name| *name != "help");
                open.extend(names.map(|name| format!("{command} {name}")));
            }
        }
    }
    assert!(leaves.len() > 15, "{leaves:?}");
    for leaf in leaves {
        let covered = RUNS.iter().any(|(words, _)| words.starts_with(&leaf));
        assert!(covered, "`{leaf}` is in no run of the table");
    }
}
