//! `Document`: current state under a collection and an id, with one sort key.

use crate::attribute::{Marked, arguments, fields, marked, once, stored_name, unknown};
use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::{DeriveInput, Error, LitStr, Result};

/// Implements `Document` for a struct.
pub(crate) fn derive(input: &DeriveInput) -> Result<TokenStream> {
    let fields = fields(input, "a document is a struct")?;
    let ty = &input.ident;
    let collection = collection(input)?;
    let [id, sort] = marked(fields, "document", ["id", "sort"])?;
    let Some(id) = id else {
        return Err(Error::new(ty.span(), "which field is its id? mark it with #[document(id)]"));
    };
    let id = text(id);
    let sort = sort.map(text).map_or_else(
        || quote!(::core::option::Option::None),
        |sort| quote!(::core::option::Option::Some(#sort)),
    );
    Ok(quote! {
        #[automatically_derived]
        impl ::sillage::Document for #ty {
            const COLLECTION: &'static str = #collection;
            fn id(&self) -> ::std::string::String { #id }
            fn sort(&self) -> ::core::option::Option<::std::string::String> { #sort }
        }
    })
}

fn collection(input: &DeriveInput) -> Result<String> {
    let mut collection: Option<LitStr> = None;
    arguments(&input.attrs, "document", |name, meta| match name {
        "collection" => once(&mut collection, meta, meta.value()?.parse()?),
        _ => Err(unknown(meta, &["collection"])),
    })?;
    match collection {
        Some(collection) => stored_name(&collection),
        None => Err(Error::new(
            input.ident.span(),
            "say its stable collection: #[document(collection = \"orders\")]",
        )),
    }
}

fn text(Marked { member, span }: Marked) -> TokenStream {
    quote_spanned!(span=> ::std::string::ToString::to_string(&self.#member))
}

#[cfg(test)]
mod tests {
    use crate::testing::{fails, flat};

    #[test]
    fn a_document_has_collection_id_and_sort_key() {
        let code = flat(
            super::derive,
            "#[document(collection = \"orders\")]
             struct OrderView { #[document(id)] order_id: OrderId, #[document(sort)] placed: String }",
        );
        for part in [
            "impl ::sillage::Document for OrderView",
            "const COLLECTION: &'static str = \"orders\";",
            "fn id(&self) -> ::std::string::String { ::std::string::ToString::to_string(&self.order_id) }",
            "{ ::core::option::Option::Some(::std::string::ToString::to_string(&self.placed)) }",
        ] {
            assert!(code.contains(&part.replace(' ', "")), "{part}\nis not in\n{code}");
        }
    }

    #[test]
    fn without_a_sort_field_there_is_no_sort_key() {
        let code =
            flat(super::derive, "#[document(collection = \"a\")] struct A(#[document(id)] u8);");
        assert!(code.contains("{::std::string::ToString::to_string(&self.0)}"), "{code}");
        assert!(code.contains("{::core::option::Option::None}"), "{code}");
    }

    #[test]
    fn one_field_may_be_id_and_sort_key() {
        let code = flat(
            super::derive,
            "#[document(collection = \"a\")] struct A { #[document(id, sort)] at: String }",
        );
        assert_eq!(code.matches("&self.at").count(), 2, "{code}");
    }

    #[test]
    fn mistakes_are_told_where_they_are() {
        let with =
            |fields: &str| format!("#[document(collection = \"a\")] struct A {{ {fields} }}");
        for (input, at, what) in [
            ("enum A { B }", "A", "a document is a struct"),
            ("struct A { #[document(id)] b: u8 }", "A", "#[document(collection = \"orders\")]"),
            (&with("b: u8"), "A", "#[document(id)]"),
            (&with("#[document(key)] b: u8"), "key", "expected `id`, `sort`"),
            (&with("#[document] b: u8"), "document", "parentheses"),
            (&with("#[document(id)] b: u8, #[document(id)] c: u8"), "id", "only one mark `id`"),
            (&with("#[document(sort)] b: u8, #[document(sort)] c: u8"), "sort", "mark `sort`"),
            ("#[document(name = \"a\")] struct A {}", "name", "expected `collection`"),
            ("#[document(collection = \"\")] struct A {}", "\"\"", "cannot be empty"),
            ("#[document(collection = a)] struct A {}", "a", "expected string literal"),
        ] {
            fails(super::derive, input, at, what);
        }
    }
}
