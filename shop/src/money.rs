//! Money and what pays: integers in minor units with their currency, never a float.

use serde::{Deserialize, Serialize};
use std::{fmt, iter::Sum, ops::Add};

/// What an amount is in. The shop sells in one currency; the field is there from the first day, as
/// it cannot be added to facts later.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Currency {
    /// Euro, with cents.
    #[default]
    #[serde(rename = "EUR")]
    Eur,
}

/// An amount in minor units.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Money {
    /// How many cents.
    pub minor: i64,
    /// Of which currency.
    pub currency: Currency,
}

impl Money {
    /// So many cents.
    pub const fn cents(minor: i64) -> Self {
        Money { minor, currency: Currency::Eur }
    }

    /// This amount so many times.
    #[must_use]
    pub fn times(self, quantity: u32) -> Self {
        Money { minor: self.minor.saturating_mul(quantity.into()), ..self }
    }
}

impl Add for Money {
    type Output = Money;
    fn add(self, other: Money) -> Money {
        Money { minor: self.minor.saturating_add(other.minor), ..self }
    }
}

impl Sum for Money {
    fn sum<I: Iterator<Item = Money>>(amounts: I) -> Money {
        amounts.fold(Money::default(), Add::add)
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, minor) = (if self.minor < 0 { "-" } else { "" }, self.minor.unsigned_abs());
        write!(f, "{sign}{}.{:02} EUR", minor / 100, minor % 100)
    }
}

/// The number of a card. Only test cards exist here, so it may stand in an event; a real shop puts
/// the token of its payment provider in this place.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq)]
#[serde(try_from = "String", into = "String")]
pub struct Card(String);

impl Card {
    /// `4242 4242 4242 4242`: always accepted.
    pub fn accepted() -> Self {
        Card("4242424242424242".into())
    }

    /// `4000 0000 0000 0002`: always declined.
    pub fn declined() -> Self {
        Card("4000000000000002".into())
    }
}

impl TryFrom<String> for Card {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let digits: String = text.chars().filter(|c| *c != ' ').collect();
        if (12..=19).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()) {
            Ok(Card(digits))
        } else {
            Err("a card has 12 to 19 digits; spaces may stand between them".into())
        }
    }
}

impl From<Card> for String {
    fn from(card: Card) -> String {
        card.0
    }
}

impl fmt::Debug for Card {
    /// Only the last four digits, as on a receipt.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Card(…{})", &self.0[self.0.len() - 4..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_written_with_two_decimals() {
        assert_eq!(Money::cents(123_456).to_string(), "1234.56 EUR");
        assert_eq!(Money::cents(-7).to_string(), "-0.07 EUR");
        let json = serde_json::to_string(&Money::cents(5)).unwrap();
        assert_eq!(json, r#"{"minor":5,"currency":"EUR"}"#);
    }

    #[test]
    fn sums_stay_within_bounds() {
        let all = [Money::cents(i64::MAX), Money::cents(1).times(u32::MAX)];
        assert_eq!(all.into_iter().sum::<Money>().minor, i64::MAX);
    }

    #[test]
    fn a_card_is_read_with_spaces_and_shown_by_its_last_digits() {
        let card: Card = serde_json::from_str(r#""4242 4242 4242 4242""#).unwrap();
        assert_eq!(card, Card::accepted());
        assert_eq!(format!("{card:?}"), "Card(…4242)");
        for wrong in [r#""""#, r#""4242""#, r#""4242 4242 4242 424x""#, "4242424242424242"] {
            assert!(serde_json::from_str::<Card>(wrong).is_err(), "{wrong}");
        }
    }
}
