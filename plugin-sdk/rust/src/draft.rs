//! Drafts and bodies: what a plugin hands to the host to be published or sent.

use serde::Serialize;

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// An event to be: emitted, scheduled, or passed on by a transformer. The host adds identity and causation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// Its type, dotted: `orders.flagged`.
    pub kind: String,
    /// What it is about.
    pub subject: Option<String>,
    /// Events of one tenant with the same key can be kept in order.
    pub key: Option<String>,
    /// The media type of the data.
    pub content_type: String,
    /// The payload.
    pub data: Vec<u8>,
    /// Every other attribute, names in lower case.
    pub attributes: Vec<(String, String)>,
}

impl Draft {
    /// A draft whose data is JSON. Fails only where `data` has no JSON form, such as a map with keys that are no
    /// text.
    ///
    /// ```
    /// use bulkhead_plugin::Draft;
    ///
    /// let draft = Draft::json("orders.flagged", &["A-17"])?.with_subject("A-17").with_key("customer-9");
    /// assert_eq!(draft.data, br#"["A-17"]"#);
    /// # Ok::<(), bulkhead_plugin::Failure>(())
    /// ```
    pub fn json(kind: impl Into<String>, data: &impl Serialize) -> Result<Self, serde_json::Error> {
        Ok(Self::bytes(kind, JSON, serde_json::to_vec(data)?))
    }

    /// A draft whose data is text.
    pub fn text(kind: impl Into<String>, data: impl Into<String>) -> Self {
        Self::bytes(kind, TEXT, data.into())
    }

    /// A draft whose data is anything.
    pub fn bytes(kind: impl Into<String>, content_type: impl Into<String>, data: impl Into<Vec<u8>>) -> Self {
        Self {
            kind: kind.into(),
            subject: None,
            key: None,
            content_type: content_type.into(),
            data: data.into(),
            attributes: Vec::new(),
        }
    }

    /// Says what it is about.
    #[must_use]
    pub fn with_subject(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    /// Sets the ordering key.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Adds an attribute.
    #[must_use]
    pub fn with_attribute(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.attributes.push((name.into(), value.into()));
        self
    }
}

/// What is delivered to a sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    /// The media type.
    pub content_type: String,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// What the sink sends along in its own way: a webhook as headers.
    pub attributes: Vec<(String, String)>,
}

impl Body {
    /// A body of JSON.
    pub fn json(value: &impl Serialize) -> Result<Self, serde_json::Error> {
        Ok(Self::bytes(JSON, serde_json::to_vec(value)?))
    }

    /// A body of text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::bytes(TEXT, text.into())
    }

    /// A body of anything.
    pub fn bytes(content_type: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Self { content_type: content_type.into(), bytes: bytes.into(), attributes: Vec::new() }
    }

    /// Adds an attribute.
    #[must_use]
    pub fn with_attribute(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.attributes.push((name.into(), value.into()));
        self
    }
}
