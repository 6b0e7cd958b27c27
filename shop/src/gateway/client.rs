//! The way to the gateway: says once what each answer means, so that handlers just `?`.

use super::{Book, ChargeRequest, Entry, Faults, IDEMPOTENCY_KEY, RefundRequest, Reply};
use crate::events::ChargePayment;
use reqwest::{Client, RequestBuilder, StatusCode};
use serde::{Serialize, de::DeserializeOwned};
use sillage::prelude::*;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use uuid::Uuid;

/// What dead letters and breakers call it.
const GATEWAY: &str = "gateway";
/// How long a connection may take.
const CONNECT: Duration = secs(1);
/// How long an answer may take. Then nobody knows whether the money moved, and the key does no
/// harm when it is asked again.
const ANSWER: Duration = secs(5);

/// The way to the gateway. Cheap to clone.
#[derive(Clone)]
pub struct Gateway(Arc<Way>);

enum Way {
    Http { http: Client, url: String },
    Here(Mutex<(Book, Faults)>),
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
        let url = url.trim_end_matches('/').to_owned();
        Ok(Gateway(Arc::new(Way::Http { http, url })))
    }

    /// One without a network, in memory, with the same book: for tests, whose time is virtual.
    pub fn in_memory() -> Self {
        Gateway(Arc::new(Way::Here(Mutex::default())))
    }

    /// Takes the money; under one key it is taken once.
    pub async fn charge(&self, command: &ChargePayment, key: Uuid) -> Result<Charge, Failure> {
        let ChargePayment { order_id, customer_id, card, amount } = command.clone();
        let request = ChargeRequest { order_id, customer_id, card, amount };
        match self.ask(key, Ask::Charge(request)).await? {
            Reply::Accepted { payment_id } => Ok(Charge::Accepted { payment_id }),
            Reply::Declined { code } => Ok(Charge::Declined { code }),
            other => Err(unexpected("a charge", &other)),
        }
    }

    /// Pays all of a payment back, once, whatever the key.
    pub async fn refund(&self, payment_id: &str, key: Uuid) -> Result<(), Failure> {
        let request = RefundRequest { payment_id: payment_id.to_owned() };
        match self.ask(key, Ask::Refund(request)).await? {
            Reply::Refunded => Ok(()),
            other => Err(unexpected("a refund", &other)),
        }
    }

    /// Every movement of money, for audits.
    pub async fn ledger(&self) -> Result<Vec<Entry>, Failure> {
        match &*self.0 {
            Way::Http { http, url } => read(http.get(format!("{url}/ledger"))).await,
            Way::Here(here) => Ok(locked(here).0.entries().to_vec()),
        }
    }

    /// Makes the gateway misbehave, for demonstrations.
    pub async fn misbehave(&self, faults: &Faults) -> Result<(), Failure> {
        match &*self.0 {
            Way::Http { http, url } => {
                let set = http.post(format!("{url}/faults")).json(faults);
                read::<Faults>(set).await.map(|_| ())
            }
            Way::Here(here) => {
                locked(here).1 = faults.clone();
                Ok(())
            }
        }
    }

    async fn ask(&self, key: Uuid, ask: Ask) -> Result<Reply, Failure> {
        match (&*self.0, ask) {
            (Way::Http { http, url }, Ask::Charge(request)) => {
                post(http, format!("{url}/charges"), key, &request).await
            }
            (Way::Http { http, url }, Ask::Refund(request)) => {
                post(http, format!("{url}/refunds"), key, &request).await
            }
            (Way::Here(here), ask) => answer_here(&mut locked(here), key, &ask),
        }
    }
}

enum Ask {
    Charge(ChargeRequest),
    Refund(RefundRequest),
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn answer_here(here: &mut (Book, Faults), key: Uuid, ask: &Ask) -> Result<Reply, Failure> {
    let (book, faults) = here;
    if faults.down {
        return Err(Failure::unavailable(GATEWAY, "the gateway is down"));
    }
    let (reply, entry) = match ask {
        Ask::Charge(request) => book.charge(key, request, faults),
        Ask::Refund(request) => book.refund(key, request),
    };
    if let Some(entry) = entry {
        book.apply(entry);
    }
    Ok(reply)
}

async fn post<T: DeserializeOwned>(
    http: &Client,
    url: String,
    key: Uuid,
    body: &impl Serialize,
) -> Result<T, Failure> {
    read(http.post(url).header(IDEMPOTENCY_KEY, key.to_string()).json(body)).await
}

/// Whatever may be better later is `unavailable`: no answer, a broken one, one that says that the
/// gateway is in trouble. What it calls our fault is its answer.
async fn read<T: DeserializeOwned>(request: RequestBuilder) -> Result<T, Failure> {
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

fn unexpected(what: &str, reply: &Reply) -> Failure {
    match reply {
        Reply::Refused { detail } => {
            Failure::permanent(format!("the gateway refused {what}: {detail}"))
        }
        other => Failure::permanent(format!("the gateway answered {what} with {other:?}")),
    }
}
