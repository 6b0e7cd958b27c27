//! The names things go by, each a type of its own, so that no order is taken for a customer.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use uuid::Uuid;

/// Names an order.
#[derive(
    Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord,
)]
#[serde(transparent)]
pub struct OrderId(Uuid);

impl OrderId {
    /// One that nobody has.
    pub fn fresh() -> Self {
        OrderId(Uuid::new_v4())
    }

    /// The one that belongs to this idempotency key: the same whenever it is asked for.
    pub fn of_key(key: &str) -> Self {
        OrderId(Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("shop/order/{key}").as_bytes()))
    }
}

impl fmt::Display for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for OrderId {
    type Err = uuid::Error;
    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        text.parse().map(OrderId)
    }
}

/// Why a text is no id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoId(String);

impl fmt::Display for NoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no id: 1 to 64 letters, digits, `-` or `_`", self.0.escape_debug())
    }
}

impl std::error::Error for NoId {}

macro_rules! label {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NoId;
            fn try_from(text: String) -> Result<Self, NoId> {
                let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
                if (1..=64).contains(&text.len()) && text.chars().all(allowed) {
                    Ok($name(text))
                } else {
                    Err(NoId(text.chars().take(64).collect()))
                }
            }
        }

        impl FromStr for $name {
            type Err = NoId;
            fn from_str(text: &str) -> Result<Self, NoId> {
                text.to_owned().try_into()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }
    };
}

label! {
    /// Names a customer: up to 64 letters, digits, `-` or `_`.
    CustomerId
}
label! {
    /// Names a product: up to 64 letters, digits, `-` or `_`.
    ProductId
}

impl CustomerId {
    /// The one that belongs to this idempotency key: the same whenever it is asked for.
    pub fn of_key(key: &str) -> Self {
        let id = Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("shop/customer/{key}").as_bytes());
        CustomerId(id.to_string())
    }

    /// One that nobody has.
    pub fn fresh() -> Self {
        CustomerId(Uuid::new_v4().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_checked_where_they_come_in() {
        assert_eq!("customer-1".parse::<CustomerId>().unwrap().as_str(), "customer-1");
        for wrong in ["", "a/b", "a b", "ä", &"x".repeat(65), "\0"] {
            assert!(wrong.parse::<CustomerId>().is_err(), "{wrong:?}");
        }
        assert!(serde_json::from_str::<ProductId>(r#""a/b""#).is_err());
    }

    #[test]
    fn a_key_always_names_the_same_order() {
        assert_eq!(OrderId::of_key("k"), OrderId::of_key("k"));
        assert_ne!(OrderId::of_key("k"), OrderId::of_key("l"));
    }
}
