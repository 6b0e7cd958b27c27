//! From effects to a commit: names, ids, correlation and conditions.
//!
//! Ids of effects are derived from the message that caused them, so that a handling which is run
//! again publishes the same ids; a commit from outside a consumer takes fresh ones, once.

use crate::names;
use rand::RngExt as _;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sillage_core::{
    Commit, Condition, Draft, Due, Effect, Effects, Expected, Failure, Key, Limits, Message,
    MessageId, Sort, Text, Timestamp, Write, to_json,
};
use std::{sync::Arc, time::Duration};

/// A timer as it is stored: its message is published when it is due.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Timer {
    pub(crate) token: String,
    pub(crate) message: Box<RawValue>,
}

/// Who produces the effects, and because of what.
pub(crate) struct Origin<'a> {
    pub(crate) service: &'a Text,
    pub(crate) now: Timestamp,
    pub(crate) cause: Option<Cause<'a>>,
}

/// The delivery that is handled.
pub(crate) struct Cause<'a> {
    pub(crate) message: &'a Message,
    pub(crate) consumer: &'a str,
}

impl Origin<'_> {
    /// The commit of these effects under these conditions. A permanent failure where a value
    /// cannot be written.
    pub(crate) fn commit(
        &self,
        effects: Effects,
        mut conditions: Vec<Condition>,
    ) -> Result<Commit, Failure> {
        let mut writes = Vec::with_capacity(effects.iter().len() + 1);
        for (ordinal, effect) in effects.into_iter().enumerate() {
            self.effect(effect, ordinal, &mut conditions, &mut writes)?;
        }
        Ok(Commit { conditions, writes })
    }

    fn effect(
        &self,
        effect: Effect,
        ordinal: usize,
        conditions: &mut Vec<Condition>,
        writes: &mut Vec<Write>,
    ) -> Result<(), Failure> {
        // Several events of one append have ordinals of their own.
        let ordinal = ordinal << 16;
        match effect {
            Effect::Publish(draft) | Effect::Send(draft) => {
                let message = self.message(draft, ordinal)?;
                writes.push(Write::Append { stream: None, message: Arc::new(message) });
            }
            Effect::Append { stream, expected, events } => {
                let stream = names::stream(self.service, &stream);
                expect(conditions, &stream, expected);
                for (index, draft) in events.into_iter().enumerate() {
                    let message = Arc::new(self.message(draft, ordinal + index)?);
                    writes.push(Write::Append { stream: Some(stream.clone()), message });
                }
            }
            Effect::Schedule { due, token, message } => {
                writes.push(self.timer(due, token, message, ordinal)?);
            }
            Effect::Cancel { token, key } => writes.push(self.cancel(&token, key)?),
            Effect::End => {
                return Err(Failure::permanent("`end()` outside a process manager: nothing ends"));
            }
            Effect::Put { collection, id, sort, body, blind } => {
                let collection = names::collection(self.service, collection);
                let id = Text::from(id);
                if !blind {
                    unless_read(conditions, &collection, &id);
                }
                let body = body.map_err(|error| unwritable(&collection, &error))?;
                let sort = sort.map(|sort| Sort::Text(sort.into()));
                writes.push(Write::Put { collection, id, sort, body });
            }
            Effect::Delete { collection, id } => {
                let collection = names::collection(self.service, collection);
                writes.push(Write::Delete { collection, id: id.into() });
            }
            Effect::Sql(statement) => writes.push(Write::Run(statement)),
            Effect::Record(message) => writes.push(Write::Append { stream: None, message }),
            other => {
                return Err(Failure::permanent(format!("effect {other:?} is not known here")));
            }
        }
        Ok(())
    }

    fn cancel(&self, token: &str, key: Option<Key>) -> Result<Write, Failure> {
        let of_cause = || self.cause.as_ref().map(|cause| cause.message.key.clone());
        let key = key.map(Some).or_else(of_cause).ok_or_else(|| {
            Failure::permanent(format!(
                "`cancel(\"{token}\")` outside a handler: no message names the timer's key"
            ))
        })?;
        let id = names::timer(self.service, key.as_ref(), token);
        Ok(Write::Delete { collection: names::TIMERS.into(), id })
    }

    fn timer(
        &self,
        due: Due,
        token: String,
        draft: Draft,
        ordinal: usize,
    ) -> Result<Write, Failure> {
        if draft.topic.is_none() {
            return Err(Failure::permanent(format!(
                "timer `{token}` would publish `{}`, which has no topic: nobody could handle it",
                draft.name
            )));
        }
        let id = names::timer(self.service, draft.key.as_ref(), &token);
        let message = self.message(draft, ordinal)?;
        Limits::default().message(&message).map_err(Failure::permanent)?;
        let message = to_json(&message).and_then(raw);
        let timer = Timer { token, message: message.map_err(Failure::permanent)? };
        let sort = match due {
            // The pump knows a timer by its number and when it is due. One that was cancelled and is set
            // anew has that number again, so it must not be due as early as one that fires just now.
            Due::At(time) if time <= self.now => Sort::After(Duration::ZERO),
            Due::At(time) => Sort::Text(time.to_string().into()),
            Due::After(delay) => Sort::After(delay),
        };
        let body = serde_json::to_vec(&timer).map_err(Failure::permanent)?.into();
        Ok(Write::Put { collection: names::TIMERS.into(), id, sort: Some(sort), body })
    }

    fn message(&self, draft: Draft, ordinal: usize) -> Result<Message, Failure> {
        let payload = draft.payload.map_err(|error| unwritable(&draft.name, &error))?;
        let cause = self.cause.as_ref();
        let id = match cause {
            Some(Cause { message, consumer }) => {
                MessageId::derived(&message.source, &message.id, consumer, ordinal)
            }
            None => MessageId::fresh(self.now, rand::rng().random()),
        };
        let cause = cause.map(|cause| cause.message);
        Ok(Message {
            source: self.service.clone(),
            name: draft.name,
            version: draft.version,
            topic: draft.topic,
            key: draft.key,
            time: self.now,
            correlation_id: cause.map_or_else(|| id.text(), |cause| cause.correlation_id.clone()),
            causation_id: cause.map(|cause| cause.id.clone()),
            operation_id: draft.operation_id,
            traceparent: Some(traceparent(cause.and_then(|c| c.traceparent.as_deref()), &id)),
            headers: draft.headers,
            payload,
            id,
        })
    }
}

