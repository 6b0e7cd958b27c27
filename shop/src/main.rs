//! The shop's binary.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    shop::commands::run().await
}
