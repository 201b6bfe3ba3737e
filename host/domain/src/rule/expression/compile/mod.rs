//! The compiler: an AST as the parser gives it becomes a [`Node`] whose every name is known, or a list of problems.

use cel::common::ast::EntryExpr;
use cel::common::ast::Expr;
use cel::common::ast::ListExpr;
use cel::common::ast::LiteralValue;
use cel::common::ast::MapExpr;
use cel::common::ast::SourceInfo;
use cel::parser::Expression as Ast;

use crate::rule::diagnostic::nearest;
use crate::rule::expression::DEPTH_MAX;
use crate::rule::expression::Kind;
use crate::rule::expression::NODES_MAX;
use crate::rule::expression::Problem;
use crate::rule::expression::VARIABLES;
use crate::rule::expression::node::Constant;
use crate::rule::expression::node::Entry;
use crate::rule::expression::node::Node;
use crate::rule::expression::scan::scan;
use crate::rule::scope::EventField;

mod call;
mod syntax;

/// A node and what is known of its value's kind.
pub type Typed = (Node, Option<Kind>);

/// Stands where a problem was: the expression as a whole is refused anyway.
const NOTHING: Typed = (Node::Constant(Constant::Null), None);

/// Compiles an expression.
pub fn compile(source: &str) -> Result<Typed, Vec<Problem>> {
    scan(source).map_err(|problem| vec![problem])?;
    // Without macros: `all` and the like stay calls, which is how they are compiled below.
    let parsed = cel::Env::default().parser().parse_with_source_info(source);
    let (ast, info) = parsed.map_err(|errors| vec![syntax::problem(source, &errors)])?;
    let mut compiler = Compiler { source, info, problems: Vec::new(), locals: Vec::new(), nodes: 0, too_large: false };
    let compiled = compiler.node(&ast, 0);
    if compiler.problems.is_empty() {
        return Ok(compiled);
    }
    compiler.problems.sort_by_key(|problem| problem.offset);
    Err(compiler.problems)
}

struct Compiler<'s> {
    source: &'s str,
    info: SourceInfo,
    problems: Vec<Problem>,
    /// The variables of the loops around the present place, outermost first.
    locals: Vec<String>,
    nodes: usize,
    too_large: bool,
}

