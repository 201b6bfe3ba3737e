//! Delivers a message about an event to a sink; the message is a template in the settings.
//!
//! Shows how to look at single fields of any event: nothing here knows the shape of the data.

use bulkhead_plugin::{Body, Event, Failure, context, effects, handler};
use serde::Serialize;

#[derive(Serialize)]
struct Message<'a> {
    text: &'a str,
    event: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
}

#[handler]
fn handle(event: Event) -> Result<(), Failure> {
    let sink = context::config_or("sink", "notifications".to_owned())?;
    let template = context::config_or("template", "{type}: {/id}".to_owned())?;
    let text = fill(&template, |name| value(&event, name))?;
    let message = Message { text: &text, event: &event.id, kind: &event.kind };
    effects::deliver(&sink, Body::json(&message)?)?;
    Ok(())
}

/// What stands for `{name}`.
fn value(event: &Event, name: &str) -> Result<String, Failure> {
    Ok(match name {
        "type" => event.kind.clone(),
        "id" => event.id.clone(),
        "source" => event.source.clone(),
        "subject" => event.subject.clone().unwrap_or_default(),
        "time" => event.time.to_string(),
        pointer if pointer.starts_with('/') => match context::field::<serde_json::Value>(pointer)? {
            // Text without its quotes; everything else as JSON.
            Some(serde_json::Value::String(text)) => text,
            Some(other) => other.to_string(),
            None => "(none)".to_owned(),
        },
        other => return Err(Failure::reject(format!("the template asks for `{{{other}}}`, which is nothing"))),
    })
}

/// The template with each `{name}` replaced. A brace that is never closed is text.
fn fill(template: &str, value: impl Fn(&str) -> Result<String, Failure>) -> Result<String, Failure> {
    let mut text = String::with_capacity(template.len() * 2);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((name, after)) = after.split_once('}') else { break };
        text.push_str(before);
        text.push_str(&value(name)?);
        rest = after;
    }
    text.push_str(rest);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use bulkhead_plugin::testing::{self, Host};
    use serde_json::{Value, json};

    use super::*;

    fn check(template: &str, expected: &str) {
        let data = json!({"id": "A-1", "total": 12.5, "customer": {"email": "a@example.com"}});
        let run = Host::new().with_config("template", template).handle(handle, testing::event("orders.created", data));
        run.success();
        let message: Value = serde_json::from_slice(&run.delivered[0].body.bytes).expect("a message of JSON");
        assert_eq!(message["text"], expected);
        assert_eq!(run.delivered[0].sink, "notifications");
    }

    #[test]
    fn templates_name_the_event_and_its_fields() {
        check("{type}: {/id} of {/customer/email}, {/total}", "orders.created: A-1 of a@example.com, 12.5");
        check("{/missing}{", "(none){");
        check("no names", "no names");
    }

    #[test]
    fn a_template_that_asks_for_nothing_is_rejected() {
        let host = Host::new().with_config("template", "{total}");
        let run = host.clone().handle(handle, testing::event("orders.created", json!({})));
        assert_eq!(*run.failure(), Failure::reject("the template asks for `{total}`, which is nothing"));
    }

    #[test]
    fn another_sink_is_a_setting() {
        let mut host = Host::new().with_config("sink", "pager").with_sinks(["pager"]);
        let run = host.handle(handle, testing::event("orders.flagged", json!({"id": "A-1"})));
        assert_eq!(run.delivered[0].sink, "pager");
    }
}
