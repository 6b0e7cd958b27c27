//! A certificate authority for tests, and the certificate of servers at `localhost` and
//! `127.0.0.1`: made once, good for ten years, worth nothing anywhere else.

use super::install;
use super::place::{Place, give};
use crate::process;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where they are.
pub(super) struct Certificates {
    /// Whom clients have to trust.
    pub(super) ca: PathBuf,
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    /// Key, certificate and authority in one file.
    pub(super) bundle: PathBuf,
}

impl Certificates {
    fn below(folder: &Path) -> Self {
        Certificates {
            ca: folder.join("ca.pem"),
            certificate: folder.join("server.pem"),
            key: folder.join("server-key.pem"),
            bundle: folder.join("server-bundle.pem"),
        }
    }

    /// Where they are once they are made.
    pub(super) fn of(place: &Place) -> Self {
        Self::below(&place.path("made"))
    }
}

/// Makes them unless they are there.
pub(super) fn make() -> Result<Certificates> {
    let place = Place::of("tls")?;
    let _lock = place.lock()?;
    let made = place.path("made");
    if !made.exists() {
        install::program("openssl")?;
        let folder = place.make("part")?;
        fill(&folder)?;
        fs::rename(&folder, &made).with_context(|| process::relative(&made))?;
    }
    Ok(Certificates::of(&place))
}

fn fill(folder: &Path) -> Result<()> {
    let Certificates { ca, certificate, key, bundle } = Certificates::below(folder);
    let ca_key = folder.join("ca-key.pem");
    install::run(request("ca", &ca_key, &ca))?;
    let mut server = request("server", &key, &certificate);
    server.arg("-CA").arg(&ca).arg("-CAkey").arg(&ca_key);
    install::run(server)?;
    let parts: Result<String> = [&key, &certificate, &ca]
        .into_iter()
        .map(|part| fs::read_to_string(part).with_context(|| process::relative(part)))
        .collect();
    fs::write(&bundle, parts?).with_context(|| process::relative(&bundle))?;
    give(&key)
}

/// A new key and its certificate, signed with the key itself unless said otherwise.
fn request(kind: &str, key: &Path, certificate: &Path) -> Command {
    let mut command = Command::new("openssl");
    command
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
        .args(["-days", "3650", "-extensions", kind, "-subj", &format!("/CN=Sillage test {kind}")])
        .arg("-config")
        .arg(process::root().join("xtask/src/services/openssl.cnf"))
        .arg("-keyout")
        .arg(key)
        .arg("-out")
        .arg(certificate);
    command
}
