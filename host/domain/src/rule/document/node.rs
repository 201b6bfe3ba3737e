//! Nodes: a document as a tree that remembers where everything stands.
//!
//! YAML and JSON are read by one parser, so that positions, duplicate keys and aliases are treated alike. Not
//! everything that YAML allows is wanted in a rule: tags are refused, keys must be texts and differ, and aliases may
//! repeat only so much.

use std::collections::HashMap;

use saphyr::Scalar as YamlScalar;
use saphyr_parser::Event;
use saphyr_parser::Parser;
use saphyr_parser::ScalarStyle;
use saphyr_parser::Span;
use serde_json::Value as Json;

/// How deep a document may nest.
const DEPTH_MAX: usize = 64;
/// How many nodes a document may have: far more than the largest set of rules needs.
const NODES_MAX: usize = 2_000_000;
/// How many of them may come from aliases, so that a few lines cannot become gigabytes.
const ALIASED_MAX: usize = 20_000;
/// How many may be kept for aliases.
const ANCHORED_MAX: usize = 200_000;

/// A value of a document.
#[derive(Debug, Clone)]
pub struct Node {
    /// Where it starts, in characters from the start of the text.
    pub at: usize,
    /// Where it ends.
    pub end: usize,
    /// What it is.
    pub content: Content,
}

/// What a node is.
#[derive(Debug, Clone)]
pub enum Content {
    /// A single value.
    Scalar(Scalar),
    /// A list.
    List(Vec<Node>),
    /// A map, in the order of the document.
    Map(Vec<(Key, Node)>),
}

/// A key of a map.
#[derive(Debug, Clone)]
pub struct Key {
    /// Where it starts.
    pub at: usize,
    /// The key.
    pub text: String,
}

/// A single value and how it was written.
#[derive(Debug, Clone)]
pub struct Scalar {
    /// As it was written, without quotes.
    pub text: String,
    /// How it was quoted.
    pub style: ScalarStyle,
    /// What it means.
    pub value: Json,
}

/// Something that keeps a text from being a document.
#[derive(Debug, Clone)]
pub struct Fault {
    /// Where, in characters from the start of the text.
    pub at: usize,
    /// What.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
}

impl Fault {
    fn new(at: usize, message: impl Into<String>) -> Self {
        Self { at, message: message.into(), hint: None }
    }
}

impl Node {
    /// A node that stands nowhere.
    pub fn of(json: &Json) -> Self {
        let content = match json {
            Json::Array(list) => Content::List(list.iter().map(Self::of).collect()),
            Json::Object(map) => {
                let entry = |(key, value): (&String, &Json)| (Key { at: 0, text: key.clone() }, Self::of(value));
                Content::Map(map.iter().map(entry).collect())
            }
            scalar => {
                let text = scalar.as_str().map_or_else(|| scalar.to_string(), ToOwned::to_owned);
                Content::Scalar(Scalar { text, style: ScalarStyle::Plain, value: scalar.clone() })
            }
        };
        Self { at: 0, end: 0, content }
    }

    /// The node as JSON.
    pub fn json(&self) -> Json {
        match &self.content {
            Content::Scalar(scalar) => scalar.value.clone(),
            Content::List(list) => Json::Array(list.iter().map(Self::json).collect()),
            Content::Map(map) => {
                Json::Object(map.iter().map(|(key, value)| (key.text.clone(), value.json())).collect())
            }
        }
    }

    /// Null, or nothing at all.
    pub fn is_null(&self) -> bool {
        matches!(&self.content, Content::Scalar(Scalar { value: Json::Null, .. }))
    }

    /// In plain words, with an article.
    pub fn words(&self) -> &'static str {
        match &self.content {
            Content::Scalar(scalar) => match &scalar.value {
                Json::Null => "empty",
                Json::Bool(_) => "true or false",
                Json::Number(_) => "a number",
                _ => "a text",
            },
            Content::List(_) => "a list",
            Content::Map(_) => "a map",
        }
    }
}

/// Reads the documents of a text. Empty ones are left out.
pub fn read(text: &str) -> Result<Vec<Node>, Vec<Fault>> {
    let mut builder = Builder::default();
    let mut parser = Parser::new_from_str(text);
    let mut broken = None;
    while let Some(event) = parser.next_event() {
        match event {
            Ok((event, span)) => {
                if let Err(fault) = builder.event(event, span) {
                    builder.faults.push(fault);
                    break;
                }
            }
            Err(error) => {
                broken = Some(Fault::new(error.marker().index(), error.info().to_owned()));
                break;
            }
        }
    }
    if let Some(fault) = broken {
        // Some JSON is not YAML: pairs of surrogates, above all. It goes without positions.
        return match serde_json::from_str::<Json>(text) {
            Ok(json) => Ok(vec![Node::of(&json)]),
            Err(_) => Err([builder.faults, vec![fault]].concat()),
        };
    }
    if builder.faults.is_empty() { Ok(builder.documents) } else { Err(builder.faults) }
}

