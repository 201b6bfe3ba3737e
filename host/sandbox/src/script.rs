//! Script: makes a component out of JavaScript text, without a compiler.
//!
//! The component is the *evaluator* of `plugin-sdk/js`, QuickJS with the SDK loaded into it, built beforehand. In the
//! snapshot of its memory is a slot, an array that begins with a mark and is full of filler:
//!
//! ```text
//! mark (33 bytes) │ length (u32, little-endian) │ source (UTF-8) │ filler
//! ```
//!
//! [`component`] writes the source there. An instance evaluates it at its first call. What comes out is a component like
//! any other: its digest covers the source, and it needs nothing of this module to run, be stored, or be replayed.
//!
//! Before that, the evaluator itself looks at the source, in the sandbox and within limits: with an empty slot, it takes
//! the data of an event as a source and says what is in it. So mistakes have a line and a column, and cost no compiling.
//!
//! The source is a script. So that a plugin's module of one file can be sent as it is, `export` before a declaration and
//! the import of the SDK are made blanks, if they begin a line; what follows stays where it was.
//!
//! The evaluator exports both interfaces. The one for which the source has no function is exported under a name that
//! nobody looks for, so that everybody sees what the plugin is.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::AtomicBool;

use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::effect::EffectSeed;
use bulkhead_domain::event::Event;
use bulkhead_domain::id::PluginId;
use bulkhead_domain::policy::grants::Grants;
use bulkhead_domain::policy::limits::InstancePolicy;
use bulkhead_domain::policy::limits::Limits;
use bulkhead_domain::policy::verdict::Outcome;
use bytes::Bytes;
use wasmparser::Parser;
use wasmparser::Payload;

use crate::error::Error;
use crate::inspect;
use crate::inspect::Exports;
use crate::port::Attempt;
use crate::port::Call;
use crate::port::Held;
use crate::port::Record;
use crate::port::Setup;
use crate::port::StateError;
use crate::port::StateReader;
use crate::sandbox::Sandbox;

/// Bytes of a source.
pub const SIZE_MAX: usize = 256 << 10;

static EVALUATOR: &[u8] = include_bytes!("../../../plugin-sdk/js/evaluator/evaluator.wasm");
const MARK: &[u8] = b"bulkhead:source:slot:0.1.0:8d1f6c";
const FILLER: [u8; 4] = [0xa5; 4];
/// What stands for `plugin` in the name of an interface that is not there. As long as that.
const HIDDEN: &[u8] = b"hidden";

/// Why a source makes no plugin.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Unfit {
    /// It is too long.
    #[error("the source has {0} bytes; at most {SIZE_MAX} are taken")]
    Size(usize),
    /// It cannot be evaluated, or has no function that the host could call.
    #[error("{detail}")]
    Source {
        /// What is wrong, as QuickJS says it.
        detail: String,
        /// Where, both from 1.
        place: Option<(u32, u32)>,
    },
    /// The evaluator could not be loaded.
    #[error("the evaluator could not be loaded")]
    Host(#[source] Error),
}

impl Unfit {
    fn source(detail: impl Into<String>) -> Self {
        Self::Source { detail: detail.into(), place: None }
    }
}

/// The component of a plugin whose source is `source`: a script with a function `handle`, `transform` or both.
///
/// Blocks for about a millisecond; the first time, for as long as it takes to compile or load the evaluator.
pub fn component(sandbox: &Sandbox, source: &str) -> Result<Bytes, Unfit> {
    if source.len() > SIZE_MAX {
        return Err(Unfit::Size(source.len()));
    }
    let script = as_script(source);
    let exports = check(sandbox, &script)?;
    Ok(write(&script, exports))
}

/// The source with blanks for what only a module may have.
fn as_script(source: &str) -> String {
    let mut script = String::with_capacity(source.len());
    let mut rest = source;
    while !rest.is_empty() {
        let (blank, after) = rest.split_at(export(rest).or_else(|| import(rest)).unwrap_or(0));
        script.extend(blank.chars().map(|this| if this == '\n' { this } else { ' ' }));
        let (line, next) = after.split_at(after.find('\n').map_or(after.len(), |end| end + 1));
        script.push_str(line);
        rest = next;
    }
    script
}

