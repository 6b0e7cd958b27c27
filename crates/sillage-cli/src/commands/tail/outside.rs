//! Following topics of a broker outside the database.

use super::{
    From, Place, Tail, Wanted,
    last::Last,
    reader::{Age, Reader, Step},
};
use crate::{
    failure::{Exit, Refusal},
    session::Session,
};
use anyhow::Result;
use sillage::{
    Broker, Clock as _, Delivery, Partition, Start, SystemClock, Text, Timestamp, TopicStatus,
};

impl Tail {
    pub(super) async fn outside(&self, broker: &dyn Broker, session: &mut Session) -> Result<()> {
        if self.all {
            let next = "leave it out, or follow the log with `--broker embedded`";
            return Err(Refusal::usage("`--all` is about the log, not a broker", next).into());
        }
        let from = self.from();
        let now = SystemClock.now();
        let start = start(from, now)?;
        let wanted = Wanted { tail: self, times: from.times(now) };
        let until = self.until_end || wanted.times.1.is_some();
        let topics = topics(broker, &self.topic).await?;
        if self.topic.is_empty() {
            let names: Vec<_> = topics.iter().map(|topic| &*topic.name).collect();
            session.out.note(format!("topics: {}", names.join(", ")));
        }
        self.begin("PLACE", session)?;
        if until && start == Start::Latest {
            return Ok(());
        }
        let shown = Shown {
            wanted,
            until,
            offsets: broker.capabilities().offsets,
            last: if let From::Last(count) = from { Some(Last::new(count)) } else { None },
            left: self.limit.unwrap_or(usize::MAX),
        };
        let mut reader = Reader::start(broker, &topics, start).await?;
        let ended = shown.follow(&mut reader, session).await;
        reader.close().await;
        ended
    }
}

fn start(from: From, now: Timestamp) -> Result<Start, Refusal> {
    match from {
        From::Start => Ok(Start::Earliest),
        From::End => Ok(Start::Latest),
        From::Last(count) => Ok(Start::Last(count as u64)),
        From::Time(since, _) => Ok(Start::Since(since.at(now))),
        From::At(position) => Err(Refusal::usage(
            format!("`--from {position}` is a position of the log, and a broker has partitions"),
            "say `start`, `end`, `-N` or `@-10m`; `--broker embedded` follows the log",
        )),
    }
}

/// Those named, or all.
async fn topics(broker: &dyn Broker, named: &[Text]) -> Result<Vec<TopicStatus>> {
    let topics = broker.topics(named).await?;
    let missing = named.iter().find(|name| !topics.iter().any(|topic| topic.name == **name));
    let broker = broker.capabilities().name;
    let what = match missing {
        Some(name) => format!("{broker} has no topic `{name}`"),
        None if topics.is_empty() => format!("{broker} has no topics"),
        None => return Ok(topics),
    };
    let next = "`sillage topics list` shows them, `sillage topics create NAME` makes one";
    Err(Refusal::new(Exit::NotFound, what, next).into())
}

/// What is shown, and how much of it.
struct Shown<'t> {
    wanted: Wanted<'t>,
    /// To the end as it was.
    until: bool,
    /// The broker has offsets that rise.
    offsets: bool,
    /// Not yet shown: only the last of them will be.
    last: Option<Last>,
    left: usize,
}

impl Shown<'_> {
    async fn follow(mut self, reader: &mut Reader, session: &mut Session) -> Result<()> {
        while self.left > 0 {
            let step = if let Some(step) = reader.ready() {
                step
            } else {
                session.out.flush()?;
                reader.next().await?
            };
            match step {
                Step::Message(_, _, Age::New) if self.until => {}
                Step::Message(partition, delivery, _) => {
                    if !self.wanted.takes(&delivery.message) {
                        continue;
                    }
                    match &mut self.last {
                        Some(last) => last.keep(partition, delivery),
                        None => self.show(partition, &delivery, session)?,
                    }
                }
                Step::CaughtUp(unread) => {
                    for (partition, delivery) in self.last.take().into_iter().flat_map(Last::take) {
                        self.show(partition, &delivery, session)?;
                    }
                    for partition in unread.iter().filter(|_| self.until) {
                        session.out.note(format!("{partition} brought nothing more for 3s"));
                    }
                    if self.until {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    fn show(
        &mut self,
        partition: Partition,
        delivery: &Delivery,
        session: &mut Session,
    ) -> Result<()> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(()) };
        self.left = left;
        let offset = self.offsets.then_some(delivery.offset);
        let place = Place::Broker(partition, offset);
        self.wanted.tail.show(&place, &delivery.message, session)
    }
}
