//! Bytes as JSON has them: readable where they are text, whole where they are not.
//!
//! `{"text": "…"}` for valid UTF-8, `{"base64": "…"}` for everything else; both read back to the same bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::Serializer;
use serde::de::Error as _;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Blob<'a> {
    Text(std::borrow::Cow<'a, str>),
    Base64(String),
}

/// For `#[serde(with = "crate::blob")]`.
pub fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Blob::Text(text.into()),
        Err(_) => Blob::Base64(STANDARD.encode(bytes)),
    }
    .serialize(serializer)
}

/// For `#[serde(with = "crate::blob")]`.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    match Blob::deserialize(deserializer)? {
        Blob::Text(text) => Ok(text.into_owned().into()),
        Blob::Base64(text) => STANDARD.decode(text).map(Bytes::from).map_err(D::Error::custom),
    }
}

/// Bytes that may be missing, for `#[serde(with = "crate::blob::option")]`.
pub mod option {
    use super::Bytes;
    use super::Deserialize;
    use super::Deserializer;
    use super::Serialize;
    use super::Serializer;

    #[derive(Serialize, Deserialize)]
    struct Whole(#[serde(with = "super")] Bytes);

    /// See the module's text.
    pub fn serialize<S: Serializer>(bytes: &Option<Bytes>, serializer: S) -> Result<S::Ok, S::Error> {
        bytes.clone().map(Whole).serialize(serializer)
    }

    /// See the module's text.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Bytes>, D::Error> {
        Ok(Option::<Whole>::deserialize(deserializer)?.map(|whole| whole.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Both {
        #[serde(with = "super")]
        one: Bytes,
        #[serde(default, with = "super::option")]
        other: Option<Bytes>,
    }

    #[test]
    fn bytes_read_back_as_they_were() {
        for (one, json) in [
            (&b"{\"a\":1}"[..], r#"{"one":{"text":"{\"a\":1}"},"other":null}"#),
            (&[0xff, 0x00, 0x80], r#"{"one":{"base64":"/wCA"},"other":null}"#),
            (b"", r#"{"one":{"text":""},"other":null}"#),
        ] {
            let both = Both { one: Bytes::from_static(one), other: None };
            assert_eq!(serde_json::to_string(&both).expect("because it is plain data"), json);
            assert_eq!(serde_json::from_str::<Both>(json).expect("because it was written so"), both);
            let both = Both { other: Some(both.one.clone()), ..both };
            let text = serde_json::to_string(&both).expect("because it is plain data");
            assert_eq!(serde_json::from_str::<Both>(&text).expect("because it was written so"), both);
        }
        assert!(serde_json::from_str::<Both>(r#"{"one":{"base64":"?"}}"#).is_err());
    }
}
