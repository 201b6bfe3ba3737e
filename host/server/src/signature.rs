//! Signatures of plugins: who vouches for a component, and for what it is called.
//!
//! What is signed is a statement of four fields, as JSON without blanks and with its fields in this order (RFC 8785):
//!
//! ```text
//! {"digest":"sha256:…","name":"fraud-score","version":"1.4.0","world":"bulkhead:plugin/handler-plugin@0.1.0"}
//! ```
//!
//! It travels in a DSSE envelope, and ed25519 signs the envelope's pre-authentication encoding, so that the bytes of one
//! kind of document can never be taken for those of another. The host makes the statement anew from what was uploaded and
//! compares bytes: what the envelope says about itself is never read to decide anything. `docs/signatures.md` has the whole
//! format, for signers that are not ours.
//!
//! Does not: cover the manifest beyond its name and version, say when a signature ends, or fetch keys from anywhere.

use std::fmt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bulkhead_sandbox::Inspection;
use ed25519_dalek::Signature;
use ed25519_dalek::Signer as _;
use ed25519_dalek::SigningKey;
use ed25519_dalek::VerifyingKey;
use serde::Deserialize;
use serde::Serialize;

use crate::manifest::Manifest;
use crate::secret_file;

/// The most bytes of an envelope.
pub const SIZE_MAX: usize = 16 << 10;
/// The most signatures in an envelope: each is tried with each trusted key.
const SIGNATURES_MAX: usize = 8;
/// What to do about an upload whose signature is missing or does not count.
pub const HINT: &str = "sign it with a key that the host trusts, under the name and version that it is uploaded with: \
                        bulkhead plugin sign PATH --with FILE";
/// What kind of document is signed.
const PAYLOAD_TYPE: &str = "application/vnd.bulkhead.plugin+json";
/// How a public key's text begins.
const PREFIX: &str = "bhp_";

/// What a signature vouches for. The order of the fields is part of the format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// `sha256:…` of the component.
    digest: String,
    /// Under which name it is stored.
    name: String,
    /// The manifest's `[plugin] version`; empty without one.
    version: String,
    /// Which worlds of the contract it implements.
    world: String,
}

impl Statement {
    /// About a component that is stored as `name` with this manifest.
    pub fn new(name: &str, manifest: &Manifest, inspection: &Inspection) -> Self {
        let (digest, name) = (inspection.digest.clone(), name.to_owned());
        Self { digest, name, version: manifest.plugin.version.clone(), world: world(inspection) }
    }

    fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("because it is plain data")
    }

    /// How another statement differs: `the name is \`a\`, here it is \`b\``.
    fn difference(&self, other: &Self) -> Option<String> {
        let fields = [
            ("digest", &self.digest, &other.digest),
            ("name", &self.name, &other.name),
            ("version", &self.version, &other.version),
            ("world", &self.world, &other.world),
        ];
        fields.into_iter().find(|(_, here, there)| here != there).map(|(field, here, there)| {
            let there: String = there.chars().take(128).collect();
            format!("it is for the {field} `{}`, and this is `{here}`", there.escape_debug())
        })
    }
}

/// `bulkhead:plugin/handler-plugin@0.1.0`; both worlds with a `+` between them.
fn world(inspection: &Inspection) -> String {
    let worlds =
        [(inspection.exports.handler, "handler-plugin"), (inspection.exports.transformer, "transformer-plugin")];
    let worlds: Vec<&str> = worlds.into_iter().filter_map(|(is_there, world)| is_there.then_some(world)).collect();
    let worlds = format!("bulkhead:plugin/{}", worlds.join("+"));
    let contract = |import: &String| Some(import.strip_prefix("bulkhead:plugin/")?.split_once('@')?.1.to_owned());
    match inspection.imports.iter().find_map(contract) {
        Some(version) => format!("{worlds}@{version}"),
        None => worlds,
    }
}

