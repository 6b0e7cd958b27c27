//! sillage-testkit
