//! Reads a plugin's files: as they were when they were looked at, and whole, or not at all.

use std::fs::OpenOptions;
use std::io;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use bulkhead_sandbox::inspect::SIZE_MAX;
use bytes::Bytes;

use crate::watch::scan::File;
use crate::watch::scan::Stamp;

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    /// All that should be there is.
    Whole(Files),
    /// The component ends in the middle of something: somebody may still be writing.
    Partial(String),
    /// A file is not any more what it was when it was looked at.
    Changed,
    /// A file cannot be used.
    Impossible(String),
}

/// What is in a plugin's files.
#[derive(Debug, PartialEq, Eq)]
pub struct Files {
    /// The component.
    pub wasm: Bytes,
    /// The manifest, if there is one.
    pub manifest: Option<String>,
    /// The signature, if there is one.
    pub signature: Option<String>,
}

/// Reads `folder/tenant/plugin.wasm`, `.toml` and `.sig`.
pub fn read(folder: &Path, tenant: &str, plugin: &str, stamp: &Stamp) -> Read {
    let path = folder.join(tenant).join(format!("{plugin}.wasm"));
    let wasm = match file(&path, stamp.wasm(), SIZE_MAX) {
        Ok(wasm) => wasm,
        Err(read) => return read,
    };
    let beside = |what: &str, ending: &str, stamp: Option<&File>, most: usize| {
        let Some(stamp) = stamp else { return Ok(None) };
        let text = String::from_utf8(file(&path.with_extension(ending), stamp, most)?);
        text.map(Some).map_err(|_| Read::Impossible(format!("the {what} is no text in UTF-8.")))
    };
    let manifest = match beside("manifest", "toml", stamp.manifest(), crate::manifest::SIZE_MAX) {
        Ok(manifest) => manifest,
        Err(read) => return read,
    };
    let signature = match beside("signature", "sig", stamp.signature(), crate::signature::SIZE_MAX) {
        Ok(signature) => signature,
        Err(read) => return read,
    };
    match whole(&wasm) {
        Ok(()) => Read::Whole(Files { wasm: wasm.into(), manifest, signature }),
        Err(reason) => Read::Partial(reason),
    }
}

fn file(path: &Path, stamp: &File, most: usize) -> Result<Vec<u8>, Read> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Read::Changed,
        // What a link gives when it is opened so.
        _ if error.raw_os_error() == Some(libc::ELOOP) => Read::Changed,
        _ => Read::Impossible(format!("the file cannot be read: {error}.")),
    };
    // Without following links, and without waiting for the writer of a pipe.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let mut opened = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(failed)?;
    let about = opened.metadata().map_err(failed)?;
    if !about.is_file() || File::of(&about) != *stamp {
        return Err(Read::Changed);
    }
    if about.len() > most as u64 {
        return Err(Read::Impossible(format!("the file has {} bytes; at most {most} are taken.", about.len())));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(about.len()).unwrap_or_default());
    opened.by_ref().take(most as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    // Written to while it was read?
    let about = opened.metadata().map_err(failed)?;
    if File::of(&about) != *stamp || bytes.len() as u64 != about.len() {
        return Err(Read::Changed);
    }
    Ok(bytes)
}

/// Does the file end where its last section ends? Says nothing about what is in the sections.
fn whole(wasm: &[u8]) -> Result<(), String> {
    if wasm.len() < 8 {
        return Err(format!("the file has only {} bytes.", wasm.len()));
    }
    if !wasm.starts_with(b"\0asm") {
        // That is another kind of file, and the inspection says which.
        return Ok(());
    }
    let mut at = 8;
    while at < wasm.len() {
        // The section's number, then its size as LEB128.
        at += 1;
        let (mut size, mut shift) = (0_u64, 0);
        loop {
            let Some(byte) = wasm.get(at) else {
                return Err("the file ends within the head of a section.".to_owned());
            };
            at += 1;
            size |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
            if shift > 28 {
                // Nonsense, which the inspection says better.
                return Ok(());
            }
        }
        let end = at as u64 + size;
        if end > wasm.len() as u64 {
            return Err(format!("the file has {} bytes, and a section in it ends at byte {end}.", wasm.len()));
        }
        at = usize::try_from(end).unwrap_or(usize::MAX);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::scan::scan;

    #[test]
    fn what_lies_beside_a_component_is_read_with_it() {
        let folder = tempfile::tempdir().expect("because there is room");
        let at = |name: &str| folder.path().join("acme").join(name);
        std::fs::create_dir(folder.path().join("acme")).expect("because there is room");
        let write = |name: &str, text: &str| std::fs::write(at(name), text).expect("because there is room");
        let look = || {
            let seen = scan(folder.path()).expect("because it is there");
            seen.plugins.into_values().next().expect("because there is a plugin")
        };
        write("shop.wasm", "\0asm\x0d\0\x01\0");
        let unsigned = look();
        write("shop.sig", "{}");
        let signed = look();
        assert_ne!(unsigned, signed, "a signature that comes later is a change");
        let Read::Whole(files) = read(folder.path(), "acme", "shop", &signed) else { panic!("it is whole") };
        assert_eq!((files.manifest, files.signature.as_deref()), (None, Some("{}")));
        write("shop.sig", "{ }");
        assert_eq!(read(folder.path(), "acme", "shop", &signed), Read::Changed);
    }

    #[test]
    fn only_what_ends_with_a_section_is_whole() {
        let wasm = b"\0asm\x0d\0\x01\0\x00\x03abc\x00\x01x";
        assert!(whole(wasm).is_ok());
        assert!(whole(&wasm[..8]).is_ok(), "a component without sections");
        assert!(whole(&wasm[..13]).is_ok(), "after the first section");
        for end in [0, 4, 7, 9, 10, 11, 12, 14, 15] {
            assert!(whole(&wasm[..end]).is_err(), "{end}");
        }
        assert!(whole(b"(component)").is_ok(), "no wasm at all is the inspection's to refuse");
    }
}