/// A message that somebody outside any service publishes: an operator, a test.
pub(crate) fn foreign(source: &str, draft: Draft, now: Timestamp) -> Result<Message, Failure> {
    let service = Text::from(source);
    Origin { service: &service, now, cause: None }.message(draft, 0)
}

pub(crate) fn raw(json: String) -> sillage_core::Result<Box<RawValue>> {
    Ok(RawValue::from_string(json)?)
}

fn unwritable(what: &str, error: &str) -> Failure {
    Failure::permanent(format!("`{what}` cannot be written as JSON: {error}"))
}

/// The version that a handler decided on is a condition already; one more would contradict it.
fn expect(conditions: &mut Vec<Condition>, stream: &Text, expected: Expected) {
    let known = |condition: &Condition| matches!(condition, Condition::Stream { stream: known, .. } if known == stream);
    if expected != Expected::Any && !conditions.iter().any(known) {
        conditions.push(Condition::Stream { stream: stream.clone(), expected });
    }
}

/// A document that was not loaded must be absent, so that nothing unseen is overwritten.
fn unless_read(conditions: &mut Vec<Condition>, collection: &Text, id: &Text) {
    let known = |condition: &Condition| matches!(condition, Condition::Document { collection: c, id: i, .. } if c == collection && i == id);
    if !conditions.iter().any(known) {
        let (collection, id) = (collection.clone(), id.clone());
        conditions.push(Condition::Document { collection, id, expected: None });
    }
}

