//! Calls: operators, loops and functions.

use cel::common::ast::CallExpr;
use cel::common::ast::Expr;
use cel::common::ast::LiteralValue;
use cel::common::ast::operators;
use cel::parser::Expression as Ast;

use crate::rule::diagnostic::nearest;
use crate::rule::expression::Kind;
use crate::rule::expression::NESTING_MAX;
use crate::rule::expression::VARIABLES;
use crate::rule::expression::compile::Compiler;
use crate::rule::expression::compile::NOTHING;
use crate::rule::expression::compile::Typed;
use crate::rule::expression::function::Call;
use crate::rule::expression::function::FUNCTIONS;
use crate::rule::expression::function::MACROS;
use crate::rule::expression::function::Signature;
use crate::rule::expression::function::find;
use crate::rule::expression::node::Arithmetic;
use crate::rule::expression::node::Comparison;
use crate::rule::expression::node::Fold;
use crate::rule::expression::node::Node;
use crate::rule::expression::pattern::Pattern;

/// Names that namespaces of functions start with.
const NAMESPACES: [&str; 2] = ["math", "optional"];

/// What other languages call it.
const ALIASES: [(&str, &str); 9] = [
    ("len", "size"),
    ("length", "size"),
    ("count", "size"),
    ("includes", "contains"),
    ("any", "exists"),
    ("every", "all"),
    ("toLowerCase", "lowerAscii"),
    ("toUpperCase", "upperAscii"),
    ("default", "orValue"),
];

