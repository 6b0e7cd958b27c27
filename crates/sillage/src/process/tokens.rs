//! The tokens of an instance's timers: each timer's message says whose it is and which it is, so
//! that one which had fired before it was cancelled or replaced is told from the one that counts.

use super::{Instance, instance::Set};
use sillage_core::{Effect, Effects, Header, Key, Message, Text};
use uuid::Uuid;

/// The header of a timer's message: its generation, `service/process`, and its token.
pub(crate) const TIMER: &str = "sillage-timer";

/// A timer that has fired, as its message says.
pub(crate) struct Fired<'a> {
    pub(crate) generation: u64,
    pub(crate) process: &'a str,
    pub(crate) token: &'a str,
}

/// The timer that a message comes from, where a process manager has set it.
pub(crate) fn fired(message: &Message) -> Option<Fired<'_>> {
    let value = std::str::from_utf8(message.header(TIMER)?).ok()?;
    let mut parts = value.splitn(3, ' ');
    let generation = parts.next()?.parse().ok()?;
    Some(Fired { generation, process: parts.next()?, token: parts.next()? })
}

/// What an instance counts its timers from that this message makes. Another one of the same key counts
/// from elsewhere, so that it does not take a timer of this one for its own.
pub(crate) fn first(message: &Message) -> u64 {
    let identity = [&message.source, "\0", message.id.as_str()].concat();
    let (high, _) = Uuid::new_v5(&Uuid::NAMESPACE_OID, identity.as_bytes()).as_u64_pair();
    // Far from the largest number, and exact where numbers of JSON are floating point.
    high >> 12
}

impl Instance {
    /// Takes the timers that effects set and cancel into the instance. Says also whether the
    /// effects end it.
    pub(crate) fn take_timers(&mut self, effects: Effects) -> (Effects, bool) {
        let (mut kept, mut ends) = (Effects::none(), false);
        for effect in effects {
            match effect {
                Effect::Schedule { due, token, mut message } => {
                    let key = message.key.get_or_insert_with(|| Key::from_label(&self.key)).clone();
                    let moved = self.timers.get(&token).filter(|set| *set.key != *key.label());
                    if moved.is_some() {
                        kept = kept.and(self.cancel(&token));
                    }
                    self.generation += 1;
                    let value = format!("{} {} {token}", self.generation, self.process);
                    message.headers.push(Header { name: TIMER.into(), value: value.into() });
                    let set = Set { generation: self.generation, key: key.label().into() };
                    let named = self.timer_name(&token);
                    self.timers.insert(token, set);
                    kept = kept.and(Effects::one(Effect::Schedule { due, token: named, message }));
                }
                Effect::Cancel { token, .. } => kept = kept.and(self.cancel(&token)),
                Effect::End => ends = true,
                other => kept = kept.and(Effects::one(other)),
            }
        }
        if ends {
            for token in self.timers.keys().cloned().collect::<Vec<_>>() {
                kept = kept.and(self.cancel(&token));
            }
        }
        (kept, ends)
    }

    /// Whether a timer that has fired is the one that counts; it is set no more then.
    pub(crate) fn accept(&mut self, fired: &Fired<'_>) -> bool {
        let set = self.timers.get(fired.token);
        let counts = set.is_some_and(|set| set.generation == fired.generation);
        if counts {
            self.timers.remove(fired.token);
        }
        counts
    }

    fn cancel(&mut self, token: &str) -> Effects {
        let Some(set) = self.timers.remove(token) else { return Effects::none() };
        let key = Some(Key::from_label(&set.key));
        Effects::one(Effect::Cancel { token: self.timer_name(token), key })
    }

    /// Two process managers of a service may use the same token under the same key.
    fn timer_name(&self, token: &str) -> String {
        let process: Text = self.process.clone();
        format!("{}/{token}", process.rsplit('/').next().unwrap_or_default())
    }
}
