//! Headers known by their names, and whether they tell anything.

use crate::wire::{EXTENSION, JSON};

/// How brokers mark the attributes of an event among other headers. The first is what extension
/// attributes keep in [`crate::Message::headers`].
pub(super) const PREFIXES: [&str; 4] = [EXTENSION, "cloudEvents:", "cloudEvents_", "ce-"];

/// Knows headers by their names. Keeps which stands where: producers write them in one order.
#[derive(Debug, Default)]
pub struct HeaderLayout(Vec<(Box<str>, Field)>);

/// Headers whose places are kept, and the length of their names.
const PLACES: usize = 32;
const NAME: usize = 64;

/// What a header says, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field(pub(super) Meaning);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    Id,
    Source,
    Name,
    Time,
    Version,
    CorrelationId,
    CausationId,
    OperationId,
    Subject,
    PartitionKey,
    AttributeTraceparent,
    /// Known, and says nothing.
    Nothing,
    Extension,
    ContentType,
    Traceparent,
    PlainName,
    PlainCorrelationId,
    PlainTime,
    Other,
}

impl HeaderLayout {
    /// The headers of a message, each with what it says.
    pub fn fields<'a>(
        &mut self,
        headers: impl Iterator<Item = (&'a str, &'a [u8])>,
    ) -> impl Iterator<Item = (Field, &'a str, &'a [u8])> {
        headers.enumerate().map(|(place, (name, value))| (self.field(place, name), name, value))
    }

    /// What the header at this place says.
    #[inline]
    pub fn field(&mut self, place: usize, name: &str) -> Field {
        if let Some((known, field)) = self.0.get(place)
            && are_same(known.as_bytes(), name.as_bytes())
        {
            return *field;
        }
        self.learn(place, name)
    }

    #[cold]
    fn learn(&mut self, place: usize, name: &str) -> Field {
        let field = Field(Meaning::of(name));
        if place < PLACES && name.len() <= NAME {
            let header = (name.into(), field);
            if let Some(known) = self.0.get_mut(place) {
                *known = header;
            } else if place == self.0.len() {
                self.0.push(header);
            }
        }
        field
    }
}

impl Field {
    /// Whether the name itself is read as well.
    pub fn is_named(self) -> bool {
        match self.0 {
            Meaning::Extension
            | Meaning::ContentType
            | Meaning::PlainName
            | Meaning::PlainCorrelationId
            | Meaning::PlainTime
            | Meaning::Other => true,
            Meaning::Id
            | Meaning::Source
            | Meaning::Name
            | Meaning::Time
            | Meaning::Version
            | Meaning::CorrelationId
            | Meaning::CausationId
            | Meaning::OperationId
            | Meaning::Subject
            | Meaning::PartitionKey
            | Meaning::AttributeTraceparent
            | Meaning::Nothing
            | Meaning::Traceparent => false,
        }
    }

    /// Whether this value says what a record with this key does not say already: another one need not be
    /// read.
    pub fn tells(self, value: &[u8], key: Option<&[u8]>) -> bool {
        match self.0 {
            Meaning::Nothing => false,
            Meaning::ContentType => value != JSON,
            Meaning::PartitionKey => key.is_none(),
            Meaning::Subject => key != Some(value),
            _ => true,
        }
    }
}

impl Meaning {
    fn of(name: &str) -> Meaning {
        let Some(attribute) = attribute(name) else {
            return match name {
                "content-type" => Meaning::ContentType,
                "traceparent" => Meaning::Traceparent,
                "event-type" => Meaning::PlainName,
                "correlation-id" => Meaning::PlainCorrelationId,
                "timestamp" => Meaning::PlainTime,
                _ => Meaning::Other,
            };
        };
        match attribute {
            "id" => Meaning::Id,
            "source" => Meaning::Source,
            "type" => Meaning::Name,
            "time" => Meaning::Time,
            "schemaversion" => Meaning::Version,
            "correlationid" => Meaning::CorrelationId,
            "causationid" => Meaning::CausationId,
            "operationid" => Meaning::OperationId,
            "subject" => Meaning::Subject,
            "partitionkey" => Meaning::PartitionKey,
            "traceparent" => Meaning::AttributeTraceparent,
            "specversion" => Meaning::Nothing,
            _ => Meaning::Extension,
        }
    }
}

/// Equal, found out in place where they are as long as names mostly are.
pub(super) fn are_same(one: &[u8], other: &[u8]) -> bool {
    fn meet<const N: usize>(one: &[u8], other: &[u8]) -> bool {
        let firsts = one.first_chunk::<N>() == other.first_chunk::<N>();
        firsts && one.last_chunk::<N>() == other.last_chunk::<N>()
    }
    match one.len() {
        length if length != other.len() => false,
        4..8 => meet::<4>(one, other),
        8..=16 => meet::<8>(one, other),
        _ => one == other,
    }
}

/// The name of an attribute without what marks it.
pub(super) fn attribute(name: &str) -> Option<&str> {
    PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix))
}
