//! Following topics of a broker outside the database.

use super::{
    From, Place, Tail, Wanted,
    last::Last,
    reader::{Age, Reader, Step},
};
use crate::{
    commands::topics::{no_topic, outside},
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
        let topics = self.topics(broker, session).await?;
        if self.topic.is_empty() {
            let names: Vec<_> = topics.iter().map(|topic| &*topic.name).collect();
            session.out.note(format!("topics: {}", names.join(", ")));
        }
        self.begin(&format!("{:<26}", "PLACE"), session)?;
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

    /// Those named, or all.
    async fn topics(&self, broker: &dyn Broker, session: &Session) -> Result<Vec<TopicStatus>> {
        let name = broker.capabilities().name;
        if self.topic.is_empty() {
            let all = outside::all(broker, session).await?;
            let next = "name those to follow: `sillage tail TOPIC…`";
            let none = || Refusal::new(Exit::NotFound, format!("{name} tells of no topics"), next);
            return if all.is_empty() { Err(none().into()) } else { Ok(all) };
        }
        let topics = broker.topics(&self.topic).await?;
        let is_there = |wanted: &&Text| topics.iter().any(|topic| topic.name == **wanted);
        match self.topic.iter().find(|wanted| !is_there(wanted)) {
            None => Ok(topics),
            Some(missing) => Err(no_topic(name, missing).into()),
        }
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
