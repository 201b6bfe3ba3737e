//! The text of a key: `bhk_<id>_<secret>`, an operator's `bho_<id>_<secret>`.
//!
//! The id (12 letters) finds the key and is no secret. The secret is 256 random bits (52 letters) and 6 letters of
//! checksum, so that a typing error is told from a wrong key without asking the store, and a leaked key can be found by
//! its shape. All letters are of base 32 (`a-z2-7`), so a double click takes the whole key.

use rand::TryRngCore as _;
use secrecy::ExposeSecret as _;
use secrecy::SecretString;

/// What a tenant's key begins with.
pub const TENANT_PREFIX: &str = "bhk_";
/// What an operator's key begins with.
pub const OPERATOR_PREFIX: &str = "bho_";

/// A key is never longer; what is, is not even looked at.
pub const LENGTH_MAX: usize = 300;

const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
const ID_LETTERS: usize = 12;
const SECRET_LETTERS: usize = 52;
const CHECK_LETTERS: usize = 6;

/// Whose key it is, by its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `bhk_`
    Tenant,
    /// `bho_`
    Operator,
}

/// A key as somebody shows it; its parts are of the shape that they must have, and nothing more is known.
#[derive(Debug, Clone)]
pub struct Shown {
    /// Whose it claims to be.
    pub kind: Kind,
    /// By which it is found.
    pub id: String,
    /// What proves it.
    pub secret: SecretString,
}

/// Makes a new key: its id, and its text.
pub fn create(kind: Kind) -> (String, SecretString) {
    let id = random(ID_LETTERS);
    let secret = random(SECRET_LETTERS);
    let prefix = prefix(kind);
    let check = checksum(kind, &id, &secret);
    let text = format!("{prefix}{id}_{secret}{check}");
    (id, SecretString::from(text))
}

/// Takes a key apart; none if it is none of ours.
pub fn parse(text: &str) -> Option<Shown> {
    if text.len() > LENGTH_MAX {
        return None;
    }
    let kind = [Kind::Tenant, Kind::Operator].into_iter().find(|kind| text.starts_with(prefix(*kind)))?;
    let (id, rest) = text[prefix(kind).len()..].split_once('_')?;
    let (secret, check) = rest.split_at_checked(SECRET_LETTERS)?;
    let plain = |text: &str| text.bytes().all(|byte| ALPHABET.contains(&byte));
    let whole = id.len() == ID_LETTERS && plain(id) && plain(secret) && check == checksum(kind, id, secret);
    whole.then(|| Shown { kind, id: id.to_owned(), secret: SecretString::from(secret.to_owned()) })
}

/// The part of a new key's text that is stored as a hash.
pub fn secret_of(text: &SecretString) -> Option<SecretString> {
    parse(text.expose_secret()).map(|shown| shown.secret)
}

/// Is there something in the text that looks like a key? For URLs, which must not hold one.
pub fn is_in(text: &str) -> bool {
    let text = text.replace("%5F", "_").replace("%5f", "_");
    [TENANT_PREFIX, OPERATOR_PREFIX].iter().any(|prefix| {
        text.match_indices(prefix).any(|(at, _)| {
            let rest = &text[at + prefix.len()..];
            rest.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count() >= 32
        })
    })
}

const fn prefix(kind: Kind) -> &'static str {
    match kind {
        Kind::Tenant => TENANT_PREFIX,
        Kind::Operator => OPERATOR_PREFIX,
    }
}

fn random(letters: usize) -> String {
    let mut bytes = [0_u8; SECRET_LETTERS];
    rand::rngs::OsRng.try_fill_bytes(&mut bytes).expect("because the kernel's random numbers never end");
    bytes[..letters].iter().map(|byte| char::from(ALPHABET[usize::from(byte & 31)])).collect()
}

fn checksum(kind: Kind, id: &str, secret: &str) -> String {
    let hash = blake3::hash(format!("{}{id}_{secret}", prefix(kind)).as_bytes());
    hash.as_bytes()[..CHECK_LETTERS].iter().map(|byte| char::from(ALPHABET[usize::from(byte & 31)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_back_and_differ() {
        for kind in [Kind::Tenant, Kind::Operator] {
            let (id, text) = create(kind);
            let shown = parse(text.expose_secret()).expect("because it is ours");
            assert_eq!((shown.kind, shown.id.as_str()), (kind, id.as_str()));
            assert_ne!(create(kind).0, id);
            assert!(is_in(&format!("/v1/events?key={}", text.expose_secret())));
            assert!(is_in(&text.expose_secret().replace('_', "%5F")));
        }
        assert!(!is_in("/v1/events?key=bhk_short"));
    }

    #[test]
    fn every_changed_letter_is_noticed() {
        let (_, text) = create(Kind::Tenant);
        let text = text.expose_secret();
        for at in 0..text.len() {
            let mut letters = text.as_bytes().to_vec();
            letters[at] = if letters[at] == b'a' { b'b' } else { b'a' };
            let changed = String::from_utf8(letters).expect("because all are ASCII");
            assert!(parse(&changed).is_none(), "{changed}");
        }
        for wrong in ["", "bhk_", "bhk__", "bearer", &text[..text.len() - 1], &format!("{text}a"), "bhk_é_é"] {
            assert!(parse(wrong).is_none(), "{wrong}");
        }
    }
}
