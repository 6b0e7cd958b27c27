//! What a panic in users' code becomes: a failure for good, with what it said.

use sillage_core::Failure;
use std::any::Any;

pub(crate) fn panicked(panic: &(dyn Any + Send)) -> Failure {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    Failure::permanent(format!("it panicked: {}", text.unwrap_or_default()))
}