/// The length of an `export` that begins the text, if a declaration follows.
fn export(text: &str) -> Option<usize> {
    let word = "export";
    let after = text.strip_prefix(word)?;
    let declaration = after.trim_start();
    let kind = declaration.split(|this: char| !this.is_alphanumeric()).next()?;
    let is_one = ["async", "class", "const", "function", "let", "var"].contains(&kind);
    (is_one && declaration.len() < after.len()).then_some(word.len())
}

/// The length of an import of the SDK that begins the text, if it gives no other names to what it imports.
fn import(text: &str) -> Option<usize> {
    let list = text.strip_prefix("import")?.trim_start().strip_prefix('{')?;
    // No further than names go: whoever begins many lists and ends none does not have the rest searched for each.
    let end = list.find(|this: char| !(this.is_alphanumeric() || this.is_whitespace() || this == ','))?;
    let (names, after) = (&list[..end], list[end..].strip_prefix('}')?);
    let module = after.trim_start().strip_prefix("from")?.trim_start();
    let rest = ["\"bulkhead-plugin\"", "'bulkhead-plugin'"].iter().find_map(|name| module.strip_prefix(name))?;
    let are_plain = names.split(',').all(|name| name.trim().chars().all(char::is_alphanumeric));
    are_plain.then_some(text.len() - rest.len())
}

/// The evaluator with a source in its slot and only these exports.
fn write(source: &str, exports: Exports) -> Bytes {
    static LAYOUT: LazyLock<Layout> = LazyLock::new(Layout::read);
    let mut wasm = EVALUATOR.to_vec();
    let length = u32::try_from(source.len()).expect("because it was checked against the room");
    wasm[LAYOUT.slot..][..4].copy_from_slice(&length.to_le_bytes());
    wasm[LAYOUT.slot + 4..][..source.len()].copy_from_slice(source.as_bytes());
    for (is_there, name) in [(exports.handler, &LAYOUT.handler), (exports.transformer, &LAYOUT.transformer)] {
        if !is_there {
            wasm[name.clone()].copy_from_slice(HIDDEN);
        }
    }
    Bytes::from(wasm)
}

/// Places in the evaluator.
struct Layout {
    /// Behind the mark.
    slot: usize,
    /// The word `plugin` in the name under which the handler is exported.
    handler: Range<usize>,
    /// The same of the transformer.
    transformer: Range<usize>,
}

impl Layout {
    fn read() -> Self {
        let mark = [MARK, &FILLER].concat();
        let slot = find(EVALUATOR, &mark).expect("because the evaluator was built with a slot") + MARK.len();
        let [handler, transformer] = ["handler", "transformer"].map(|interface| {
            let before = "bulkhead:";
            let name = format!("{before}plugin/{interface}@");
            let at = exported(name.as_bytes()).expect("because the evaluator exports both interfaces") + before.len();
            at..at + HIDDEN.len()
        });
        Self { slot, handler, transformer }
    }
}

