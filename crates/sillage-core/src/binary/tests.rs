use super::{
    layout::{PREFIXES, are_same},
    *,
};
use proptest::prelude::*;
use std::sync::LazyLock;

fn order() -> &'static Text {
    static TOPIC: LazyLock<Text> = LazyLock::new(|| "order".into());
    &TOPIC
}

fn found(payload: Option<&'static [u8]>) -> Found<'static> {
    Found {
        topic: order(),
        key: Some(Bytes::from_static(b"o-1")),
        payload: payload.map(Bytes::from_static),
        time: Timestamp::from_micros(7),
    }
}

fn read(headers: &[(&str, &[u8])], found: Found<'_>) -> Message {
    let mut layout = HeaderLayout::default();
    let headers = layout.fields(headers.iter().copied());
    let message = HeaderReader::default().read(headers, found, || MessageId::new("given"), None);
    Arc::unwrap_or_clone(message)
}

fn written(binding: &Binding, message: &Message) -> Vec<(String, Vec<u8>)> {
    let mut headers = vec![];
    binding.write(message, |name, value| headers.push((name.to_owned(), value.to_vec())));
    headers
}

fn label() -> impl Strategy<Value = Text> {
    "[ -~é]{1,20}".prop_map(Text::from)
}

prop_compose! {
    fn message()(
        labels in prop::collection::vec(label(), 7),
        version in 1u32..100,
        micros in 0i64..4_000_000_000_000_000,
        optional in any::<[bool; 4]>(),
        key in prop::option::of(prop::collection::vec(any::<u8>(), 0..20)),
        headers in prop::collection::vec(("(x-|ce_x)[a-z]{1,8}", prop::collection::vec(any::<u8>(), 0..9)), 0..4),
        payload in prop::collection::vec(any::<u8>(), 0..50),
    ) -> Message {
        let when = |index: usize| optional[index].then(|| labels[3 + index].clone());
        Message {
            id: MessageId::new(labels[0].clone()),
            source: labels[1].clone(),
            name: labels[2].clone(),
            version,
            topic: Some("order".into()),
            key: key.map(Key::from_bytes),
            time: Timestamp::from_micros(micros),
            correlation_id: when(0).unwrap_or_else(|| labels[0].clone()),
            causation_id: when(1).map(MessageId::new),
            operation_id: when(2),
            traceparent: when(3),
            headers: headers.into_iter().map(|(name, value)| Header { name: name.into(), value: value.into() }).collect(),
            payload: payload.into(),
        }
    }
}

proptest! {
    /// What is carried comes back whole, with whichever prefix.
    #[test]
    fn every_message_comes_back(message in message(), amqp in any::<bool>()) {
        let binding = if amqp { Binding::AMQP } else { Binding::KAFKA };
        let carried = written(&binding, &message);
        let found = Found {
            topic: order(),
            key: message.key.as_ref().map(|key| Bytes::copy_from_slice(key.as_bytes())),
            payload: Some(message.payload.clone()),
            time: Timestamp::from_micros(7),
        };
        let headers: Vec<_> = carried.iter().map(|(name, value)| (&**name, &**value)).collect();
        prop_assert_eq!(read(&headers, found), message);
    }

    /// What a reader remembers of one message changes nothing about the next, which may take its
    /// place.
    #[test]
    fn a_reader_of_many_reads_each_as_a_fresh_one_does(
        messages in prop::collection::vec((message(), any::<[bool; 3]>(), any::<u8>()), 1..8),
    ) {
        let mut last: Option<Arc<Message>> = None;
        let mut kept = vec![];
        let (mut layout, mut reader) = (HeaderLayout::default(), HeaderReader::default());
        for (mut message, [amqp, keeps, alike], turn) in messages {
            if let Some(last) = last.as_ref().filter(|_| alike) {
                message.source.clone_from(&last.source);
                message.name.clone_from(&last.name);
            }
            let binding = if amqp { Binding::AMQP } else { Binding::KAFKA };
            let mut carried = written(&binding, &message);
            let turn = usize::from(turn) % carried.len();
            carried.rotate_left(turn);
            let headers = || carried.iter().map(|(name, value)| (name.as_str(), &**value));
            let fresh = read(&headers().collect::<Vec<_>>(), found(Some(b"{}")));
            let found = found(Some(b"{}"));
            let headers = layout.fields(headers());
            let id = || MessageId::new("given");
            let read = reader.read(headers, found, id, last.take());
            prop_assert_eq!(&*read, &fresh);
            if keeps {
                kept.push((read.clone(), fresh));
            }
            last = Some(read);
        }
        for (read, fresh) in kept {
            prop_assert_eq!(&*read, &fresh, "what somebody has stays as it is");
        }
    }

    /// Of names that are not read, and of headers that tell nothing, nobody misses anything.
    #[test]
    fn what_tells_nothing_may_be_missing(
        mut message in message(),
        [amqp, keyed, own] in any::<[bool; 3]>(),
    ) {
        if own {
            message.headers.push(Header { name: SUBJECT.into(), value: "of its own".into() });
        }
        let binding = if amqp { Binding::AMQP } else { Binding::KAFKA };
        let carried = written(&binding, &message);
        let key = message.key.as_ref().filter(|_| keyed).map(|key| key.as_bytes().to_vec());
        let mut found = found(Some(b"{}"));
        found.key = key.clone().map(Bytes::from);
        let headers: Vec<_> = carried.iter().map(|(name, value)| (&**name, &**value)).collect();
        let whole = read(&headers, found.clone());
        let mut layout = HeaderLayout::default();
        let told = layout.fields(headers.iter().copied());
        let told = told.filter(|(field, _, value)| field.tells(value, key.as_deref()));
        let told = told.map(|(field, name, value)| (field, if field.is_named() { name } else { "" }, value));
        let id = || MessageId::new("given");
        let picked = HeaderReader::default().read(told, found, id, None);
        prop_assert_eq!(&*picked, &whole);
    }

    #[test]
    fn names_are_the_same_or_not(one in "[ab]{0,20}", other in "[ab]{0,20}", place in any::<u8>()) {
        let mut near = one.clone().into_bytes();
        if let Some(byte) = near.get_mut(usize::from(place) % one.len().max(1)) {
            *byte ^= 3;
        }
        for other in [&near, other.as_bytes(), one.as_bytes()] {
            prop_assert_eq!(are_same(one.as_bytes(), other), one.as_bytes() == other);
        }
    }

    #[test]
    fn no_header_is_too_strange(
        headers in prop::collection::vec((".{0,20}", prop::collection::vec(any::<u8>(), 0..20)), 0..20),
        payload in prop::collection::vec(any::<u8>(), 0..50),
    ) {
        let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
        let mut found = found(None);
        found.payload = Some(payload.clone().into());
        let message = read(&headers.collect::<Vec<_>>(), found);
        prop_assert_eq!(&message.payload[..], &payload[..]);
    }
}

#[test]
fn attribute_names_are_those_of_the_specification() {
    let message = read(&[("ce_id", b"1"), ("ce_type", b"order.created")], found(Some(b"{}")));
    let names = |binding: &Binding| {
        written(binding, &message).into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    };
    let on_kafka = [
        "ce_specversion",
        "ce_id",
        "ce_source",
        "ce_type",
        "ce_time",
        "ce_schemaversion",
        "ce_correlationid",
        "ce_subject",
        "ce_partitionkey",
        "content-type",
    ];
    assert_eq!(names(&Binding::KAFKA), on_kafka);
    let on_amqp = on_kafka.map(|name| name.replace("ce_", "cloudEvents:"));
    assert_eq!(names(&Binding::AMQP), on_amqp);
}

#[test]
fn attributes_are_read_whatever_marks_them() {
    for prefix in PREFIXES {
        let names = ["id", "type", "schemaversion", "subject"].map(|name| [prefix, name].concat());
        let values: [&[u8]; 4] = [b"1", b"order.created", b"4294967295", b"a subject of its own"];
        let headers: Vec<_> = names.iter().map(String::as_str).zip(values).collect();
        let message = read(&headers, found(Some(b"{}")));
        assert_eq!((message.id.as_str(), &*message.name), ("1", "order.created"));
        assert_eq!(message.header(SUBJECT).map(|value| &**value), Some(values[3]));
        let again = written(&Binding::KAFKA, &message);
        let subjects: Vec<_> = again.iter().filter(|(name, _)| name == SUBJECT).collect();
        assert_eq!(subjects.len(), 1, "an attribute is there once");
        let headers = again.iter().map(|(name, value)| (&**name, &**value)).collect::<Vec<_>>();
        assert_eq!(read(&headers, found(Some(b"{}"))), message);
    }
}

#[test]
fn the_older_plain_headers_are_read_and_kept() {
    let plain: [(&str, &[u8]); 3] = [
        ("event-type", b"order.created"),
        ("correlation-id", b"c-1"),
        ("timestamp", b"2026-01-02T03:04:05Z"),
    ];
    let message = read(&plain, found(Some(b"{}")));
    assert_eq!((&*message.name, &*message.correlation_id), ("order.created", "c-1"));
    assert_eq!(message.time.to_string(), "2026-01-02T03:04:05.000000Z");
    assert_eq!((message.id.as_str(), &*message.source), ("given", "order"));
    assert_eq!(message.headers.len(), 3, "whoever reads them elsewhere still finds them");
    for (given, micros) in
        [("1700000000", 0), ("1700000000123", 123_000), ("1700000000123456", 123_456)]
    {
        let message = read(&[("timestamp", given.as_bytes())], found(None));
        assert_eq!(message.time, Timestamp::from_micros(1_700_000_000_000_000 + micros));
    }
}

#[test]
fn structured_mode_is_read() {
    let event = br#"{"specversion":"1.0","id":"1","source":"/x","type":"t","partitionkey":"k","subject":"o-1","data":{"n":1}}"#;
    let media_type: &[u8] = b"Application/CloudEvents+JSON; charset=UTF-8";
    let message = read(&[("content-type", media_type), ("x-own", b"1")], found(Some(event)));
    assert_eq!((message.id.as_str(), &*message.source, &*message.name), ("1", "/x", "t"));
    assert_eq!(
        (&message.payload[..], message.time),
        (&br#"{"n":1}"#[..], Timestamp::from_micros(7))
    );
    assert_eq!(message.key, Some(Key::of("o-1")), "the record's key is what ordered it");
    assert_eq!(message.headers.len(), 1);
    let broken = read(&[("content-type", media_type)], found(Some(b"{")));
    assert_eq!((&*broken.name, &broken.payload[..]), ("", &b"{"[..]));
}

#[test]
fn a_message_that_says_nothing_has_no_name() {
    let message = read(&[], found(None));
    assert_eq!((&*message.name, message.id.as_str(), message.payload.len()), ("", "given", 0));
}

#[test]
fn what_no_database_could_keep_is_as_good_as_missing() {
    let long = "x".repeat(LONGEST + 1);
    for bad in ["a\0b", &long] {
        let names = ["ce_id", "ce_source", "ce_type", "ce_correlationid", "ce_causationid"];
        let names = names.into_iter().chain(["ce_operationid", "traceparent"]);
        let headers: Vec<_> = names.map(|name| (name, bad.as_bytes())).collect();
        let message = read(&headers, found(Some(b"{}")));
        assert_eq!((message.id.as_str(), &*message.source, &*message.name), ("given", "order", ""));
        crate::Limits::default()
            .message(&Message { name: "t".into(), ..message })
            .expect("it can be kept");

        let event = serde_json::json!({
            "specversion": "1.0", "id": bad, "source": "/x", "type": "t", "data": {}
        });
        let mut found = found(None);
        found.payload = Some(event.to_string().into());
        let message = read(&[("content-type", b"application/cloudevents+json")], found);
        assert_eq!((message.id.as_str(), &*message.name), ("given", ""));
    }
}
