//! The evaluator: walks a compiled expression and counts its steps while it goes.
//!
//! Errors follow CEL: in `a && b` and `a || b` a side that decides the result wins over an error on the other side.
//! Only running over the budget is never forgiven. Where rules differ from CEL they are kinder to JSON: a field of
//! what is no map is a missing field, `has(a.b.c)` is false if `a.b` is missing, and numbers of different types mix.

use std::collections::BTreeMap;
use std::rc::Rc;

use regex_automata::hybrid::dfa::Cache;

use crate::rule::expression::Budget;
use crate::rule::expression::Fail;
use crate::rule::expression::Kind;
use crate::rule::expression::Value;
use crate::rule::expression::function::Function;
use crate::rule::expression::node::Entry;
use crate::rule::expression::node::Fold;
use crate::rule::expression::node::Node;
use crate::rule::expression::operator;
use crate::rule::expression::pattern::Pattern;
use crate::rule::expression::text;
use crate::rule::expression::value::Text;
use crate::rule::scope::Scope;

/// One evaluation.
pub struct Evaluator<'v, 'b> {
    scope: &'v Scope<'v>,
    pub budget: &'b mut Budget,
    /// The elements of the loops around the present place, outermost first.
    locals: Vec<Value<'v>>,
    /// Memory for the pattern that was searched for last, so that a loop does not build it anew each time.
    searched: Option<(&'v Pattern, Cache)>,
}

impl<'v, 'b> Evaluator<'v, 'b> {
    pub fn new(scope: &'v Scope<'v>, budget: &'b mut Budget) -> Self {
        Self { scope, budget, locals: Vec::new(), searched: None }
    }

