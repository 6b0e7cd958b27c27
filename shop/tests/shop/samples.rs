//! Every version of every contract that was ever published can still be read: there is a sample of
//! each in `samples/`, named by what it is, and none of them may ever be changed.

use serde_json::Value;
use shop::{
    events::{
        CancelOrder, ChargePayment, CompleteOrder, CreateOrder, CustomerCreated, OrderCancelled,
        OrderCompleted, OrderCreated, OrderCreatedV1, OrderPaid, OrderRejected, OrderShipped,
        PaymentCompleted, PaymentDue, PaymentFailed, PaymentRefunded, PaymentReminded,
        RefundPayment, ReleaseStock, ReserveStock, ShipOrder, StockReleased, StockReserved,
        StockShort,
    },
    money::Money,
};
use sillage::Contract;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("samples")
}

fn file(name: &str, version: u32) -> String {
    format!("{name}.v{version}.json")
}

fn sample(name: &str, version: u32) -> Vec<u8> {
    let file = file(name, version);
    std::fs::read(folder().join(&file)).unwrap_or_else(|error| {
        panic!("{error}: add `shop/samples/{file}`, the body of a message of it")
    })
}

/// The sample of the present version is written as it is read. Those before it, and those under
/// names it had, are of the same fact, and are read as it.
fn check<C: Contract>(names: &mut Vec<String>) {
    let present: Value = serde_json::from_slice(&sample(C::NAME, C::VERSION)).unwrap();
    let aliases = C::ALIASES.iter().map(|(name, _)| *name);
    for name in aliases.chain([C::NAME]) {
        let is_there = |version: &u32| folder().join(file(name, *version)).exists();
        let versions: Vec<u32> = if name == C::NAME {
            (1..=C::VERSION).collect()
        } else {
            (1..=C::VERSION).filter(is_there).collect()
        };
        assert!(!versions.is_empty(), "add `shop/samples/{}`", file(name, 1));
        for version in versions {
            let read = C::read(version, &sample(name, version)).unwrap();
            assert_eq!(serde_json::to_value(&read).unwrap(), present, "{name} version {version}");
            assert!(read.key().is_some(), "{name} has no key");
            names.push(file(name, version));
        }
    }
}

/// What is declared where all contracts are: a contract that no test knows is missed.
fn declared() -> Vec<String> {
    let lines = include_str!("../../src/events.rs").lines().map(str::trim);
    let attributes =
        lines.filter(|line| line.starts_with("#[event(name") || line.starts_with("#[command(name"));
    let mut declared: Vec<_> = attributes
        .map(|line| {
            let name = line.split('"').nth(1).unwrap();
            let version = line.split("version = ").nth(1).map_or(1, |rest| {
                rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
            });
            file(name, version)
        })
        .collect();
    declared.sort();
    declared
}

#[test]
fn every_version_of_every_contract_has_a_sample_and_is_read() {
    let mut names = vec![];
    check::<CustomerCreated>(&mut names);
    check::<CreateOrder>(&mut names);
    check::<OrderCreated>(&mut names);
    check::<OrderRejected>(&mut names);
    check::<PaymentDue>(&mut names);
    check::<PaymentReminded>(&mut names);
    check::<CancelOrder>(&mut names);
    check::<CompleteOrder>(&mut names);
    check::<OrderPaid>(&mut names);
    check::<OrderCompleted>(&mut names);
    check::<OrderCancelled>(&mut names);
    check::<ChargePayment>(&mut names);
    check::<RefundPayment>(&mut names);
    check::<PaymentCompleted>(&mut names);
    check::<PaymentFailed>(&mut names);
    check::<PaymentRefunded>(&mut names);
    check::<ReserveStock>(&mut names);
    check::<ReleaseStock>(&mut names);
    check::<StockReserved>(&mut names);
    check::<StockShort>(&mut names);
    check::<StockReleased>(&mut names);
    check::<ShipOrder>(&mut names);
    check::<OrderShipped>(&mut names);
    names.sort();
    assert_eq!(declared(), names, "a contract that is not checked here, or the other way round");
    let file = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name();
    let files = std::fs::read_dir(folder()).unwrap().map(file);
    let mut files: Vec<_> = files.map(|name| name.to_string_lossy().into_owned()).collect();
    files.sort();
    assert_eq!(files, names, "a sample without a contract, or the other way round");
}

#[test]
fn an_order_of_version_1_is_read_to_the_cent() {
    let total = |euro: f64| {
        let old: OrderCreatedV1 = serde_json::from_slice(&sample("order.created", 1)).unwrap();
        OrderCreated::from(OrderCreatedV1 { total: euro, ..old }).total
    };
    assert_eq!(total(91.0), Money::cents(9_100));
    assert_eq!(total(0.29), Money::cents(29));
    assert_eq!(total(1.005), Money::cents(100));
    assert_eq!(total(1e300), Money::cents(1_000_000_000_000_000));
    let old = OrderCreated::read(1, &sample("order.created", 1)).unwrap();
    assert_eq!((old.items[0].product_id.as_str(), old.items[0].quantity), ("bell", 2));
}

#[test]
fn a_float_is_no_money_any_more() {
    let mut sample: Value = serde_json::from_slice(&sample("order.created", 2)).unwrap();
    sample["total"] = serde_json::json!(91.0);
    assert!(OrderCreated::read(2, sample.to_string().as_bytes()).is_err());
}
