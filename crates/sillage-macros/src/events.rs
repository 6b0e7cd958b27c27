//! `Events`: a closed set of events, one a variant.

use crate::attribute::{at, not_generic};
use proc_macro2::TokenStream;
use quote::{ToTokens, quote, quote_spanned};
use std::collections::HashSet;
use syn::spanned::Spanned;
use syn::{Data, DataEnum, DeriveInput, Error, Fields, Ident, Result, Type, Variant};

/// Implements `Events` for an enum, and `From` for each event in it.
pub(crate) fn derive(input: &DeriveInput) -> Result<TokenStream> {
    not_generic(input)?;
    let Data::Enum(data) = &input.data else {
        let what = "`Events` is for an enum whose variants hold one event each";
        return Err(Error::new(input.ident.span(), what));
    };
    let ty = &input.ident;
    let variants = variants(ty, data)?;
    let names = variants.iter().map(|(_, event)| name(event));
    let name_arms = variants.iter().map(|(variant, event)| {
        let name = name(event);
        quote!(Self::#variant(_) => #name)
    });
    let draft_arms = variants.iter().map(|(variant, event)| {
        quote_spanned!(at(*event)=> Self::#variant(event) => ::sillage::Draft::of(event))
    });
    let read_arms = variants.iter().map(|(variant, event)| {
        let name = name(event);
        quote_spanned! {at(*event)=>
            #name => <#event as ::sillage::Contract>::read(version, payload).map(Self::#variant)
        }
    });
    let alias_arms = variants.iter().map(|(variant, event)| {
        quote_spanned! {at(*event)=>
            name if <#event as ::sillage::Contract>::ALIASES.iter().any(|known| known.0 == name) =>
                <#event as ::sillage::Contract>::read(version, payload).map(Self::#variant)
        }
    });
    let from = variants.iter().map(|(variant, event)| from(ty, variant, event));
    Ok(quote! {
        #[automatically_derived]
        impl ::sillage::Events for #ty {
            const NAMES: &'static [&'static str] = &[#(#names),*];
            fn name(&self) -> &'static str {
                match self { #(#name_arms),* }
            }
            fn draft(&self) -> ::sillage::Draft {
                match self { #(#draft_arms),* }
            }
            // An unreachable arm is a second event of the same stored name.
            #[deny(unreachable_patterns)]
            fn read(
                name: &str,
                version: u32,
                payload: &[u8],
            ) -> ::core::result::Result<Self, ::sillage::DecodeError> {
                match name {
                    #(#read_arms,)*
                    #(#alias_arms,)*
                    name => ::core::result::Result::Err(::sillage::DecodeError::unknown(name)),
                }
            }
        }
        #(#from)*
    })
}

/// The stored name of an event type. It is spanned as the user's own code, because the compiler does
/// not report an unreachable pattern that is another crate's.
fn name(event: &Type) -> TokenStream {
    quote_spanned!(event.span()=> <#event as ::sillage::Contract>::NAME)
}

fn from(ty: &Ident, variant: &Ident, event: &Type) -> TokenStream {
    quote! {
        #[automatically_derived]
        impl ::core::convert::From<#event> for #ty {
            fn from(event: #event) -> Self { Self::#variant(event) }
        }
    }
}

fn variants<'a>(ty: &Ident, data: &'a DataEnum) -> Result<Vec<(&'a Ident, &'a Type)>> {
    if data.variants.is_empty() {
        return Err(Error::new(ty.span(), "a set of events has at least one event"));
    }
    let mut seen = HashSet::new();
    data.variants
        .iter()
        .map(|variant| {
            let event = event(variant)?;
            if seen.insert(event.to_token_stream().to_string()) {
                Ok((&variant.ident, event))
            } else {
                let what = "another variant holds this event already";
                Err(Error::new_spanned(event, what))
            }
        })
        .collect()
}

fn event(variant: &Variant) -> Result<&Type> {
    match &variant.fields {
        Fields::Unnamed(fields) if fields.unnamed.len() == 1 => Ok(&fields.unnamed[0].ty),
        _ => {
            let ident = &variant.ident;
            let what = format!("one event a variant: {ident}(Event)");
            Err(Error::new_spanned(variant, what))
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{fails, flat};

    #[test]
    fn a_set_of_events_reads_and_drafts_each() {
        let code = flat(
            super::derive,
            "enum OrderEvent { Created(OrderCreated), Cancelled(events::Cancelled) }",
        );
        for part in [
            "impl ::sillage::Events for OrderEvent",
            "const NAMES: &'static [&'static str] = &[<OrderCreated as ::sillage::Contract>::NAME, \
             <events::Cancelled as ::sillage::Contract>::NAME];",
            "Self::Created(_) => <OrderCreated as ::sillage::Contract>::NAME",
            "Self::Cancelled(event) => ::sillage::Draft::of(event)",
            "<OrderCreated as ::sillage::Contract>::NAME => <OrderCreated as \
             ::sillage::Contract>::read(version, payload).map(Self::Created)",
            "name => ::core::result::Result::Err(::sillage::DecodeError::unknown(name))",
            "impl ::core::convert::From<events::Cancelled> for OrderEvent",
        ] {
            assert!(code.contains(&part.replace(' ', "")), "{part}\nis not in\n{code}");
        }
    }

    #[test]
    fn mistakes_are_told_where_they_are() {
        let one = |variant| format!("one event a variant: {variant}(Event)");
        for (input, at, what) in [
            ("struct A { a: u8 }", "A", "an enum whose variants hold one event each"),
            ("enum A {}", "A", "at least one event"),
            ("enum A { B }", "B", &one("B")),
            ("enum A { B { c: C } }", "B { c: C }", &one("B")),
            ("enum A { B(C, D) }", "B(C, D)", &one("B")),
            ("enum A { B() }", "B()", &one("B")),
            ("enum A { B(x::C), D(x::C) }", "x::C", "another variant holds this event"),
            ("enum A<T> { B(T) }", "<T>", "no type or lifetime parameters"),
        ] {
            fails(super::derive, input, at, what);
        }
    }

    #[test]
    fn the_second_of_two_equal_variants_is_the_one_told() {
        let error = super::derive(&syn::parse_str("enum A { B(C), D(C) }").unwrap()).unwrap_err();
        assert_eq!(error.span().start().column, 17);
    }
}
