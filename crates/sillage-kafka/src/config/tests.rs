use super::*;

fn refusal(url: &str) -> String {
    Config::parse(url).unwrap_err().to_string()
}

#[test]
fn servers_and_topics_come_from_the_url() {
    let config =
        Config::parse("kafka://a:1,b?partitions=6&replication=3&retention=7d&create_topics=false")
            .unwrap();
    assert_eq!(config.servers, "a:1,b:9092");
    assert_eq!(config.topics.partitions, Some(6));
    assert_eq!(config.topics.replication, 3);
    assert_eq!(config.topics.retention, Some(7 * 86_400_000));
    assert!(!config.topics.create);
    assert_eq!(retention("forever").unwrap(), -1);
    assert_eq!(Config::parse("kafka://[::1]:9092").unwrap().servers, "[::1]:9092");
    assert_eq!(Config::parse("kafka://[::1]").unwrap().servers, "[::1]:9092");
}

#[test]
fn mistakes_are_named() {
    for (url, said) in [
        ("amqp://a", "does not begin with kafka://"),
        ("kafka://", "`` is no server"),
        ("kafka://a:x", "`a:x` is no server"),
        ("kafka://a:1,", "`` is no server"),
        ("kafka://a?color=red", "`color` is unknown: known are partitions"),
        ("kafka://a?partitions", "`partitions` has no value"),
        ("kafka://a?partitions=0", "expected 1 to 100000"),
        ("kafka://a?retention=7", "expected 7d"),
        ("kafka://a?retention=99999999999999999d", "expected 7d"),
        ("kafka://a?create_topics=yes", "expected true or false"),
        ("kafka://a?security=ssl", "expected plaintext, tls"),
        ("kafka://a?user=bob", "add security=sasl_tls"),
        ("kafka://bob:x@a", "add security=sasl_tls"),
        ("kafka://a?ca=/x.pem", "`ca` is for TLS"),
        ("kafka://a?security=sasl_plaintext", "needs `user` and `password_env`"),
        ("kafka://b:c@a?security=sasl_plaintext&mechanism=X", "expected PLAIN"),
        ("kafka://a?password_env=SILLAGE_NOT_SET", "not in the environment"),
        ("kafka://b:100%@a?security=sasl_plaintext", "write %25"),
    ] {
        let refusal = refusal(url);
        assert!(refusal.contains(said), "{url}: {refusal}");
    }
}

#[test]
fn what_would_break_a_promise_is_refused_by_name() {
    for property in REFUSED.iter().flat_map(|(_, properties)| *properties) {
        let refusal = refusal(&format!("kafka://a?rdkafka.{property}=1"));
        assert!(refusal.contains(&format!("`rdkafka.{property}` cannot be set")), "{refusal}");
    }
}

#[test]
fn what_is_passed_through_has_the_last_word() {
    let config = Config::parse("kafka://a?rdkafka.linger.ms=0&rdkafka.session.timeout.ms=6000");
    let config = config.unwrap();
    assert_eq!(config.producer(1000, 1000).get("linger.ms"), Some("0"));
    assert_eq!(config.consumer("c", false).get("session.timeout.ms"), Some("6000"));
}

#[test]
fn passwords_are_read_and_never_shown() {
    let url = "kafka://bob:p%40ss@a?security=sasl_plaintext";
    let config = Config::parse(url).unwrap();
    assert_eq!(config.client().get("sasl.password"), Some("p@ss"));
    assert!(!format!("{config:?}").contains("p@ss"));
}

#[cfg(not(feature = "ssl"))]
#[test]
fn what_is_not_built_in_names_its_feature() {
    for url in [
        "kafka://a?security=tls",
        "kafka://b:c@a?security=sasl_tls",
        "kafka://b:c@a?security=sasl_plaintext&mechanism=SCRAM-SHA-256",
    ] {
        assert!(refusal(url).contains("add the feature `ssl`"), "{url}");
    }
}

#[test]
fn the_clients_library_knows_all_properties() {
    let config = Config::parse("kafka://a").unwrap();
    config.producer(1_048_588, 1_000_000).create_native_config().unwrap();
    config.consumer("c", false).create_native_config().unwrap();
    config.observer("c").create_native_config().unwrap();
}
