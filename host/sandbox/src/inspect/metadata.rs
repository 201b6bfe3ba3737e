//! What the author wrote into the component. Shown to people, believed by nobody: bounded and escaped.

use wasm_metadata::Producers;
use wasmparser::ComponentName;
use wasmparser::CustomSectionReader;
use wasmparser::KnownCustom;
use wasmparser::Parser;
use wasmparser::Payload;

use super::Metadata;
use crate::capability::redact::escape;

/// Bytes of one text.
const TEXT_MAX: usize = 512;
/// Bytes of a section of producers that is looked at: real ones have a few hundred, and read they take many times as much.
const SECTION_MAX: usize = 64 << 10;
/// Entries in the list of producers.
const PRODUCERS_MAX: usize = 64;

/// Reads what is there; what is damaged is not.
pub(super) fn read(wasm: &[u8]) -> Metadata {
    let mut metadata = Metadata::default();
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(wasm) {
        match payload {
            Ok(Payload::Version { .. }) => depth += 1,
            Ok(Payload::End(_)) => depth = depth.saturating_sub(1),
            Ok(Payload::CustomSection(section)) => custom(&mut metadata, &section, depth == 1),
            Ok(_) => {}
            Err(_) => break,
        }
    }
    metadata.producers.sort_unstable();
    metadata.producers.dedup();
    metadata
}

/// One custom section: texts count only at the `top`, producers wherever they are.
fn custom(metadata: &mut Metadata, section: &CustomSectionReader<'_>, top: bool) {
    if section.name() == "producers" {
        if section.data().len() <= SECTION_MAX
            && let Ok(found) = Producers::from_bytes(section.data(), 0)
        {
            producers(metadata, &found);
        }
        return;
    }
    if !top {
        return;
    }
    if let KnownCustom::ComponentName(names) = section.as_known() {
        for name in names.into_iter().flatten() {
            if let ComponentName::Component { name, .. } = name {
                metadata.name = Some(escape(name, TEXT_MAX));
            }
        }
        return;
    }
    let field = match section.name() {
        "authors" => &mut metadata.authors,
        "description" => &mut metadata.description,
        "licenses" => &mut metadata.licenses,
        "revision" => &mut metadata.revision,
        "source" => &mut metadata.source,
        "version" => &mut metadata.version,
        _ => return,
    };
    if let Ok(text) = std::str::from_utf8(section.data()) {
        *field = Some(escape(text, TEXT_MAX));
    }
}

fn producers(metadata: &mut Metadata, found: &Producers) {
    for (field, values) in found.iter() {
        for (name, version) in values.iter() {
            if metadata.producers.len() == PRODUCERS_MAX {
                return;
            }
            let entry = (escape(field, TEXT_MAX), escape(name, TEXT_MAX), escape(version, TEXT_MAX));
            if !metadata.producers.contains(&entry) {
                metadata.producers.push(entry);
            }
        }
    }
}
