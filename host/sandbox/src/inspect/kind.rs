//! What kind of file it is. Only a component goes further; for everything else the refusal says what it seems to be.

use super::Refused;
use super::SIZE_MAX;

const MAGIC: &[u8] = b"\0asm";
const MODULE: &[u8] = &[1, 0, 0, 0];
const COMPONENT: &[u8] = &[0x0d, 0, 1, 0];

/// The command that makes a component of a core module.
const MAKE_COMPONENT: &str = "Build it with `bulkhead plugin build`, or make it a component by \
     `wasm-tools component new module.wasm -o plugin.wasm`.";

const UPLOAD_COMPONENT: &str = "Upload the component: `bulkhead plugin build` says where it puts it.";

pub(super) fn check(bytes: &[u8]) -> Result<(), Refused> {
    let refuse = |what: &str, detail: &str, hint: &str| Err(Refused::upload(what, detail, hint));
    if bytes.is_empty() {
        return refuse("empty", "the file is empty.", UPLOAD_COMPONENT);
    }
    if bytes.len() > SIZE_MAX {
        return Err(Refused::upload(
            "size",
            format!("it has {} bytes; a component may have {} MiB.", bytes.len(), SIZE_MAX >> 20),
            "Strip its debug information (`wasm-tools strip`), or build it with size optimisation.",
        ));
    }
    match bytes.strip_prefix(MAGIC) {
        Some(rest) if rest.starts_with(COMPONENT) => Ok(()),
        Some(rest) if rest.starts_with(MODULE) => {
            refuse("module", "this is a core module, not a component.", MAKE_COMPONENT)
        }
        Some(rest) if rest.len() < 4 => refuse("truncated", "it ends within its header.", "Upload the whole file."),
        Some(_) => refuse(
            "version",
            "it is WebAssembly of a version that this host does not know.",
            "Build it with the current tools.",
        ),
        None => not_wasm(bytes),
    }
}

fn not_wasm(bytes: &[u8]) -> Result<(), Refused> {
    let refuse = |what: &str, detail: &str, hint: &str| Err(Refused::upload(what, detail, hint));
    if bytes.starts_with(b"\x7fELF") {
        return refuse("native", "this is machine code, which is never loaded from outside.", UPLOAD_COMPONENT);
    }
    if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(&[0x1f, 0x8b]) || bytes.starts_with(b"BZh") {
        return refuse("archive", "this is an archive, not a component.", "Unpack it and upload the component in it.");
    }
    if is_text(bytes) {
        return refuse(
            "text",
            "this is WebAssembly text.",
            "Make it binary with `wasm-tools parse plugin.wat -o plugin.wasm` and upload that.",
        );
    }
    refuse("garbage", "this is not WebAssembly.", UPLOAD_COMPONENT)
}

/// Text, after blanks and comments, begins with a parenthesis and a word.
fn is_text(bytes: &[u8]) -> bool {
    let head = &bytes[..bytes.len().min(4_096)];
    let Ok(text) = std::str::from_utf8(head).or_else(|error| std::str::from_utf8(&head[..error.valid_up_to()])) else {
        return false;
    };
    let code = text.lines().map(str::trim_start).find(|line| !line.is_empty() && !line.starts_with(";;"));
    code.is_some_and(|line| line.starts_with("(module") || line.starts_with("(component") || line.starts_with("(;"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(bytes: &[u8]) -> String {
        check(bytes).map_or_else(|refused| refused.code, |()| "fine".into())
    }

    #[test]
    fn every_kind_of_file_is_told_what_it_is() {
        for (bytes, expected) in [
            (&b""[..], "rejected_upload:empty"),
            (b"\0asm\x0d\0\x01\0", "fine"),
            (b"\0asm\x01\0\0\0", "rejected_upload:module"),
            (b"\0asm\x0d", "rejected_upload:truncated"),
            (b"\0asm\x0d\0\x02\0", "rejected_upload:version"),
            (b"\x7fELF\x02\x01", "rejected_upload:native"),
            (b"PK\x03\x04zip", "rejected_upload:archive"),
            (b"\x1f\x8bgzip", "rejected_upload:archive"),
            (b"(module)", "rejected_upload:text"),
            (b"  ;; hello\n\n  (component)", "rejected_upload:text"),
            (b"(; hi ;) (component)", "rejected_upload:text"),
            (b"import os", "rejected_upload:garbage"),
            (b"\0as", "rejected_upload:garbage"),
            (b"\xff\xfe", "rejected_upload:garbage"),
        ] {
            assert_eq!(code(bytes), expected, "{bytes:?}");
        }
        assert_eq!(code(&vec![0; SIZE_MAX + 1]), "rejected_upload:size");
    }
}
