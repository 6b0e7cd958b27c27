//! Between client and server: cuts connections, and refuses new ones.
#![allow(dead_code)] // each test program uses a part of it

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinSet,
};

pub(crate) struct Proxy {
    /// The server's URL, through here.
    pub(crate) url: String,
    refuses: Arc<AtomicBool>,
    knocked: Arc<Notify>,
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
            connections: Arc::default(),
            _listening: JoinSet::new(),
        };
        let (refuses, connections) = (proxy.refuses.clone(), proxy.connections.clone());
        let knocked = proxy.knocked.clone();
        let server = server.to_owned();
        let mut listening = JoinSet::new();
        listening.spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                if refuses.load(Ordering::SeqCst) {
                    knocked.notify_one();
                    continue;
                }
                let server = server.clone();
                connections.lock().unwrap().spawn(async move {
                    let mut server = TcpStream::connect(server).await.unwrap();
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Proxy { _listening: listening, ..proxy }
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
