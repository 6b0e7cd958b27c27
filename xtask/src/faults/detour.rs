//! A proxy between processes and their broker, which spoils what goes through it.

use crate::services::{self, Detour, Service};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How a connection is bad, in both directions.
#[derive(Clone, Copy, Debug)]
pub(super) enum Toxic {
    /// Everything is late, by 100 to 400 ms.
    Late,
    /// 100 KB a second.
    Slow,
    /// Nothing comes through any more, and no connection ends.
    BlackHole,
    /// Connections end in the middle of what they carry.
    Reset,
}

impl Toxic {
    fn attributes(self) -> (&'static str, Value) {
        match self {
            Toxic::Late => ("latency", json!({"latency": 250, "jitter": 150})),
            Toxic::Slow => ("bandwidth", json!({"rate": 100})),
            Toxic::BlackHole => ("timeout", json!({"timeout": 0})),
            Toxic::Reset => ("reset_peer", json!({"timeout": 0})),
        }
    }
}

/// The way to one broker.
pub(super) struct Proxy {
    name: &'static str,
    /// Where Toxiproxy is told what to do.
    api: String,
    /// The broker's, through here.
    pub(super) url: String,
}

impl Proxy {
    /// Makes it, in place of one that an earlier run left.
    pub(super) async fn to(broker: Service) -> Result<Self> {
        let api = services::up(&[Service::Toxiproxy])?.pop().context("no proxy")?.1;
        let api = api.trim_start_matches("http://").to_owned();
        let Detour { url, proxy, server } = broker.detour()?;
        let made = Proxy { name: broker.name(), api, url };
        made.ask("DELETE", "", None).await?;
        let body = json!({
            "name": made.name,
            "listen": format!("127.0.0.1:{proxy}"),
            "upstream": format!("127.0.0.1:{server}"),
        });
        made.must("POST", "/proxies", body).await?;
        Ok(made)
    }

    /// From now on connections are bad in this way.
    pub(super) async fn spoil(&self, toxic: Toxic) -> Result<()> {
        let (kind, attributes) = toxic.attributes();
        for stream in ["upstream", "downstream"] {
            let body = json!({
                "name": stream, "type": kind, "stream": stream, "attributes": attributes,
            });
            self.must("POST", &format!("/proxies/{}/toxics", self.name), body).await?;
        }
        Ok(())
    }

    /// Connections are good again.
    pub(super) async fn mend(&self) -> Result<()> {
        for stream in ["upstream", "downstream"] {
            self.ask("DELETE", &format!("/toxics/{stream}"), None).await?;
        }
        Ok(())
    }

    async fn must(&self, method: &str, path: &str, body: Value) -> Result<()> {
        let answer = self.request(method, path, Some(body)).await?;
        ensure!(answer.starts_with("HTTP/1.1 20"), "toxiproxy: {answer}");
        Ok(())
    }

    /// Of this proxy; what was not there is gone as well.
    async fn ask(&self, method: &str, below: &str, body: Option<Value>) -> Result<()> {
        let path = format!("/proxies/{}{below}", self.name);
        self.request(method, &path, body).await.map(drop)
    }

    async fn request(&self, method: &str, path: &str, body: Option<Value>) -> Result<String> {
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n\
             {body}",
            self.api,
            body.len()
        );
        let mut stream = TcpStream::connect(&self.api).await.context("toxiproxy")?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }
}
