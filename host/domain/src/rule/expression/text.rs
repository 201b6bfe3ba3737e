//! Functions on texts and numbers.

use std::rc::Rc;

use crate::rule::expression::Budget;
use crate::rule::expression::Fail;
use crate::rule::expression::Value;
use crate::rule::expression::function::FUNCTIONS;
use crate::rule::expression::function::Function;
use crate::rule::expression::operator;
use crate::rule::expression::value::Text;

/// Calls a function. Every text among the arguments counts by its length.
pub fn call<'v>(function: Function, values: &[Value<'v>], budget: &mut Budget) -> Result<Value<'v>, Fail> {
    for value in values {
        if let Value::Text(text) = value {
            budget.take_bytes(text.as_str().len())?;
        }
    }
    match (function, values) {
        (Function::Size, [value]) => match value {
            Value::Text(text) => Ok(count(text.as_str().chars().count())),
            other => other.size().map(count).ok_or_else(|| wrong(function, values)),
        },
        (Function::Contains, [Value::Text(text), Value::Text(part)]) => {
            Ok(Value::Bool(text.as_str().contains(part.as_str())))
        }
        (Function::StartsWith, [Value::Text(text), Value::Text(part)]) => {
            Ok(Value::Bool(text.as_str().starts_with(part.as_str())))
        }
        (Function::EndsWith, [Value::Text(text), Value::Text(part)]) => {
            Ok(Value::Bool(text.as_str().ends_with(part.as_str())))
        }
        (Function::LowerAscii, [Value::Text(text)]) => Ok(Value::text(&text.as_str().to_ascii_lowercase())),
        (Function::UpperAscii, [Value::Text(text)]) => Ok(Value::text(&text.as_str().to_ascii_uppercase())),
        (Function::Trim, [Value::Text(text)]) => {
            part(text, |text| Some(text.trim())).ok_or_else(|| wrong(function, values))
        }
        (Function::Replace, [Value::Text(text), Value::Text(from), Value::Text(to)]) => {
            replace(text.as_str(), from.as_str(), to.as_str(), budget)
        }
        (Function::IndexOf, [Value::Text(text), Value::Text(part)]) => {
            let text = text.as_str();
            Ok(match text.find(part.as_str()) {
                Some(at) => count(text[..at].chars().count()),
                None => Value::Int(-1),
            })
        }
        (Function::Substring, [Value::Text(text), rest @ ..]) => substring(text, rest),
        (Function::Split, [Value::Text(text), Value::Text(separator)]) => split(text, separator.as_str(), budget),
        (Function::Join, [list, rest @ ..]) => join(list, rest, budget),
        (Function::ToText, [value]) => to_text(value),
        (Function::ToInt | Function::ToUInt | Function::ToDouble | Function::ToBool, [value]) => {
            convert(function, value)
        }
        (Function::Least | Function::Greatest, [left, right]) => {
            let Some(ordering) = operator::order(left, right).filter(|_| is_number(left) && is_number(right)) else {
                return Err(wrong(function, values));
            };
            let first = if function == Function::Least { ordering.is_le() } else { ordering.is_ge() };
            Ok(if first { left.clone() } else { right.clone() })
        }
        (Function::Abs, [Value::Int(int)]) => Ok(int.checked_abs().map_or(Value::UInt(int.unsigned_abs()), Value::Int)),
        (Function::Abs, [Value::UInt(uint)]) => Ok(Value::UInt(*uint)),
        (Function::Abs, [Value::Double(double)]) => Ok(Value::Double(double.abs())),
        (Function::Ceil, [value]) if is_number(value) => Ok(Value::Double(operator::number(value).ceil())),
        (Function::Floor, [value]) if is_number(value) => Ok(Value::Double(operator::number(value).floor())),
        (Function::Round, [value]) if is_number(value) => Ok(Value::Double(operator::number(value).round())),
        _ => Err(wrong(function, values)),
    }
}

fn count<'v>(count: usize) -> Value<'v> {
    Value::Int(i64::try_from(count).unwrap_or(i64::MAX))
}

fn is_number(value: &Value<'_>) -> bool {
    value.kind().is_number()
}

fn wrong(function: Function, values: &[Value<'_>]) -> Fail {
    let signature = FUNCTIONS.iter().find(|signature| signature.function == function);
    let name = signature.map_or("this function", |signature| signature.name);
    let kinds: Vec<String> = values.iter().map(|value| value.kind().to_string()).collect();
    Fail::Impossible(format!("`{name}` cannot take {}", kinds.join(" and ")))
}

/// A part of a text, borrowed if the text is.
fn part<'v>(whole: &Text<'v>, cut: impl for<'t> Fn(&'t str) -> Option<&'t str>) -> Option<Value<'v>> {
    match whole {
        Text::Borrowed(text) => cut(text).map(|piece| Value::Text(Text::Borrowed(piece))),
        Text::Shared(text) => cut(text).map(Value::text),
    }
}

fn split<'v>(whole: &Text<'v>, separator: &str, budget: &mut Budget) -> Result<Value<'v>, Fail> {
    if separator.is_empty() {
        return Err(Fail::Impossible("`split` needs a separator".to_owned()));
    }
    let mut pieces = Vec::new();
    match whole {
        Text::Borrowed(text) => {
            for piece in text.split(separator) {
                budget.take(1)?;
                pieces.push(Value::Text(Text::Borrowed(piece)));
            }
        }
        Text::Shared(text) => {
            for piece in text.split(separator) {
                budget.take(1)?;
                pieces.push(Value::text(piece));
            }
        }
    }
    Ok(Value::List(Rc::new(pieces)))
}

