//! Mail to a server that speaks just enough SMTP, and to one that breaks off.

use crate::world::World;
use shop::{
    customer::{self, Customer, register},
    email::{self, Mailer},
    events::OrderCompleted,
    ids::OrderId,
    money::Money,
};
use sillage::{App, Clock, Service, SystemClock, ms, publish, secs};
use sillage_testkit::Memory;
use std::sync::{Arc, Mutex};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
};

/// A server that keeps what it gets. After the text of the first `breaks` mails, which it has
/// taken, it closes instead of saying so.
struct Server {
    url: String,
    mails: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start(breaks: usize) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("smtp://{}", listener.local_addr().unwrap());
        let mails = Arc::new(Mutex::default());
        let kept = mails.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(speak(stream, breaks, kept.clone()));
            }
        });
        Server { url, mails }
    }

    fn mails(&self) -> Vec<String> {
        self.mails.lock().unwrap().clone()
    }
}

async fn speak(
    stream: TcpStream,
    breaks: usize,
    mails: Arc<Mutex<Vec<String>>>,
) -> std::io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut lines = BufReader::new(reader).lines();
    writer.write_all(b"220 test\r\n").await?;
    while let Some(line) = lines.next_line().await? {
        if line == "DATA" {
            writer.write_all(b"354 go on\r\n").await?;
            let mut mail = String::new();
            while let Some(line) = lines.next_line().await?.filter(|line| line != ".") {
                mail = mail + &line + "\n";
            }
            let count = {
                let mut mails = mails.lock().unwrap();
                mails.push(mail);
                mails.len()
            };
            if count <= breaks {
                return Ok(());
            }
        }
        let reply: &[u8] = if line == "QUIT" { b"221 bye\r\n" } else { b"250 ok\r\n" };
        writer.write_all(reply).await?;
    }
    Ok(())
}

fn message_id(mail: &str) -> &str {
    mail.lines().find(|line| line.starts_with("Message-ID:")).unwrap()
}

/// One completed order, told to the email service; returns once the server has so many mails and
/// the delivery is done.
async fn complete_one_order(server: &Server, mails: usize) {
    let database = Arc::new(Memory::new(Arc::new(SystemClock)));
    let running = App::new(database)
        .service(customer::service())
        .service(Service::new("order"))
        .service(email::service(Mailer::smtp(&server.url).unwrap()))
        .start()
        .await
        .unwrap();
    let (name, email) = ("Ann Ahoy".to_owned(), "ann@example.com".to_owned());
    let customer = Customer { customer_id: World::customer(), name, email };
    running.service("customer").commit(register(customer)).await.unwrap();
    let order_id = OrderId::of_key("o");
    let (customer_id, total) = (World::customer(), Money::cents(9_100));
    let completed = OrderCompleted { order_id, customer_id, total };
    running.service("order").commit(publish(completed)).await.unwrap();
    let end = SystemClock.elapsed() + secs(20);
    while server.mails().len() < mails {
        assert!(SystemClock.elapsed() < end, "{:?} {:?}", server.mails(), running.health());
        SystemClock.sleep(ms(10)).await;
    }
    running.drain().await;
}

#[tokio::test]
async fn a_mail_arrives_once_with_everything_in_it() {
    let server = Server::start(0).await;
    complete_one_order(&server, 1).await;
    let mails = server.mails();
    assert_eq!(mails.len(), 1);
    let order = format!("X-Shop-Order: {}", OrderId::of_key("o"));
    for line in ["Subject: Your order is on its way", "\"Ann Ahoy\" <ann@example.com>", &order] {
        assert!(mails[0].contains(line), "no `{line}` in {}", mails[0]);
    }
}

#[tokio::test]
async fn a_server_that_breaks_off_after_the_text_gets_at_most_one_duplicate_of_the_same_id() {
    let server = Server::start(1).await;
    complete_one_order(&server, 2).await;
    let mails = server.mails();
    assert_eq!(mails.len(), 2);
    assert_eq!(message_id(&mails[0]), message_id(&mails[1]));
    assert_eq!(mails[0], mails[1]);
}
