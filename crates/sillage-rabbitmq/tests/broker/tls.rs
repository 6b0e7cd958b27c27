//! Encrypted connections.

use sillage_core::ErrorKind;
use sillage_rabbitmq::RabbitMq;
use sillage_testkit::servers;

#[tokio::test(flavor = "multi_thread")]
async fn the_server_must_be_one_that_is_trusted() {
    let Some(url) = servers::url("SILLAGE_TEST_RABBITMQ_TLS") else { return };
    let Some(ca) = servers::url("SILLAGE_TEST_CA") else { return };
    RabbitMq::connect(&format!("{url}?ca={ca}")).await.unwrap();
    let untrusted = RabbitMq::connect(&url).await.unwrap_err();
    assert_eq!(untrusted.kind(), ErrorKind::Unavailable, "{untrusted}");
    assert!(untrusted.to_string().contains("certificate"), "{untrusted}");
}
