//! The gateway over a real socket, in health and with every fault.

use shop::{
    events::ChargePayment,
    gateway::{Charge, Entry, Faults, Gateway, GatewayState, Ledger, read_ledger, serve},
    ids::OrderId,
    money::{Card, Money},
};
use sillage::Class;
use std::path::PathBuf;
use tempfile::TempDir;
use tokio::net::TcpListener;
use uuid::Uuid;

struct Bank {
    gateway: Gateway,
    url: String,
    folder: TempDir,
}

impl Bank {
    async fn open() -> Bank {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&folder.path().join("ledger.jsonl")).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(serve(listener, GatewayState::new(ledger), std::future::pending()));
        Bank { gateway: Gateway::at(&url).unwrap(), url, folder }
    }

    async fn faults(&self, faults: Faults) {
        self.gateway.misbehave(&faults).await.unwrap();
    }

    async fn charge(&self, card: Card) -> Result<Charge, Class> {
        let charged = self.gateway.charge(&charge(card), Uuid::from_u128(1)).await;
        charged.map_err(|failure| failure.class)
    }

    fn ledger(&self) -> PathBuf {
        self.folder.path().join("ledger.jsonl")
    }
}

fn charge(card: Card) -> ChargePayment {
    let (order_id, customer_id) = (OrderId::of_key("o"), "ann".parse().unwrap());
    ChargePayment { order_id, customer_id, card, amount: Money::cents(500) }
}

fn unavailable() -> Class {
    Class::Unavailable("gateway".into())
}

#[tokio::test]
async fn money_is_taken_and_paid_back_once() {
    let bank = Bank::open().await;
    let Charge::Accepted { payment_id } = bank.charge(Card::accepted()).await.unwrap() else {
        panic!("declined");
    };
    assert_eq!(
        bank.charge(Card::accepted()).await.unwrap(),
        Charge::Accepted { payment_id: payment_id.clone() }
    );
    for key in 2..4 {
        bank.gateway.refund(&payment_id, Uuid::from_u128(key)).await.unwrap();
    }
    let ledger = bank.gateway.ledger().await.unwrap();
    assert!(matches!(&ledger[..], [Entry::Charge { .. }, Entry::Refund { .. }]), "{ledger:?}");
    assert_eq!(read_ledger(&bank.ledger()).unwrap(), ledger);
    let unknown = bank.gateway.refund("pay_0", Uuid::from_u128(9)).await.unwrap_err();
    assert_eq!(unknown.class, Class::Permanent);
}

#[tokio::test]
async fn a_declined_card_is_an_answer() {
    let bank = Bank::open().await;
    let declined = Charge::Declined { code: "card_declined".into() };
    assert_eq!(bank.charge(Card::declined()).await.unwrap(), declined);
}

#[tokio::test]
async fn a_gateway_that_is_down_or_gone_is_unavailable() {
    let bank = Bank::open().await;
    bank.faults(Faults { down: true, ..Faults::default() }).await;
    assert_eq!(bank.charge(Card::accepted()).await, Err(unavailable()));
    bank.faults(Faults::default()).await;
    assert!(bank.charge(Card::accepted()).await.is_ok());
    let nobody = Gateway::at("http://127.0.0.1:1").unwrap();
    let failure = nobody.charge(&charge(Card::accepted()), Uuid::from_u128(1)).await.unwrap_err();
    assert_eq!(failure.class, unavailable());
}

/// The worst answer: none, after the money has moved. The key makes asking again harmless.
#[tokio::test]
async fn an_error_after_the_money_moved_takes_it_once() {
    let bank = Bank::open().await;
    bank.faults(Faults { error_share: 1.0, ..Faults::default() }).await;
    for _ in 0..100 {
        assert_eq!(bank.charge(Card::accepted()).await, Err(unavailable()));
        if !read_ledger(&bank.ledger()).unwrap().is_empty() {
            break;
        }
    }
    bank.faults(Faults::default()).await;
    assert!(bank.charge(Card::accepted()).await.is_ok());
    assert_eq!(read_ledger(&bank.ledger()).unwrap().len(), 1);
}

#[tokio::test]
async fn a_customer_can_be_made_to_fail() {
    let bank = Bank::open().await;
    let fail_customer = Some("ann".parse().unwrap());
    bank.faults(Faults { fail_customer, ..Faults::default() }).await;
    assert_eq!(bank.charge(Card::accepted()).await, Err(Class::Permanent));
    assert!(read_ledger(&bank.ledger()).unwrap().is_empty());
}

#[tokio::test]
async fn a_charge_without_a_key_is_refused() {
    let bank = Bank::open().await;
    let request = reqwest::Client::new().post(format!("{}/charges", bank.url));
    let body = serde_json::to_value(charge(Card::accepted())).unwrap();
    assert_eq!(request.json(&body).send().await.unwrap().status(), 400);
    assert!(bank.gateway.ledger().await.unwrap().is_empty());
}