/// A DSSE envelope: what stands in a `.sig` file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload_type: String,
    /// In base64.
    payload: String,
    signatures: Vec<Signed>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Signed {
    /// Whose it says it is: for people, nothing is decided by it.
    #[serde(default)]
    keyid: String,
    /// In base64.
    sig: String,
}

/// A key that vouches.
pub struct Secret(SigningKey);

impl Secret {
    /// Makes one, in a file that is its owner's alone. A file that is there is never replaced.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        Ok(Self(SigningKey::from_bytes(&secret_file::create_new(path)?)))
    }

    /// Reads one.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        Ok(Self(SigningKey::from_bytes(&secret_file::load(path)?)))
    }

    /// What others know it by.
    pub fn public(&self) -> Public {
        Public(self.0.verifying_key())
    }

    /// The envelope that says so, as text.
    pub fn sign(&self, statement: &Statement) -> String {
        let payload = statement.bytes();
        let signature = self.0.sign(&pae(&payload));
        let signed = Signed { keyid: self.public().to_string(), sig: STANDARD.encode(signature.to_bytes()) };
        let payload = STANDARD.encode(payload);
        let envelope = Envelope { payload_type: PAYLOAD_TYPE.to_owned(), payload, signatures: vec![signed] };
        serde_json::to_string(&envelope).expect("because it is plain data")
    }
}

/// A key by which signatures are known. Its text, `bhp_…`, is its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Public(VerifyingKey);

impl Public {
    /// Reads the text form; none if it is not that of a key that could sign.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text.strip_prefix(PREFIX)?).ok()?;
        let key = VerifyingKey::from_bytes(&bytes.try_into().ok()?).ok()?;
        // A key of small order "signs" everything.
        (!key.is_weak()).then_some(Self(key))
    }
}

impl fmt::Display for Public {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", URL_SAFE_NO_PAD.encode(self.0.as_bytes()))
    }
}

/// Whose signatures count, and whether there has to be one.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// Whether an upload without a good signature is refused.
    pub required: bool,
    /// Whose signatures are good.
    pub keys: Vec<Public>,
}

/// Why a signature does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is none, and one is required.
    #[error("the upload has no signature, and this host takes only signed ones")]
    Missing,
    /// It is not good for what was uploaded.
    #[error("the signature does not count: {0}")]
    Invalid(String),
}

/// A signature that was found good, as it is stored and shown.
#[derive(Debug, Serialize)]
pub struct Verified {
    /// The id of the trusted key that made it.
    key: String,
    /// What came with the upload, with that key's signature only.
    envelope: Envelope,
}

impl Trust {
    /// Finds the trusted key that made one of the signatures in `envelope` over exactly this statement.
    pub fn verify(&self, envelope: &str, statement: &Statement) -> Result<Verified, Refusal> {
        let invalid = |why: &str| Refusal::Invalid(why.to_owned());
        if envelope.len() > SIZE_MAX {
            return Err(invalid(&format!("it is larger than {}", crate::measure::Bytes(SIZE_MAX as u64))));
        }
        let envelope: Envelope = serde_json::from_str(envelope).map_err(|_| invalid("it is no DSSE envelope"))?;
        if envelope.payload_type != PAYLOAD_TYPE {
            return Err(invalid(&format!("its payload is not of the type {PAYLOAD_TYPE}")));
        }
        if envelope.signatures.len() > SIGNATURES_MAX {
            return Err(invalid(&format!("it has more than {SIGNATURES_MAX} signatures")));
        }
        let (payload, expected) = (STANDARD.decode(&envelope.payload).unwrap_or_default(), statement.bytes());
        if payload != expected {
            let read: Option<Statement> = serde_json::from_slice(&payload).ok();
            let difference = read.and_then(|read| statement.difference(&read));
            return Err(invalid(&difference.unwrap_or("its payload is not the statement in its one form".to_owned())));
        }
        let message = pae(&expected);
        for signed in &envelope.signatures {
            let bytes = STANDARD.decode(&signed.sig).ok();
            let Some(signature) = bytes.and_then(|bytes| Signature::from_slice(&bytes).ok()) else { continue };
            if let Some(key) = self.keys.iter().find(|key| key.0.verify_strict(&message, &signature).is_ok()) {
                let signed = Signed { keyid: key.to_string(), sig: signed.sig.clone() };
                let envelope = Envelope { signatures: vec![signed], ..envelope };
                return Ok(Verified { key: key.to_string(), envelope });
            }
        }
        Err(invalid("no key that this host trusts made it"))
    }
}

