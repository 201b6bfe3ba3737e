//! The attributes of `bulkhead-plugin`: they keep the function as it is and, on wasm only, export it.
//!
//! Nothing is generated natively, so a handler is an ordinary function in a unit test.

use proc_macro::TokenStream;
use proc_macro2::TokenStream as Tokens;
use quote::quote;
use syn::spanned::Spanned;
use syn::{Error, ItemFn, ReturnType};

/// Exports a function as the plugin's handler; see `bulkhead_plugin::handler`.
#[proc_macro_attribute]
pub fn handler(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand(&Export::HANDLER, &arguments.into(), item)
}

/// Exports a function as the plugin's transformer; see `bulkhead_plugin::transformer`.
#[proc_macro_attribute]
pub fn transformer(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand(&Export::TRANSFORMER, &arguments.into(), item)
}

/// What the two attributes differ in.
struct Export {
    attribute: &'static str,
    /// The signature to show when it is another.
    example: &'static str,
    glue: fn(&syn::Ident) -> Tokens,
}

impl Export {
    const HANDLER: Self = Self {
        attribute: "handler",
        example: "fn handle(event: Event) -> Result<(), Failure>",
        glue: |function| {
            quote! {
                struct Plugin;
                impl ::bulkhead_plugin::__private::handler::Guest for Plugin {
                    fn handle(
                        event: ::bulkhead_plugin::__private::wit::Event,
                    ) -> ::core::result::Result<(), ::bulkhead_plugin::__private::wit::Failure> {
                        ::bulkhead_plugin::__private::run_handler(#function, event)
                    }
                }
                ::bulkhead_plugin::__private::export_handler!(
                    Plugin with_types_in ::bulkhead_plugin::__private::handler_world
                );
            }
        },
    };

    const TRANSFORMER: Self = Self {
        attribute: "transformer",
        example: "fn transform(event: Event) -> Result<Vec<Draft>, Failure>",
        glue: |function| {
            quote! {
                struct Plugin;
                impl ::bulkhead_plugin::__private::transformer::Guest for Plugin {
                    fn transform(
                        event: ::bulkhead_plugin::__private::wit::Event,
                    ) -> ::core::result::Result<
                        ::std::vec::Vec<::bulkhead_plugin::__private::wit::Draft>,
                        ::bulkhead_plugin::__private::wit::Failure,
                    > {
                        ::bulkhead_plugin::__private::run_transformer(#function, event)
                    }
                }
                ::bulkhead_plugin::__private::export_transformer!(
                    Plugin with_types_in ::bulkhead_plugin::__private::transformer_world
                );
            }
        },
    };

    fn wrong(&self, at: &impl Spanned, what: &str) -> Error {
        Error::new(at.span(), format!("`#[{}]` {what}; write it as `{}`", self.attribute, self.example))
    }

    fn check(&self, arguments: &Tokens, function: &ItemFn) -> Result<(), Error> {
        let signature = &function.sig;
        if !arguments.is_empty() {
            return Err(self.wrong(arguments, "takes no arguments"));
        }
        if let Some(keyword) = &signature.asyncness {
            return Err(self.wrong(keyword, "is not async: the host calls it once an event and waits"));
        }
        if !signature.generics.params.is_empty() {
            return Err(self.wrong(&signature.generics, "is not generic: the host calls one function"));
        }
        if signature.inputs.len() != 1 || signature.receiver().is_some() {
            return Err(self.wrong(&signature.inputs, "takes the event and nothing else"));
        }
        if matches!(signature.output, ReturnType::Default) {
            return Err(self.wrong(&signature.ident, "answers a `Result`"));
        }
        Ok(())
    }
}

fn expand(export: &Export, arguments: &Tokens, item: TokenStream) -> TokenStream {
    let function = match syn::parse::<ItemFn>(item) {
        Ok(function) => function,
        Err(error) => return export.wrong(&error.span(), "stands on a function").into_compile_error().into(),
    };
    if let Err(error) = export.check(arguments, &function) {
        let error = error.into_compile_error();
        // The function stays, so that its own mistakes are reported too and its callers still find it.
        return quote!(#error #function).into();
    }
    let glue = (export.glue)(&function.sig.ident);
    quote! {
        #[cfg_attr(not(target_family = "wasm"), allow(dead_code))]
        #function

        #[cfg(target_family = "wasm")]
        #[allow(unsafe_code)]
        const _: () = { #glue };
    }
    .into()
}
