//! The check of an upload: what it is, what it needs, whether it can run here. Refusals say what to do.
//!
//! The order is from cheap to dear: the kind of file, its shape (an early exit for what would choke a compiler), its
//! imports, then the compiler in its own process, then its types against the contract. Nothing of the component runs.
//!
//! Reading order: [`kind`], [`shape`], [`imports`], [`contract`].

pub(crate) mod contract;
mod imports;
mod kind;
mod metadata;
mod shape;

use serde::Deserialize;
use serde::Serialize;
use sha2::Digest;

use crate::options::Pool;

pub use self::imports::needs;

/// Bytes of a component. The heaviest real plugins have 18 MB; those that are larger carry data, such as a model or a
/// whole standard library, more than code.
pub const SIZE_MAX: usize = 64 << 20;

/// What can be seen without compiling.
pub(crate) struct Seen {
    /// What it needs, by interface, sorted.
    pub imports: Vec<String>,
}

/// Checks everything that can be checked without compiling.
pub(crate) fn look(wasm: &[u8], pool: &Pool) -> Result<Seen, Refused> {
    kind::check(wasm)?;
    let names = shape::check(wasm, pool)?;
    Ok(Seen { imports: imports::check(names, &|| metadata::read(wasm))? })
}

/// What the author says about the component. Only asked of what has been compiled.
pub(crate) fn metadata(wasm: &[u8]) -> Metadata {
    metadata::read(wasm)
}

/// The name of a component: `sha256:` and 64 hexadecimal digits.
#[must_use]
pub fn digest(wasm: &[u8]) -> String {
    let mut digester = Digester::default();
    digester.update(wasm);
    digester.finish()
}

/// Makes a [`digest`] of a component that comes in pieces.
#[derive(Debug, Clone, Default)]
pub struct Digester(sha2::Sha256);

impl Digester {
    /// The next piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    /// The digest of all pieces.
    #[must_use]
    pub fn finish(self) -> String {
        use std::fmt::Write;
        let mut text = String::with_capacity(71);
        text.push_str("sha256:");
        for byte in self.0.finalize() {
            write!(text, "{byte:02x}").expect("because a string takes everything");
        }
        text
    }
}

/// Which of the contract's interfaces a component exports. At least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Exports {
    /// It can act on events.
    pub handler: bool,
    /// It can turn events into others.
    pub transformer: bool,
}

/// What the author wrote into the component.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Metadata {
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Who wrote it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authors: Option<String>,
    /// Its licence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub licenses: Option<String>,
    /// Where its source is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The commit that it was built from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// What made it: `("language", "Rust", "2024")`, `("processed-by", "wit-component", "0.254.0")` …
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub producers: Vec<(String, String, String)>,
}

impl Metadata {
    /// The languages and tools that made it, in plain words, each once: `Rust`, `rustc 1.96.0`.
    #[must_use]
    pub fn made_with(&self) -> Vec<String> {
        let (languages, tools): (Vec<_>, Vec<_>) = self.producers.iter().partition(|(field, ..)| field == "language");
        let mut made_with = Vec::new();
        for (_, name, version) in languages.into_iter().chain(tools) {
            // What follows the version says of which commit and on which day.
            let tool = match version.split_whitespace().next() {
                Some(version) => format!("{name} {version}"),
                None => name.clone(),
            };
            if !made_with.contains(&tool) {
                made_with.push(tool);
            }
        }
        made_with
    }
}

/// What an upload was found to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspection {
    /// `sha256:` and 64 hexadecimal digits.
    pub digest: String,
    /// What it can be called for.
    pub exports: Exports,
    /// What it needs, by interface, sorted.
    pub imports: Vec<String>,
    /// Bytes of the component.
    pub size: u64,
    /// Bytes of its machine code here.
    pub artefact_size: u64,
    /// What the author says about it.
    pub metadata: Metadata,
    /// What compiled it.
    pub engine: String,
}

/// Why an upload is not accepted, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {detail} {hint}")]
pub struct Refused {
    /// For machines: `rejected_upload:import` … or, where the host is at fault, `host:…`.
    pub code: String,
    /// What is wrong, for people.
    pub detail: String,
    /// What to do about it.
    pub hint: String,
}

impl Refused {
    pub(crate) fn upload(what: &str, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code: format!("rejected_upload:{what}"), detail: detail.into(), hint: hint.into() }
    }

    pub(crate) fn host(detail: impl Into<String>) -> Self {
        Self {
            code: "host:compile".into(),
            detail: detail.into(),
            hint: "The host is at fault, not the component. Try again; if it stays, its operator must look.".into(),
        }
    }

    /// From what the linker says about a component that imports what is offered, as something else than it is offered as.
    pub(crate) fn not_linked(text: &str) -> Self {
        let text = crate::capability::redact::escape(text, 500);
        // `component imports instance `NAME`, but a matching implementation was not found in the linker: WHY`
        let detail = match text.split_once(", but a matching implementation was not found in the linker: ") {
            Some((import, why)) => {
                let import = import.split('`').nth(1).unwrap_or(import);
                format!("its `{import}` is not as this host has it: {why}.")
            }
            None => format!("what it imports does not fit what is offered: {text}."),
        };
        Self::upload(
            "import",
            detail,
            "Build it with the versions of the tools and of the WIT that the templates of `bulkhead plugin new` use.",
        )
    }

    /// From what the compiler says about a component. Its text is about the component only.
    pub(crate) fn not_compiled(text: &str) -> Self {
        let text = crate::capability::redact::escape(text, 1_000);
        let mentions = |words: &[&str]| words.iter().any(|word| text.contains(word));
        if mentions(&["component model async", "async feature", "cm-async"]) {
            return Self::upload(
                "async",
                format!("it uses the asynchronous component model: {text}."),
                "Build it for WASI 0.2 with synchronous functions (componentize-qjs: `--sync`).",
            );
        }
        if mentions(&["memory minimum", "minimum byte size", "memory size"]) {
            return Self::upload("memory", format!("{text}."), "Lower the initial memory.");
        }
        if mentions(&["proposal", "support is not enabled", "feature", "must be enabled", "not enabled", "disabled"]) {
            return Self::upload(
                "feature",
                format!("it uses a part of WebAssembly that is switched off here: {text}."),
                "Build it without that target feature; the defaults of the supported languages do not need it.",
            );
        }
        Self::upload(
            "invalid",
            format!("it is not a valid component: {text}."),
            "Build it again; if it was made with the current tools, it may have been damaged on the way.",
        )
    }

    /// True if the component may be fine and the host could not do its part: try again.
    #[must_use]
    pub fn is_host_fault(&self) -> bool {
        self.code.starts_with("host:")
    }
}
