//! What the shop sells: fixed, so that what an order costs, and whether it can be filled, follows
//! from the order alone.

use crate::{ids::ProductId, money::Money};

/// A product. Never in stock: [`SOLD_OUT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Product {
    /// Its id.
    pub id: &'static str,
    /// What people call it.
    pub name: &'static str,
    /// What one of it costs.
    pub price: Money,
    /// How many there are when the shop opens.
    pub initial_stock: u32,
}

/// The product of which there is none: an order with it is always short.
pub const SOLD_OUT: &str = "sold-out";

/// So many of everything else that a demonstration never runs out.
const PLENTY: u32 = 1_000_000;

/// Everything the shop sells.
pub const PRODUCTS: &[Product] = &[
    product("anchor", "Folding anchor, 4 kg", 6490),
    product("barometer", "Aneroid barometer", 12900),
    product("bell", "Brass bell", 4550),
    product("binoculars", "Binoculars 7×50", 23900),
    product("boat-hook", "Telescopic boat hook", 3490),
    product("bucket", "Canvas bucket", 1990),
    product("chart", "Chart of the coast", 3200),
    product("chronometer", "Marine chronometer", 89900),
    product("cleat", "Cleat, 20 cm", 875),
    product("compass", "Steering compass", 18900),
    product("fender", "Fender", 1740),
    product("flare", "Hand flare, red", 1230),
    product("fog-horn", "Fog horn", 2460),
    product("lantern", "Storm lantern", 3800),
    product("life-jacket", "Life jacket, 150 N", 11900),
    product("logbook", "Ship's log", 2100),
    product("mooring-line", "Mooring line, 15 m", 4200),
    product("oilskin", "Oilskin jacket", 14900),
    product("pennant", "Pennant", 990),
    product("sextant", "Sextant", 64900),
    product("shackle", "Shackle, 8 mm", 540),
    product("spyglass", "Spyglass", 7900),
    product("winch-handle", "Winch handle", 5400),
    Product { id: SOLD_OUT, name: "Figurehead", price: Money::cents(199_900), initial_stock: 0 },
];

const fn product(id: &'static str, name: &'static str, cents: i64) -> Product {
    Product { id, name, price: Money::cents(cents), initial_stock: PLENTY }
}

/// The product of that id.
pub fn find(id: &ProductId) -> Option<&'static Product> {
    PRODUCTS.iter().find(|product| product.id == id.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_product_has_an_id_of_its_own_and_a_price() {
        for product in PRODUCTS {
            let id: ProductId = product.id.parse().unwrap();
            assert_eq!(find(&id), Some(product));
            assert!(product.price.minor > 0);
            assert_eq!(product.initial_stock == 0, product.id == SOLD_OUT);
        }
    }
}