    pub fn value(&mut self, node: &'v Node) -> Result<Value<'v>, Fail> {
        self.budget.take(1)?;
        match node {
            Node::Constant(constant) => Ok(constant.value()),
            Node::Data(path) => self.data(path),
            Node::Event => Ok(Value::Event(self.scope)),
            Node::EventField(field) => {
                self.scope.field(*field).ok_or_else(|| Fail::Missing(format!("event.{}", field.name())))
            }
            Node::Attributes => Ok(Value::Attributes(&self.scope.event().attributes)),
            Node::Tenant => Ok(Value::Text(Text::Borrowed(self.scope.tenant()))),
            Node::Local(depth) => Ok(self.locals[*depth].clone()),
            Node::And(sides) => self.logic(sides, false),
            Node::Or(sides) => self.logic(sides, true),
            Node::Not(operand) => Ok(Value::Bool(!self.truth(operand)?)),
            Node::Conditional(parts) => {
                let (condition, yes, no) = &**parts;
                if self.truth(condition)? { self.value(yes) } else { self.value(no) }
            }
            Node::Equal(sides) => Ok(Value::Bool(self.equal(sides)?)),
            Node::Unequal(sides) => Ok(Value::Bool(!self.equal(sides)?)),
            Node::Compare(comparison, sides) => {
                let (left, right) = (self.value(&sides.0)?, self.value(&sides.1)?);
                operator::compare(*comparison, &left, &right, self.budget).map(Value::Bool)
            }
            Node::Calculate(arithmetic, sides) => {
                let (left, right) = (self.value(&sides.0)?, self.value(&sides.1)?);
                operator::calculate(*arithmetic, left, right, self.budget)
            }
            Node::Negate(operand) => operator::negate(&self.value(operand)?),
            Node::In(sides) => {
                let (element, container) = (self.value(&sides.0)?, self.value(&sides.1)?);
                operator::contained(&element, &container, self.budget).map(Value::Bool)
            }
            Node::Select(operand, name) => select(&self.value(operand)?, name),
            Node::Has(operand, name) => self.has(operand, name),
            Node::Index(operand, index) => {
                let (value, index) = (self.value(operand)?, self.value(index)?);
                at_index(&value, &index)
            }
            Node::OptionalSelect(operand, name) => {
                let found = self.value(operand).and_then(|value| select(&value, name));
                optional(found)
            }
            Node::OptionalIndex(operand, index) => {
                let index = self.value(index)?;
                let found = self.value(operand).and_then(|value| at_index(&value, &index));
                optional(found)
            }
            Node::List(entries) => self.list(entries),
            Node::Map(entries) => self.map(entries),
            Node::Loop { range, fold } => self.each(range, fold),
            Node::Call(function, arguments) => self.call(*function, arguments),
            Node::Matches(text, pattern) => self.matches(text, pattern),
        }
    }

    /// A walk through the payload. What is not there is named from the start.
    fn data(&mut self, path: &'v [Box<str>]) -> Result<Value<'v>, Fail> {
        let mut json = self.scope.data();
        for name in path {
            json = json.and_then(|json| json.get(&**name));
        }
        match json {
            Some(json) => Ok(Value::of(json)),
            None if path.is_empty() => Ok(Value::Null),
            None => Err(Fail::Missing(format!("data.{}", path.join(".")))),
        }
    }

    /// The value of something that must be true or false.
    fn truth(&mut self, node: &'v Node) -> Result<bool, Fail> {
        match self.value(node)? {
            Value::Bool(bool) => Ok(bool),
            other => Err(Fail::Impossible(format!("{} stands where true or false is needed", other.kind()))),
        }
    }

    /// `&&` (decided by false) and `||` (decided by true).
    fn logic(&mut self, sides: &'v (Node, Node), decisive: bool) -> Result<Value<'v>, Fail> {
        let left = match self.truth(&sides.0) {
            Ok(bool) if bool == decisive => return Ok(Value::Bool(decisive)),
            Err(Fail::OverBudget) => return Err(Fail::OverBudget),
            left => left,
        };
        match (left, self.truth(&sides.1)) {
            (_, Err(Fail::OverBudget)) => Err(Fail::OverBudget),
            (_, Ok(bool)) if bool == decisive => Ok(Value::Bool(decisive)),
            (Err(fail), _) | (Ok(_), Err(fail)) => Err(fail),
            (Ok(_), Ok(_)) => Ok(Value::Bool(!decisive)),
        }
    }

    fn equal(&mut self, sides: &'v (Node, Node)) -> Result<bool, Fail> {
        let (left, right) = (self.value(&sides.0)?, self.value(&sides.1)?);
        operator::equal(&left, &right, self.budget)
    }

    fn has(&mut self, operand: &'v Node, name: &str) -> Result<Value<'v>, Fail> {
        let found = self.value(operand).and_then(|value| select(&value, name));
        match found {
            Ok(Value::Optional(inner)) => Ok(Value::Bool(inner.is_some())),
            Ok(_) => Ok(Value::Bool(true)),
            Err(Fail::Missing(_)) => Ok(Value::Bool(false)),
            Err(fail) => Err(fail),
        }
    }

    /// The value of an entry, or none if it is optional and not there.
    fn entry(&mut self, entry: &'v Entry) -> Result<Option<Value<'v>>, Fail> {
        let value = self.value(&entry.value)?;
        if !entry.optional {
            return Ok(Some(value));
        }
        match value {
            Value::Optional(inner) => Ok(inner.map(|inner| (*inner).clone())),
            other => Err(Fail::Impossible(format!("`?` needs an optional value; this is {}", other.kind()))),
        }
    }

    fn list(&mut self, entries: &'v [Entry]) -> Result<Value<'v>, Fail> {
        let mut list = Vec::with_capacity(entries.len());
        for entry in entries {
            list.extend(self.entry(entry)?);
        }
        Ok(Value::List(Rc::new(list)))
    }

    fn map(&mut self, entries: &'v [(Node, Entry)]) -> Result<Value<'v>, Fail> {
        let mut map = BTreeMap::new();
        for (key, entry) in entries {
            let key = self.value(key)?;
            let Some(value) = self.entry(entry)? else { continue };
            if let Value::Text(text) = &key {
                self.budget.take_bytes(text.as_str().len())?;
            }
            let Some(key) = key.key() else {
                return Err(Fail::Impossible(format!("{} cannot be a key of a map", key.kind())));
            };
            if map.insert(key, value).is_some() {
                return Err(Fail::Impossible("a map has the same key twice".to_owned()));
            }
        }
        Ok(Value::Map(Rc::new(map)))
    }

    fn each(&mut self, range: &'v Node, fold: &'v Fold) -> Result<Value<'v>, Fail> {
        let range = self.value(range)?;
        match fold {
            Fold::All(body) => self.decide(&range, body, false),
            Fold::Exists(body) => self.decide(&range, body, true),
            Fold::ExistsOne(body) => {
                let mut found = 0_usize;
                self.over(&range, |this, _| {
                    found += usize::from(this.truth(body)?);
                    Ok(true)
                })?;
                Ok(Value::Bool(found == 1))
            }
            Fold::Filter(body) => {
                let mut kept = Vec::new();
                self.over(&range, |this, element| {
                    if this.truth(body)? {
                        kept.push(element.clone());
                    }
                    Ok(true)
                })?;
                Ok(Value::List(Rc::new(kept)))
            }
            Fold::Map { condition, value } => {
                let mut made = Vec::new();
                self.over(&range, |this, _| {
                    let wanted = match condition {
                        Some(condition) => this.truth(condition)?,
                        None => true,
                    };
                    if wanted {
                        made.push(this.value(value)?);
                    }
                    Ok(true)
                })?;
                Ok(Value::List(Rc::new(made)))
            }
        }
    }

    /// `all` (decided by a false) and `exists` (decided by a true). An error counts only if nothing decides.
    fn decide(&mut self, range: &Value<'v>, body: &'v Node, decisive: bool) -> Result<Value<'v>, Fail> {
        let mut failed = None;
        let mut decided = false;
        self.over(range, |this, _| {
            match this.truth(body) {
                Ok(bool) => decided = bool == decisive,
                Err(Fail::OverBudget) => return Err(Fail::OverBudget),
                Err(fail) => failed = Some(fail),
            }
            Ok(!decided)
        })?;
        match failed {
            _ if decided => Ok(Value::Bool(decisive)),
            Some(fail) => Err(fail),
            None => Ok(Value::Bool(!decisive)),
        }
    }

    /// Calls `body` for every element, which is the innermost local meanwhile, until it says false.
    fn over(
        &mut self,
        range: &Value<'v>,
        mut body: impl FnMut(&mut Self, &Value<'v>) -> Result<bool, Fail>,
    ) -> Result<(), Fail> {
        let mut visit = |this: &mut Self, element: Value<'v>| -> Result<bool, Fail> {
            this.budget.take(1)?;
            this.locals.push(element.clone());
            let more = body(this, &element);
            this.locals.pop();
            more
        };
        match range {
            Value::JsonList(list) => {
                for element in *list {
                    if !visit(self, Value::of(element))? {
                        break;
                    }
                }
            }
            Value::List(list) => {
                for element in &**list {
                    if !visit(self, element.clone())? {
                        break;
                    }
                }
            }
            Value::JsonMap(map) => {
                for name in map.keys() {
                    if !visit(self, Value::Text(Text::Borrowed(name)))? {
                        break;
                    }
                }
            }
            Value::Map(map) => {
                for key in map.keys() {
                    if !visit(self, key.value())? {
                        break;
                    }
                }
            }
            Value::Attributes(pairs) => {
                for (name, _) in *pairs {
                    if !visit(self, Value::Text(Text::Borrowed(name)))? {
                        break;
                    }
                }
            }
            Value::Event(scope) => {
                for (field, _) in scope.fields() {
                    if !visit(self, Value::Text(Text::Borrowed(field.name())))? {
                        break;
                    }
                }
            }
            other => return Err(Fail::Impossible(format!("a loop needs a list or a map; this is {}", other.kind()))),
        }
        Ok(())
    }

    fn matches(&mut self, node: &'v Node, pattern: &'v Pattern) -> Result<Value<'v>, Fail> {
        let value = self.value(node)?;
        let Value::Text(text) = &value else {
            return Err(Fail::Impossible(format!("`matches` needs a text; this is {}", value.kind())));
        };
        self.budget.take_bytes(text.as_str().len())?;
        let mut cache = match self.searched.take() {
            Some((searched, cache)) if std::ptr::eq(searched, pattern) => cache,
            _ => {
                self.budget.take(20)?;
                pattern.cache()
            }
        };
        let found = pattern.is_in(text.as_str(), &mut cache);
        self.searched = Some((pattern, cache));
        found.map(Value::Bool)
    }

    fn call(&mut self, function: Function, arguments: &'v [Node]) -> Result<Value<'v>, Fail> {
        if function == Function::OrValue {
            // The other value is only wanted if there is none.
            return match self.value(&arguments[0])? {
                Value::Optional(Some(inner)) => Ok((*inner).clone()),
                Value::Optional(None) => self.value(&arguments[1]),
                other => Err(needs_optional("orValue", &other)),
            };
        }
        let mut values = Vec::with_capacity(arguments.len());
        for argument in arguments {
            values.push(self.value(argument)?);
        }
        match (function, values.as_slice()) {
            (Function::OptionalNone, _) => Ok(Value::Optional(None)),
            (Function::OptionalOf, [value]) => Ok(Value::some(value.clone())),
            (Function::Or, [Value::Optional(None), other @ Value::Optional(_)]) => Ok(other.clone()),
            (Function::Or, [one @ Value::Optional(Some(_)), _]) => Ok(one.clone()),
            (Function::HasValue, [Value::Optional(inner)]) => Ok(Value::Bool(inner.is_some())),
            (Function::TakeValue, [Value::Optional(inner)]) => match inner {
                Some(inner) => Ok((**inner).clone()),
                None => Err(Fail::Missing("the value of an optional".to_owned())),
            },
            (Function::TypeOf, [value]) => Ok(Value::Type(value.kind())),
            (Function::Or | Function::HasValue | Function::TakeValue, [value, ..]) => {
                Err(needs_optional("this function", value))
            }
            (_, values) => text::call(function, values, self.budget),
        }
    }
}

fn needs_optional(who: &str, value: &Value<'_>) -> Fail {
    Fail::Impossible(format!("`{who}` needs an optional value, such as `data.?x`; this is {}", value.kind()))
}

/// Turns what is missing into an optional without a value, and what is there into one with.
fn optional(found: Result<Value<'_>, Fail>) -> Result<Value<'_>, Fail> {
    match found {
        Ok(value @ Value::Optional(_)) => Ok(value),
        Ok(value) => Ok(Value::some(value)),
        Err(Fail::Missing(_)) => Ok(Value::Optional(None)),
        Err(fail) => Err(fail),
    }
}

/// `value.name`. Selecting from an optional gives an optional.
fn select<'v>(value: &Value<'v>, name: &str) -> Result<Value<'v>, Fail> {
    match value {
        Value::Optional(None) => Ok(Value::Optional(None)),
        Value::Optional(Some(inner)) => optional(select(inner, name)),
        _ => value.field(name).ok_or_else(|| Fail::Missing(name.to_owned())),
    }
}

/// `value[index]`
fn at_index<'v>(value: &Value<'v>, index: &Value<'v>) -> Result<Value<'v>, Fail> {
    match (value, index.key()) {
        (Value::Optional(None), _) => Ok(Value::Optional(None)),
        (Value::Optional(Some(inner)), _) => optional(at_index(inner, index)),
        (_, Some(key)) if value.kind() == Kind::Map => {
            value.entry(&key).ok_or_else(|| Fail::Missing(format!("[{}]", key.spelt())))
        }
        (_, Some(crate::rule::expression::value::Key::Int(at))) if value.kind() == Kind::List => {
            let element = usize::try_from(at).ok().and_then(|at| value.element(at));
            element.ok_or_else(|| Fail::Missing(format!("[{at}]")))
        }
        (_, _) if matches!(value.kind(), Kind::List | Kind::Map) => {
            Err(Fail::Impossible(format!("{} has no element `[…]` for {}", value.kind(), index.kind())))
        }
        // As with a field: the shape of the payload is not what was expected, so what was asked for is not there.
        _ => Err(Fail::Missing("[…]".to_owned())),
    }
}
