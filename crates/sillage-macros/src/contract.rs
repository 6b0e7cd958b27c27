//! `Event` and `Command`: one payload with its stable name, version, topic and key.

use crate::attribute::{Marked, arguments, at, fields, marked, once, stored_name, unknown};
use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::meta::ParseNestedMeta;
use syn::spanned::Spanned;
use syn::{DeriveInput, Error, Ident, LitInt, LitStr, Path, Result};

/// Which of the two contracts is derived.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Event,
    Command,
}

impl Kind {
    fn attribute(self) -> &'static str {
        match self {
            Kind::Event => "event",
            Kind::Command => "command",
        }
    }

    fn marker(self) -> Ident {
        match self {
            Kind::Event => format_ident!("Event"),
            Kind::Command => format_ident!("Command"),
        }
    }

    fn arguments(self) -> &'static [&'static str] {
        const ALL: [&str; 9] =
            ["name", "version", "topic", "internal", "keyless", "was", "alias", "done", "failed"];
        match self {
            Kind::Event => &ALL[..7],
            Kind::Command => &ALL,
        }
    }

    fn topic(self, name: &str) -> String {
        let first = name.split('.').next().unwrap_or(name);
        match self {
            Kind::Event => first.to_owned(),
            Kind::Command => format!("{first}.commands"),
        }
    }
}

/// Implements the contract for a struct.
pub(crate) fn derive(input: &DeriveInput, kind: Kind) -> Result<TokenStream> {
    let fields = fields(input, "a contract is a struct; for a set of events derive `Events`")?;
    let said = Said::read(input, kind)?;
    let ty = &input.ident;
    let name = said.name(ty, kind)?;
    let version = said.version()?;
    let topic = said.topic(&name, kind)?;
    let aliases = said.aliases(&name, kind)?;
    let [key] = marked(fields, kind.attribute(), ["key"])?;
    let key = said.key(ty, kind, key)?;
    let upcast = said.upcast(version)?;
    let answered = said.answered(ty)?;
    let marker = kind.marker();
    Ok(quote! {
        #[automatically_derived]
        impl ::sillage::Contract for #ty {
            const NAME: &'static str = #name;
            const VERSION: u32 = #version;
            const TOPIC: ::core::option::Option<&'static str> = #topic;
            #aliases
            fn key(&self) -> ::core::option::Option<::sillage::Key> { #key }
            #upcast
        }
        #[automatically_derived]
        impl ::sillage::#marker for #ty {}
        #answered
    })
}

/// The arguments as the user wrote them.
#[derive(Default)]
struct Said {
    name: Option<LitStr>,
    version: Option<LitInt>,
    topic: Option<LitStr>,
    internal: Option<Span>,
    keyless: Option<Span>,
    was: Option<Path>,
    aliases: Vec<LitStr>,
    done: Option<Path>,
    failed: Option<Path>,
}

impl Said {
    fn read(input: &DeriveInput, kind: Kind) -> Result<Self> {
        let mut said = Self::default();
        arguments(&input.attrs, kind.attribute(), |name, meta| {
            if kind.arguments().contains(&name) {
                said.argument(name, meta)
            } else {
                Err(unknown(meta, kind.arguments()))
            }
        })?;
        Ok(said)
    }

    fn argument(&mut self, name: &str, meta: &ParseNestedMeta<'_>) -> Result<()> {
        match name {
            "name" => once(&mut self.name, meta, meta.value()?.parse()?),
            "version" => once(&mut self.version, meta, meta.value()?.parse()?),
            "topic" => once(&mut self.topic, meta, meta.value()?.parse()?),
            "was" => once(&mut self.was, meta, meta.value()?.parse()?),
            "alias" => {
                self.aliases.push(meta.value()?.parse()?);
                Ok(())
            }
            "done" => once(&mut self.done, meta, meta.value()?.parse()?),
            "failed" => once(&mut self.failed, meta, meta.value()?.parse()?),
            "internal" => once(&mut self.internal, meta, meta.path.span()),
            _ => once(&mut self.keyless, meta, meta.path.span()),
        }
    }

