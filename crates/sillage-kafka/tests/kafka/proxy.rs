//! Before Kafka: swallows what clients ask their group, so that they wait for an answer for ever.

use crate::support::within;
use sillage_testkit::servers;
use std::{
    collections::HashSet,
    io,
    sync::{Arc, Mutex},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf},
    sync::MutexGuard,
    task::JoinSet,
};

/// Kafka's numbers of requests.
pub(crate) const OFFSET_COMMIT: i16 = 8;
pub(crate) const JOIN_GROUP: i16 = 11;
pub(crate) const HEARTBEAT: i16 = 12;

/// There is one address that Kafka tells its clients to come to.
static PORT: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

pub(crate) struct Proxy {
    /// Kafka's URL, through here.
    pub(crate) url: String,
    state: Arc<Mutex<State>>,
    _listening: JoinSet<()>,
    _port: MutexGuard<'static, ()>,
}

#[derive(Default)]
struct State {
    /// The names of clients that have asked to be members.
    members: HashSet<String>,
    /// Of these clients, these requests come to nobody.
    swallowed: HashSet<(String, i16)>,
}

impl Proxy {
    /// `None`: the calling test is to be skipped.
    pub(crate) async fn start() -> Option<Proxy> {
        let url = servers::url("SILLAGE_TEST_KAFKA_PROXIED")?;
        let behind = servers::url("SILLAGE_TEST_KAFKA_BEHIND_PROXY")?;
        let port = PORT.lock().await;
        let listener = within(bind(url.trim_start_matches("kafka://"))).await;
        let state = Arc::<Mutex<State>>::default();
        let mut listening = JoinSet::new();
        let shared = state.clone();
        listening.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (behind, state) = (behind.clone(), shared.clone());
                connections.spawn(async move {
                    let server = TcpStream::connect(behind).await.unwrap();
                    let ((asked, mut answered), (mut from, mut to)) =
                        (client.into_split(), server.into_split());
                    tokio::select! {
                        _ = up(asked, &mut to, &state) => {}
                        _ = copy(&mut from, &mut answered) => {}
                    }
                });
            }
        });
        Some(Proxy { url, state, _listening: listening, _port: port })
    }

    /// Swallows these requests of all clients that have asked to be members until now.
    pub(crate) fn swallow(&self, requests: &[i16]) {
        let mut state = self.state.lock().unwrap();
        let State { members, swallowed } = &mut *state;
        for member in &*members {
            swallowed.extend(requests.iter().map(|request| (member.clone(), *request)));
        }
    }
}

/// As soon as the test before has let go of it.
async fn bind(address: &str) -> TcpListener {
    loop {
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                tokio::task::yield_now().await;
            }
            bound => return bound.unwrap(),
        }
    }
}

/// Each request begins with its length, its number, version and correlation, and who asks.
async fn up(
    mut client: OwnedReadHalf,
    server: &mut (impl tokio::io::AsyncWrite + Unpin),
    state: &Mutex<State>,
) -> io::Result<()> {
    loop {
        let length = client.read_u32().await?;
        let mut request = vec![0; usize::try_from(length).unwrap()];
        client.read_exact(&mut request).await?;
        let number = i16::from_be_bytes([request[0], request[1]]);
        let named = usize::from(u16::from_be_bytes([request[8], request[9]]));
        let name = String::from_utf8_lossy(&request[10..10 + named]).into_owned();
        let is_swallowed = {
            let mut state = state.lock().unwrap();
            if number == JOIN_GROUP {
                state.members.insert(name.clone());
            }
            state.swallowed.contains(&(name, number))
        };
        if !is_swallowed {
            server.write_u32(length).await?;
            server.write_all(&request).await?;
        }
    }
}
