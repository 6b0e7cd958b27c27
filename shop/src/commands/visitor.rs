//! A visitor: registers and orders over HTTP, and asks again until it is answered.

use crate::{customer::Customer, gateway::IDEMPOTENCY_KEY, http::Placed, sample::Sampler};
use anyhow::{Context as _, bail};
use reqwest::{Client, StatusCode};
use serde::{Serialize, de::DeserializeOwned};
use sillage::{Clock as _, SystemClock, ms, secs};
use std::{sync::Arc, time::Duration};
use tokio::{sync::Semaphore, task::JoinSet};

/// How long one request may take.
const ANSWER: Duration = secs(10);
/// How long to wait before asking again.
const PAUSE: Duration = ms(200);

/// A visitor of the shop at some address. Cheap to clone.
#[derive(Clone)]
pub(super) struct Visitor {
    http: Client,
    url: String,
    /// Where customers are registered.
    customers: String,
    patience: Duration,
    /// Between two orders.
    pace: Duration,
}

impl Visitor {
    /// One that asks again for as long as this.
    pub(super) fn of(url: &str, patience: Duration) -> anyhow::Result<Self> {
        let http = Client::builder().timeout(ANSWER).build()?;
        let url = url.trim_end_matches('/').to_owned();
        Ok(Visitor { http, customers: url.clone(), url, patience, pace: Duration::ZERO })
    }

    /// One that places at most so many orders a second.
    pub(super) fn at_most(self, rate: u32) -> Self {
        Visitor { pace: secs(1) / rate.max(1), ..self }
    }

    /// Registers customers at another address: their service runs in a process of its own.
    pub(super) fn registering_at(self, url: &str) -> Self {
        Visitor { customers: url.trim_end_matches('/').to_owned(), ..self }
    }

    /// Registers the `n`th sample customer.
    pub(super) async fn register(&self, sampler: &Sampler, n: u64) -> anyhow::Result<Customer> {
        let key = sampler.customer_key(n);
        self.post(format!("{}/customers", self.customers), &key, &sampler.customer(n)).await
    }

    /// Places the `n`th sample order.
    pub(super) async fn order(&self, sampler: &Sampler, n: u64) -> anyhow::Result<Placed> {
        self.post(format!("{}/orders", self.url), &sampler.order_key(n), &sampler.order(n)).await
    }

    /// Registers all customers and places orders, so many at once; `placed` is told of each.
    pub(super) async fn visit(
        &self,
        sampler: Sampler,
        orders: u64,
        at_once: usize,
        placed: impl Fn(u64),
    ) -> anyhow::Result<()> {
        let register =
            |visitor: Visitor, n| async move { visitor.register(&sampler, n).await.map(|_| ()) };
        self.each(sampler.customers, at_once, register, |_| {}).await?;
        let order =
            |visitor: Visitor, n| async move { visitor.order(&sampler, n).await.map(|_| ()) };
        self.each(orders, at_once, order, placed).await
    }

    async fn each<F>(
        &self,
        count: u64,
        at_once: usize,
        ask: impl Fn(Visitor, u64) -> F,
        done: impl Fn(u64),
    ) -> anyhow::Result<()>
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let (slots, mut tasks, mut finished) =
            (Arc::new(Semaphore::new(at_once)), JoinSet::new(), 0);
        let mut due = SystemClock.elapsed();
        for n in 0..count {
            let slot = slots.clone().acquire_owned().await?;
            SystemClock.sleep(due.saturating_sub(SystemClock.elapsed())).await;
            // A timer that is late delays no more than one; what had to wait longer is not made up for.
            due = (due + self.pace).max(SystemClock.elapsed());
            let asking = ask(self.clone(), n);
            tasks.spawn(async move {
                let _slot = slot;
                asking.await
            });
            while let Some(ended) = tasks.try_join_next() {
                ended??;
                finished += 1;
                done(finished);
            }
        }
        while let Some(ended) = tasks.join_next().await {
            ended??;
            finished += 1;
            done(finished);
        }
        Ok(())
    }

    /// Asks until there is an answer: whatever became of the request before, the key makes asking
    /// again harmless.
    async fn post<T: DeserializeOwned>(
        &self,
        url: String,
        key: &str,
        body: &impl Serialize,
    ) -> anyhow::Result<T> {
        let until = SystemClock.elapsed() + self.patience;
        loop {
            let request = self.http.post(&url).header(IDEMPOTENCY_KEY, key).json(body);
            match answer(request).await? {
                Ok(answer) => return Ok(answer),
                Err(why) if SystemClock.elapsed() >= until => {
                    bail!("no answer from {url} within {} s: {why}", self.patience.as_secs());
                }
                Err(_) => SystemClock.sleep(PAUSE).await,
            }
        }
    }
}

/// The answer; inside, why there may be one later; outside, why there never will.
async fn answer<T: DeserializeOwned>(
    request: reqwest::RequestBuilder,
) -> anyhow::Result<Result<T, String>> {
    let received = async {
        let response = request.send().await?;
        Ok::<_, reqwest::Error>((response.status(), response.bytes().await?))
    };
    let (status, body) = match received.await {
        Ok(received) => received,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let text = String::from_utf8_lossy(&body);
    match status {
        StatusCode::CREATED | StatusCode::ACCEPTED => {
            serde_json::from_slice(&body).map(Ok).with_context(|| format!("answered `{text}`"))
        }
        status if status.is_server_error() => Ok(Err(format!("{status}: {text}"))),
        status => bail!("answered {status}: {text}"),
    }
}
