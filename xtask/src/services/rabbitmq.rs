//! RabbitMQ: one node of Debian's, with quorum queues, streams, consistent hashes and management.
//!
//! A quorum queue is lost for good when the node is killed within about five seconds after the queue
//! was declared: its name reaches the disk only then. A test of a crash waits for that first.

use super::certificates::{self, Certificates};
use super::install::{self, Package};
use super::place::{Place, give};
use super::{Detour, Server, Service, Variable};
use super::{probe, room};
use crate::process;
use anyhow::{Context, Result, ensure};
use rustix::process::Pid;
use serde_json::json;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const PLAIN: u16 = 72;
const MANAGEMENT: u16 = 73;
const MANAGED_AT: &str = "SILLAGE_TEST_RABBITMQ_MANAGEMENT";
const STREAM: u16 = 74;
/// Between the node and its tools.
const DISTRIBUTION: u16 = 75;
/// The name server of Erlang nodes: ours knows this node only.
const NAMES: u16 = 76;
const TLS: u16 = 77;
/// Where a proxy may be.
const PROXY: u16 = 78;

/// What a client of AMQP 0-9-1 says first; the answer is a frame with a method.
const GREETING: &[u8] = b"AMQP\0\0\x09\x01";
const METHOD_FRAME: u8 = 1;

pub(super) struct Rabbitmq;

impl Server for Rabbitmq {
    fn variables(&self, place: &Place) -> Vec<Variable> {
        let url =
            |scheme: &str, offset| format!("{scheme}://test:test@127.0.0.1:{}", place.port(offset));
        vec![
            Variable::new("SILLAGE_TEST_RABBITMQ", url("amqp", PLAIN)),
            Variable::new("SILLAGE_TEST_RABBITMQ_TLS", url("amqps", TLS)),
            Variable::new(MANAGED_AT, url("http", MANAGEMENT)),
        ]
    }

    fn port(&self, place: &Place) -> u16 {
        place.port(PLAIN)
    }

    fn detour(&self, place: &Place) -> Option<Detour> {
        let (proxy, server) = (place.port(PROXY), place.port(PLAIN));
        Some(Detour { url: format!("amqp://test:test@127.0.0.1:{proxy}"), proxy, server })
    }

    /// A virtual host, for the user of this address.
    fn make_room(&self, _place: &Place, server: &str, name: &str) -> Result<String> {
        let (user, url) = in_host(server, name);
        manage(&["-X", "PUT"], &format!("vhosts/{name}"))?;
        let all = json!({ "configure": ".*", "write": ".*", "read": ".*" }).to_string();
        let put = ["-X", "PUT", "-H", "content-type: application/json", "-d", &all];
        manage(&put, &format!("permissions/{name}/{user}"))?;
        Ok(url)
    }

    fn remove_room(&self, _place: &Place, _server: &str, name: &str) -> Result<()> {
        manage(&["-X", "DELETE"], &format!("vhosts/{name}"))
    }

    fn install(&self, _place: &Place) -> Result<()> {
        let is_there = installed().is_some();
        install::packages(&[
            Package { name: "rabbitmq-server", is_there },
            Package { name: "curl", is_there: install::has("curl") },
        ])?;
        certificates::make().map(drop)
    }

    fn prepare(&self, place: &Place) -> Result<Command> {
        place.make("data")?;
        place.write("rabbitmq.conf", &configuration(place)?)?;
        place.write(
            "enabled_plugins",
            "[rabbitmq_management,rabbitmq_stream,rabbitmq_consistent_hash_exchange].\n",
        )?;
        cookie(place)?;
        let program = program("rabbitmq-server")?;
        Ok(environment(place, place.daemon(program)))
    }

    /// What we start is a script that starts it.
    fn writes_pid(&self) -> bool {
        true
    }

    fn answers(&self, place: &Place) -> bool {
        probe::answer(self.port(place), GREETING).is_ok_and(|answer| answer == [METHOD_FRAME])
    }

    fn stop(&self, place: &Place, _pid: Pid) -> Result<()> {
        let mut command = environment(place, place.command(program("rabbitmqctl")?));
        let output = command.args(["-q", "stop"]).arg(place.pid_file()).output();
        let output = output.context("rabbitmqctl did not start")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "rabbitmqctl failed: {said}");
        Ok(())
    }

    /// The name server outlives its node.
    fn clear(&self, place: &Place) -> Result<()> {
        if !probe::is_free(place.port(NAMES)) {
            let mut command = environment(place, place.command("epmd"));
            command.arg("-kill").stdout(Stdio::null()).status().context("epmd did not start")?;
        }
        Ok(())
    }
}

