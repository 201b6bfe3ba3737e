//! The types of a compiled component against the contract: what a mismatch is, in the words of WIT, and not first
//! at the first event.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Write;

use wasmtime::Engine;
use wasmtime::component::Component;
use wasmtime::component::types::ComponentFunc;
use wasmtime::component::types::ComponentInstance;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::types::Type;
use wit_parser::Resolve;
use wit_parser::TypeDefKind;

use super::Exports;
use super::Refused;

/// The contract, as it is released.
const WIT: &str = include_str!("../../../../wit/plugin.wit");

const PACKAGE: &str = "bulkhead:plugin/";

/// The version of the contract.
pub(super) const VERSION: &str = "0.1.0";

/// Bytes of a difference that are shown.
const DIFFERENCE_MAX: usize = 160;

/// The functions of the contract: interface, function, type.
pub(crate) struct Contract {
    functions: BTreeMap<String, BTreeMap<String, String>>,
}

impl Contract {
    /// Reads the contract that is compiled in.
    pub(crate) fn read() -> Self {
        let mut resolve = Resolve::default();
        resolve.push_str("plugin.wit", WIT).expect("because the contract is checked when this crate is built");
        let functions = resolve.interfaces.iter().filter_map(|(_, interface)| {
            let functions = interface.functions.iter().map(|(name, function)| {
                let params: Vec<String> = function.params.iter().map(|param| expected(&resolve, &param.ty)).collect();
                let result = function.result.as_ref().map(|result| expected(&resolve, result));
                (name.clone(), signature(&params, result))
            });
            Some((interface.name.clone()?, functions.collect()))
        });
        Self { functions: functions.collect() }
    }

    /// What the component can be called for, if everything it shares with the contract has the contract's types.
    pub(crate) fn check(&self, engine: &Engine, component: &Component) -> Result<Exports, Refused> {
        let ty = component.component_type();
        for (name, import) in ty.imports(engine) {
            if let (Some(interface), ComponentItem::ComponentInstance(instance)) = (interface_of(name), import.ty) {
                self.check_import(engine, name, interface, &instance)?;
            }
        }
        let mut exports = Exports::default();
        for (name, export) in ty.exports(engine) {
            match interface_of(name) {
                Some("handler") => exports.handler = self.check_export(engine, name, &export.ty, "handle")?,
                Some("transformer") => {
                    exports.transformer = self.check_export(engine, name, &export.ty, "transform")?
                }
                // What else it exports is its own affair; nothing of it is ever called.
                _ => {}
            }
        }
        if exports == Exports::default() {
            return Err(Refused::upload(
                "export",
                "it exports neither bulkhead:plugin/handler@0.1 nor bulkhead:plugin/transformer@0.1.",
                "Build it for the world `handler-plugin` or `transformer-plugin` of bulkhead:plugin@0.1.0.",
            ));
        }
        Ok(exports)
    }

    fn check_import(
        &self,
        engine: &Engine,
        name: &str,
        interface: &str,
        instance: &ComponentInstance,
    ) -> Result<(), Refused> {
        for (function, item) in instance.exports(engine) {
            let ComponentItem::ComponentFunc(item) = item.ty else { continue };
            let found = found_signature(&item);
            let function_here = self.functions.get(interface).and_then(|functions| functions.get(function));
            match function_here {
                Some(expected) if *expected == found => {}
                Some(expected) => {
                    return Err(Refused::upload(
                        "import",
                        format!(
                            "it calls `{function}` of `{name}` as `{found}`; this host has `{expected}`. {}",
                            difference(&found, expected)
                        ),
                        "Build it against this host's wit/plugin.wit.",
                    ));
                }
                None => {
                    return Err(Refused::upload(
                        "version",
                        format!(
                            "it is built for `{name}` and calls its `{}`; this host has bulkhead:plugin@{VERSION}, \
                             where there is no such function.",
                            function.escape_debug()
                        ),
                        "Upgrade the host, or build against this host's wit/plugin.wit.",
                    ));
                }
            }
        }
        Ok(())
    }

    fn check_export(&self, engine: &Engine, name: &str, item: &ComponentItem, function: &str) -> Result<bool, Refused> {
        let interface = interface_of(name).unwrap_or_default();
        let expected = self.functions.get(interface).and_then(|functions| functions.get(function));
        let found = match item {
            ComponentItem::ComponentInstance(instance) => match instance.get_export(engine, function).map(|f| f.ty) {
                Some(ComponentItem::ComponentFunc(item)) => Some(found_signature(&item)),
                _ => None,
            },
            _ => None,
        };
        if found.is_some() && found.as_ref() == expected {
            return Ok(true);
        }
        let expected = expected.map_or("", String::as_str);
        let detail = match found {
            None => format!("its `{name}` has no function `{function}`; expected `{expected}`."),
            Some(found) => format!(
                "its `{name}` has `{function}` as `{found}`; expected `{expected}`. {}",
                difference(&found, expected)
            ),
        };
        Err(Refused::upload("export", detail, "Build it against this host's wit/plugin.wit."))
    }
}

