//! Between client and server: cuts connections, refuses new ones, and says what a server says that is
//! short of memory.
#![allow(dead_code)] // each test program uses a part of it

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::Notify,
    task::JoinSet,
};

/// A frame of AMQP: `connection.blocked`, for no reason.
const BLOCKED: [u8; 13] = [1, 0, 0, 0, 0, 0, 5, 0, 10, 0, 60, 0, 0xce];

pub(crate) struct Proxy {
    /// The server's URL, through here.
    pub(crate) url: String,
    refuses: Arc<AtomicBool>,
    knocked: Arc<Notify>,
    blocks: Arc<Notify>,
    connections: Arc<Mutex<JoinSet<()>>>,
    _listening: JoinSet<()>,
}

impl Proxy {
    pub(crate) async fn start(url: &str) -> Proxy {
        let (before, address) = url.rsplit_once('@').unwrap();
        let (server, rest) = address.split_at(address.find('/').unwrap_or(address.len()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let proxy = Proxy {
            url: format!("{before}@127.0.0.1:{port}{rest}"),
            refuses: Arc::default(),
            knocked: Arc::default(),
            blocks: Arc::default(),
            connections: Arc::default(),
            _listening: JoinSet::new(),
        };
        let (refuses, connections) = (proxy.refuses.clone(), proxy.connections.clone());
        let (knocked, blocks) = (proxy.knocked.clone(), proxy.blocks.clone());
        let server = server.to_owned();
        let mut listening = JoinSet::new();
        listening.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if refuses.load(Ordering::SeqCst) {
                    knocked.notify_one();
                    continue;
                }
                let (server, blocks) = (server.clone(), blocks.clone());
                connections.lock().unwrap().spawn(async move {
                    let server = TcpStream::connect(server).await.unwrap();
                    let (client, server) = (client.into_split(), server.into_split());
                    let (mut up, mut to) = (client.0, server.1);
                    tokio::select! {
                        _ = copy(&mut up, &mut to) => {}
                        () = down(server.0, client.1, &blocks) => {}
                    }
                });
            }
        });
        Proxy { _listening: listening, ..proxy }
    }

    /// Says to all clients that nothing more is to be published. Nothing must be on its way.
    pub(crate) fn block(&self) {
        self.blocks.notify_waiters();
    }

    /// Ends all connections, without a word.
    pub(crate) fn cut(&self) {
        self.connections.lock().unwrap().abort_all();
    }

    /// Cuts all, and refuses the first who comes back.
    pub(crate) async fn cut_and_refuse(&self) {
        self.refuse(true);
        self.cut();
        self.knocked.notified().await;
        self.refuse(false);
    }

    /// Lets nobody in any more, or again.
    pub(crate) fn refuse(&self, refuses: bool) {
        self.refuses.store(refuses, Ordering::SeqCst);
    }
}

/// From the server to the client, and what it does not say between that.
async fn down(mut server: OwnedReadHalf, mut client: OwnedWriteHalf, blocks: &Notify) {
    let mut buffer = vec![0; 1 << 16];
    loop {
        let written = tokio::select! {
            () = blocks.notified() => client.write_all(&BLOCKED).await,
            read = server.read(&mut buffer) => match read {
                Ok(read) if read > 0 => client.write_all(&buffer[..read]).await,
                _ => return,
            },
        };
        if written.is_err() {
            return;
        }
    }
}
