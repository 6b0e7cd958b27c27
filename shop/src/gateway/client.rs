//! The way to the gateway: says once what each answer means, so that handlers just `?`.

use super::{ChargeRequest, Entry, Faults, IDEMPOTENCY_KEY, RefundRequest, Reply};
use crate::events::ChargePayment;
use reqwest::{Client, RequestBuilder, StatusCode};
use serde::{Serialize, de::DeserializeOwned};
use sillage::prelude::*;
use std::time::Duration;
use uuid::Uuid;

/// What dead letters and breakers call it.
const GATEWAY: &str = "gateway";
/// How long a connection may take.
const CONNECT: Duration = secs(1);
/// How long an answer may take. Then nobody knows whether the money moved, and the key does no
/// harm when it is asked again.
const ANSWER: Duration = secs(5);

/// The way to the gateway. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Gateway {
    http: Client,
    url: String,
}

/// What became of a charge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Charge {
    /// The money is ours.
    Accepted {
        /// What the gateway calls the payment.
        payment_id: String,
    },
    /// It is not: a fact of business, not a failure.
    Declined {
        /// Why: `card_declined`.
        code: String,
    },
}

impl Gateway {
    /// The gateway at this address: `http://127.0.0.1:9000`.
    pub fn at(url: &str) -> reqwest::Result<Self> {
        let http = Client::builder().connect_timeout(CONNECT).timeout(ANSWER).build()?;
        Ok(Gateway { http, url: url.trim_end_matches('/').to_owned() })
    }

    /// Takes the money; under one key it is taken once.
    pub async fn charge(&self, command: &ChargePayment, key: Uuid) -> Result<Charge, Failure> {
        let ChargePayment { order_id, customer_id, card, amount } = command.clone();
        let request = ChargeRequest { order_id, customer_id, card, amount };
        match self.ask("charges", key, &request).await? {
            Reply::Accepted { payment_id } => Ok(Charge::Accepted { payment_id }),
            Reply::Declined { code } => Ok(Charge::Declined { code }),
            other => Err(unexpected("a charge", &other)),
        }
    }

    /// Pays all of a payment back, once, whatever the key.
    pub async fn refund(&self, payment_id: &str, key: Uuid) -> Result<(), Failure> {
        let request = RefundRequest { payment_id: payment_id.to_owned() };
        match self.ask("refunds", key, &request).await? {
            Reply::Refunded => Ok(()),
            other => Err(unexpected("a refund", &other)),
        }
    }

    /// Every movement of money, for audits.
    pub async fn ledger(&self) -> Result<Vec<Entry>, Failure> {
        self.read(self.http.get(format!("{}/ledger", self.url))).await
    }

    /// Makes the gateway misbehave, for demonstrations.
    pub async fn misbehave(&self, faults: &Faults) -> Result<Faults, Failure> {
        self.read(self.http.post(format!("{}/faults", self.url)).json(faults)).await
    }

    async fn ask(&self, what: &str, key: Uuid, body: &impl Serialize) -> Result<Reply, Failure> {
        let request = self.http.post(format!("{}/{what}", self.url)).json(body);
        self.read(request.header(IDEMPOTENCY_KEY, key.to_string())).await
    }

    /// Whatever may be better later is `unavailable`: no answer, a broken one, one that says that
    /// the gateway is in trouble. What it calls our fault is its answer.
    async fn read<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Failure> {
        let response = request.send().await.or_unavailable(GATEWAY)?;
        let status = response.status();
        let body = response.bytes().await.or_unavailable(GATEWAY)?;
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            let body = String::from_utf8_lossy(&body).into_owned();
            return Err(Failure::unavailable(GATEWAY, format!("{status}: {body}")));
        }
        serde_json::from_slice(&body).map_err(|error| {
            let body = String::from_utf8_lossy(&body);
            Failure::permanent(format!("the gateway answered {status}: {body} ({error})"))
        })
    }
}

fn unexpected(what: &str, reply: &Reply) -> Failure {
    match reply {
        Reply::Refused { detail } => {
            Failure::permanent(format!("the gateway refused {what}: {detail}"))
        }
        other => Failure::permanent(format!("the gateway answered {what} with {other:?}")),
    }
}