/// Where two types part, in a sentence: from the first name or type that is another to the last one.
fn difference(found: &str, expected: &str) -> String {
    let is_edge = |byte: u8| byte.is_ascii() && !byte.is_ascii_alphanumeric() && byte != b'-';
    let alike = |pair: &(u8, u8)| pair.0 == pair.1;
    let same = found.bytes().zip(expected.bytes()).take_while(alike).count();
    // Back to where a name and its type begin.
    let begins = |byte: u8| matches!(byte, b'(' | b'{' | b'<' | b',' | b'>');
    let start = found.as_bytes()[..same].iter().rposition(|byte| begins(*byte)).map_or(0, |at| at + 1);
    let (one, other) = (&found[start..], &expected[start..]);
    let same = one.bytes().rev().zip(other.bytes().rev()).take_while(alike).count();
    // On to where a name or type ends.
    let after = one.as_bytes()[one.len() - same..].iter().position(|byte| is_edge(*byte));
    let after = after.map_or(0, |skipped| same - skipped);
    let cut = |text: &str| {
        let text = text[..text.len() - after].trim();
        match text.char_indices().nth(DIFFERENCE_MAX) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text.to_owned(),
        }
    };
    match (cut(one).as_str(), cut(other).as_str()) {
        ("", lacks) => format!("It lacks `{lacks}`."),
        (has, "") => format!("`{has}` is too much."),
        (has, wanted) => format!("It has `{has}` where `{wanted}` belongs."),
    }
}

/// The interface of a name of the contract's track.
fn interface_of(name: &str) -> Option<&str> {
    let (interface, version) = name.strip_prefix(PACKAGE)?.split_once('@')?;
    version.starts_with("0.1.").then_some(interface)
}

fn signature(params: &[String], result: Option<String>) -> String {
    let result = result.map(|result| format!(" -> {result}")).unwrap_or_default();
    format!("func({}){result}", params.join(", "))
}

fn found_signature(function: &ComponentFunc) -> String {
    let parts = Cell::new(0);
    let params: Vec<String> = function.params().map(|(_, ty)| found(&ty, &parts)).collect();
    let text = signature(&params, function.results().next().map(|ty| found(&ty, &parts)));
    if function.async_() { format!("async {text}") } else { text }
}

/// A list of named things: `record { a: u8, b: u8 }`.
fn named(kind: &str, items: impl Iterator<Item = (String, Option<String>)>, between: &str) -> String {
    let mut text = format!("{kind} {{ ");
    for (at, (name, ty)) in items.enumerate() {
        if at > 0 {
            text.push_str(", ");
        }
        match ty {
            Some(ty) => write!(text, "{name}{between}{ty}").expect("because a string takes everything"),
            None => text.push_str(&name),
        }
    }
    text.push_str(" }");
    text
}

fn result_text(ok: Option<String>, err: Option<String>) -> String {
    match (ok, err) {
        (None, None) => "result".into(),
        (Some(ok), None) => format!("result<{ok}>"),
        (ok, Some(err)) => format!("result<{}, {err}>", ok.as_deref().unwrap_or("_")),
    }
}

/// A type of the contract, spelled out.
fn expected(resolve: &Resolve, ty: &wit_parser::Type) -> String {
    use wit_parser::Type as Wit;
    let id = match ty {
        Wit::Id(id) => *id,
        Wit::Bool => return "bool".into(),
        Wit::U8 => return "u8".into(),
        Wit::U16 => return "u16".into(),
        Wit::U32 => return "u32".into(),
        Wit::U64 => return "u64".into(),
        Wit::S8 => return "s8".into(),
        Wit::S16 => return "s16".into(),
        Wit::S32 => return "s32".into(),
        Wit::S64 => return "s64".into(),
        Wit::F32 => return "f32".into(),
        Wit::F64 => return "f64".into(),
        Wit::Char => return "char".into(),
        Wit::String => return "string".into(),
        Wit::ErrorContext => return "error-context".into(),
    };
    let of = |ty: &wit_parser::Type| expected(resolve, ty);
    match &resolve.types[id].kind {
        TypeDefKind::Type(ty) => of(ty),
        TypeDefKind::Option(ty) => format!("option<{}>", of(ty)),
        TypeDefKind::List(ty) => format!("list<{}>", of(ty)),
        TypeDefKind::Result(result) => result_text(result.ok.as_ref().map(of), result.err.as_ref().map(of)),
        TypeDefKind::Tuple(tuple) => {
            format!("tuple<{}>", tuple.types.iter().map(of).collect::<Vec<_>>().join(", "))
        }
        TypeDefKind::Record(record) => {
            named("record", record.fields.iter().map(|field| (field.name.clone(), Some(of(&field.ty)))), ": ")
        }
        TypeDefKind::Enum(cases) => named("enum", cases.cases.iter().map(|case| (case.name.clone(), None)), ""),
        TypeDefKind::Variant(variant) => {
            let cases = variant
                .cases
                .iter()
                .map(|case| (case.name.clone(), case.ty.as_ref().map(|ty| format!("({})", of(ty)))));
            named("variant", cases, "")
        }
        other => other.as_str().to_owned(),
    }
}

