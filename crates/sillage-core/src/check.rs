//! What every backend refuses alike, before a commit is queued.

use crate::{Commit, Condition, Delivered, Error, Message, Result, Sort, Write};
use std::collections::HashSet;

/// Limits on what a commit may hold; the same on every backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A whole message, in bytes.
    pub message: usize,
    /// Ids, keys, labels and stream names, in bytes.
    pub label: usize,
    /// Ids and sort keys of documents, which may hold several labels, in bytes.
    pub document_id: usize,
    /// The body of a document, in bytes.
    pub document: usize,
    /// How many headers.
    pub headers: usize,
    /// All headers together, in bytes.
    pub header_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            message: 900 * 1024,
            label: 512,
            document_id: 2048,
            document: 16 * 1024 * 1024,
            headers: 64,
            header_bytes: 32 * 1024,
        }
    }
}

impl Limits {
    /// Whether a commit is within the limits and appends no message twice; the error says which
    /// part is wrong.
    pub fn check(&self, commit: &Commit) -> Result<()> {
        for condition in &commit.conditions {
            self.condition(condition)?;
        }
        for write in &commit.writes {
            self.write(write)?;
        }
        distinct(&commit.writes)
    }

    fn condition(&self, condition: &Condition) -> Result<()> {
        match condition {
            Condition::FirstTime(delivery) | Condition::Decided(delivery, _) => {
                self.delivery(delivery)
            }
            Condition::Stream { stream, .. } => self.label("stream name", stream),
            Condition::Document { collection, id, .. } => self.document(collection, id),
            Condition::Below { collection, id, sort } => {
                self.document(collection, id)?;
                self.sort(sort)
            }
            Condition::Lease { name, .. } => self.label("lease name", name),
        }
    }

    fn write(&self, write: &Write) -> Result<()> {
        match write {
            Write::Append { stream, message } => {
                if let Some(stream) = stream {
                    self.label("stream name", stream)?;
                }
                self.message(message)
            }
            Write::Put { collection, id, sort, body } => {
                self.document(collection, id)?;
                if let Some(Sort::Text(sort)) = sort {
                    self.sort(sort)?;
                }
                self.body(id, body)
            }
            Write::Delete { collection, id } => self.document(collection, id),
            Write::Decide { delivery, until, .. } => {
                self.delivery(delivery)?;
                until.as_ref().map_or(Ok(()), |(partition, _)| self.label("partition", partition))
            }
            Write::Forget { consumer, partition, .. } => {
                self.label("consumer", consumer)?;
                self.label("partition", partition)
            }
            Write::Run(_) => Ok(()),
            Write::Trim { stream, .. } => {
                stream.as_ref().map_or(Ok(()), |stream| self.label("stream name", stream))
            }
            Write::Restore(entry) => {
                let Some((stream, _)) = &entry.stream else {
                    return Err(Error::invalid("an entry without a stream cannot be restored"));
                };
                self.label("stream name", stream)?;
                self.message(&entry.body)
            }
        }
    }

    /// Whether a message is within the limits.
    pub fn message(&self, message: &Message) -> Result<()> {
        let size = message.size();
        if size > self.message {
            return Err(Error::invalid(format!(
                "`{}` is {size} bytes, over the limit of {} for a whole message: keep large data \
                 elsewhere and send a reference to it",
                message.name, self.message
            )));
        }
        self.label("message id", message.id.as_str())?;
        self.label("source", &message.source)?;
        self.label("name", &message.name)?;
        self.label("correlation id", &message.correlation_id)?;
        let optional = [&message.topic, &message.operation_id, &message.traceparent];
        for text in optional.into_iter().flatten() {
            self.label("topic, operation id or traceparent", text)?;
        }
        if let Some(cause) = &message.causation_id {
            self.label("causation id", cause.as_str())?;
        }
        if let Some(key) = &message.key {
            self.bytes("key", key.as_bytes(), self.label)?;
        }
        self.headers(message)
    }

    fn headers(&self, message: &Message) -> Result<()> {
        let bytes: usize = message.headers.iter().map(|h| h.name.len() + h.value.len()).sum();
        if message.headers.len() > self.headers || bytes > self.header_bytes {
            return Err(Error::invalid(format!(
                "`{}` has {} headers of {bytes} bytes; at most {} headers of {} bytes together",
                message.name,
                message.headers.len(),
                self.headers,
                self.header_bytes
            )));
        }
        message.headers.iter().try_for_each(|header| self.label("header name", &header.name))
    }

