//! The derives of Sillage; use them through `sillage::prelude`, which exports each beside its trait.
//!
//! ```text
//! #[derive(Event, Serialize, Deserialize)]
//! #[event(name = "order.created", version = 2, was = OrderCreatedV1)]
//! struct OrderCreated { #[event(key)] order_id: OrderId, total: Money }
//! ```
//!
//! # Guarantees
//!
//! - A mistake is a compile error at the argument, field or variant that is wrong; no derive panics.
//! - What is stored (names, topics, collections) is written out in the source or follows from it by
//!   one rule, so renaming a type, a field or a module never changes stored identity.
//! - Generated code names only `::sillage` and `::core` paths: it needs no import.

mod attribute;
mod contract;
mod document;
mod events;
#[cfg(test)]
mod testing;

use proc_macro::TokenStream;
use syn::{DeriveInput, Result};

/// A past fact. Generates `Contract` and `Event` for a struct.
///
/// On the struct, `#[event(...)]`:
///
/// | argument | meaning |
/// |---|---|
/// | `name = "order.created"` | the stable name: lower-case letters, digits, `-`, `_`, in parts separated by dots. Required |
/// | `version = 2` | the payload's version, from 1; 1 unless said |
/// | `topic = "customer"` | where it is published; the name's first part unless said |
/// | `internal` | it is recorded in a stream and never published |
/// | `was = OrderCreatedV1` | the type of the version just before: older payloads are read as it and turned by `From` |
/// | `alias = "order.placed"` | a name it had before: what has it is read as this, by the same versions; may be said for each of several |
/// | `keyless` | it has no key: ordered with nothing |
///
/// On exactly one field, unless the event is keyless: `#[event(key)]`, the key that orders it. The
/// field is written with `Display`.
#[proc_macro_derive(Event, attributes(event))]
pub fn event(input: TokenStream) -> TokenStream {
    expand(input, |input| contract::derive(input, contract::Kind::Event))
}

/// An intention for one owner. Generates `Contract`, `Command` and, with `done`, `Answered`.
///
/// On the struct, `#[command(...)]` takes the arguments of `#[event(...)]`, its topic being
/// `<first part of the name>.commands` unless said, and these:
///
/// | argument | meaning |
/// |---|---|
/// | `done = PaymentCompleted` | the event that says it was done |
/// | `failed = PaymentFailed` | the event that says it was refused; without it, it cannot be refused. Needs `done` |
///
/// On exactly one field, unless the command is keyless: `#[command(key)]`.
#[proc_macro_derive(Command, attributes(command))]
pub fn command(input: TokenStream) -> TokenStream {
    expand(input, |input| contract::derive(input, contract::Kind::Command))
}

/// A closed set of events: an enum whose variants hold one event each. Generates `Events` and a
/// `From` per variant.
///
/// Two variants with the same type, or with types of the same stored name, do not compile: what is
/// recorded could not be told apart when it is read.
#[proc_macro_derive(Events)]
pub fn events(input: TokenStream) -> TokenStream {
    expand(input, events::derive)
}

/// Current state under a collection and an id. Generates `Document` for a struct.
///
/// - `#[document(collection = "orders")]` on the struct: its stored collection, spelt like an
///   event's name. Required.
/// - `#[document(id)]` on one field: its id. Required.
/// - `#[document(sort)]` on at most one field: its sort key.
///
/// Both fields are written with `Display`. Sort keys compare as text: pad numbers with zeros.
#[proc_macro_derive(Document, attributes(document))]
pub fn document(input: TokenStream) -> TokenStream {
    expand(input, document::derive)
}

fn expand(
    input: TokenStream,
    derive: impl FnOnce(&DeriveInput) -> Result<proc_macro2::TokenStream>,
) -> TokenStream {
    syn::parse(input)
        .and_then(|input| derive(&input))
        .unwrap_or_else(|error| error.to_compile_error())
        .into()
}