/// Parts of a type that are spelled out. The contract's own take less than a hundred; a hostile one can unfold into
/// more than memory holds.
const PARTS_MAX: usize = 1_000;

/// A type of a component, spelled out in the same way.
fn found(ty: &Type, parts: &Cell<usize>) -> String {
    parts.set(parts.get() + 1);
    if parts.get() > PARTS_MAX {
        return "…".into();
    }
    let of = |ty: Type| found(&ty, parts);
    match ty {
        Type::Bool => "bool".into(),
        Type::S8 => "s8".into(),
        Type::U8 => "u8".into(),
        Type::S16 => "s16".into(),
        Type::U16 => "u16".into(),
        Type::S32 => "s32".into(),
        Type::U32 => "u32".into(),
        Type::S64 => "s64".into(),
        Type::U64 => "u64".into(),
        Type::Float32 => "f32".into(),
        Type::Float64 => "f64".into(),
        Type::Char => "char".into(),
        Type::String => "string".into(),
        Type::List(list) => format!("list<{}>", of(list.ty())),
        Type::Option(option) => format!("option<{}>", of(option.ty())),
        Type::Result(result) => result_text(result.ok().map(of), result.err().map(of)),
        Type::Tuple(tuple) => format!("tuple<{}>", tuple.types().map(of).collect::<Vec<_>>().join(", ")),
        Type::Record(record) => {
            named("record", record.fields().map(|field| (field.name.to_owned(), Some(of(field.ty)))), ": ")
        }
        Type::Enum(cases) => named("enum", cases.names().map(|name| (name.to_owned(), None)), ""),
        Type::Variant(variant) => {
            let cases = variant.cases().map(|case| (case.name.to_owned(), case.ty.map(|ty| format!("({})", of(ty)))));
            named("variant", cases, "")
        }
        Type::Flags(flags) => named("flags", flags.names().map(|name| (name.to_owned(), None)), ""),
        Type::Own(_) => "own".into(),
        Type::Borrow(_) => "borrow".into(),
        Type::Map(_) => "map".into(),
        Type::Future(_) => "future".into(),
        Type::Stream(_) => "stream".into(),
        Type::ErrorContext => "error-context".into(),
        Type::FixedLengthList(_) => "fixed-length list".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_contract_s() {
        assert!(WIT.contains(&format!("package bulkhead:plugin@{VERSION};")));
    }

    #[test]
    fn where_types_part_is_said_in_a_sentence() {
        for (found, expected, said) in [
            ("func(u64) -> list<u8>", "func(u32) -> list<u8>", "It has `u64` where `u32` belongs."),
            ("func()", "func(u32)", "It lacks `u32`."),
            ("func(u8, u32)", "func(u8)", "It has `u8, u32` where `u8` belongs."),
            (
                "func(record { id: string, at: u64 })",
                "func(record { id: string, at: s64 })",
                "It has `at: u64` where `at: s64` belongs.",
            ),
            (
                "func(record { id: string })",
                "func(record { id: string, at: u64 })",
                "It has `id: string` where `id: string, at: u64` belongs.",
            ),
            ("func(list<u8>, a: b) -> u8", "func(list<u8>, a: b) -> u16", "It has `u8` where `u16` belongs."),
            ("async func()", "func()", "It has `async func` where `func` belongs."),
            ("func() -> result", "func() -> result<u8>", "It has `result` where `result<u8>` belongs."),
        ] {
            assert_eq!(difference(found, expected), said, "{found} / {expected}");
        }
        let long = difference(&format!("func({})", "é".repeat(500)), "func(u8)");
        assert!(long.chars().count() < 250 && long.contains("é…` where `u8` belongs"), "{long}");
    }

    #[test]
    fn the_contract_reads_as_it_is_written() {
        let contract = Contract::read();
        let state = &contract.functions["state"];
        assert_eq!(
            state["get"],
            "func(string) -> result<option<list<u8>>, variant { denied(string), limit(string), invalid(string), \
             not-found(string), other(string) }>"
        );
        assert!(contract.functions["handler"]["handle"].starts_with("func(record { id: string, source: string, "));
        for interface in ["context", "effects", "log", "usage", "transformer"] {
            assert!(!contract.functions[interface].is_empty(), "{interface}");
        }
    }
}