/// Where a name that begins so stands among the exports of the component itself, not of those inside it.
fn exported(name: &[u8]) -> Option<usize> {
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(EVALUATOR) {
        match payload.expect("because the evaluator is a valid component") {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentExportSection(section) if depth == 0 => {
                let range = section.range();
                if let Some(at) = find(&EVALUATOR[range.clone()], name) {
                    return Some(range.start + at);
                }
            }
            _ => {}
        }
    }
    None
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// Lets the evaluator say what is in a source.
fn check(sandbox: &Sandbox, source: &str) -> Result<Exports, Unfit> {
    static DIGEST: LazyLock<String> = LazyLock::new(|| inspect::digest(EVALUATOR));
    let plugin = sandbox.load(&DIGEST, &|| Ok(Bytes::from_static(EVALUATOR))).map_err(Unfit::Host)?;
    let event = event(source);
    let attempt = sandbox.session(&plugin, Arc::new(setup())).handle(&Call {
        event: &event,
        rule: "check",
        attempt: 1,
        now: Timestamp(0),
        seed: EffectSeed::new(&[0; 32], "check", event.event_key(), "check", 0, 0),
        first_ordinal: 0,
        state: &(Arc::new(Nothing) as Arc<dyn StateReader>),
        cancelled: &Arc::new(AtomicBool::new(false)),
        record: Record { bytes: 0, fresh: true },
    });
    match &attempt.outcome {
        Outcome::Done => {
            let has = |name| field(&attempt, name).is_some_and(|value| value == "true");
            match (has("handle"), has("transform")) {
                (false, false) => {
                    Err(Unfit::source("the source has neither a function `handle` nor a function `transform`"))
                }
                (handler, transformer) => Ok(Exports { handler, transformer }),
            }
        }
        Outcome::Rejected(failure) => {
            let number = |name| field(&attempt, name)?.parse().ok();
            Err(Unfit::Source { detail: failure.reason.clone(), place: number("line").zip(number("column")) })
        }
        Outcome::Failed(failure) => {
            Err(Unfit::source(format!("what stands outside of functions does not end well: {}", failure.reason)))
        }
    }
}

/// A field of the line that the evaluator logs last.
fn field<'a>(attempt: &'a Attempt, name: &str) -> Option<&'a str> {
    let line = attempt.logs.last()?;
    line.fields.iter().find(|(this, _)| this == name).map(|(_, value)| value.as_str())
}

fn event(source: &str) -> Event {
    Event {
        id: "check".into(),
        source: "/check".into(),
        kind: "check".into(),
        subject: None,
        time: Timestamp(0),
        key: None,
        correlation: "check".into(),
        causation: None,
        content_type: "text/javascript".into(),
        data: Bytes::copy_from_slice(source.as_bytes()),
        attributes: Vec::new(),
    }
}

/// No grants, no settings, no secrets: what stands outside of functions has nothing to reach.
fn setup() -> Setup {
    Setup {
        plugin: PluginId(0),
        plugin_name: "check".into(),
        version: "0".into(),
        grants: Grants::default(),
        limits: Limits::default(),
        policy: InstancePolicy::Event,
        config: BTreeMap::new(),
        secrets: BTreeMap::new(),
        sinks: BTreeSet::new(),
    }
}

/// State without anything in it.
struct Nothing;

impl StateReader for Nothing {
    fn get(&self, _: PluginId, _: &str) -> Result<Option<Held>, StateError> {
        Ok(None)
    }

    fn keys(&self, _: PluginId, _: &str, _: Option<&str>, _: usize) -> Result<Vec<String>, StateError> {
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_a_module_may_have_becomes_blanks() {
        let source = "import {\n  effects, state,\n} from 'bulkhead-plugin';\nexport async function handle() {}\n";
        let expected = "        \n                 \n                        ;\n       async function handle() {}\n";
        assert_eq!(as_script(source), expected);
    }

    #[test]
    fn everything_else_stays() {
        for source in [
            "",
            "exported(1);\nexport default 1;\n  export const a = 1;",
            "import { state as s } from 'bulkhead-plugin';",
            "import { a } from 'other';\r\n\n// ü import",
            "import(1)",
        ] {
            assert_eq!(as_script(source), source);
        }
    }

    #[test]
    fn the_time_for_a_source_grows_with_its_length_only() {
        for line in ["import{\n", "import\n", "export\n", "import{a}from\n", "import{},\n", "\nexport import {"] {
            let source = line.repeat(SIZE_MAX / line.len());
            let begun = std::time::Instant::now();
            assert_eq!(as_script(&source), source);
            // Some milliseconds without optimisation; looking through the rest at each line takes many seconds.
            assert!(begun.elapsed() < std::time::Duration::from_secs(1), "{line:?}: {:?}", begun.elapsed());
        }
    }

    #[test]
    fn the_evaluator_has_room_for_the_longest_source() {
        let layout = Layout::read();
        let room = &EVALUATOR[layout.slot..][..4 + SIZE_MAX];
        assert!(room.iter().all(|byte| *byte == FILLER[0]));
        for name in [layout.handler, layout.transformer] {
            assert_eq!(&EVALUATOR[name], b"plugin");
        }
    }
}
