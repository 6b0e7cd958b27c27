//! sillage
