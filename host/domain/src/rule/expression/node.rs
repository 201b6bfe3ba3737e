//! The compiled form of an expression: names resolved, constants folded into place, patterns built.

use crate::rule::expression::Kind;
use crate::rule::expression::Value;
use crate::rule::expression::function::Function;
use crate::rule::expression::pattern::Pattern;
use crate::rule::expression::value::Text;
use crate::rule::scope::EventField;

/// A value written in the expression.
#[derive(Debug, Clone, PartialEq)]
pub enum Constant {
    Null,
    Bool(bool),
    Int(i64),
    UInt(u64),
    Double(f64),
    Text(Box<str>),
    Type(Kind),
}

impl Constant {
    pub fn value(&self) -> Value<'_> {
        match self {
            Self::Null => Value::Null,
            Self::Bool(bool) => Value::Bool(*bool),
            Self::Int(int) => Value::Int(*int),
            Self::UInt(uint) => Value::UInt(*uint),
            Self::Double(double) => Value::Double(*double),
            Self::Text(text) => Value::Text(Text::Borrowed(text)),
            Self::Type(kind) => Value::Type(*kind),
        }
    }

    pub fn kind(&self) -> Kind {
        self.value().kind()
    }
}

/// `+ - * / %`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

impl Arithmetic {
    pub const fn sign(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Remainder => "%",
        }
    }
}

/// `< <= > >=`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

impl Comparison {
    pub const fn sign(self) -> &'static str {
        match self {
            Self::Less => "<",
            Self::LessEqual => "<=",
            Self::Greater => ">",
            Self::GreaterEqual => ">=",
        }
    }
}

/// What a loop over a list or over the keys of a map makes of its elements.
#[derive(Debug, Clone)]
pub enum Fold {
    All(Node),
    Exists(Node),
    ExistsOne(Node),
    Filter(Node),
    /// `map(x, value)`, or `map(x, condition, value)`.
    Map {
        condition: Option<Node>,
        value: Node,
    },
}

#[derive(Debug, Clone)]
pub enum Node {
    Constant(Constant),
    /// `data` and the fields selected from it: no more than a walk through the payload.
    Data(Vec<Box<str>>),
    Event,
    EventField(EventField),
    Attributes,
    Tenant,
    /// The variable of a loop, by its depth.
    Local(usize),
    Select(Box<Node>, Box<str>),
    Has(Box<Node>, Box<str>),
    Index(Box<Node>, Box<Node>),
    OptionalSelect(Box<Node>, Box<str>),
    OptionalIndex(Box<Node>, Box<Node>),
    And(Box<(Node, Node)>),
    Or(Box<(Node, Node)>),
    Not(Box<Node>),
    Negate(Box<Node>),
    Conditional(Box<(Node, Node, Node)>),
    Equal(Box<(Node, Node)>),
    Unequal(Box<(Node, Node)>),
    Compare(Comparison, Box<(Node, Node)>),
    Calculate(Arithmetic, Box<(Node, Node)>),
    In(Box<(Node, Node)>),
    List(Vec<Entry>),
    Map(Vec<(Node, Entry)>),
    Loop {
        range: Box<Node>,
        fold: Box<Fold>,
    },
    Call(Function, Vec<Node>),
    Matches(Box<Node>, Box<Pattern>),
}

/// An element of a list or map; an optional one is left out if it has no value.
#[derive(Debug, Clone)]
pub struct Entry {
    pub value: Node,
    pub optional: bool,
}
