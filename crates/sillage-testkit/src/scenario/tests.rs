use super::*;
use serde::{Deserialize, Serialize};
use sillage::prelude::*;

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(name = "stock.reserved")]
struct Reserved {
    #[event(key)]
    product: String,
    quantity: u32,
}

#[derive(Events, Clone, Debug, PartialEq)]
enum StockEvent {
    Reserved(Reserved),
}

/// How many are left.
#[derive(Clone)]
struct Stock(u32);

impl Decider for Stock {
    const STREAM: &'static str = "stock";
    type Command = Reserved;
    type Event = StockEvent;
    type Refusal = &'static str;
    fn initial() -> Self {
        Stock(2)
    }
    fn decide(&self, wanted: Reserved) -> Result<Vec<StockEvent>, &'static str> {
        match wanted.quantity {
            0 => Ok(vec![]),
            quantity if quantity > self.0 => Err("sold out"),
            _ => Ok(vec![wanted.into()]),
        }
    }
    fn evolve(self, StockEvent::Reserved(reserved): &StockEvent) -> Self {
        Stock(self.0 - reserved.quantity)
    }
}

fn reserved(quantity: u32) -> Reserved {
    Reserved { product: "p-1".into(), quantity }
}

fn history() -> [StockEvent; 2] {
    [reserved(1).into(), reserved(1).into()]
}

#[test]
fn decisions_are_as_expected() {
    given::<Stock>([]).when(reserved(2)).then([reserved(2).into()]);
    given::<Stock>([]).when(reserved(0)).nothing();
    given::<Stock>(history()).when(reserved(1)).refused("sold out");
}

#[test]
#[should_panic(expected = "it was decided otherwise
 expected: Reserved(Reserved { product: \"p-1\", quantity: 1 })
           Reserved(Reserved { product: \"p-1\", quantity: 1 })
  decided: Reserved(Reserved { product: \"p-1\", quantity: 2 })")]
fn other_events_are_shown() {
    given::<Stock>([]).when(reserved(2)).then(history());
}

#[test]
#[should_panic(expected = " expected: nothing\n  decided: refused: \"sold out\"")]
fn a_refusal_is_not_nothing() {
    given::<Stock>(history()).when(reserved(1)).nothing();
}

#[test]
#[should_panic(expected = " expected: refused: \"sold out\"\n  decided: nothing")]
fn nothing_is_not_a_refusal() {
    given::<Stock>([]).when(reserved(0)).refused("sold out");
}

#[tokio::test]
async fn a_handler_sees_what_the_delivery_brings() {
    let handler = async |event: Reserved, meta: Meta, State(factor): State<u32>| {
        assert_eq!((meta.attempt, &*meta.correlation_id), (3, "f-1"));
        publish(reserved(event.quantity * factor))
    };
    let delivery = deliver(reserved(2)).state(4_u32).attempt(3).correlation("f-1");
    assert_eq!(delivery.to(handler).await.unwrap(), publish(reserved(8)));
    let failure = deliver(reserved(2)).to(handler).await.unwrap_err();
    assert_eq!(failure.to_string(), "no `.state(u32)`");
}

#[tokio::test]
async fn a_handler_reads_what_was_there_before_and_commits_nothing() {
    #[derive(Document, Serialize, Deserialize)]
    #[document(collection = "limits")]
    struct Limit {
        #[document(id)]
        product: String,
    }
    let handler = async |event: Reserved, Load(limit): Load<Limit>, stock: Aggregate<Stock>| {
        limit.and_then(|_| stock.decide(event).ok())
    };
    let memory = Arc::new(Memory::new(Arc::new(ManualClock::default())));
    let limit = Limit { product: "p-1".into() };
    let deliver = || deliver(reserved(1));
    assert!(deliver().to(handler).await.unwrap().is_empty());
    let prepared = deliver().database(memory.clone()).document(&limit);
    let effects = prepared.history::<Stock>([reserved(1).into()]).to(handler).await.unwrap();
    assert_eq!(effects.published::<Reserved>(), [reserved(1)]);
    assert_eq!(memory.head().await.unwrap().last, Position(1), "only the history");
    let sold_out = deliver().document(&limit).history::<Stock>(history());
    assert!(sold_out.to(handler).await.unwrap().is_empty());
}

#[test]
fn entries_are_folded_in_their_order() {
    #[derive(Document, Serialize, Deserialize, Default)]
    #[document(collection = "stock")]
    struct View {
        #[document(id)]
        product: String,
        seen: Vec<(u64, String)>,
    }
    let projection = Projection::<View>::new("stock", 1)
        .on::<Reserved>(|view, event| view.seen.push((event.position.0, event.time.to_string())));
    let views = fold(&projection, [recorded(1, &reserved(1)), recorded(60, &reserved(1))]);
    let (first, last) = ("2026-01-01T00:00:01.000000Z", "2026-01-01T00:01:00.000000Z");
    assert_eq!(views["p-1"].seen, [(1, first.to_owned()), (60, last.to_owned())]);
}