impl Compiler<'_> {
    pub(super) fn call(&mut self, ast: &Ast, call: &CallExpr, depth: usize) -> Typed {
        match (call.func_name.as_str(), &call.target, call.args.as_slice()) {
            (operators::LOGICAL_AND, None, [left, right]) => {
                (Node::And(self.both_true_or_false("&&", left, right, depth)), Some(Kind::Bool))
            }
            (operators::LOGICAL_OR, None, [left, right]) => {
                (Node::Or(self.both_true_or_false("||", left, right, depth)), Some(Kind::Bool))
            }
            (operators::LOGICAL_NOT, None, [operand]) => {
                (Node::Not(Box::new(self.true_or_false("!", operand, depth))), Some(Kind::Bool))
            }
            (operators::CONDITIONAL, None, [condition, yes, no]) => {
                let condition = self.true_or_false("? :", condition, depth);
                let (yes, yes_kind) = self.node(yes, depth);
                let (no, no_kind) = self.node(no, depth);
                let kind = yes_kind.filter(|kind| Some(*kind) == no_kind);
                (Node::Conditional(Box::new((condition, yes, no))), kind)
            }
            (operators::NEGATE, None, [operand]) => {
                let (node, kind) = self.node(operand, depth);
                self.expect(operand, kind, &[Kind::Int, Kind::UInt, Kind::Double], "`-`", "a number");
                (Node::Negate(Box::new(node)), kind)
            }
            (operators::INDEX | operators::OPT_INDEX, None, [operand, index]) => {
                self.index(call.func_name == operators::OPT_INDEX, operand, index, depth)
            }
            (operators::OPT_SELECT, None, [operand, field]) => self.optional_select(ast, operand, field, depth),
            (operators::EQUALS, None, [left, right]) => {
                (Node::Equal(self.alike(ast, left, right, depth)), Some(Kind::Bool))
            }
            (operators::NOT_EQUALS, None, [left, right]) => {
                (Node::Unequal(self.alike(ast, left, right, depth)), Some(Kind::Bool))
            }
            (operators::IN, None, [left, right]) => self.contained(left, right, depth),
            (name, None, [left, right]) if let Some(comparison) = comparison(name) => {
                self.compare(ast, comparison, left, right, depth)
            }
            (name, None, [left, right]) if let Some(arithmetic) = arithmetic(name) => {
                self.calculate(ast, arithmetic, left, right, depth)
            }
            ("has", None, [argument]) => self.has(ast, argument, depth),
            ("all" | "exists" | "exists_one" | "existsOne" | "filter" | "map", Some(range), arguments) => {
                self.each(ast, &call.func_name, range, arguments, depth)
            }
            ("matches", Some(text), [pattern]) => self.matches(text, pattern, depth),
            ("matches", None, [text, pattern]) => self.matches(text, pattern, depth),
            _ => self.function(ast, call, depth),
        }
    }

    fn true_or_false(&mut self, sign: &str, operand: &Ast, depth: usize) -> Node {
        let (node, kind) = self.node(operand, depth);
        self.expect(operand, kind, &[Kind::Bool], &format!("`{sign}`"), "true or false");
        node
    }

    fn both_true_or_false(&mut self, sign: &str, left: &Ast, right: &Ast, depth: usize) -> Box<(Node, Node)> {
        Box::new((self.true_or_false(sign, left, depth), self.true_or_false(sign, right, depth)))
    }

    fn index(&mut self, optional: bool, operand: &Ast, index: &Ast, depth: usize) -> Typed {
        let (node, kind) = self.node(operand, depth);
        self.expect(operand, kind, &[Kind::List, Kind::Map, Kind::Optional], "`[…]`", "a list or a map");
        let (index, _) = self.node(index, depth);
        let (node, index) = (Box::new(node), Box::new(index));
        if optional {
            (Node::OptionalIndex(node, index), Some(Kind::Optional))
        } else {
            (Node::Index(node, index), kind.filter(|kind| *kind == Kind::Optional))
        }
    }

    fn optional_select(&mut self, ast: &Ast, operand: &Ast, field: &Ast, depth: usize) -> Typed {
        let Expr::Literal(LiteralValue::String(field)) = &field.expr else {
            return self.refuse(ast, "`.?` needs the name of a field".to_owned(), None);
        };
        let (node, kind) = self.node(operand, depth);
        if matches!(node, Node::Event) && self.event_field(ast, field.inner()).is_none() {
            return NOTHING;
        }
        self.expect(operand, kind, &[Kind::Map, Kind::Optional], "`.?`", "a map");
        (Node::OptionalSelect(Box::new(node), field.inner().into()), Some(Kind::Optional))
    }

    fn alike(&mut self, ast: &Ast, left: &Ast, right: &Ast, depth: usize) -> Box<(Node, Node)> {
        let (left, left_kind) = self.node(left, depth);
        let (right, right_kind) = self.node(right, depth);
        if let (Some(one), Some(other)) = (left_kind, right_kind)
            && one != other
            && !(one.is_number() && other.is_number())
            && one != Kind::Null
            && other != Kind::Null
        {
            self.problem(ast, format!("{one} never equals {other}"), None);
        }
        Box::new((left, right))
    }

    fn contained(&mut self, left: &Ast, right: &Ast, depth: usize) -> Typed {
        let (node, _) = self.node(left, depth);
        let (container, kind) = self.node(right, depth);
        if kind == Some(Kind::Text) {
            let hint = Some("a part of a text is `text.contains(part)`".to_owned());
            self.problem_at(self.start(right), "`in` needs a list or a map; this is a text".to_owned(), hint);
        } else {
            self.expect(right, kind, &[Kind::List, Kind::Map], "`in`", "a list or a map");
        }
        (Node::In(Box::new((node, container))), Some(Kind::Bool))
    }

    fn compare(&mut self, ast: &Ast, comparison: Comparison, left: &Ast, right: &Ast, depth: usize) -> Typed {
        let sign = format!("`{}`", comparison.sign());
        let ordered = [Kind::Bool, Kind::Int, Kind::UInt, Kind::Double, Kind::Text];
        let (left_node, left_kind) = self.node(left, depth);
        let (right_node, right_kind) = self.node(right, depth);
        let sound = self.expect(left, left_kind, &ordered, &sign, "numbers or texts")
            & self.expect(right, right_kind, &ordered, &sign, "numbers or texts");
        if let (true, Some(one), Some(other)) = (sound, left_kind, right_kind)
            && one != other
            && !(one.is_number() && other.is_number())
        {
            self.problem(ast, format!("{sign} cannot compare {one} with {other}"), None);
        }
        (Node::Compare(comparison, Box::new((left_node, right_node))), Some(Kind::Bool))
    }

    fn calculate(&mut self, ast: &Ast, arithmetic: Arithmetic, left: &Ast, right: &Ast, depth: usize) -> Typed {
        let sign = format!("`{}`", arithmetic.sign());
        let numbers = [Kind::Int, Kind::UInt, Kind::Double];
        let addable = [Kind::Int, Kind::UInt, Kind::Double, Kind::Text, Kind::List];
        let (wanted, words): (&[Kind], _) = match arithmetic {
            Arithmetic::Add => (&addable, "numbers, texts or lists"),
            _ => (&numbers, "numbers"),
        };
        let (left_node, left_kind) = self.node(left, depth);
        let (right_node, right_kind) = self.node(right, depth);
        let sound =
            self.expect(left, left_kind, wanted, &sign, words) & self.expect(right, right_kind, wanted, &sign, words);
        let node = Node::Calculate(arithmetic, Box::new((left_node, right_node)));
        let kind = match (left_kind, right_kind) {
            (Some(one), Some(other)) if one == other => Some(one),
            (Some(one), Some(other)) if one.is_number() && other.is_number() => {
                (one == Kind::Double || other == Kind::Double).then_some(Kind::Double)
            }
            (Some(one), Some(other)) => {
                if sound {
                    let hint = (one == Kind::Text || other == Kind::Text)
                        .then(|| "a number becomes a text by `string(…)`".to_owned());
                    self.problem(ast, format!("{sign} cannot join {one} and {other}"), hint);
                }
                None
            }
            (Some(one), None) | (None, Some(one)) => Some(one).filter(|kind| !kind.is_number()),
            (None, None) => None,
        };
        (node, kind)
    }

    fn has(&mut self, ast: &Ast, argument: &Ast, depth: usize) -> Typed {
        let Expr::Select(select) = &argument.expr else {
            let hint = Some("`has(data.x)` asks for a field; a key that is no name is `'x-y' in data`".to_owned());
            return self.refuse(ast, "`has` needs a field".to_owned(), hint);
        };
        let (node, kind) = self.node(&select.operand, depth);
        if matches!(node, Node::Event) && self.event_field(argument, &select.field).is_none() {
            return NOTHING;
        }
        self.expect(&select.operand, kind, &[Kind::Map, Kind::Optional], "`has`", "a field of a map");
        (Node::Has(Box::new(node), select.field.as_str().into()), Some(Kind::Bool))
    }

    fn matches(&mut self, text: &Ast, pattern: &Ast, depth: usize) -> Typed {
        let (node, kind) = self.node(text, depth);
        self.expect(text, kind, &[Kind::Text], "`matches`", "a text");
        let Expr::Literal(LiteralValue::String(literal)) = &pattern.expr else {
            let message = "the pattern of `matches` must be written out: a quoted text".to_owned();
            self.problem_at(self.start(pattern), message, None);
            return NOTHING;
        };
        match Pattern::compile(literal.inner()) {
            Ok(pattern) => (Node::Matches(Box::new(node), Box::new(pattern)), Some(Kind::Bool)),
            Err(reason) => self.refuse(pattern, format!("the pattern is not usable: {reason}"), None),
        }
    }

    /// `range.all(x, …)` and its kin.
    fn each(&mut self, ast: &Ast, name: &str, range: &Ast, arguments: &[Ast], depth: usize) -> Typed {
        let (range_node, kind) = self.node(range, depth);
        self.expect(range, kind, &[Kind::List, Kind::Map], &format!("`{name}`"), "a list or a map");
        let (Some((variable, bodies)), true) = (arguments.split_first(), name == "map" || arguments.len() == 2) else {
            return self.refuse(ast, format!("`{name}` is called as `list.{name}(x, …)`"), None);
        };
        if bodies.is_empty() || bodies.len() > 2 {
            let message = "`map` is called as `list.map(x, value)` or `list.map(x, condition, value)`".to_owned();
            return self.refuse(ast, message, None);
        }
        let Expr::Ident(variable_name) = &variable.expr else {
            return self.refuse(variable, format!("`{name}` needs a name for the element"), None);
        };
        if VARIABLES.contains(&variable_name.as_str()) || self.locals.contains(variable_name) {
            return self.refuse(variable, format!("`{variable_name}` is a variable already"), None);
        }
        if self.locals.len() >= NESTING_MAX {
            let message = format!("`{name}` is inside {NESTING_MAX} others already; the work would grow without bound");
            return self.refuse(ast, message, Some("what needs this much is better a plugin".to_owned()));
        }
        self.locals.push(variable_name.clone());
        let (fold, gives) = self.fold(name, bodies, depth);
        self.locals.pop();
        (Node::Loop { range: Box::new(range_node), fold: Box::new(fold) }, Some(gives))
    }

    fn fold(&mut self, name: &str, bodies: &[Ast], depth: usize) -> (Fold, Kind) {
        match (name, bodies) {
            ("map", [condition, value]) => {
                let condition = Some(self.true_or_false("map", condition, depth));
                (Fold::Map { condition, value: self.node(value, depth).0 }, Kind::List)
            }
            ("map", _) => (Fold::Map { condition: None, value: self.node(&bodies[0], depth).0 }, Kind::List),
            _ => {
                let body = self.true_or_false(name, &bodies[0], depth);
                match name {
                    "all" => (Fold::All(body), Kind::Bool),
                    "exists" => (Fold::Exists(body), Kind::Bool),
                    "filter" => (Fold::Filter(body), Kind::List),
                    _ => (Fold::ExistsOne(body), Kind::Bool),
                }
            }
        }
    }

    fn function(&mut self, ast: &Ast, call: &CallExpr, depth: usize) -> Typed {
        let namespace = call.target.as_deref().and_then(|target| match &target.expr {
            Expr::Ident(name) if NAMESPACES.contains(&name.as_str()) => Some(name.as_str()),
            _ => None,
        });
        let (name, target) = match namespace {
            Some(namespace) => (format!("{namespace}.{}", call.func_name), None),
            None => (call.func_name.clone(), call.target.as_deref()),
        };
        let Some(signature) = find(&name) else { return self.unknown_function(ast, &name) };
        let wrong = match signature.call {
            Call::Global => target.is_some(),
            Call::Member => target.is_none(),
            Call::Both => false,
        };
        let arguments: Vec<&Ast> = target.into_iter().chain(&call.args).collect();
        let most = signature.takes.len();
        if wrong || arguments.len() > most || arguments.len() < most - signature.optional {
            return self.refuse(ast, format!("`{name}` is called as `{}`", usage(signature)), None);
        }
        let mut nodes = Vec::with_capacity(arguments.len());
        for (argument, takes) in arguments.into_iter().zip(signature.takes) {
            let (node, kind) = self.node(argument, depth);
            if let Some(kind) = kind.filter(|kind| !takes.accepts(*kind)) {
                let message = format!("`{name}` needs {}; this is {kind}", takes.words());
                self.problem_at(self.start(argument), message, None);
            }
            nodes.push(node);
        }
        (Node::Call(signature.function, nodes), signature.gives)
    }

    fn unknown_function(&mut self, ast: &Ast, name: &str) -> Typed {
        let known = FUNCTIONS.iter().map(|signature| signature.name).chain(MACROS);
        let alias = ALIASES.iter().find(|(alias, _)| alias.eq_ignore_ascii_case(name)).map(|(_, known)| *known);
        let hint = match alias.or_else(|| nearest(name, known.clone())) {
            Some(known) => format!("did you mean `{known}`?"),
            None => {
                let mut names: Vec<&str> = known.collect();
                names.sort_unstable();
                format!("known are {}", names.join(", "))
            }
        };
        self.refuse(ast, format!("unknown function `{name}`"), Some(hint))
    }
}

fn usage(signature: &Signature) -> String {
    let names = ["a", "b", "c"];
    match signature.call {
        Call::Global | Call::Both => {
            format!("{}({})", signature.name, names[..signature.takes.len().min(3)].join(", "))
        }
        Call::Member => {
            let arguments = signature.takes.len().min(3).saturating_sub(1);
            format!("x.{}({})", signature.name, names[..arguments].join(", "))
        }
    }
}

fn comparison(name: &str) -> Option<Comparison> {
    match name {
        operators::LESS => Some(Comparison::Less),
        operators::LESS_EQUALS => Some(Comparison::LessEqual),
        operators::GREATER => Some(Comparison::Greater),
        operators::GREATER_EQUALS => Some(Comparison::GreaterEqual),
        _ => None,
    }
}

fn arithmetic(name: &str) -> Option<Arithmetic> {
    match name {
        operators::ADD => Some(Arithmetic::Add),
        operators::SUBSTRACT => Some(Arithmetic::Subtract),
        operators::MULTIPLY => Some(Arithmetic::Multiply),
        operators::DIVIDE => Some(Arithmetic::Divide),
        operators::MODULO => Some(Arithmetic::Remainder),
        _ => None,
    }
}
