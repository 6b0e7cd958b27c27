//! Checks on what a derive generates and on where its errors point.

use proc_macro2::TokenStream;
use syn::{DeriveInput, Result};

/// The generated code without white space, so that a test may write it as it would be formatted.
pub(crate) fn flat(derive: impl Fn(&DeriveInput) -> Result<TokenStream>, input: &str) -> String {
    let code = derive(&syn::parse_str(input).unwrap()).unwrap();
    code.to_string().replace(char::is_whitespace, "")
}

/// The derive refuses `input`, pointing at the text `at` and saying `what`.
pub(crate) fn fails(
    derive: impl Fn(&DeriveInput) -> Result<TokenStream>,
    input: &str,
    at: &str,
    what: &str,
) {
    let error = derive(&syn::parse_str(input).unwrap()).expect_err(input);
    assert!(error.to_string().contains(what), "{input}\nsays {error:?}, not {what:?}");
    assert_eq!(error.span().source_text().as_deref(), Some(at), "{input}\npoints elsewhere");
}