impl Compiler<'_> {
    fn node(&mut self, ast: &Ast, depth: usize) -> Typed {
        self.nodes += 1;
        if self.nodes > NODES_MAX || depth > DEPTH_MAX {
            if !self.too_large {
                self.too_large = true;
                let hint = Some("what needs this much is better a plugin".to_owned());
                let message = if depth > DEPTH_MAX {
                    format!("the expression nests deeper than {DEPTH_MAX}")
                } else {
                    format!("the expression has more than {NODES_MAX} parts")
                };
                self.problem(ast, message, hint);
            }
            return NOTHING;
        }
        match &ast.expr {
            Expr::Literal(literal) => self.literal(ast, literal),
            Expr::Ident(name) => self.variable(ast, name),
            Expr::Select(select) => {
                let operand = self.node(&select.operand, depth + 1);
                self.select(ast, operand, &select.field)
            }
            Expr::Call(call) => self.call(ast, call, depth + 1),
            Expr::List(list) => self.list(list, depth + 1),
            Expr::Map(map) => self.map(map, depth + 1),
            Expr::Struct(literal) => {
                let message = format!("`{}{{…}}` is not supported; a map is `{{'key': value}}`", literal.type_name);
                self.refuse(ast, message, None)
            }
            Expr::Comprehension(_) | Expr::Unspecified => {
                self.refuse(ast, "this expression is not supported".to_owned(), None)
            }
        }
    }

    fn literal(&mut self, ast: &Ast, literal: &LiteralValue) -> Typed {
        let constant = match literal {
            LiteralValue::Null => Constant::Null,
            LiteralValue::Boolean(bool) => Constant::Bool(*bool.inner()),
            LiteralValue::Int(int) => Constant::Int(*int.inner()),
            LiteralValue::UInt(uint) => Constant::UInt(*uint.inner()),
            LiteralValue::Double(double) => Constant::Double(*double.inner()),
            LiteralValue::String(text) => Constant::Text(text.inner().into()),
            LiteralValue::Bytes(_) => {
                let hint = Some("write a text, without the `b`".to_owned());
                return self.refuse(ast, "bytes are not supported".to_owned(), hint);
            }
        };
        let kind = constant.kind();
        (Node::Constant(constant), Some(kind))
    }

    fn variable(&mut self, ast: &Ast, name: &str) -> Typed {
        if let Some(depth) = self.locals.iter().position(|local| local == name) {
            return (Node::Local(depth), None);
        }
        match name {
            "data" => (Node::Data(Vec::new()), None),
            "event" => (Node::Event, Some(Kind::Map)),
            "attributes" => (Node::Attributes, Some(Kind::Map)),
            "tenant" => (Node::Tenant, Some(Kind::Text)),
            _ => match Kind::named(name) {
                Some(kind) => (Node::Constant(Constant::Type(kind)), Some(Kind::Type)),
                None => {
                    let hint = match nearest(name, VARIABLES) {
                        Some(known) => format!("did you mean `{known}`?"),
                        None => format!(
                            "known are `data`, `event`, `attributes` and `tenant`: a field of the payload is \
                             `data.{name}`, a text is `'{name}'`"
                        ),
                    };
                    self.refuse(ast, format!("unknown variable `{name}`"), Some(hint))
                }
            },
        }
    }

    /// `operand.field`
    fn select(&mut self, ast: &Ast, operand: Typed, field: &str) -> Typed {
        match operand {
            (Node::Data(mut path), _) => {
                path.push(field.into());
                (Node::Data(path), None)
            }
            (Node::Event, _) => match self.event_field(ast, field) {
                Some(known) => (Node::EventField(known), Some(Kind::Text)),
                None => NOTHING,
            },
            (Node::Attributes, _) => (Node::Select(Box::new(Node::Attributes), field.into()), Some(Kind::Text)),
            (node, kind) => {
                self.expect(ast, kind, &[Kind::Map, Kind::Optional], &format!("`.{field}`"), "a map");
                let gives = if kind == Some(Kind::Optional) { kind } else { None };
                (Node::Select(Box::new(node), field.into()), gives)
            }
        }
    }

    fn event_field(&mut self, ast: &Ast, field: &str) -> Option<EventField> {
        let known = EventField::named(field);
        if known.is_none() {
            let names = EventField::ALL.map(EventField::name);
            let hint = match nearest(field, names) {
                Some(known) => format!("did you mean `event.{known}`?"),
                None => format!(
                    "known are {}; the payload is `data`, further attributes are `attributes`",
                    names.map(|name| format!("`{name}`")).join(", ")
                ),
            };
            self.problem(ast, format!("`event` has no field `{field}`"), Some(hint));
        }
        known
    }

    fn list(&mut self, list: &ListExpr, depth: usize) -> Typed {
        let entries = list
            .elements
            .iter()
            .enumerate()
            .map(|(at, element)| {
                let optional = list.optional_indices.contains(&at);
                self.entry(element, optional, depth)
            })
            .collect();
        (Node::List(entries), Some(Kind::List))
    }

    fn map(&mut self, map: &MapExpr, depth: usize) -> Typed {
        let mut entries: Vec<(Node, Entry)> = Vec::new();
        let mut keys: Vec<Constant> = Vec::new();
        for entry in &map.entries {
            let EntryExpr::MapEntry(entry) = &entry.expr else { continue };
            let (key, kind) = self.node(&entry.key, depth);
            let keyable = [Kind::Text, Kind::Bool, Kind::Int, Kind::UInt, Kind::Double];
            self.expect(&entry.key, kind, &keyable, "a key of a map", "a text or a whole number");
            if let Node::Constant(constant) = &key {
                if keys.contains(constant) {
                    self.problem(&entry.key, "this key is in the map already".to_owned(), None);
                }
                keys.push(constant.clone());
            }
            let value = self.entry(&entry.value, entry.optional, depth);
            entries.push((key, value));
        }
        (Node::Map(entries), Some(Kind::Map))
    }

    fn entry(&mut self, ast: &Ast, optional: bool, depth: usize) -> Entry {
        let (value, kind) = self.node(ast, depth);
        if optional {
            self.expect(ast, kind, &[Kind::Optional], "`?`", "an optional value such as `data.?x`");
        }
        Entry { value, optional }
    }

    /// Records a problem if `kind` is known and not among `wanted`. True if all is well.
    fn expect(&mut self, ast: &Ast, kind: Option<Kind>, wanted: &[Kind], who: &str, words: &str) -> bool {
        match kind {
            Some(kind) if !wanted.contains(&kind) => {
                let hint = (kind == Kind::Optional)
                    .then(|| "end it with `.orValue(…)` to say what holds if it is missing".to_owned());
                self.problem_at(self.start(ast), format!("{who} needs {words}; this is {kind}"), hint);
                false
            }
            _ => true,
        }
    }

    fn refuse(&mut self, ast: &Ast, message: String, hint: Option<String>) -> Typed {
        self.problem(ast, message, hint);
        NOTHING
    }

    /// Records a problem with a part: with its name or sign, if it has one.
    fn problem(&mut self, ast: &Ast, message: String, hint: Option<String>) {
        let at = self.place(ast);
        self.problem_at(at, message, hint);
    }

    /// Records a problem at a place in bytes, which is how the parser counts.
    fn problem_at(&mut self, at: usize, message: String, hint: Option<String>) {
        let offset = self.source.char_indices().take_while(|(start, _)| *start < at).count();
        self.problems.push(Problem { offset, message, hint });
    }

    /// Where the name or sign of a part stands. The parser places a call at its bracket and a field at its dot.
    fn place(&self, ast: &Ast) -> usize {
        let at = self.info.offset_for(ast.id).map_or(0, |(start, _)| start as usize);
        match &ast.expr {
            Expr::Call(call) => match at.checked_sub(call.func_name.len()) {
                Some(start) if self.source.get(start..at) == Some(&call.func_name) => start,
                _ => at,
            },
            Expr::Select(_) => {
                let rest = self.source.get(at..).unwrap_or_default();
                at + rest.len() - rest.trim_start_matches(['.', '?', ' ', '\n', '\t', '\r']).len()
            }
            _ => at,
        }
    }

    /// Where a part starts.
    fn start(&self, ast: &Ast) -> usize {
        let mut first = ast;
        loop {
            first = match &first.expr {
                Expr::Select(select) => &select.operand,
                Expr::Call(call) => match (&call.target, call.args.first()) {
                    (Some(target), _) => target,
                    (None, Some(argument)) if self.place(argument) < self.place(first) => argument,
                    (None, _) => return self.place(first),
                },
                _ => return self.place(first),
            };
        }
    }
}
