//! Kafka: one process that is broker and controller, from the jars of Maven Central.
//!
//! Besides the plain listener it has one with SASL, one with TLS, one with both, and one whose clients
//! are sent through a proxy: Kafka tells them itself where to connect to. Who gives up on
//! whom is decided within seconds, so that a test of a crash need not wait for minutes.

use super::certificates::{self, Certificates};
use super::install::{self, Package};
use super::place::Place;
use super::probe;
use super::{Detour, Server, Variable};
use crate::process;
use anyhow::{Context, Result, ensure};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The newest of which all parts are on Maven Central.
const VERSION: &str = "4.3.1";
/// Who may come in by SASL, PLAIN or SCRAM-SHA-256.
const USER: &str = "alice";
const PASSWORD: &str = "alice-secret";

const PLAIN: u16 = 92;
const CONTROLLER: u16 = 93;
const SASL: u16 = 94;
const TLS: u16 = 95;
const SASL_TLS: u16 = 96;
const BEHIND_PROXY: u16 = 97;
const PROXY: u16 = 98;

/// Metadata, version 4, of no topic: its answer begins with length, correlation, throttle time and
/// the number of brokers, four bytes each. A broker that is not ready yet is not among them.
const METADATA: [u8; 19] = [0, 0, 0, 15, 0, 3, 0, 4, 0, 0, 0, 1, 0xff, 0xff, 0, 0, 0, 0, 0];

pub(super) struct Kafka;

impl Server for Kafka {
    fn variables(&self, place: &Place) -> Vec<Variable> {
        let at = |offset| format!("127.0.0.1:{}", place.port(offset));
        let user = format!("{USER}:{PASSWORD}");
        let scram = "mechanism=SCRAM-SHA-256";
        let ca = Certificates::of(&place.beside("tls")).ca;
        let ca = format!("ca={}", ca.display());
        vec![
            Variable::new("SILLAGE_TEST_KAFKA", format!("kafka://{}", at(PLAIN))),
            Variable::new("SILLAGE_TEST_KAFKA_PROXIED", format!("kafka://{}", at(PROXY))),
            Variable::new("SILLAGE_TEST_KAFKA_BEHIND_PROXY", at(BEHIND_PROXY)),
            Variable::new(
                "SILLAGE_TEST_KAFKA_SASL",
                format!("kafka://{user}@{}?security=sasl_plaintext&{scram}", at(SASL)),
            ),
            Variable::new(
                "SILLAGE_TEST_KAFKA_TLS",
                format!("kafka://{}?security=tls&{ca}", at(TLS)),
            ),
            Variable::new(
                "SILLAGE_TEST_KAFKA_SASL_TLS",
                format!("kafka://{user}@{}?security=sasl_tls&{scram}&{ca}", at(SASL_TLS)),
            ),
        ]
    }

    fn port(&self, place: &Place) -> u16 {
        place.port(PLAIN)
    }

    fn detour(&self, place: &Place) -> Option<Detour> {
        let (proxy, server) = (place.port(PROXY), place.port(BEHIND_PROXY));
        Some(Detour { url: format!("kafka://127.0.0.1:{proxy}"), proxy, server })
    }

    /// The topics whose names begin so, before a `-`.
    fn remove_room(&self, place: &Place, server: &str, name: &str) -> Result<()> {
        ensure!(jars(place).exists(), "Kafka's own tools are not installed");
        let server = server.trim_start_matches("kafka://").split(['?', '/']).next();
        let topics = format!("{}-.*", name.replace('.', "\\."));
        let mut command = place.command("java");
        command
            .args(["-cp", &class_path(place), "org.apache.kafka.tools.TopicCommand"])
            .args(["--bootstrap-server", server.unwrap_or_default(), "--delete", "--if-exists"])
            .args(["--topic", &topics]);
        process::output(command).map(drop)
    }

    fn install(&self, place: &Place) -> Result<()> {
        let jars = jars(place);
        let is_there = |program: &str| install::has(program);
        install::packages(&[
            Package { name: "openjdk-17-jre-headless", is_there: is_there("java") },
            Package { name: "maven", is_there: jars.exists() || is_there("mvn") },
        ])?;
        if !jars.exists() {
            let part = place.path("lib.part");
            install::run(copy_jars(&part))?;
            fs::rename(&part, &jars).with_context(|| process::relative(&jars))?;
        }
        certificates::make().map(drop)
    }

    fn prepare(&self, place: &Place) -> Result<Command> {
        let properties = place.write("server.properties", &properties(place)?)?;
        let log4j2 = place.write("log4j2.properties", include_str!("kafka/log4j2.properties"))?;
        place.make("data")?;
        if !place.path("data/meta.properties").exists() {
            format(place)?;
        }
        let mut command = place.daemon("java");
        command
            .args(["-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError"])
            .arg(format!("-Dlog4j2.configurationFile={}", log4j2.display()))
            .args(["-cp", &class_path(place), "kafka.Kafka"])
            .arg(properties);
        Ok(command)
    }

    fn answers(&self, place: &Place) -> bool {
        let answer = probe::answer::<16>(self.port(place), &METADATA);
        answer.is_ok_and(|answer| answer[12..] != [0; 4])
    }
}

fn jars(place: &Place) -> PathBuf {
    place.path(&format!("lib-{VERSION}"))
}

fn class_path(place: &Place) -> String {
    format!("{}/*", jars(place).display())
}

fn copy_jars(folder: &Path) -> Command {
    let mut maven = Command::new("mvn");
    maven
        .args(["-q", "-B", "-f"])
        .arg(process::root().join("xtask/src/services/kafka/pom.xml"))
        .args(["dependency:copy-dependencies", "-DincludeScope=runtime"])
        .arg(format!("-Dkafka.version={VERSION}"))
        .arg(format!("-DoutputDirectory={}", folder.display()));
    maven
}

fn properties(place: &Place) -> Result<String> {
    let Certificates { ca, bundle, .. } = certificates::make()?;
    Ok(format!(
        include_str!("kafka/server.properties"),
        data = place.path("data").display(),
        plain = place.port(PLAIN),
        behind_proxy = place.port(BEHIND_PROXY),
        proxy = place.port(PROXY),
        controller = place.port(CONTROLLER),
        sasl = place.port(SASL),
        tls = place.port(TLS),
        sasl_tls = place.port(SASL_TLS),
        user = USER,
        password = PASSWORD,
        bundle = bundle.display(),
        ca = ca.display(),
    ))
}

/// Makes the data folder, with the user for SCRAM in it.
fn format(place: &Place) -> Result<()> {
    let log = place.path("format.log");
    let output = File::create(&log).with_context(|| process::relative(&log))?;
    let mut command = place.command("java");
    command
        .args(["-cp", &class_path(place), "kafka.tools.StorageTool", "format", "--standalone"])
        .args(["--ignore-formatted", "--cluster-id", "MkU3OEVBNTcwNTJENDM2Qk"])
        .args(["--add-scram", &format!("SCRAM-SHA-256=[name={USER},password={PASSWORD}]")])
        .arg("--config")
        .arg(place.path("server.properties"))
        .stdout(output.try_clone()?)
        .stderr(output);
    let status = command.status().context("java did not start")?;
    ensure!(status.success(), "the data folder cannot be made: {}", install::last_lines(&log));
    Ok(())
}
