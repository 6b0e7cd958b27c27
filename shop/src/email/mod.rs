//! The email service: one mail for each way an order can end.
//!
//! It keeps the addresses it needs from `integration.customer.created`, so that it asks nobody when
//! it writes. The address may come after the order's end, as topics are not ordered among each
//! other: the mail is then tried again until it is known.

mod mailer;

pub use mailer::{Letter, Mailer, NoServer, letters_in};

use crate::{
    events::{CustomerCreated, OrderCancelled, OrderCompleted},
    ids::{CustomerId, OrderId},
};
use serde::{Deserialize, Serialize};
use sillage::prelude::*;

/// Where to write to a customer.
#[derive(Document, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[document(collection = "contacts")]
pub struct Contact {
    /// Who.
    #[document(id)]
    pub customer_id: CustomerId,
    /// What to call them.
    pub name: String,
    /// The address.
    pub email: String,
}

/// The service.
pub fn service(mailer: Mailer) -> Service {
    let consumer = Consumer::new("email").on(remember).on(completed).on(cancelled).retry(
        Retry::in_lane([ms(50), ms(500), secs(2)]).then_park([
            secs(10),
            mins(1),
            mins(10),
            hours(1),
        ]),
    );
    Service::new("email").state(mailer).consumer(consumer)
}

async fn remember(customer: CustomerCreated) -> Effects {
    let CustomerCreated { customer_id, name, email } = customer;
    put_blind(Contact { customer_id, name, email })
}

async fn completed(
    order: OrderCompleted,
    State(mailer): State<Mailer>,
    contacts: Documents,
    meta: Meta,
) -> Result<(), Failure> {
    let subject = "Your order is on its way";
    let text = format!("Your order {} of {} is on its way.", order.order_id, order.total);
    let to = contact(&contacts, &order.customer_id).await?;
    mailer.send(&letter(order.order_id, &to, subject, &text, &meta)).await
}

async fn cancelled(
    order: OrderCancelled,
    State(mailer): State<Mailer>,
    contacts: Documents,
    meta: Meta,
) -> Result<(), Failure> {
    let subject = "Your order was cancelled";
    let text = format!(
        "Your order {} was cancelled: {}. Whatever you paid for it is paid back.",
        order.order_id, order.why
    );
    let to = contact(&contacts, &order.customer_id).await?;
    mailer.send(&letter(order.order_id, &to, subject, &text, &meta)).await
}

/// The address may change while the mail is on its way, hence `peek`.
async fn contact(contacts: &Documents, customer_id: &CustomerId) -> Result<Contact, Failure> {
    let unknown = || Failure::transient(format!("no address of customer `{customer_id}` yet"));
    contacts.peek::<Contact>(customer_id).await?.ok_or_else(unknown)
}

fn letter(order_id: OrderId, to: &Contact, subject: &str, text: &str, meta: &Meta) -> Letter {
    Letter {
        key: meta.idempotency_key("mail"),
        order_id,
        name: to.name.clone(),
        email: to.email.clone(),
        subject: subject.to_owned(),
        text: format!("Dear {},\n\n{text}\n\nThe shop\n", to.name),
        time: meta.time,
    }
}
