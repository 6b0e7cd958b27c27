//! The parts of `kafka://user:password@host:port,host:port?name=value&…`.

use super::invalid;
use sillage_core::Result;

/// A URL in its parts, decoded.
pub(super) struct Url {
    pub(super) servers: String,
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    pub(super) parameters: Vec<(String, String)>,
}

/// Kafka's port, where none is said.
const PORT: u16 = 9092;

impl Url {
    pub(super) fn parse(text: &str) -> Result<Url> {
        let rest = text.strip_prefix("kafka://").ok_or_else(|| {
            invalid("it does not begin with kafka://: expected kafka://host:port")
        })?;
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (access, hosts) = match place.rsplit_once('@') {
            Some((access, hosts)) => (Some(access), hosts),
            None => (None, place),
        };
        let (user, password) = match access {
            Some(access) => credentials(access)?,
            None => (None, None),
        };
        let parameters = query.split('&').filter(|part| !part.is_empty()).map(parameter);
        let parameters = parameters.collect::<Result<_>>()?;
        Ok(Url { servers: servers(hosts.trim_end_matches('/'))?, user, password, parameters })
    }
}

fn credentials(access: &str) -> Result<(Option<String>, Option<String>)> {
    let (user, password) = match access.split_once(':') {
        Some((user, password)) => (user, Some(decode(password)?)),
        None => (access, None),
    };
    Ok((Some(decode(user)?), password))
}

fn servers(hosts: &str) -> Result<String> {
    let servers: Vec<String> = hosts.split(',').map(server).collect::<Result<_>>()?;
    Ok(servers.join(","))
}

fn server(host: &str) -> Result<String> {
    let (name, port) = match host.rsplit_once(':') {
        // The last colon of a bare IPv6 address begins no port.
        Some((name, port)) if !port.ends_with(']') => (name, port.parse().ok()),
        _ => (host, Some(PORT)),
    };
    let legal = !name.is_empty() && !name.contains([' ', '/', '@']);
    match port {
        Some(port) if legal && port > 0 => Ok(format!("{name}:{port}")),
        _ => Err(invalid(format!("`{host}` is no server: expected host:port"))),
    }
}

fn parameter(part: &str) -> Result<(String, String)> {
    let (name, value) = part
        .split_once('=')
        .ok_or_else(|| invalid(format!("`{part}` has no value: expected {part}=…")))?;
    Ok((decode(name)?, decode(value)?))
}

/// Undoes `%XX`.
fn decode(text: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let coded = after.get(..2).and_then(|coded| std::str::from_utf8(coded).ok());
        let byte = coded.and_then(|coded| u8::from_str_radix(coded, 16).ok());
        // What stands there may be a password: it is not repeated.
        bytes.push(byte.ok_or_else(|| invalid("a `%` is not followed by two digits: write %25"))?);
        rest = &after[2..];
    }
    String::from_utf8(bytes).map_err(|_| invalid("what `%XX` stands for is not UTF-8"))
}
