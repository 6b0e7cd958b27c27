//! From a URL to a database.

use sillage_core::{Database, Error, ErrorKind, Result};
use std::sync::Arc;

/// Opens the database of a URL: `sqlite:shop.db` (made when it is not there).
///
/// A URL of a backend that is not compiled in is an error that names the feature to add.
pub async fn connect(url: &str) -> Result<Arc<dyn Database>> {
    let (scheme, rest) = url.split_once(':').ok_or_else(|| {
        Error::invalid(format!("`{url}` is no database URL: expected `sqlite:FILE`"))
    })?;
    match scheme {
        "sqlite" => sqlite(rest.trim_start_matches("//")).await,
        "postgres" | "postgresql" => Err(missing(scheme, "postgres")),
        other => Err(Error::invalid(format!(
            "`{other}:` is no database that Sillage knows: expected `sqlite:FILE`"
        ))),
    }
}

fn missing(scheme: &str, feature: &str) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!("`{scheme}:` needs the feature `{feature}` of `sillage`, which is not compiled in"),
    )
}

#[cfg(feature = "sqlite")]
async fn sqlite(path: &str) -> Result<Arc<dyn Database>> {
    let path = path.to_owned();
    let open = move || sillage_sqlite::Sqlite::open(path, Arc::new(crate::SystemClock));
    let opened = tokio::task::spawn_blocking(open).await;
    let opened =
        opened.map_err(|error| Error::unavailable("opening was cut off").because(error))?;
    Ok(Arc::new(opened?))
}

#[cfg(not(feature = "sqlite"))]
fn sqlite(_path: &str) -> std::future::Ready<Result<Arc<dyn Database>>> {
    std::future::ready(Err(missing("sqlite", "sqlite")))
}
