//! Sends letters: into a folder of `.eml` files, or to an SMTP server.
//!
//! *Guarantees.* A letter has the same bytes and the same Message-ID whenever it is sent again. In
//! a folder it is one file, whatever crashes. By SMTP it may come twice, if the server or this
//! process dies between the server taking the letter and its answer arriving: the protocol has no
//! remedy, but the Message-ID lets the reader's mail program drop the second.

use crate::ids::OrderId;
use lettre::{
    Address, AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    message::{
        Mailbox,
        header::{ContentType, Header, HeaderName, HeaderValue},
    },
    transport::smtp::authentication::Credentials,
};
use reqwest::Url;
use sillage::prelude::*;
use std::{
    error::Error,
    fmt,
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};
use uuid::Uuid;

/// How long an SMTP server may take to answer.
const PATIENCE: Duration = secs(10);
/// The scheme of its URL, and what dead letters and breakers call it.
const SMTP: &str = "smtp";

/// A letter to a customer.
#[derive(Clone, Debug, PartialEq)]
pub struct Letter {
    /// Names the letter: the same whenever it is sent again.
    pub key: Uuid,
    /// What it is about.
    pub order_id: OrderId,
    /// What the reader is called.
    pub name: String,
    /// Where it goes.
    pub email: String,
    /// The subject.
    pub subject: String,
    /// The text.
    pub text: String,
    /// When what it tells happened.
    pub time: Timestamp,
}

/// Why a text is no SMTP server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoServer(String);

impl fmt::Display for NoServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no SMTP server: expected `smtp://localhost:25`", self.0)
    }
}

impl Error for NoServer {}

/// Sends letters.
#[derive(Clone)]
pub struct Mailer(Arc<Way>);

enum Way {
    Folder(PathBuf),
    Smtp(AsyncSmtpTransport<Tokio1Executor>),
}

impl Mailer {
    /// Each letter becomes a file in this folder, which is made if it is missing.
    pub fn folder(folder: impl Into<PathBuf>) -> io::Result<Self> {
        let folder = folder.into();
        std::fs::create_dir_all(&folder)?;
        Ok(Mailer(Arc::new(Way::Folder(folder))))
    }

    /// Each letter goes to this server: `smtp://user:password@localhost:25`. Spoken unencrypted, as
    /// to a relay on the same host.
    pub fn smtp(url: &str) -> Result<Self, NoServer> {
        let no_server = || NoServer(url.to_owned());
        let url: Url = url.parse().map_err(|_| no_server())?;
        let host = url.host_str().filter(|_| url.scheme() == SMTP).ok_or_else(no_server)?;
        let mut server = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host)
            .port(url.port().unwrap_or(25))
            .timeout(Some(PATIENCE));
        if let Some(password) = url.password() {
            let user = url.username().to_owned();
            server = server.credentials(Credentials::new(user, password.to_owned()));
        }
        Ok(Mailer(Arc::new(Way::Smtp(server.build()))))
    }

    /// Sends it. A server that is down spends no attempt; an address that it refuses for good is a
    /// permanent failure.
    pub async fn send(&self, letter: &Letter) -> Result<(), Failure> {
        let message = letter.message().or_permanent()?;
        match &*self.0 {
            Way::Smtp(server) => match server.send(message).await {
                Ok(_) => Ok(()),
                Err(error) if error.is_permanent() => Err(Failure::permanent(error)),
                Err(error) if error.is_transient() => Err(Failure::transient(error)),
                Err(error) => Err(Failure::unavailable(SMTP, error)),
            },
            Way::Folder(folder) => {
                let (folder, key, bytes) = (folder.clone(), letter.key, message.formatted());
                Ok(tokio::task::spawn_blocking(move || store(&folder, key, &bytes)).await??)
            }
        }
    }
}

/// A crash leaves the whole letter or none under its name, and a second try the same one.
fn store(folder: &Path, key: Uuid, bytes: &[u8]) -> io::Result<()> {
    let unfinished = folder.join(format!(".{key}"));
    let mut file = std::fs::File::create(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    std::fs::rename(unfinished, folder.join(format!("{key}.eml")))
}

impl Letter {
    fn message(&self) -> Result<Message, Box<dyn Error + Send + Sync>> {
        let since = Duration::from_micros(u64::try_from(self.time.as_micros()).unwrap_or(0));
        let sender = Address::new("orders", "shop.example")?;
        Ok(Message::builder()
            .from(Mailbox::new(Some("The shop".into()), sender))
            .to(Mailbox::new(Some(self.name.clone()), self.email.parse()?))
            .subject(&*self.subject)
            .date(SystemTime::UNIX_EPOCH + since)
            .message_id(Some(format!("<{}@shop.example>", self.key)))
            .header(AboutOrder(self.order_id.to_string()))
            .header(ContentType::TEXT_PLAIN)
            .body(self.text.clone())?)
    }
}

/// The header that says which order a letter is about.
#[derive(Clone)]
struct AboutOrder(String);

impl AboutOrder {
    const NAME: &'static str = "X-Shop-Order";
}

impl Header for AboutOrder {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str(Self::NAME)
    }

    fn parse(text: &str) -> Result<Self, Box<dyn Error + Send + Sync>> {
        Ok(AboutOrder(text.to_owned()))
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), self.0.clone())
    }
}

/// Which orders the letters in a folder are about, one entry a letter.
pub fn letters_in(folder: &Path) -> io::Result<Vec<OrderId>> {
    let mut about = vec![];
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "eml") {
            continue;
        }
        let text = std::fs::read_to_string(&path)?;
        let header = text.lines().find_map(|line| line.strip_prefix(AboutOrder::NAME));
        let id = header.and_then(|rest| rest.trim_start_matches(':').trim().parse().ok());
        let no_order = || io::Error::other(format!("{}: about no order", path.display()));
        about.push(id.ok_or_else(no_order)?);
    }
    Ok(about)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter() -> Letter {
        Letter {
            key: Uuid::from_u128(7),
            order_id: OrderId::of_key("o"),
            name: "Ann Ahoy".into(),
            email: "ann@example.com".into(),
            subject: "Your order".into(),
            text: "Dear Ann,\nit is on its way.\n".into(),
            time: Timestamp::from_micros(1_700_000_000_000_000),
        }
    }

    #[tokio::test]
    async fn a_letter_sent_again_is_the_same_file() {
        let folder = tempfile::tempdir().unwrap();
        let mailer = Mailer::folder(folder.path()).unwrap();
        mailer.send(&letter()).await.unwrap();
        let path = folder.path().join("00000000-0000-0000-0000-000000000007.eml");
        let first = std::fs::read(&path).unwrap();
        mailer.send(&letter()).await.unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), first);
        assert_eq!(letters_in(folder.path()).unwrap(), [OrderId::of_key("o")]);
        let text = String::from_utf8(first).unwrap();
        assert!(text.contains("Message-ID: <00000000-0000-0000-0000-000000000007@shop.example>"));
        assert!(text.contains("Date: Tue, 14 Nov 2023 22:13:20 +0000"), "{text}");
    }

    #[tokio::test]
    async fn an_address_that_is_none_is_a_permanent_failure() {
        let folder = tempfile::tempdir().unwrap();
        let mailer = Mailer::folder(folder.path()).unwrap();
        let nowhere = Letter { email: "nowhere\r\nBcc: all@example.com".into(), ..letter() };
        let failure = mailer.send(&nowhere).await.unwrap_err();
        assert_eq!(failure.class, sillage::Class::Permanent);
    }
}