/// A list or map whose end has not come yet.
struct Open {
    at: usize,
    anchor: usize,
    content: Content,
    /// The key whose value comes next.
    key: Option<Key>,
    /// Where each key of the map stands already.
    keys: HashMap<String, usize>,
    /// How many nodes came before it.
    before: usize,
}

#[derive(Default)]
struct Builder {
    documents: Vec<Node>,
    open: Vec<Open>,
    /// What aliases may repeat, and how many nodes it has.
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
    aliased: usize,
    anchored: usize,
    faults: Vec<Fault>,
}

impl Builder {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Fault> {
        let (at, end) = (span.start.index(), span.end.index());
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                if tag.as_ref().is_some_and(|tag| !(tag.is_yaml_core_schema() && tag.suffix == "str")) {
                    self.faults.push(Fault::new(at, "tags are not supported"));
                }
                let value = if tag.is_some() { Json::String(text.to_string()) } else { scalar(&text, style) };
                let content = Content::Scalar(Scalar { text: text.into_owned(), style, value });
                self.add(Node { at, end, content }, 1, anchor)
            }
            Event::SequenceStart(anchor, tag) => self.open(at, anchor, Content::List(Vec::new()), tag.is_some()),
            Event::MappingStart(anchor, tag) => self.open(at, anchor, Content::Map(Vec::new()), tag.is_some()),
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.open.pop() else { return Ok(()) };
                let size = self.nodes - open.before + 1;
                self.add(Node { at: open.at, end, content: open.content }, size, open.anchor)
            }
            Event::Alias(anchor) => {
                let Some((node, size)) = self.anchors.get(&anchor).cloned() else {
                    return Err(Fault::new(at, "an alias must not stand inside what it repeats"));
                };
                self.aliased += size;
                if self.aliased > ALIASED_MAX {
                    return Err(Fault::new(at, format!("aliases repeat more than {ALIASED_MAX} values")));
                }
                self.nodes += size - 1;
                self.add(node, size, 0)
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => {
                Ok(())
            }
        }
    }

    fn open(&mut self, at: usize, anchor: usize, content: Content, tagged: bool) -> Result<(), Fault> {
        if tagged {
            self.faults.push(Fault::new(at, "tags are not supported"));
        }
        if self.open.len() >= DEPTH_MAX {
            return Err(Fault::new(at, format!("the document nests deeper than {DEPTH_MAX}")));
        }
        self.open.push(Open { at, anchor, content, key: None, keys: HashMap::new(), before: self.nodes });
        Ok(())
    }

    /// Puts a finished node where it belongs: into a list, under a key, as a key, or on its own.
    fn add(&mut self, node: Node, size: usize, anchor: usize) -> Result<(), Fault> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return Err(Fault::new(node.at, format!("the document has more than {NODES_MAX} values")));
        }
        if anchor > 0 {
            self.anchored += size;
            if self.anchored > ANCHORED_MAX {
                return Err(Fault::new(node.at, format!("anchors mark more than {ANCHORED_MAX} values")));
            }
            self.anchors.insert(anchor, (node.clone(), size));
        }
        let Some(parent) = self.open.last_mut() else {
            if !node.is_null() {
                self.documents.push(node);
            }
            return Ok(());
        };
        match (&mut parent.content, parent.key.take()) {
            (Content::List(list), _) => list.push(node),
            (Content::Map(map), Some(key)) => map.push((key, node)),
            (Content::Map(_), None) => {
                let Content::Scalar(scalar) = node.content else {
                    return Err(Fault::new(node.at, format!("a key must be a text; this is {}", node.words())));
                };
                if let Some(first) = parent.keys.insert(scalar.text.clone(), node.at) {
                    let mut fault = Fault::new(node.at, format!("`{}` stands here for the second time", scalar.text));
                    fault.hint = Some(format!("it came first {} characters earlier", node.at - first));
                    self.faults.push(fault);
                }
                if scalar.text == "<<" {
                    self.faults.push(Fault::new(node.at, "merge keys are not supported; repeat what is to be merged"));
                }
                parent.key = Some(Key { at: node.at, text: scalar.text });
            }
            (Content::Scalar(_), _) => {}
        }
        Ok(())
    }
}

/// What a scalar means: YAML's core schema, and whole numbers of 64 bits without a sign.
fn scalar(text: &str, style: ScalarStyle) -> Json {
    if style != ScalarStyle::Plain {
        return Json::String(text.to_owned());
    }
    match YamlScalar::parse_from_cow(text.into()) {
        YamlScalar::Null => Json::Null,
        YamlScalar::Boolean(bool) => Json::Bool(bool),
        YamlScalar::Integer(int) => Json::from(int),
        YamlScalar::FloatingPoint(double) => match text.parse::<u64>() {
            Ok(uint) => Json::from(uint),
            // Not finite: it cannot be a number in JSON, so it is the text that it was.
            Err(_) => serde_json::Number::from_f64(*double).map_or_else(|| Json::String(text.to_owned()), Json::Number),
        },
        YamlScalar::String(text) if text.is_empty() => Json::Null,
        YamlScalar::String(text) => Json::String(text.into_owned()),
    }
}
