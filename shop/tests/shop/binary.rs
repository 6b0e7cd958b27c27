//! The binary itself, with its gateway as a process of its own.

use serde_json::Value;
use std::{
    path::Path,
    process::{Command, Output},
};

fn shop(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shop"));
    command.args(arguments).args(["--data", "data"]).current_dir(folder).output().unwrap()
}

#[test]
fn a_demonstration_holds_and_the_audit_sees_what_is_tampered_with() {
    let folder = tempfile::tempdir().unwrap();
    let demo = shop(folder.path(), &["demo", "--orders", "40", "--json"]);
    let errors = String::from_utf8_lossy(&demo.stderr);
    assert!(demo.status.success(), "{errors}");
    let shown: Value = serde_json::from_slice(&demo.stdout).unwrap();
    assert_eq!((&shown["orders"], &shown["emails"]), (&40.into(), &40.into()), "{shown}");
    let count = |name: &str| shown[name].as_u64().unwrap();
    let names = ["done", "parked", "dead", "skipped", "ignored", "duplicates"];
    assert_eq!(names.map(count).into_iter().sum::<u64>(), count("received"));
    let verify = ["verify", "--placed-with-seed", "1", "--orders", "40", "--json"];
    let audit = shop(folder.path(), &verify);
    assert!(audit.status.success(), "{}", String::from_utf8_lossy(&audit.stdout));
    replay_differs_in_nothing(folder.path());
    let other_flow = ["serve", "--listen", "127.0.0.1:0", "--flow", "orchestration"];
    let refused = shop(folder.path(), &other_flow);
    assert_eq!(refused.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&refused.stderr);
    assert!(errors.contains("runs in choreography: of its 40 orders 0 are open"), "{errors}");
    let ledger = folder.path().join("data/ledger.jsonl");
    let kept = std::fs::read_to_string(&ledger).unwrap();
    let charge = kept.lines().position(|line| line.starts_with(r#"{"kind":"charge""#)).unwrap();
    let mut lines: Vec<_> = kept.lines().collect();
    lines.remove(charge);
    std::fs::write(&ledger, lines.join("\n") + "\n").unwrap();
    let audit = shop(folder.path(), &["verify"]);
    assert_eq!(audit.status.code(), Some(1));
    let table = String::from_utf8_lossy(&audit.stdout);
    assert!(table.contains("✗ BROKEN: charged − refunded = completed orders"), "{table}");
}

/// History through the code of today, with stand-ins for the gateway and the mailboxes.
fn replay_differs_in_nothing(folder: &Path) {
    for consumer in ["payment", "email/email"] {
        let replay = shop(folder, &["replay", "--consumer", consumer, "--diff", "--json"]);
        let told = String::from_utf8_lossy(&replay.stdout);
        assert!(replay.status.success(), "{consumer}: {told}");
        let replayed: Value = serde_json::from_slice(&replay.stdout).unwrap();
        assert!(replayed["handled"].as_u64().unwrap() >= 30, "{consumer}: {told}");
    }
    let replay = shop(folder, &["replay", "--consumer", "payment", "--diff", "--key", "nobody"]);
    let table = String::from_utf8_lossy(&replay.stdout);
    assert!(table.contains("0 messages") && table.contains("✓ nothing"), "{table}");
}

#[test]
fn a_customer_that_fails_blocks_its_own_orders_until_it_is_mended() {
    let folder = tempfile::tempdir().unwrap();
    let demo = ["demo", "--orders", "30", "--customers", "5", "--fail-customer", "2", "--json"];
    let shown = shop(folder.path(), &demo);
    assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    let blocked = shown["blocked"].as_u64().unwrap();
    assert!(blocked > 0 && shown["dead"] == blocked, "{shown}");
    let mended = shop(folder.path(), &[&demo[..], &["--mend"]].concat());
    assert!(mended.status.success(), "{}", String::from_utf8_lossy(&mended.stderr));
    let mended: Value = serde_json::from_slice(&mended.stdout).unwrap();
    assert_eq!((&mended["orders"], &mended["dead"]), (&30.into(), &0.into()), "{mended}");
}

#[test]
fn a_wrong_command_line_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let wrong = shop(folder.path(), &["serve", "--services", "payments"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("payment"));
    let nowhere = shop(folder.path(), &["verify", "--database", "mysql:shop"]);
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("sqlite:FILE"));
}
