//! What could not work is refused before the app starts.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers outside of test functions panic too

mod common;

use common::{Created, Harness};
use serde::{Deserialize, Serialize};
use sillage::prelude::*;

fn told(service: Service) -> String {
    let app = App::new(Harness::new().database()).service(service);
    app.check().map_or_else(|error| error.to_string(), |()| String::new())
}

macro_rules! messages {
    ($($derive:ident $attribute:ident $name:ident $meta:tt;)*) => {$(
        #[derive($derive, Serialize, Deserialize, Clone)]
        #[$attribute $meta]
        struct $name {
            #[$attribute(key)]
            id: String,
        }
    )*};
}

messages! {
    Command command Hold (name = "stock.hold", done = Moved);
    Command command Release (name = "stock.release", done = Moved);
    Event event Moved (name = "stock.moved");
}

/// Whatever `.only` says: what answers both says nothing about which of them was done.
#[test]
fn a_step_whose_do_and_undo_have_one_answer_is_refused() {
    let saga = Saga::<String>::new("checkout", 1)
        .start_on::<Created>(|created| created.order_id.clone())
        .step("hold", |id| Hold { id: id.clone() }, |id| Release { id: id.clone() })
        .only::<Moved>(|_, _| true)
        .finish(|_| (), |_| ());
    let told = told(Service::new("shop").saga(saga));
    assert!(told.contains("step `hold` waits for `stock.moved` twice"), "{told}");
}

#[derive(Document, Serialize, Deserialize, Clone, Debug, Default)]
#[document(collection = "orders")]
struct Order {
    #[document(id)]
    order_id: String,
}

#[test]
fn two_projections_into_one_collection_are_refused() {
    let one = || Projection::<Order>::new("one", 1).on::<Created>(|_, _| ());
    let other = || Projection::<Order>::new("other", 1).on::<Created>(|_, _| ());
    let why = told(Service::new("shop").projection(one()).projection(other()));
    assert!(
        why.contains("projections `one` and `other` fold into one collection `orders`"),
        "{why}"
    );
    assert_eq!(told(Service::new("shop").projection(one())), "");
    assert_eq!(told(Service::new("shop").projection(other())), "");
}
