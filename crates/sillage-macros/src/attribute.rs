//! What the derives share: reading helper attributes, and the rule for stored names.

use proc_macro2::Span;
use syn::meta::ParseNestedMeta;
use syn::spanned::Spanned;
use syn::{Attribute, Data, DeriveInput, Error, Fields, Index, LitStr, Member, Result};

/// The fields of a struct without type parameters; `otherwise` says what an enum should be instead.
///
/// Type parameters are refused because one stored name stands for one payload.
pub(crate) fn fields<'a>(input: &'a DeriveInput, otherwise: &str) -> Result<&'a Fields> {
    not_generic(input)?;
    match &input.data {
        Data::Struct(data) => Ok(&data.fields),
        Data::Enum(_) | Data::Union(_) => Err(Error::new(input.ident.span(), otherwise)),
    }
}

pub(crate) fn not_generic(input: &DeriveInput) -> Result<()> {
    if input.generics.params.is_empty() {
        return Ok(());
    }
    Err(Error::new_spanned(
        &input.generics,
        "a stored name stands for one payload: no type or lifetime parameters here",
    ))
}

/// Calls `visit` with each argument of each `#[attribute(...)]` in `attrs`, and with its name.
pub(crate) fn arguments(
    attrs: &[Attribute],
    attribute: &str,
    mut visit: impl FnMut(&str, &ParseNestedMeta<'_>) -> Result<()>,
) -> Result<()> {
    attrs.iter().filter(|attr| attr.path().is_ident(attribute)).try_for_each(|attr| {
        attr.parse_nested_meta(|meta| {
            let name = meta.path.get_ident().map(ToString::to_string).unwrap_or_default();
            visit(&name, &meta)
        })
    })
}

/// The error for an argument that is none of `expected`.
pub(crate) fn unknown(meta: &ParseNestedMeta<'_>, expected: &[&str]) -> Error {
    let expected = expected.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    meta.error(format!("unknown argument; expected {expected}"))
}

/// Keeps an argument's value; saying it twice is an error.
pub(crate) fn once<T>(slot: &mut Option<T>, meta: &ParseNestedMeta<'_>, value: T) -> Result<()> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(meta.error("said twice: keep one")),
    }
}

/// Where `tokens` stand, for code whose compile errors should point there. The code still counts as
/// generated, so that lints about its style stay out of the user's file.
pub(crate) fn at(tokens: &impl Spanned) -> Span {
    Span::call_site().located_at(tokens.span())
}

/// A field that carries a mark such as `#[event(key)]`.
pub(crate) struct Marked {
    /// How the field is reached: `self.member`.
    pub(crate) member: Member,
    /// Where the compiler reports that the field does not implement `Display`.
    pub(crate) span: Span,
}

/// For each of `marks` the field marked `#[attribute(mark)]`; two fields with one mark are an error.
pub(crate) fn marked<const N: usize>(
    fields: &Fields,
    attribute: &str,
    marks: [&str; N],
) -> Result<[Option<Marked>; N]> {
    let mut found = [const { None }; N];
    for (index, field) in fields.iter().enumerate() {
        arguments(&field.attrs, attribute, |name, meta| {
            let slot = marks.iter().zip(&mut found).find(|(mark, _)| **mark == name);
            let Some((mark, slot)) = slot else { return Err(unknown(meta, &marks)) };
            let member = match &field.ident {
                Some(ident) => Member::Named(ident.clone()),
                None => Member::Unnamed(Index::from(index)),
            };
            match slot.replace(Marked { member, span: at(&field.ty) }) {
                None => Ok(()),
                Some(_) => Err(meta.error(format!("only one mark `{mark}`: remove the other"))),
            }
        })?;
    }
    Ok(found)
}

/// The text of a stored name, if it keeps to the rule: parts of `a-z 0-9 - _` separated by dots.
///
/// One rule for names, topics and collections: every broker and database takes them unquoted.
pub(crate) fn stored_name(literal: &LitStr) -> Result<String> {
    let name = literal.value();
    let complain = |what: String| Err(Error::new(literal.span(), what));
    let allowed = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '.' | '-' | '_');
    if name.is_empty() {
        return complain("a stored name cannot be empty".into());
    }
    if let Some(wrong) = name.chars().find(|c| !allowed(*c)) {
        return complain(format!(
            "a stored name has only lower-case letters a-z, digits, `.`, `-` and `_`, not {wrong:?}"
        ));
    }
    if name.split('.').any(str::is_empty) {
        return complain("a part of this stored name, between dots, is empty".into());
    }
    Ok(name)
}