    fn name(&self, ty: &Ident, kind: Kind) -> Result<String> {
        let Some(name) = &self.name else {
            let (attribute, example) = match kind {
                Kind::Event => ("event", "order.created"),
                Kind::Command => ("command", "order.create"),
            };
            let what = format!("say its stable name: #[{attribute}(name = \"{example}\")]");
            return Err(Error::new(ty.span(), what));
        };
        stored_name(name)
    }

    fn version(&self) -> Result<u32> {
        let Some(literal) = &self.version else { return Ok(1) };
        match literal.base10_parse()? {
            0 => Err(Error::new(literal.span(), "versions count from 1")),
            version => Ok(version),
        }
    }

    fn topic(&self, name: &str, kind: Kind) -> Result<TokenStream> {
        let topic = match (&self.topic, self.internal) {
            (Some(topic), Some(_)) => {
                return Err(Error::new(
                    topic.span(),
                    "`internal` means no topic: keep one of them",
                ));
            }
            (None, Some(_)) => return Ok(quote!(::core::option::Option::None)),
            (Some(topic), None) => stored_name(topic)?,
            (None, None) => kind.topic(name),
        };
        Ok(quote!(::core::option::Option::Some(#topic)))
    }

    /// Names it had before, with the topics they came on.
    fn aliases(&self, name: &str, kind: Kind) -> Result<Option<TokenStream>> {
        let mut aliases = vec![];
        for literal in &self.aliases {
            let alias = stored_name(literal)?;
            if alias == name {
                let what = "an alias is a name it had before; this is the one it has";
                return Err(Error::new(literal.span(), what));
            }
            let topic = self.topic(&alias, kind)?;
            aliases.push(quote!((#alias, #topic)));
        }
        Ok((!aliases.is_empty()).then(|| {
            quote! {
                const ALIASES: &'static [(
                    &'static str,
                    ::core::option::Option<&'static str>,
                )] = &[#(#aliases),*];
            }
        }))
    }

    fn key(&self, ty: &Ident, kind: Kind, key: Option<Marked>) -> Result<TokenStream> {
        match (key, self.keyless) {
            (Some(Marked { member, span }), None) => {
                let key = quote_spanned!(span=> ::sillage::Key::of(&self.#member));
                Ok(quote!(::core::option::Option::Some(#key)))
            }
            (None, Some(_)) => Ok(quote!(::core::option::Option::None)),
            (Some(_), Some(keyless)) => {
                Err(Error::new(keyless, "`keyless`, yet a field is marked `key`: keep one of them"))
            }
            (None, None) => {
                let attribute = kind.attribute();
                let what = format!(
                    "which field orders it? mark one with #[{attribute}(key)], or say #[{attribute}(keyless)]"
                );
                Err(Error::new(ty.span(), what))
            }
        }
    }

    /// Reads what is older through the type of the version before. The assertion leaves no gap: a
    /// version between the two would be read as a newer form of the older type, and misread.
    fn upcast(&self, version: u32) -> Result<Option<TokenStream>> {
        let Some(was) = &self.was else { return Ok(None) };
        if version == 1 {
            let what = "`was` is the type of an earlier version, so `version` is at least 2";
            return Err(Error::new_spanned(was, what));
        }
        Ok(Some(quote_spanned! {at(was)=>
            fn upcast(
                version: u32,
                payload: &[u8],
            ) -> ::core::result::Result<Self, ::sillage::DecodeError> {
                const _: () = ::core::assert!(
                    <#was as ::sillage::Contract>::VERSION + 1 == #version,
                    "`was` names the type of the version just before this one"
                );
                <#was as ::sillage::Contract>::read(version, payload)
                    .map(<Self as ::core::convert::From<#was>>::from)
            }
        }))
    }

    fn answered(&self, ty: &Ident) -> Result<Option<TokenStream>> {
        let done = match (&self.done, &self.failed) {
            (Some(done), _) => done,
            (None, None) => return Ok(None),
            (None, Some(failed)) => {
                let what = "`failed` needs `done`, the event that says the command was carried out";
                return Err(Error::new_spanned(failed, what));
            }
        };
        let never = || quote!(::sillage::Never);
        let failed = self.failed.as_ref().map_or_else(never, ToTokens::to_token_stream);
        Ok(Some(quote! {
            #[automatically_derived]
            impl ::sillage::Answered for #ty {
                type Done = #done;
                type Failed = #failed;
            }
        }))
    }
}

#[cfg(test)]
mod tests;