/// W3C trace context: the cause's trace, or a new one; the span is the message's.
fn traceparent(cause: Option<&str>, id: &MessageId) -> Text {
    let own = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, id.as_str().as_bytes());
    let mut digits = uuid::Uuid::encode_buffer();
    let own: &str = own.simple().encode_lower(&mut digits);
    let trace = cause
        .and_then(|parent| parent.split('-').nth(1))
        .filter(|trace| trace.len() == 32 && trace.bytes().all(|byte| byte.is_ascii_hexdigit()));
    ["00-", trace.unwrap_or(own), "-", &own[16..], "-01"].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sillage_core::{after, cancel};

    fn draft(name: &str) -> Draft {
        let key = Some(Key::of("o-1"));
        let payload = Ok("{}".into());
        let (topic, operation_id, headers) = (Some("order".into()), None, vec![]);
        Draft { name: name.into(), version: 1, topic, key, operation_id, headers, payload }
    }

    fn cause() -> Message {
        foreign("test", draft("order.created"), Timestamp::from_micros(5)).unwrap()
    }

    fn messages(commit: &Commit) -> Vec<Arc<Message>> {
        let appended = |write: &Write| match write {
            Write::Append { message, .. } => Some(message.clone()),
            _ => None,
        };
        commit.writes.iter().filter_map(appended).collect()
    }

    #[test]
    fn a_rerun_publishes_the_same_ids_and_keeps_correlation_and_trace() {
        let (message, service) = (cause(), Text::from("payment"));
        let run = |now| {
            let cause = Some(Cause { message: &message, consumer: "payment/payment" });
            let origin = Origin { service: &service, now: Timestamp::from_micros(now), cause };
            let two = Effects::one(Effect::Publish(draft("a")))
                .and(Effects::one(Effect::Send(draft("b"))));
            messages(&origin.commit(two, vec![]).unwrap())
        };
        let (first, again) = (run(1), run(2));
        assert_eq!(first[0].id, again[0].id);
        assert_eq!(first[1].id, again[1].id);
        assert_ne!(first[0].id, first[1].id);
        assert_eq!(first[0].correlation_id, message.correlation_id);
        assert_eq!(first[0].causation_id.as_ref(), Some(&message.id));
        let trace = |m: &Message| m.traceparent.as_deref().unwrap()[3..35].to_owned();
        assert_eq!(trace(&first[0]), trace(&message));
    }

    #[test]
    fn a_span_is_of_the_message_and_a_trace_of_its_cause() {
        let id = MessageId::new("1");
        // The version 5 UUID of the id, all of it and its second half.
        let own = "00-996ad8602a9a504f8861aeafd0b2ae29-8861aeafd0b2ae29-01";
        assert_eq!(&*traceparent(None, &id), own);
        assert_eq!(&*traceparent(Some("00-not-hex-01"), &id), own);
        let cause = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
        let follows = "00-4bf92f3577b34da6a3ce929d0e0e4736-8861aeafd0b2ae29-01";
        assert_eq!(&*traceparent(Some(cause), &id), follows);
    }

    #[test]
    fn a_put_of_what_was_not_loaded_requires_absence() {
        let service = Text::from("s");
        let origin = Origin { service: &service, now: Timestamp::default(), cause: None };
        let put = |blind| {
            let (id, sort, body) = ("1".to_owned(), None, Ok("{}".into()));
            Effects::one(Effect::Put { collection: "c", id, sort, body, blind })
        };
        let absent =
            Condition::Document { collection: "s/c".into(), id: "1".into(), expected: None };
        assert_eq!(origin.commit(put(false), vec![]).unwrap().conditions.len(), 1);
        assert!(origin.commit(put(true), vec![]).unwrap().conditions.is_empty());
        assert_eq!(origin.commit(put(false), vec![absent.clone()]).unwrap().conditions, [absent]);
    }

    #[test]
    fn what_cannot_be_written_is_a_permanent_failure() {
        let service = Text::from("s");
        let origin = Origin { service: &service, now: Timestamp::default(), cause: None };
        let bad = Draft { payload: Err("no".into()), ..draft("a") };
        for effects in [Effects::one(Effect::Publish(bad)), cancel("x")] {
            let failure = origin.commit(effects, vec![]).unwrap_err();
            assert_eq!(failure.class, sillage_core::Class::Permanent);
        }
        let silent = Draft { topic: None, ..draft("a") };
        let due = after(Duration::from_secs(1));
        let timer = Effect::Schedule { due, token: "t".into(), message: silent };
        assert!(
            origin.commit(Effects::one(timer), vec![]).unwrap_err().to_string().contains("topic")
        );
    }
}