/// DSSE's pre-authentication encoding: the type and the payload, each after its length.
fn pae(payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {PAYLOAD_TYPE} {} ", PAYLOAD_TYPE.len(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use serde_json::json;

    use super::*;

    fn secret(seed: u8) -> Secret {
        Secret(SigningKey::from_bytes(&[seed; 32]))
    }

    fn trust(secret: &Secret) -> Trust {
        Trust { required: true, keys: vec![secret.public()] }
    }

    fn statement() -> Statement {
        let text = |text: &str| text.to_owned();
        let world = text("bulkhead:plugin/handler-plugin@0.1.0");
        Statement { digest: text("sha256:00ff"), name: text("shop"), version: text("1.4.0"), world }
    }

    fn reason(trust: &Trust, envelope: &str, statement: &Statement) -> String {
        trust.verify(envelope, statement).expect_err("because it must not count").to_string()
    }

    /// An envelope with something changed.
    fn changed(envelope: &str, change: impl FnOnce(&mut Value)) -> String {
        let mut envelope: Value = serde_json::from_str(envelope).expect("because it is JSON");
        change(&mut envelope);
        envelope.to_string()
    }

    #[test]
    fn what_is_signed_has_one_form_that_others_can_make_too() {
        let payload = statement().bytes();
        let expected = r#"{"digest":"sha256:00ff","name":"shop","version":"1.4.0","world":"bulkhead:plugin/handler-plugin@0.1.0"}"#;
        assert_eq!(payload, expected.as_bytes());
        let message = format!("DSSEv1 36 application/vnd.bulkhead.plugin+json 103 {expected}");
        assert_eq!(pae(&payload), message.as_bytes());
    }

    #[test]
    fn a_signature_of_a_trusted_key_counts_and_names_it() {
        let (ours, other) = (secret(1), secret(2));
        let trust = Trust { required: true, keys: vec![other.public(), ours.public()] };
        let verified = trust.verify(&ours.sign(&statement()), &statement()).expect("because it is good");
        assert_eq!(verified.key, ours.public().to_string());
        // The key that it says it is of decides nothing.
        let renamed = changed(&ours.sign(&statement()), |envelope| envelope["signatures"][0]["keyid"] = json!("x"));
        let verified = trust.verify(&renamed, &statement()).expect("because it is good");
        assert_eq!(verified.envelope.signatures[0].keyid, ours.public().to_string());
    }

    #[test]
    fn the_wrong_key_does_not_count() {
        let (ours, other) = (secret(1), secret(2));
        let claimed = changed(&other.sign(&statement()), |envelope| {
            envelope["signatures"][0]["keyid"] = json!(ours.public().to_string());
        });
        for envelope in [other.sign(&statement()), claimed] {
            assert!(reason(&trust(&ours), &envelope, &statement()).ends_with("no key that this host trusts made it"));
        }
        assert!(Trust::default().verify(&ours.sign(&statement()), &statement()).is_err(), "nobody is trusted");
    }

    #[test]
    fn a_signature_is_for_one_digest_name_version_and_world() {
        let ours = secret(1);
        let envelope = ours.sign(&statement());
        let others = [
            ("digest", Statement { digest: "sha256:01ff".to_owned(), ..statement() }),
            ("name", Statement { name: "bank".to_owned(), ..statement() }),
            ("version", Statement { version: String::new(), ..statement() }),
            ("world", Statement { world: "bulkhead:plugin/transformer-plugin@0.1.0".to_owned(), ..statement() }),
        ];
        for (field, other) in others {
            let reason = reason(&trust(&ours), &envelope, &other);
            assert!(reason.contains(&format!("it is for the {field} `")), "{reason}");
            // Nor with the payload that is expected and the signature over the other one.
            let moved = changed(&envelope, |envelope| envelope["payload"] = json!(STANDARD.encode(other.bytes())));
            assert!(trust(&ours).verify(&moved, &other).is_err(), "{field}");
        }
    }

    #[test]
    fn what_is_malformed_does_not_count() {
        let ours = secret(1);
        let envelope = ours.sign(&statement());
        let with = |pointer: &str, value: Value| {
            changed(&envelope, |envelope| *envelope.pointer_mut(pointer).expect("because it is there") = value)
        };
        let signed: Value = serde_json::from_str(&envelope).expect("because it is JSON");
        let many = vec![signed["signatures"][0].clone(); SIGNATURES_MAX + 1];
        for wrong in [
            String::new(),
            "[]".to_owned(),
            "{}".to_owned(),
            with("/payloadType", json!("application/json")),
            with("/payload", json!("?")),
            with("/payload", json!("")),
            with("/signatures", json!([])),
            with("/signatures", json!(many)),
            with("/signatures/0/sig", json!("")),
            with("/signatures/0/sig", json!(STANDARD.encode([0; 64]))),
            with("/signatures/0/sig", json!(STANDARD.encode([0; 63]))),
            format!("{envelope}{}", " ".repeat(SIZE_MAX)),
        ] {
            assert!(matches!(trust(&ours).verify(&wrong, &statement()), Err(Refusal::Invalid(_))), "{wrong}");
        }
        let hostile = Statement { name: "\u{1b}[2J".to_owned(), ..statement() };
        assert!(!reason(&trust(&ours), &ours.sign(&hostile), &statement()).contains('\u{1b}'));
    }

    #[test]
    fn another_form_of_the_same_does_not_count() {
        let ours = secret(1);
        // The same fields with a blank, truly signed.
        let payload = String::from_utf8(statement().bytes()).expect("because it is JSON").replace(',', ", ");
        let signature = STANDARD.encode(ours.0.sign(&pae(payload.as_bytes())).to_bytes());
        let loose = changed(&ours.sign(&statement()), |envelope| {
            envelope["payload"] = json!(STANDARD.encode(&payload));
            envelope["signatures"][0]["sig"] = json!(signature);
        });
        assert!(reason(&trust(&ours), &loose, &statement()).ends_with("in its one form"));
        // The signature's scalar with the group's order added: the same equation, another text.
        let order: [u8; 32] = [
            0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0,
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
        ];
        let mut bytes = ours.0.sign(&pae(&statement().bytes())).to_bytes();
        let mut carry = 0;
        for (byte, add) in bytes[32..].iter_mut().zip(order) {
            let sum = u16::from(*byte) + u16::from(add) + carry;
            (*byte, carry) = (sum.to_le_bytes()[0], sum >> 8);
        }
        let stretched = changed(&ours.sign(&statement()), |envelope| {
            envelope["signatures"][0]["sig"] = json!(STANDARD.encode(bytes));
        });
        assert!(trust(&ours).verify(&stretched, &statement()).is_err());
    }

    #[test]
    fn keys_have_one_text() {
        let public = secret(1).public();
        let text = public.to_string();
        assert_eq!(Public::parse(&text), Some(public));
        let neutral = {
            let mut point = [0; 32];
            point[0] = 1;
            format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(point))
        };
        for wrong in ["", "bhp_", &text[4..], &text[..46], &format!("{text}="), &neutral] {
            assert_eq!(Public::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_key_is_made_once_and_read_back() {
        let folder = tempfile::tempdir().expect("because a temporary folder can be made");
        let path = folder.path().join("release.key");
        let made = Secret::create(&path).expect("because the folder is writable").public();
        assert_eq!(Secret::load(&path).expect("because it is there").public(), made);
        assert!(Secret::create(&path).is_err(), "it is never replaced");
        assert!(Secret::load(&folder.path().join("other.key")).is_err());
    }
}
