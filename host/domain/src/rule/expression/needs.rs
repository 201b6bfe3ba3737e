//! Needs: which parts of the payload an expression looks at.

use crate::rule::expression::node::Fold;
use crate::rule::expression::node::Node;

/// The paths into the payload that the value of a node may depend on. None if it may depend on all of it.
pub fn needs(node: &Node) -> Option<Vec<Vec<String>>> {
    let mut paths = Vec::new();
    collect(node, &mut paths).then_some(paths)
}

/// Adds the paths of a node. False if it needs the payload as a whole.
fn collect(node: &Node, paths: &mut Vec<Vec<String>>) -> bool {
    match node {
        Node::Data(path) => add(path, None, paths),
        Node::Has(operand, field) | Node::Select(operand, field) | Node::OptionalSelect(operand, field) => {
            match &**operand {
                Node::Data(path) => add(path, Some(field), paths),
                operand => collect(operand, paths),
            }
        }
        Node::Constant(_) | Node::Event | Node::EventField(_) | Node::Attributes | Node::Tenant | Node::Local(_) => {
            true
        }
        Node::Index(one, other) | Node::OptionalIndex(one, other) => collect(one, paths) && collect(other, paths),
        Node::And(sides)
        | Node::Or(sides)
        | Node::Equal(sides)
        | Node::Unequal(sides)
        | Node::Compare(_, sides)
        | Node::Calculate(_, sides)
        | Node::In(sides) => collect(&sides.0, paths) && collect(&sides.1, paths),
        Node::Not(operand) | Node::Negate(operand) | Node::Matches(operand, _) => collect(operand, paths),
        Node::Conditional(parts) => collect(&parts.0, paths) && collect(&parts.1, paths) && collect(&parts.2, paths),
        Node::List(entries) => entries.iter().all(|entry| collect(&entry.value, paths)),
        Node::Map(entries) => entries.iter().all(|(key, entry)| collect(key, paths) && collect(&entry.value, paths)),
        Node::Call(_, arguments) => arguments.iter().all(|argument| collect(argument, paths)),
        Node::Loop { range, fold } => collect(range, paths) && collect_fold(fold, paths),
    }
}

fn collect_fold(fold: &Fold, paths: &mut Vec<Vec<String>>) -> bool {
    match fold {
        Fold::All(body) | Fold::Exists(body) | Fold::ExistsOne(body) | Fold::Filter(body) => collect(body, paths),
        Fold::Map { condition, value } => {
            condition.as_ref().is_none_or(|condition| collect(condition, paths)) && collect(value, paths)
        }
    }
}

fn add(path: &[Box<str>], field: Option<&str>, paths: &mut Vec<Vec<String>>) -> bool {
    let path: Vec<String> = path.iter().map(|name| name.to_string()).chain(field.map(ToOwned::to_owned)).collect();
    if path.is_empty() {
        return false;
    }
    paths.push(path);
    true
}
