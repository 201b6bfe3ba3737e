//! Operators on values: equality, order, arithmetic, membership.

use std::cmp::Ordering;
use std::rc::Rc;

use crate::rule::expression::Budget;
use crate::rule::expression::Fail;
use crate::rule::expression::Kind;
use crate::rule::expression::Value;
use crate::rule::expression::node::Arithmetic;
use crate::rule::expression::node::Comparison;
use crate::rule::expression::value::Text;

/// `left == right`. Values of different kinds are unequal, numbers of different types are equal by value.
pub fn equal(left: &Value<'_>, right: &Value<'_>, budget: &mut Budget) -> Result<bool, Fail> {
    budget.take(1)?;
    if left.kind().is_number() && right.kind().is_number() {
        return Ok(order(left, right) == Some(Ordering::Equal));
    }
    match (left, right) {
        (Value::Null, Value::Null) => Ok(true),
        (Value::Bool(left), Value::Bool(right)) => Ok(left == right),
        (Value::Text(left), Value::Text(right)) => {
            let (left, right) = (left.as_str(), right.as_str());
            if left.len() != right.len() {
                return Ok(false);
            }
            budget.take_bytes(left.len())?;
            Ok(left == right)
        }
        (Value::Type(left), Value::Type(right)) => Ok(left == right),
        (Value::Optional(left), Value::Optional(right)) => match (left, right) {
            (Some(left), Some(right)) => equal(left, right, budget),
            (left, right) => Ok(left.is_none() && right.is_none()),
        },
        _ if left.kind() != right.kind() || left.size() != right.size() => Ok(false),
        _ if left.kind() == Kind::List => {
            for at in 0..left.size().unwrap_or_default() {
                let (Some(left), Some(right)) = (left.element(at), right.element(at)) else { return Ok(false) };
                if !equal(&left, &right, budget)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        _ => equal_maps(left, right, budget),
    }
}

fn equal_maps(left: &Value<'_>, right: &Value<'_>, budget: &mut Budget) -> Result<bool, Fail> {
    let mut same = |name: &str| -> Result<bool, Fail> {
        budget.take_bytes(name.len())?;
        let (Some(left), Some(right)) = (left.field(name), right.field(name)) else { return Ok(false) };
        equal(&left, &right, budget)
    };
    match left {
        Value::JsonMap(map) => {
            for name in map.keys() {
                if !same(name)? {
                    return Ok(false);
                }
            }
        }
        Value::Attributes(pairs) => {
            for (name, _) in *pairs {
                if !same(name)? {
                    return Ok(false);
                }
            }
        }
        Value::Event(scope) => {
            for (field, _) in scope.fields() {
                if !same(field.name())? {
                    return Ok(false);
                }
            }
        }
        Value::Map(map) => {
            for (key, value) in &**map {
                let Some(other) = right.entry(key) else { return Ok(false) };
                if !equal(value, &other, budget)? {
                    return Ok(false);
                }
            }
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// `left < right` and its kin.
pub fn compare(comparison: Comparison, left: &Value<'_>, right: &Value<'_>, budget: &mut Budget) -> Result<bool, Fail> {
    if let (Value::Text(left), Value::Text(right)) = (left, right) {
        budget.take_bytes(left.as_str().len().min(right.as_str().len()))?;
    }
    let comparable = (left.kind().is_number() && right.kind().is_number())
        || (left.kind() == right.kind() && matches!(left.kind(), Kind::Text | Kind::Bool));
    if !comparable {
        let (sign, left, right) = (comparison.sign(), left.kind(), right.kind());
        return Err(Fail::Impossible(format!("`{sign}` cannot compare {left} with {right}")));
    }
    // None if one of them is not a number at all, which is neither less nor greater.
    let Some(ordering) = order(left, right) else { return Ok(false) };
    Ok(match comparison {
        Comparison::Less => ordering.is_lt(),
        Comparison::LessEqual => ordering.is_le(),
        Comparison::Greater => ordering.is_gt(),
        Comparison::GreaterEqual => ordering.is_ge(),
    })
}

/// The order of two numbers, texts or truths.
pub fn order(left: &Value<'_>, right: &Value<'_>) -> Option<Ordering> {
    match (left, right) {
        (Value::Int(left), Value::Int(right)) => Some(left.cmp(right)),
        (Value::Double(left), Value::Double(right)) => left.partial_cmp(right),
        (Value::Text(left), Value::Text(right)) => Some(left.as_str().cmp(right.as_str())),
        (Value::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
        (Value::Double(double), other) => Some(order_whole(whole(other)?, *double)?.reverse()),
        (other, Value::Double(double)) => order_whole(whole(other)?, *double),
        _ => Some(whole(left)?.cmp(&whole(right)?)),
    }
}

/// A whole number of either type.
fn whole(value: &Value<'_>) -> Option<i128> {
    match value {
        Value::Int(int) => Some(i128::from(*int)),
        Value::UInt(uint) => Some(i128::from(*uint)),
        _ => None,
    }
}

/// The exact order of a whole number and a double: above 2^53 a conversion would lose digits.
fn order_whole(whole: i128, double: f64) -> Option<Ordering> {
    if double.is_nan() {
        return None;
    }
    // Beyond the range of both types, so no digit is lost where it matters.
    #[expect(clippy::cast_possible_truncation, reason = "clamped to a range that 128 bits hold")]
    let floor = double.floor().clamp(-1e30, 1e30) as i128;
    Some(whole.cmp(&floor).then(if double.fract() == 0.0 { Ordering::Equal } else { Ordering::Less }))
}

/// `element in container`
pub fn contained(element: &Value<'_>, container: &Value<'_>, budget: &mut Budget) -> Result<bool, Fail> {
    match container.kind() {
        Kind::List => {
            for at in 0..container.size().unwrap_or_default() {
                let Some(candidate) = container.element(at) else { break };
                if equal(element, &candidate, budget)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Kind::Map => {
            if let Value::Text(text) = element {
                budget.take_bytes(text.as_str().len())?;
            }
            Ok(element.key().is_some_and(|key| container.entry(&key).is_some()))
        }
        other => Err(Fail::Impossible(format!("`in` needs a list or a map; this is {other}"))),
    }
}

/// `-value`
pub fn negate<'v>(value: &Value<'v>) -> Result<Value<'v>, Fail> {
    match value {
        Value::Int(_) | Value::UInt(_) => whole_result("-", whole(value).map(|whole| -whole)),
        Value::Double(double) => Ok(Value::Double(-double)),
        other => Err(Fail::Impossible(format!("`-` needs a number; this is {}", other.kind()))),
    }
}

/// `left + right` and its kin.
pub fn calculate<'v>(
    arithmetic: Arithmetic,
    left: Value<'v>,
    right: Value<'v>,
    budget: &mut Budget,
) -> Result<Value<'v>, Fail> {
    let sign = arithmetic.sign();
    if left.kind().is_number() && right.kind().is_number() {
        return match (whole(&left), whole(&right)) {
            (Some(left), Some(right)) => whole_result(sign, calculate_whole(arithmetic, left, right)?),
            _ => calculate_double(arithmetic, number(&left), number(&right)),
        };
    }
    match (arithmetic, &left, &right) {
        (Arithmetic::Add, Value::Text(left), Value::Text(right)) => {
            let (left, right) = (left.as_str(), right.as_str());
            budget.take_bytes(left.len() + right.len())?;
            Ok(Value::Text(Text::Shared([left, right].concat().into())))
        }
        (Arithmetic::Add, _, _) if left.kind() == Kind::List && right.kind() == Kind::List => {
            budget.take(left.size().unwrap_or_default() + right.size().unwrap_or_default())?;
            let mut joined = Vec::new();
            for list in [&left, &right] {
                joined.extend((0..list.size().unwrap_or_default()).filter_map(|at| list.element(at)));
            }
            Ok(Value::List(Rc::new(joined)))
        }
        _ => Err(Fail::Impossible(format!("`{sign}` cannot join {} and {}", left.kind(), right.kind()))),
    }
}

fn calculate_whole(arithmetic: Arithmetic, left: i128, right: i128) -> Result<Option<i128>, Fail> {
    Ok(match arithmetic {
        Arithmetic::Add => left.checked_add(right),
        Arithmetic::Subtract => left.checked_sub(right),
        Arithmetic::Multiply => left.checked_mul(right),
        Arithmetic::Divide | Arithmetic::Remainder if right == 0 => {
            return Err(Fail::Impossible("division by zero".to_owned()));
        }
        Arithmetic::Divide => left.checked_div(right),
        Arithmetic::Remainder => left.checked_rem(right),
    })
}

fn calculate_double<'v>(arithmetic: Arithmetic, left: f64, right: f64) -> Result<Value<'v>, Fail> {
    Ok(Value::Double(match arithmetic {
        Arithmetic::Add => left + right,
        Arithmetic::Subtract => left - right,
        Arithmetic::Multiply => left * right,
        Arithmetic::Divide => left / right,
        Arithmetic::Remainder => return Err(Fail::Impossible("`%` needs whole numbers".to_owned())),
    }))
}

/// Back into 64 bits.
fn whole_result<'v>(sign: &str, result: Option<i128>) -> Result<Value<'v>, Fail> {
    let overflow = || Fail::Impossible(format!("the result of `{sign}` does not fit into 64 bits"));
    let result = result.ok_or_else(overflow)?;
    match (i64::try_from(result), u64::try_from(result)) {
        (Ok(int), _) => Ok(Value::Int(int)),
        (Err(_), Ok(uint)) => Ok(Value::UInt(uint)),
        (Err(_), Err(_)) => Err(overflow()),
    }
}

/// Any number as a double.
#[expect(clippy::cast_precision_loss, reason = "what mixes with a double is a double")]
pub fn number(value: &Value<'_>) -> f64 {
    match value {
        Value::Int(int) => *int as f64,
        Value::UInt(uint) => *uint as f64,
        Value::Double(double) => *double,
        _ => f64::NAN,
    }
}