fn replace<'v>(text: &str, from: &str, to: &str, budget: &mut Budget) -> Result<Value<'v>, Fail> {
    if from.is_empty() {
        return Err(Fail::Impossible("`replace` needs a text to look for".to_owned()));
    }
    let mut replaced = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(from) {
        budget.take(1)?;
        budget.take_bytes(to.len())?;
        replaced.push_str(&rest[..at]);
        replaced.push_str(to);
        rest = &rest[at + from.len()..];
    }
    replaced.push_str(rest);
    Ok(Value::Text(Text::Shared(replaced.into())))
}

/// `text.substring(start)` and `text.substring(start, end)`, counted in characters.
fn substring<'v>(text: &Text<'v>, bounds: &[Value<'v>]) -> Result<Value<'v>, Fail> {
    let whole = text.as_str();
    let mut offsets = Vec::with_capacity(2);
    for bound in bounds {
        let Value::Int(at) = bound else {
            return Err(Fail::Impossible(format!("`substring` needs whole numbers; this is {}", bound.kind())));
        };
        let offset = usize::try_from(*at).ok().and_then(|at| {
            let mut starts = whole.char_indices().map(|(offset, _)| offset).chain([whole.len()]);
            starts.nth(at)
        });
        let Some(offset) = offset else {
            return Err(Fail::Impossible(format!("`substring`: {at} is beyond the text")));
        };
        offsets.push(offset);
    }
    let start = offsets.first().copied().unwrap_or_default();
    let end = offsets.get(1).copied().unwrap_or(whole.len());
    part(text, |text| text.get(start..end))
        .ok_or_else(|| Fail::Impossible("`substring`: the end lies before the start".to_owned()))
}

fn join<'v>(list: &Value<'v>, rest: &[Value<'v>], budget: &mut Budget) -> Result<Value<'v>, Fail> {
    let separator = match rest {
        [Value::Text(separator)] => separator.as_str(),
        [] => "",
        _ => return Err(Fail::Impossible("`join` needs a text between the elements".to_owned())),
    };
    let mut joined = String::new();
    for at in 0..list.size().unwrap_or_default() {
        budget.take(1)?;
        match list.element(at) {
            Some(Value::Text(text)) => {
                budget.take_bytes(separator.len() + text.as_str().len())?;
                if at > 0 {
                    joined.push_str(separator);
                }
                joined.push_str(text.as_str());
            }
            _ => return Err(Fail::Impossible("`join` needs a list of texts".to_owned())),
        }
    }
    Ok(Value::Text(Text::Shared(joined.into())))
}

fn to_text<'v>(value: &Value<'v>) -> Result<Value<'v>, Fail> {
    Ok(match value {
        Value::Text(_) => value.clone(),
        Value::Bool(bool) => Value::text(&bool.to_string()),
        Value::Int(int) => Value::text(&int.to_string()),
        Value::UInt(uint) => Value::text(&uint.to_string()),
        Value::Double(double) => Value::text(&double.to_string()),
        other => return Err(Fail::Impossible(format!("`string` cannot take {}", other.kind()))),
    })
}

fn convert<'v>(function: Function, value: &Value<'v>) -> Result<Value<'v>, Fail> {
    let impossible = || {
        let shown = match value {
            Value::Text(text) => format!("`{}`", text.as_str().chars().take(40).collect::<String>()),
            other => other.kind().to_string(),
        };
        let wanted = match function {
            Function::ToBool => "true or false",
            Function::ToDouble => "a number",
            _ => "a whole number of 64 bits",
        };
        Fail::Impossible(format!("{shown} is not {wanted}"))
    };
    match (function, value) {
        (Function::ToBool, Value::Bool(bool)) => Ok(Value::Bool(*bool)),
        (Function::ToBool, Value::Text(text)) => match text.as_str() {
            "true" | "True" | "TRUE" | "t" | "1" => Ok(Value::Bool(true)),
            "false" | "False" | "FALSE" | "f" | "0" => Ok(Value::Bool(false)),
            _ => Err(impossible()),
        },
        (Function::ToInt, Value::Int(int)) => Ok(Value::Int(*int)),
        (Function::ToUInt, Value::UInt(uint)) => Ok(Value::UInt(*uint)),
        (Function::ToInt, Value::UInt(uint)) => i64::try_from(*uint).map(Value::Int).map_err(|_| impossible()),
        (Function::ToUInt, Value::Int(int)) => u64::try_from(*int).map(Value::UInt).map_err(|_| impossible()),
        (Function::ToInt, Value::Text(text)) => text.as_str().parse().map(Value::Int).map_err(|_| impossible()),
        (Function::ToUInt, Value::Text(text)) => text.as_str().parse().map(Value::UInt).map_err(|_| impossible()),
        #[expect(clippy::cast_possible_truncation, reason = "within 64 bits, as just checked")]
        (Function::ToInt, Value::Double(double)) if double.abs() < 9.2e18 => Ok(Value::Int(*double as i64)),
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within 64 bits, as just checked")]
        (Function::ToUInt, Value::Double(double)) if (0.0..1.8e19).contains(double) => Ok(Value::UInt(*double as u64)),
        (Function::ToDouble, Value::Text(text)) => text.as_str().parse().map(Value::Double).map_err(|_| impossible()),
        (Function::ToDouble, number) if is_number(number) => Ok(Value::Double(operator::number(number))),
        _ => Err(impossible()),
    }
}
