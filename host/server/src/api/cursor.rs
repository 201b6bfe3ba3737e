//! Cursors: where a list goes on. Opaque, so that positions in the log, which all tenants share, tell nobody how much
//! the others publish; bound to the tenant and the list, and changed ones are noticed.
//!
//! Deterministic authenticated encryption (SIV) with BLAKE3: the tag of the content is the key of its key stream.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bulkhead_domain::id::Position;
use subtle::ConstantTimeEq as _;

use crate::api::code::Code;
use crate::api::problem::Problem;
use crate::api::problem::Result;

const TAG: usize = 8;
/// The longest content: a name or a key of a plugin's state.
const CONTENT_MAX: usize = 4 << 10;

/// Writes and reads cursors.
#[derive(Clone)]
pub struct Cursors {
    tag_key: [u8; 32],
    stream_key: [u8; 32],
}

impl Cursors {
    /// Under keys that follow from the host's secret.
    pub fn new(secret: &[u8; 32]) -> Self {
        Self {
            tag_key: blake3::derive_key("bulkhead 2026 cursor tag", secret),
            stream_key: blake3::derive_key("bulkhead 2026 cursor stream", secret),
        }
    }

    /// A cursor of the list `list` of the tenant `owner`.
    pub fn write(&self, owner: &str, list: &str, content: &[u8]) -> String {
        let tag = self.tag(owner, list, content);
        let mut bytes = tag.to_vec();
        bytes.extend_from_slice(content);
        self.mask(&tag, &mut bytes[TAG..]);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// What a cursor of this list of this tenant says.
    pub fn read(&self, owner: &str, list: &str, cursor: &str) -> Result<Vec<u8>> {
        self.open(owner, list, cursor).ok_or_else(|| {
            Problem::new(Code::CursorInvalid, "the cursor was not given for this list")
                .hint("begin without `after`; a cursor is the `next` of an earlier answer of the same list")
        })
    }

    /// A cursor that is a position.
    pub fn write_position(&self, owner: &str, list: &str, position: Position) -> String {
        self.write(owner, list, &position.0.to_be_bytes())
    }

    /// The position that a cursor is.
    pub fn read_position(&self, owner: &str, list: &str, cursor: &str) -> Result<Position> {
        let content = self.read(owner, list, cursor)?;
        let bytes =
            content.try_into().map_err(|_| Problem::new(Code::CursorInvalid, "the cursor is of another list"))?;
        Ok(Position(i64::from_be_bytes(bytes)))
    }

    fn open(&self, owner: &str, list: &str, cursor: &str) -> Option<Vec<u8>> {
        if cursor.len() > CONTENT_MAX * 2 {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
        let (tag, masked) = bytes.split_first_chunk::<TAG>()?;
        let mut content = masked.to_vec();
        self.mask(tag, &mut content);
        bool::from(self.tag(owner, list, &content).ct_eq(tag)).then_some(content)
    }

    fn tag(&self, owner: &str, list: &str, content: &[u8]) -> [u8; TAG] {
        let mut hasher = blake3::Hasher::new_keyed(&self.tag_key);
        for part in [owner, list] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        hasher.update(content);
        let mut tag = [0; TAG];
        tag.copy_from_slice(&hasher.finalize().as_bytes()[..TAG]);
        tag
    }

    fn mask(&self, tag: &[u8; TAG], content: &mut [u8]) {
        let mut stream = vec![0; content.len()];
        blake3::Hasher::new_keyed(&self.stream_key).update(tag).finalize_xof().fill(&mut stream);
        content.iter_mut().zip(stream).for_each(|(byte, mask)| *byte ^= mask);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_only_where_it_was_written() {
        let cursors = Cursors::new(&[7; 32]);
        let cursor = cursors.write_position("ten_a", "events", Position(42));
        assert_eq!(cursors.read_position("ten_a", "events", &cursor).ok(), Some(Position(42)));
        for (owner, list) in [("ten_b", "events"), ("ten_a", "runs"), ("ten_aevents", "")] {
            assert!(cursors.read(owner, list, &cursor).is_err(), "{owner} {list}");
        }
        for wrong in ["", "x", "AAAAAAAAAAAAAAAAAAAAAA", &cursor[1..], &format!("{cursor}AAAA")] {
            assert!(cursors.read("ten_a", "events", wrong).is_err(), "{wrong}");
        }
        assert!(Cursors::new(&[8; 32]).read("ten_a", "events", &cursor).is_err());
        let name = cursors.write("ten_a", "sinks", b"crm");
        assert_eq!(cursors.read("ten_a", "sinks", &name).ok().as_deref(), Some(&b"crm"[..]));
    }

    #[test]
    fn neighbours_look_nothing_alike() {
        let cursors = Cursors::new(&[7; 32]);
        let one = cursors.write_position("ten_a", "events", Position(1));
        let two = cursors.write_position("ten_a", "events", Position(2));
        let same = one.bytes().zip(two.bytes()).filter(|(a, b)| a == b).count();
        assert!(same < 8, "{one} {two}");
    }
}
