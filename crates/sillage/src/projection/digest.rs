//! The digest of a view: one number over all its documents, kept up to date change by change.
//!
//! It is the sum of a hash of each document, so the order of documents and of changes does not
//! matter, and one changed document costs two hashes. A body is hashed by what it says, not by
//! how it is written: the order of an object's fields does not matter either.
//!
//! *Guarantees.* Equal views have equal digests. Views that differ have different ones but for one
//! chance in 2^64; it is no defence against somebody who looks for such a chance.

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor},
};
use std::fmt;

/// How many documents a view has, and their digest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    /// Documents.
    pub documents: u64,
    /// The sum of their hashes.
    pub hash: Hash,
}

impl Digest {
    /// After a document was made, changed or removed; `None` where it is not there.
    pub(crate) fn change(&mut self, before: Option<Hash>, after: Option<Hash>) {
        let (before_count, after_count) = (u64::from(before.is_some()), u64::from(after.is_some()));
        self.documents = self.documents.wrapping_add(after_count).wrapping_sub(before_count);
        let sum = self.hash.0.wrapping_add(after.unwrap_or_default().0);
        self.hash.0 = sum.wrapping_sub(before.unwrap_or_default().0);
    }
}

/// A hash of 128 bits, written as 32 hexadecimal digits.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Hash(u128);

impl Hash {
    /// Of a document: its id, sort key and body.
    pub(crate) fn document(id: &str, sort: Option<&str>, body: &[u8]) -> Hash {
        let mut state = State::new(b'd');
        state.bytes(id.as_bytes());
        state.bytes(sort.unwrap_or_default().as_bytes());
        state.number(u64::from(sort.is_some()));
        match said(body) {
            Some(said) => state.hash(said),
            // What is no JSON is hashed as it is.
            None => state.bytes(body),
        }
        state.end()
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Two lanes of 64 bits, eight bytes a step. Source of the mixing: the finalizer of `MurmurHash3`
/// (Austin Appleby, 2011).
struct State(u64, u64);

const A: u64 = 0xff51_afd7_ed55_8ccd;
const B: u64 = 0xc4ce_b9fe_1a85_ec53;

impl State {
    fn new(kind: u8) -> Self {
        State(A ^ u64::from(kind), B.rotate_left(u32::from(kind)))
    }

    fn number(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(A);
        self.0 ^= self.0 >> 33;
        self.1 = (self.1.rotate_left(29) ^ number).wrapping_mul(B);
        self.1 ^= self.1 >> 31;
    }

    fn bytes(&mut self, bytes: &[u8]) {
        let mut eights = bytes.chunks_exact(8);
        for eight in &mut eights {
            self.number(u64::from_le_bytes(eight.try_into().unwrap_or_default()));
        }
        let mut last = [0; 8];
        last[..eights.remainder().len()].copy_from_slice(eights.remainder());
        self.number(u64::from_le_bytes(last));
        self.number(bytes.len() as u64);
    }

    fn hash(&mut self, Hash(hash): Hash) {
        #[allow(clippy::cast_possible_truncation)] // both halves are taken
        self.number(hash as u64);
        #[allow(clippy::cast_possible_truncation)]
        self.number((hash >> 64) as u64);
    }

    fn end(mut self) -> Hash {
        self.number(self.1);
        self.number(self.0);
        Hash(u128::from(self.0) << 64 | u128::from(self.1))
    }
}

/// The hash of a JSON value, read in one pass.
struct Value;

impl<'de> Visitor<'de> for Value {
    type Value = Hash;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Hash, E> {
        Ok(State::new(b'n').end())
    }

    fn visit_bool<E>(self, value: bool) -> Result<Hash, E> {
        let mut state = State::new(b'b');
        state.number(u64::from(value));
        Ok(state.end())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Hash, E> {
        let mut state = State::new(b'i');
        state.number(value.cast_unsigned());
        Ok(state.end())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Hash, E> {
        let mut state = State::new(b'i');
        state.number(value);
        Ok(state.end())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Hash, E> {
        let mut state = State::new(b'f');
        state.number(value.to_bits());
        Ok(state.end())
    }

    fn visit_str<E>(self, value: &str) -> Result<Hash, E> {
        let mut state = State::new(b's');
        state.bytes(value.as_bytes());
        Ok(state.end())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Hash, A::Error> {
        let mut state = State::new(b'l');
        while let Some(value) = values.next_element_seed(Nested)? {
            state.hash(value);
        }
        Ok(state.end())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Hash, A::Error> {
        let mut sum = 0_u128;
        while let Some(name) = fields.next_key_seed(Nested)? {
            let mut state = State::new(b'p');
            state.hash(name);
            state.hash(fields.next_value_seed(Nested)?);
            sum = sum.wrapping_add(state.end().0);
        }
        let mut state = State::new(b'o');
        state.hash(Hash(sum));
        Ok(state.end())
    }
}

/// A value inside another.
struct Nested;

impl<'de> serde::de::DeserializeSeed<'de> for Nested {
    type Value = Hash;
    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<Hash, D::Error> {
        value.deserialize_any(Value)
    }
}

/// Of any JSON: what it says.
fn said(json: &[u8]) -> Option<Hash> {
    let mut value = serde_json::Deserializer::from_slice(json);
    let hash = value.deserialize_any(Value).ok()?;
    value.end().ok().map(|()| hash)
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let digits = String::deserialize(from)?;
        u128::from_str_radix(&digits, 16).map(Hash).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(body: &str) -> Hash {
        Hash::document("a", None, body.as_bytes())
    }

    #[test]
    fn what_a_document_says_counts_and_not_how_it_is_written() {
        let hash = document(r#"{"a":1,"b":{"c":[1,2],"d":null}}"#);
        assert_eq!(hash, document(r#"{ "b": {"d":null, "c":[1, 2]}, "a":1 }"#));
        for other in [
            r#"{"a":1,"b":{"c":[2,1],"d":null}}"#,
            r#"{"a":1,"b":{"c":[1,2]}}"#,
            r#"{"a":2,"b":{"c":[1,2],"d":null}}"#,
            r#"{"a":"1","b":{"c":[1,2],"d":null}}"#,
            r#"{"b":1,"a":{"c":[1,2],"d":null}}"#,
            r#"{"a":1,"b":{"c":[1,2],"d":false}}"#,
            "garbage",
        ] {
            assert_ne!(hash, document(other), "{other}");
        }
        assert_ne!(document("garbage"), document("garbagf"));
        assert_ne!(hash, Hash::document("b", None, br#"{"a":1,"b":{"c":[1,2],"d":null}}"#));
        let empty = |sort| Hash::document("a", sort, b"{}");
        assert_ne!(empty(None), empty(Some("")));
        assert_ne!(empty(Some("x")), empty(Some("y")));
    }

    #[test]
    fn changes_in_any_order_end_at_the_same_digest() {
        let (one, two, three) = (document("1"), document("2"), document("3"));
        let mut view = Digest::default();
        view.change(None, Some(one));
        view.change(None, Some(two));
        view.change(Some(one), Some(three));
        let mut rebuilt = Digest::default();
        rebuilt.change(None, Some(three));
        rebuilt.change(None, Some(two));
        assert_eq!(view, rebuilt);
        assert_eq!(view.documents, 2);
        view.change(Some(two), None);
        view.change(Some(three), None);
        assert_eq!(view, Digest::default());
        let written = serde_json::to_string(&rebuilt).unwrap();
        assert_eq!(serde_json::from_str::<Digest>(&written).unwrap(), rebuilt);
    }
}
