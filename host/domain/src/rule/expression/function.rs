//! Functions: the part of CEL's library that rules have. One line each in the table, and one arm in `text` or
//! `evaluate`.

use crate::rule::expression::Kind;

/// A function that expressions may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the table below says what each is")]
pub enum Function {
    Size,
    Contains,
    StartsWith,
    EndsWith,
    LowerAscii,
    UpperAscii,
    Trim,
    Replace,
    Substring,
    IndexOf,
    Split,
    Join,
    ToInt,
    ToUInt,
    ToDouble,
    ToText,
    ToBool,
    TypeOf,
    Abs,
    Ceil,
    Floor,
    Round,
    Least,
    Greatest,
    OptionalOf,
    OptionalNone,
    Or,
    OrValue,
    HasValue,
    TakeValue,
}

/// How a function is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// `f(x)`
    Global,
    /// `x.f()`
    Member,
    /// Either.
    Both,
}

/// A function's line in the table.
#[derive(Debug)]
pub struct Signature {
    /// Its name; with its namespace, if it has one.
    pub name: &'static str,
    /// What it is.
    pub function: Function,
    /// How it is called.
    pub call: Call,
    /// The kinds that it takes, the receiver first. None takes any.
    pub takes: &'static [Takes],
    /// How many of them may be left out at the end.
    pub optional: usize,
    /// The kind that it gives, if always the same.
    pub gives: Option<Kind>,
}

/// What a parameter takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// Anything.
    Any,
    /// This kind.
    One(Kind),
    /// Any number.
    Number,
    /// A text, a list or a map.
    Sized,
    /// A text or a number.
    Convertible,
}

impl Takes {
    /// Is a value of this kind right?
    #[must_use]
    pub fn accepts(self, kind: Kind) -> bool {
        match self {
            Self::Any => true,
            Self::One(one) if one.is_number() => kind.is_number(),
            Self::One(one) => one == kind,
            Self::Number => kind.is_number(),
            Self::Sized => matches!(kind, Kind::Text | Kind::List | Kind::Map),
            Self::Convertible => kind == Kind::Text || kind == Kind::Bool || kind.is_number(),
        }
    }

    /// In plain words.
    #[must_use]
    pub fn words(self) -> String {
        match self {
            Self::Any => "anything".to_owned(),
            Self::One(one) => one.to_string(),
            Self::Number => "a number".to_owned(),
            Self::Sized => "a text, a list or a map".to_owned(),
            Self::Convertible => "a text or a number".to_owned(),
        }
    }
}

const TEXT: Takes = Takes::One(Kind::Text);
const INT: Takes = Takes::One(Kind::Int);
const LIST: Takes = Takes::One(Kind::List);
const OPTIONAL: Takes = Takes::One(Kind::Optional);

const fn line(
    name: &'static str,
    function: Function,
    call: Call,
    takes: &'static [Takes],
    gives: Option<Kind>,
) -> Signature {
    Signature { name, function, call, takes, optional: 0, gives }
}

const fn optional(mut signature: Signature, optional: usize) -> Signature {
    signature.optional = optional;
    signature
}

/// Every function, by name. `has`, `all`, `exists`, `exists_one`, `map`, `filter` and `matches` are more than
/// functions and stand in the compiler.
pub const FUNCTIONS: &[Signature] = &[
    line("bool", Function::ToBool, Call::Global, &[Takes::Convertible], Some(Kind::Bool)),
    line("contains", Function::Contains, Call::Member, &[TEXT, TEXT], Some(Kind::Bool)),
    line("double", Function::ToDouble, Call::Global, &[Takes::Convertible], Some(Kind::Double)),
    line("endsWith", Function::EndsWith, Call::Member, &[TEXT, TEXT], Some(Kind::Bool)),
    line("hasValue", Function::HasValue, Call::Member, &[OPTIONAL], Some(Kind::Bool)),
    line("indexOf", Function::IndexOf, Call::Member, &[TEXT, TEXT], Some(Kind::Int)),
    line("int", Function::ToInt, Call::Global, &[Takes::Convertible], Some(Kind::Int)),
    optional(line("join", Function::Join, Call::Member, &[LIST, TEXT], Some(Kind::Text)), 1),
    line("lowerAscii", Function::LowerAscii, Call::Member, &[TEXT], Some(Kind::Text)),
    line("math.abs", Function::Abs, Call::Global, &[Takes::Number], None),
    line("math.ceil", Function::Ceil, Call::Global, &[Takes::Number], Some(Kind::Double)),
    line("math.floor", Function::Floor, Call::Global, &[Takes::Number], Some(Kind::Double)),
    line("math.greatest", Function::Greatest, Call::Global, &[Takes::Number, Takes::Number], None),
    line("math.least", Function::Least, Call::Global, &[Takes::Number, Takes::Number], None),
    line("math.round", Function::Round, Call::Global, &[Takes::Number], Some(Kind::Double)),
    line("optional.none", Function::OptionalNone, Call::Global, &[], Some(Kind::Optional)),
    line("optional.of", Function::OptionalOf, Call::Global, &[Takes::Any], Some(Kind::Optional)),
    line("or", Function::Or, Call::Member, &[OPTIONAL, OPTIONAL], Some(Kind::Optional)),
    line("orValue", Function::OrValue, Call::Member, &[OPTIONAL, Takes::Any], None),
    line("replace", Function::Replace, Call::Member, &[TEXT, TEXT, TEXT], Some(Kind::Text)),
    line("size", Function::Size, Call::Both, &[Takes::Sized], Some(Kind::Int)),
    line("split", Function::Split, Call::Member, &[TEXT, TEXT], Some(Kind::List)),
    line("startsWith", Function::StartsWith, Call::Member, &[TEXT, TEXT], Some(Kind::Bool)),
    line("string", Function::ToText, Call::Global, &[Takes::Convertible], Some(Kind::Text)),
    optional(line("substring", Function::Substring, Call::Member, &[TEXT, INT, INT], Some(Kind::Text)), 1),
    line("trim", Function::Trim, Call::Member, &[TEXT], Some(Kind::Text)),
    line("type", Function::TypeOf, Call::Global, &[Takes::Any], Some(Kind::Type)),
    line("uint", Function::ToUInt, Call::Global, &[Takes::Convertible], Some(Kind::UInt)),
    line("upperAscii", Function::UpperAscii, Call::Member, &[TEXT], Some(Kind::Text)),
    line("value", Function::TakeValue, Call::Member, &[OPTIONAL], None),
];

/// What the compiler knows besides [`FUNCTIONS`].
pub const MACROS: [&str; 8] = ["all", "exists", "existsOne", "exists_one", "filter", "has", "map", "matches"];

/// The function of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Signature> {
    FUNCTIONS.iter().find(|signature| signature.name == name)
}
