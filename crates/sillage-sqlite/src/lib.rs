//! sillage-sqlite
