//! Room for one run on a broker that others use too: what was made there goes with it.
//!
//! *Guarantees.* Nothing else is removed: on RabbitMQ a room is a virtual host of its own, on Kafka the
//! topics whose names begin with the room's and a `-`. Where that cannot be done it is said, and what was
//! made stays.

use super::{Service, for_tests};
use anyhow::Result;

pub(crate) struct Room {
    service: Service,
    /// The server's own address.
    server: String,
    name: String,
    /// The room's, as `--broker` takes it.
    pub(crate) url: String,
}

impl Room {
    /// On the server with this address. The name must be one that nobody else uses.
    pub(crate) fn make(service: Service, server: &str, name: &str) -> Result<Self> {
        let url = service.server().make_room(&service.place()?, server, name)?;
        Ok(Room { service, server: server.to_owned(), name: name.to_owned(), url })
    }

    fn remove(&self) -> Result<()> {
        let place = self.service.place()?;
        self.service.server().remove_room(&place, &self.server, &self.name)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            println!("{}: what `{}` made stays: {error:#}", self.service.name(), self.name);
        }
    }
}

/// The address in this variable: the user's, or that of our server if it is ours that is used.
pub(super) fn address(service: Service, variable: &str) -> Option<String> {
    if let Ok(given) = std::env::var(variable) {
        return Some(given);
    }
    if for_tests::given(service).is_some() {
        return None;
    }
    let ours = service.variables().ok()?;
    ours.into_iter().find(|ours| ours.name == variable).map(|ours| ours.value)
}
