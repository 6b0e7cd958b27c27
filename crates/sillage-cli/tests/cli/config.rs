//! Where settings come from.

use crate::fixture::Fixture;
use serde_json::Value;
use std::fs;

fn shown(fixture: &Fixture, args: &[&str], environment: Option<&str>) -> (String, String) {
    let mut command = fixture.bare(&[&["config", "show", "-o", "json"], args].concat());
    if let Some(url) = environment {
        command.env("SILLAGE_DATABASE", url);
    }
    let lines: Vec<Value> = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
    let line = lines.iter().find(|line| line["setting"] == "database").unwrap();
    let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
    (text("value"), text("origin"))
}

#[tokio::test]
async fn flag_environment_here_user_default() {
    let fixture = Fixture::empty().await;
    let answer = |args, environment| shown(&fixture, args, environment);
    let pair = |value: &str, origin: &str| (value.to_owned(), origin.to_owned());
    assert_eq!(answer(&[], None), pair("", "default"));

    let unnamed = fixture.bare(&["doctor"]).output().unwrap();
    let said = String::from_utf8(unnamed.stderr).unwrap();
    assert_eq!(unnamed.status.code(), Some(2));
    for way in ["--database", "SILLAGE_DATABASE", "./sillage.toml", "config.toml"] {
        assert!(said.contains(way), "{said}");
    }

    fs::create_dir_all(fixture.folder.join("shop-data")).unwrap();
    fs::write(fixture.folder.join("shop-data/shop.db"), "x").unwrap();
    assert_eq!(answer(&[], None), pair("sqlite:shop-data/shop.db", "default"));

    let users = fixture.folder.join(".config/sillage");
    fs::create_dir_all(&users).unwrap();
    fs::write(users.join("config.toml"), "database = \"sqlite:user.db\"\n").unwrap();
    let (value, origin) = answer(&[], None);
    assert_eq!(value, "sqlite:user.db");
    assert!(origin.ends_with(".config/sillage/config.toml"), "{origin}");

    fs::write(fixture.folder.join("sillage.toml"), "database = \"sqlite:here.db\"\n").unwrap();
    assert_eq!(answer(&[], None), pair("sqlite:here.db", "./sillage.toml"));
    let environment = Some("sqlite:env.db");
    assert_eq!(answer(&[], environment), pair("sqlite:env.db", "environment SILLAGE_DATABASE"));
    let flag = ["--database", "sqlite:flag.db"];
    assert_eq!(answer(&flag, environment), pair("sqlite:flag.db", "flag --database"));
}

#[tokio::test]
async fn a_broker_is_found_in_the_same_way() {
    let fixture = Fixture::empty().await;
    let answer = |args: &[&str], environment: Option<&str>| {
        let mut command = fixture.bare(&[&["config", "show", "-o", "json"], args].concat());
        if let Some(url) = environment {
            command.env("SILLAGE_BROKER", url);
        }
        let lines: Vec<Value> = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
        let line = lines.iter().find(|line| line["setting"] == "broker").unwrap();
        format!("{} by {}", line["value"], line["origin"].as_str().unwrap())
    };
    assert_eq!(answer(&[], None), "null by default");
    fs::write(fixture.folder.join("sillage.toml"), "broker = \"kafka://here\"\n").unwrap();
    assert_eq!(answer(&[], None), "\"kafka://here\" by ./sillage.toml");
    let environment = Some("amqp://me:secret@env");
    assert_eq!(answer(&[], environment), "\"amqp://me:…@env\" by environment SILLAGE_BROKER");
    let flag = ["--broker", "embedded"];
    assert_eq!(answer(&flag, environment), "null by flag --broker");
    let help = fixture.bare(&["--help"]).env("SILLAGE_BROKER", "amqp://me:secret@env").output();
    assert!(!String::from_utf8(help.unwrap().stdout).unwrap().contains("secret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_not_built_in_is_told() {
    let fixture = Fixture::filled().await;
    let unknown = ["topics", "list", "--broker", "nats://here"];
    fixture.run(&unknown).await.fails(2, "`nats` is no broker");
    if cfg!(not(feature = "kafka")) {
        let ran = fixture.run(&["topics", "list", "--broker", "kafka://here"]).await;
        let ran = ran.fails(2, "built without Kafka");
        assert!(ran.err.contains("-p sillage-cli --features kafka"), "{}", ran.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_file_names_itself() {
    let fixture = Fixture::empty().await;
    let file = fixture.folder.join("sillage.toml");
    fs::write(&file, "output = \"xml\"\n").unwrap();
    fixture.run(&["topics", "list"]).await.fails(2, "`output` in ./sillage.toml");
    fs::write(&file, "output = ").unwrap();
    fixture.run(&["topics", "list"]).await.exits(2);
    fs::write(&file, "datbase = \"x\"\noutput = \"json\"\n").unwrap();
    let ran = fixture.run(&["topics", "list"]).await.exits(0);
    assert_eq!(ran.out.trim(), "[]");
    assert!(ran.err.contains("`datbase` is not known"), "{}", ran.err);
}