    fn delivery(&self, delivery: &Delivered) -> Result<()> {
        self.label("consumer", &delivery.consumer)?;
        self.label("source", &delivery.source)?;
        self.label("message id", &delivery.id)
    }

    fn document(&self, collection: &str, id: &str) -> Result<()> {
        self.label("collection", collection)?;
        self.bytes("document id", id.as_bytes(), self.document_id)
    }

    fn sort(&self, sort: &str) -> Result<()> {
        self.bytes("sort key", sort.as_bytes(), self.document_id)
    }

    fn body(&self, id: &str, body: &[u8]) -> Result<()> {
        if body.len() > self.document {
            return Err(Error::invalid(format!(
                "document `{id}` is {} bytes, over the limit of {}: keep large data elsewhere and \
                 a reference to it here",
                body.len(),
                self.document
            )));
        }
        Ok(())
    }

    fn label(&self, what: &str, text: &str) -> Result<()> {
        self.bytes(what, text.as_bytes(), self.label)
    }

    #[allow(clippy::unused_self)]
    fn bytes(&self, what: &str, bytes: &[u8], limit: usize) -> Result<()> {
        if bytes.len() > limit {
            let start = String::from_utf8_lossy(&bytes[..32.min(bytes.len())]).into_owned();
            return Err(Error::invalid(format!(
                "a {what} of {} bytes is over the limit of {limit}: `{start}…`",
                bytes.len()
            )));
        }
        if bytes.contains(&0) {
            return Err(Error::invalid(format!(
                "a {what} holds a NUL character, which databases cannot store: `{}`",
                String::from_utf8_lossy(bytes).escape_debug()
            )));
        }
        Ok(())
    }
}

/// A message twice in one commit is a mistake of who made it: the answer must not be that it was
/// committed before.
fn distinct(writes: &[Write]) -> Result<()> {
    let messages = || {
        writes.iter().filter_map(|write| match write {
            Write::Append { message, .. } => Some(message),
            Write::Restore(entry) => Some(&entry.body),
            _ => None,
        })
    };
    // Most commits append one message, and pay nothing for this.
    if messages().nth(1).is_none() {
        return Ok(());
    }
    let mut seen = HashSet::new();
    match messages().find(|message| !seen.insert((&message.source, &message.id))) {
        None => Ok(()),
        Some(message) => Err(Error::invalid(format!(
            "a commit appends `{}` twice, with the id `{}` of `{}`: give each message its own id",
            message.name, message.id, message.source
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Decision, Header, Key, MessageId, Timestamp};
    use std::sync::Arc;

    fn message() -> Message {
        Message {
            id: MessageId::new("1"),
            source: "shop".into(),
            name: "order.created".into(),
            version: 1,
            topic: Some("order".into()),
            key: Some(Key::of("o-1")),
            time: Timestamp::default(),
            correlation_id: "1".into(),
            causation_id: None,
            operation_id: None,
            traceparent: None,
            headers: vec![],
            payload: "{}".into(),
        }
    }

    fn refusal(write: Write) -> String {
        let commit = Commit { conditions: vec![], writes: vec![write] };
        Limits::default().check(&commit).unwrap_err().to_string()
    }

    #[test]
    fn a_refusal_names_the_part_and_what_to_do() {
        let long: crate::Text = "x".repeat(513).into();
        let header = Header { name: "h".into(), value: "v".into() };
        for (message, told) in [
            (Message { payload: vec![0; 921_600].into(), ..message() }, "send a reference to it"),
            (Message { id: MessageId::new(long.clone()), ..message() }, "message id of 513 bytes"),
            (Message { key: Some(Key::of(&long)), ..message() }, "key of 513 bytes"),
            (Message { source: "a\0b".into(), ..message() }, "source holds a NUL"),
            (Message { headers: vec![header; 65], ..message() }, "at most 64 headers"),
        ] {
            let refusal = refusal(Write::Append { stream: None, message: Arc::new(message) });
            assert!(refusal.contains(told), "`{told}` is not in: {refusal}");
        }
        let (consumer, source, id) = ("shop/billing".into(), "shop".into(), long);
        let delivery = Delivered { consumer, source, id };
        let write = Write::Decide { delivery, decision: Decision::Done, until: None };
        assert!(refusal(write).contains("message id"));
    }

    #[test]
    fn what_is_within_the_limits_passes() {
        let write = Write::Append { stream: Some("s".into()), message: Arc::new(message()) };
        let commit = Commit { conditions: vec![], writes: vec![write] };
        Limits::default().check(&commit).unwrap();
    }
}
