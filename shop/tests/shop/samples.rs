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

fn sample(name: &str, version: u32) -> Vec<u8> {
    let path = folder().join(format!("{name}.v{version}.json"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The sample of the present version is written as it is read, and those before it are read.
fn check<C: Contract>(names: &mut Vec<String>) {
    for version in 1..=C::VERSION {
        let sample = sample(C::NAME, version);
        let read = C::read(version, &sample).unwrap();
        if version == C::VERSION {
            let sample: Value = serde_json::from_slice(&sample).unwrap();
            assert_eq!(serde_json::to_value(&read).unwrap(), sample, "{}", C::NAME);
        }
        assert!(read.key().is_some(), "{} has no key", C::NAME);
        names.push(format!("{}.v{version}.json", C::NAME));
    }
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
