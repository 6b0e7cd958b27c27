//! Users and TLS, where they are built in.

use crate::support::{Member, make, numbers, publish, unique};
use sillage_core::ErrorKind;
use sillage_kafka::Kafka;
use sillage_testkit::servers;

/// Publishes and receives over a connection of this kind.
async fn works(variable: &str) {
    let Some(url) = servers::url(variable) else { return };
    let kafka = Kafka::connect(&url).await.unwrap();
    let topic = unique("topic");
    make(&kafka, &topic, 1).await;
    publish(&kafka, &topic, "a", numbers(0..10)).await;
    let mut member = Member::join(&kafka, &unique("consumer"), &topic).await;
    assert_eq!(member.take(10).await, numbers(0..10).collect::<Vec<_>>());
    member.close().await;
}

#[tokio::test]
async fn a_user_comes_in() {
    works("SILLAGE_TEST_KAFKA_SASL").await;
}

#[tokio::test]
async fn tls_works() {
    works("SILLAGE_TEST_KAFKA_TLS").await;
}

#[tokio::test]
async fn a_user_comes_in_over_tls() {
    works("SILLAGE_TEST_KAFKA_SASL_TLS").await;
}

#[tokio::test]
async fn a_wrong_password_is_denied_soon() {
    for variable in ["SILLAGE_TEST_KAFKA_SASL", "SILLAGE_TEST_KAFKA_SASL_TLS"] {
        let Some(url) = servers::url(variable) else { return };
        let wrong = url.replace('@', "-wrong@");
        let error = Kafka::connect(&wrong).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        assert!(error.to_string().contains("check the user"), "{error}");
    }
}

#[tokio::test]
async fn an_unknown_authority_is_told() {
    let Some(url) = servers::url("SILLAGE_TEST_KAFKA_TLS") else { return };
    let (before, after) = url.split_once("ca=").unwrap();
    let rest = after.split_once('&').map_or("", |(_, rest)| rest);
    let error = Kafka::connect(&format!("{before}{rest}")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(error.to_string().contains("check `ca=…`"), "{error}");
}

#[tokio::test]
async fn without_tls_a_tls_port_is_unavailable() {
    let Some(url) = servers::url("SILLAGE_TEST_KAFKA_TLS") else { return };
    let (plain, _) = url.split_once('?').unwrap();
    let error = Kafka::connect(plain).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("whether it expects TLS"), "{error}");
}
