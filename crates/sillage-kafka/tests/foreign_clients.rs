//! The wire format against the code of others: each reads what we write, and we what it writes.
//!
//! `SILLAGE_TEST_FOREIGN` says where the programs are: `cargo xtask test` installs them.

// Helpers of tests are no tests to clippy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod foreign;

use foreign::{
    Corner, PARENT, by_key, check_event,
    child::{lines, run},
    data, event, headers, payload, unique,
};
use serde_json::{Value, json};
use sillage_core::Key;
use std::collections::BTreeMap;

#[tokio::test]
async fn the_cloudevents_sdk_takes_ours_for_valid_events() {
    let Some(corner) = Corner::new().await else { return };
    corner.publish(0..3, 3).await;
    let mut command = corner.command("confluent.py", "read");
    command.arg("3");
    let mut seen = run(command, "").await;
    seen.sort_by_key(|line| line["data"]["number"].as_u64());
    for (number, line) in (0..3).zip(&seen) {
        let key = format!("order-{number}");
        let attributes = json!({
            "specversion": "1.0",
            "id": format!("m-{number}"),
            "source": "shop",
            "type": "order.created",
            "time": "2026-03-04T05:06:07.123456+00:00",
            "subject": key,
            "datacontenttype": "application/json",
            "schemaversion": "2",
            "correlationid": "correlation-1",
            "causationid": "cause-1",
            "operationid": "operation-1",
            "partitionkey": key,
            "tenant": "blue",
        });
        assert_eq!(line["attributes"], attributes);
        assert_eq!(line["headers"], headers(number, number));
        assert_eq!((&line["key"], &line["data"]), (&json!(key), &data(number)));
    }
}

#[tokio::test]
async fn a_binary_event_of_the_cloudevents_sdk_is_consumed() {
    let Some(corner) = Corner::new().await else { return };
    let mut command = corner.command("confluent.py", "write");
    command.arg("binary");
    run(command, &lines(&[event("sdk-1")])).await;
    let message = corner.received(1).await.remove(0);
    check_event(&message, "sdk-1");
    assert_eq!(message.headers, []);
}

#[tokio::test]
async fn a_structured_event_of_the_cloudevents_sdk_is_consumed() {
    let Some(corner) = Corner::new().await else { return };
    let mut command = corner.command("confluent.py", "write");
    command.arg("structured");
    run(command, &lines(&[event("sdk-2")])).await;
    check_event(&corner.received(1).await[0], "sdk-2");
}

#[tokio::test]
async fn kcat_reads_ours() {
    let Some(corner) = Corner::new().await else { return };
    corner.publish(0..1, 1).await;
    let seen = run(corner.kcat(&["-C", "-J", "-o", "beginning", "-c", "1"]), "").await;
    let line = &seen[0];
    // It prints names and values in turn, and the payload as text.
    let pairs = line["headers"].as_array().unwrap().chunks(2);
    let found: Value =
        pairs.map(|pair| (pair[0].as_str().unwrap().to_owned(), pair[1].clone())).collect();
    assert_eq!((found, &line["key"]), (headers(0, 0), &json!("order-0")));
    assert_eq!(line["payload"].as_str(), Some(&*data(0).to_string()));
}

#[tokio::test]
async fn what_kcat_writes_is_consumed() {
    let Some(corner) = Corner::new().await else { return };
    let traceparent = format!("traceparent={PARENT}");
    let headers = [
        "ce_specversion=1.0",
        "ce_id=kcat-1",
        "ce_source=/till/7",
        "ce_type=order.paid",
        "ce_time=2026-03-04T05:06:07.123456Z",
        "ce_schemaversion=3",
        "ce_correlationid=correlation-7",
        "ce_causationid=cause-7",
        "content-type=application/json",
        &traceparent,
    ];
    let options = headers.iter().flat_map(|header| ["-H", header]);
    let options: Vec<_> = ["-P", "-k", "order-7"].into_iter().chain(options).collect();
    run(corner.kcat(&options), &data(7).to_string()).await;
    check_event(&corner.received(1).await[0], "kcat-1");
}

#[tokio::test]
async fn a_structured_event_that_kcat_writes_is_consumed() {
    let Some(corner) = Corner::new().await else { return };
    let options = ["-P", "-H", "content-type=application/cloudevents+json"];
    run(corner.kcat(&options), &event("kcat-2").to_string()).await;
    check_event(&corner.received(1).await[0], "kcat-2");
}

#[tokio::test]
async fn a_loop_of_kafka_go_reads_ours_in_order_and_commits() {
    let Some(corner) = Corner::new().await else { return };
    let group = unique("kafka-go");
    let read = async |count: &str| {
        let mut command = corner.command("kafka-go", "read");
        command.args([&group, count]);
        run(command, "").await
    };
    corner.publish(0..40, 4).await;
    let seen = read("40").await;
    for line in &seen {
        let number = u32::try_from(line["data"]["number"].as_u64().unwrap()).unwrap();
        assert_eq!(
            (&line["headers"], &line["data"]),
            (&headers(number, number % 4), &data(number))
        );
    }
    let in_order = |numbers: std::ops::Range<u64>| -> BTreeMap<String, Vec<u64>> {
        let of = |key| numbers.clone().filter(move |number| number % 4 == key).collect();
        (0..4).map(|key| (format!("order-{key}"), of(key))).collect()
    };
    assert_eq!(by_key(&seen), in_order(0..40));
    // What it committed does not come again.
    corner.publish(40..52, 4).await;
    assert_eq!(by_key(&read("12").await), in_order(40..52));
}

#[tokio::test]
async fn what_a_writer_of_kafka_go_says_in_plain_headers_is_understood() {
    let Some(corner) = Corner::new().await else { return };
    let stamps = ["2026-03-04T05:06:07.123456Z", "1772600767123", "1772600767"];
    let event = |number: usize| {
        json!({
            "aggregate": format!("order-{}", number % 2),
            "type": "order.shipped",
            "correlation": format!("correlation-{number}"),
            "timestamp": stamps[number % 3],
            "data": { "number": number },
        })
    };
    let events: Vec<_> = (0..12).map(event).collect();
    run(corner.command("kafka-go", "write"), &lines(&events)).await;
    let mut keys = BTreeMap::<_, Vec<_>>::new();
    for message in corner.received(12).await {
        let number = payload(&message)["number"].as_u64().unwrap();
        let times = ["07.123456Z", "07.123000Z", "07.000000Z"];
        let time = format!("2026-03-04T05:06:{}", times[usize::try_from(number % 3).unwrap()]);
        assert_eq!((&*message.name, message.time.to_string()), ("order.shipped", time));
        assert_eq!(&*message.correlation_id, format!("correlation-{number}"));
        assert_eq!(message.header("event-type").map(|value| &**value), Some(&b"order.shipped"[..]));
        keys.entry(message.key.clone().unwrap()).or_default().push(number);
    }
    let in_order = [("order-0", vec![0, 2, 4, 6, 8, 10]), ("order-1", vec![1, 3, 5, 7, 9, 11])];
    assert_eq!(keys, in_order.map(|(key, numbers)| (Key::from(key), numbers)).into());
}

#[tokio::test]
async fn a_structured_event_of_kafka_go_is_consumed() {
    let Some(corner) = Corner::new().await else { return };
    let line = json!({ "aggregate": "order-7", "structured": true, "data": event("go-1") });
    run(corner.command("kafka-go", "write"), &lines(&[line])).await;
    check_event(&corner.received(1).await[0], "go-1");
}