/// The user of an address, and the address of this virtual host on the same server.
fn in_host(server: &str, name: &str) -> (String, String) {
    let (place, query) = server.split_at(server.find('?').unwrap_or(server.len()));
    let authority = place.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
    let user = authority.split_once('@').and_then(|(before, _)| before.rsplit('/').next());
    let user = user.and_then(|user| user.split(':').next()).unwrap_or("guest").to_owned();
    (user, format!("{authority}/{name}{query}"))
}

/// Asks the plugin for management.
fn manage(arguments: &[&str], what: &str) -> Result<()> {
    let api = room::address(Service::Rabbitmq, MANAGED_AT);
    let api = api.with_context(|| format!("{MANAGED_AT} does not say where it is managed"))?;
    let mut curl = Command::new("curl");
    curl.args(["-sfS", "-o", "/dev/null"]).args(arguments).arg(format!("{api}/api/{what}"));
    process::output(curl).map(drop)
}

/// Where its programs are; those on the path change the user by themselves.
fn installed() -> Option<PathBuf> {
    install::newest("/usr/lib/rabbitmq/lib", "rabbitmq_server-").map(|found| found.join("sbin"))
}

fn program(name: &str) -> Result<PathBuf> {
    Ok(installed().context("RabbitMQ is not installed")?.join(name))
}

fn configuration(place: &Place) -> Result<String> {
    let Certificates { ca, certificate, key, .. } = certificates::make()?;
    Ok(format!(
        include_str!("rabbitmq/rabbitmq.conf"),
        plain = place.port(PLAIN),
        tls = place.port(TLS),
        management = place.port(MANAGEMENT),
        stream = place.port(STREAM),
        ca = ca.display(),
        certificate = certificate.display(),
        key = key.display(),
    ))
}

/// The secret between the node and its tools, which only the user may read.
fn cookie(place: &Place) -> Result<()> {
    let path = place.make("home")?.join(".erlang.cookie");
    if !path.exists() {
        write_cookie(&path).with_context(|| process::relative(&path))?;
        give(&path)?;
    }
    Ok(())
}

fn write_cookie(path: &Path) -> std::io::Result<()> {
    let part = path.with_extension("part");
    fs::write(&part, format!("{:032x}", rand::random::<u128>()))?;
    fs::set_permissions(&part, Permissions::from_mode(0o400))?;
    fs::rename(part, path)
}

/// Everything that makes this node another one than the system's.
fn environment(place: &Place, mut command: Command) -> Command {
    let node = format!("sillage{}@localhost", place.port(0));
    command
        .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
        .env("RABBITMQ_NODENAME", node)
        .env("RABBITMQ_DIST_PORT", place.port(DISTRIBUTION).to_string())
        .env("ERL_EPMD_PORT", place.port(NAMES).to_string())
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
        .env("RABBITMQ_CONFIG_FILE", place.path("rabbitmq.conf"))
        .env("RABBITMQ_ADVANCED_CONFIG_FILE", place.path("advanced.config"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", place.path("enabled_plugins"))
        .env("RABBITMQ_MNESIA_BASE", place.path("data"))
        .env("RABBITMQ_LOG_BASE", place.path("log"))
        .env("RABBITMQ_LOGS", "-")
        .env("RABBITMQ_PID_FILE", place.pid_file())
        .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1}")
        .env("RABBITMQ_SERVER_ERL_ARGS", "+S 2:2");
    command
}

#[cfg(test)]
mod tests {
    use super::in_host;

    #[test]
    fn a_virtual_host_takes_the_place_of_another() {
        let host = |server| in_host(server, "run-1");
        let of = |user: &str, url: &str| (user.to_owned(), url.to_owned());
        assert_eq!(host("amqp://a:b@c:72"), of("a", "amqp://a:b@c:72/run-1"));
        assert_eq!(host("amqp://a:b@c:72/d?ca=/x"), of("a", "amqp://a:b@c:72/run-1?ca=/x"));
        assert_eq!(host("amqps://c"), of("guest", "amqps://c/run-1"));
    }
}
