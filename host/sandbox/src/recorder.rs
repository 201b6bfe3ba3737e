//! From a call to its recording: what is private is taken out, and what is too much is left out.
//!
//! Three kinds of text never get into a recording: values of the secrets that the plugin may read, values at the places
//! in the event's data that the plugin's manifest names, and both again wherever the plugin copied them to: texts of four
//! bytes or more as they are, within JSON or in a URL, and numbers of four digits or more as they are. What is shorter,
//! true, false and null are taken out of their places alone. A plugin that disguises a value can; the grant is what
//! decides about that.

use std::collections::BTreeSet;

use bulkhead_domain::effect::Effect;
use bulkhead_domain::event::Draft;
use bulkhead_domain::event::Event;
use bulkhead_domain::policy::verdict::Outcome;
use bulkhead_domain::recording::Duty;
use bulkhead_domain::recording::Ended;
use bulkhead_domain::recording::FORMAT;
use bulkhead_domain::recording::Place;
use bulkhead_domain::recording::REDACTED;
use bulkhead_domain::recording::Read;
use bulkhead_domain::recording::Recording;
use bytes::Bytes;
use serde_json::Value;

use crate::capability::redact::Found;
use crate::capability::redact::Redactor;
use crate::port::Attempt;
use crate::port::Call;
use crate::port::Setup;

/// What a recording must not have in it, and how large it may be.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// JSON pointers to places in the event's data.
    pub redact: &'a [String],
    /// Bytes of the event's data, of what was read, and of bodies of effects, all together.
    pub bytes: usize,
}

/// A call that was made.
pub(crate) struct Made<'a> {
    pub(crate) setup: &'a Setup,
    pub(crate) digest: &'a str,
    pub(crate) call: &'a Call<'a>,
    pub(crate) duty: Duty,
    pub(crate) place: Place,
    pub(crate) attempt: &'a Attempt,
}

/// See [`Session::record`](crate::Session::record).
pub(crate) fn record(made: Made<'_>, secrets: &Redactor, rules: Rules<'_>) -> Recording {
    let Made { setup, digest, call, duty, place, attempt } = made;
    let mut event = call.event.clone();
    let mut redacted = BTreeSet::new();
    let found = redact_places(&mut event, rules.redact);
    if found.is_some() {
        redacted.insert("event".to_owned());
    }
    let found = found.unwrap_or_default();
    let mut recording = Recording {
        format: FORMAT,
        call: place,
        plugin: setup.plugin_name.clone(),
        version: setup.version.clone(),
        digest: digest.to_owned(),
        duty,
        attempt: call.attempt,
        now: call.now,
        seed: call.seed,
        first_ordinal: call.first_ordinal,
        event,
        grants: setup.grants.clone(),
        limits: setup.limits.clone(),
        instance: setup.policy,
        config: setup.config.clone(),
        sinks: setup.sinks.clone(),
        fresh: attempt.instantiated,
        reads: attempt.reads.list.clone(),
        cut: attempt.reads.cut,
        redacted,
        ended: attempt.ended(),
    };
    for read in &mut recording.reads {
        if let Read::State { key, held: Some(held) } = read {
            held.version = call.state.version(setup.plugin, key);
        }
    }
    let mut scrub = Scrub { redactor: secrets.with(&found), place: "", redacted: &mut recording.redacted };
    scrub.event(&mut recording.event);
    scrub.at("config", |scrub| recording.config.values_mut().for_each(|value| scrub.text(value)));
    recording.reads.iter_mut().for_each(|read| scrub.read(read));
    scrub.ended(&mut recording.ended);
    fit(&mut recording, rules.bytes);
    recording
}

/// Takes the values at these places out of the event's data. Gives what was there, if anything was.
fn redact_places(event: &mut Event, pointers: &[String]) -> Option<Found> {
    if pointers.is_empty() || !event.is_json() {
        return None;
    }
    // What does not read as JSON has no places; it goes as a whole, because what is in it cannot be told.
    let Ok(mut data) = serde_json::from_slice::<Value>(&event.data) else {
        event.data = Bytes::from_static(REDACTED.as_bytes());
        return Some(Found::default());
    };
    let mut found = None;
    for pointer in pointers {
        if let Some(value) = data.pointer_mut(pointer) {
            gather(value, found.get_or_insert_default());
            *value = Value::String(REDACTED.to_owned());
        }
    }
    if found.is_some() {
        event.data = data.to_string().into();
    }
    found
}

/// All texts and numbers within a value.
fn gather(value: &Value, found: &mut Found) {
    match value {
        Value::String(text) => found.texts.push(text.clone()),
        Value::Array(list) => list.iter().for_each(|value| gather(value, found)),
        Value::Object(fields) => fields.values().for_each(|value| gather(value, found)),
        Value::Number(number) => {
            let mut written = vec![number.to_string()];
            // Languages with one kind of number write 1000.0 as 1000, those with several 1000 as 1000.0: found within that.
            written.extend(number.as_f64().filter(|_| number.is_f64()).map(|number| number.to_string()));
            found.numbers.extend(written.iter().map(|text| text.trim_start_matches('-').to_owned()));
        }
        Value::Null | Value::Bool(_) => {}
    }
}

/// Goes over everything that a guest can have put something private into.
struct Scrub<'a> {
    redactor: Redactor,
    place: &'static str,
    redacted: &'a mut BTreeSet<String>,
}

impl Scrub<'_> {
    fn at(&mut self, place: &'static str, work: impl FnOnce(&mut Self)) {
        self.place = place;
        work(self);
    }

    fn text(&mut self, text: &mut String) {
        if let std::borrow::Cow::Owned(without) = self.redactor.redact(text) {
            *text = without;
            self.redacted.insert(self.place.to_owned());
        }
    }

    fn text_opt(&mut self, text: &mut Option<String>) {
        if let Some(text) = text {
            self.text(text);
        }
    }

    fn pairs(&mut self, pairs: &mut [(String, String)]) {
        for (name, value) in pairs {
            self.text(name);
            self.text(value);
        }
    }

    fn bytes(&mut self, bytes: &mut Bytes) {
        if let Some(without) = self.redactor.redact_bytes(bytes) {
            *bytes = without.into();
            self.redacted.insert(self.place.to_owned());
        }
    }

    fn event(&mut self, event: &mut Event) {
        self.at("event", |scrub| {
            for text in [&mut event.id, &mut event.source, &mut event.kind, &mut event.correlation] {
                scrub.text(text);
            }
            for text in [&mut event.subject, &mut event.key, &mut event.causation] {
                scrub.text_opt(text);
            }
            scrub.pairs(&mut event.attributes);
            scrub.bytes(&mut event.data);
        });
    }

    fn read(&mut self, read: &mut Read) {
        match read {
            Read::State { key, held } => self.at("state", |scrub| {
                scrub.text(key);
                if let Some(held) = held {
                    scrub.bytes(&mut held.value);
                }
            }),
            Read::Keys { prefix, after, keys, .. } => self.at("state", |scrub| {
                scrub.text(prefix);
                scrub.text_opt(after);
                keys.iter_mut().for_each(|key| scrub.text(key));
            }),
            Read::Secret { name } => {
                self.redacted.insert(format!("secret `{name}`"));
            }
            Read::Http { request, headers, body, .. } => self.at("http", |scrub| {
                scrub.text(request);
                scrub.pairs(headers);
                scrub.bytes(body);
            }),
        }
    }

    fn ended(&mut self, ended: &mut Ended) {
        self.at("outcome", |scrub| match &mut ended.outcome {
            Outcome::Done => {}
            Outcome::Failed(failure) | Outcome::Rejected(failure) => scrub.text(&mut failure.reason),
        });
        self.at("drafts", |scrub| ended.drafts.iter_mut().for_each(|draft| scrub.draft(draft)));
        self.at("effects", |scrub| ended.effects.iter_mut().for_each(|effect| scrub.effect(effect)));
        self.at("logs", |scrub| {
            for line in &mut ended.logs {
                scrub.text(&mut line.message);
                scrub.pairs(&mut line.fields);
            }
        });
        self.at("usage", |scrub| {
            ended.usage = std::mem::take(&mut ended.usage)
                .into_iter()
                .map(|(mut unit, amount)| {
                    scrub.text(&mut unit);
                    (unit, amount)
                })
                .collect();
        });
    }

    fn draft(&mut self, draft: &mut Draft) {
        self.text(&mut draft.kind);
        self.text_opt(&mut draft.subject);
        self.text_opt(&mut draft.key);
        self.text(&mut draft.content_type);
        self.bytes(&mut draft.data);
        self.pairs(&mut draft.attributes);
    }

    fn effect(&mut self, effect: &mut Effect) {
        match effect {
            Effect::State(write) => {
                self.text(&mut write.key);
                if let Some(value) = &mut write.value {
                    self.bytes(value);
                }
            }
            Effect::Emit { draft, .. } => self.draft(draft),
            Effect::Deliver(delivery) => {
                self.text(&mut delivery.content_type);
                self.bytes(&mut delivery.body);
                self.pairs(&mut delivery.attributes);
            }
            Effect::Schedule { name, draft, .. } => {
                self.text_opt(name);
                self.draft(draft);
            }
            Effect::Cancel { timer, .. } => self.text(timer),
        }
    }
}

/// Leaves out what does not fit into so many bytes; then the recording is cut.
fn fit(recording: &mut Recording, bytes: usize) {
    let mut left = bytes;
    let mut fits = |size: usize| match left.checked_sub(size) {
        Some(rest) => {
            left = rest;
            true
        }
        None => false,
    };
    let mut cut = false;
    if !fits(recording.event.data.len()) {
        recording.event.data = Bytes::new();
        cut = true;
    }
    let reads = recording.reads.iter().take_while(|read| fits(read.size())).count();
    cut |= reads < recording.reads.len();
    recording.reads.truncate(reads);
    let ended = &mut recording.ended;
    let bodies = ended.drafts.iter_mut().map(|draft| &mut draft.data);
    let bodies = bodies.chain(ended.effects.iter_mut().filter_map(|effect| match effect {
        Effect::State(write) => write.value.as_mut(),
        Effect::Emit { draft, .. } | Effect::Schedule { draft, .. } => Some(&mut draft.data),
        Effect::Deliver(delivery) => Some(&mut delivery.body),
        Effect::Cancel { .. } => None,
    }));
    for body in bodies {
        if !fits(body.len()) {
            *body = Bytes::new();
            cut = true;
        }
    }
    recording.cut |= cut;
}

#[cfg(test)]
mod tests {
    use bulkhead_domain::clock::Timestamp;

    use super::*;

    fn event(data: &str) -> Event {
        Event {
            id: "1".into(),
            source: "/s".into(),
            kind: "k".into(),
            subject: None,
            time: Timestamp(0),
            key: None,
            correlation: "1".into(),
            causation: None,
            content_type: "application/json".into(),
            data: Bytes::copy_from_slice(data.as_bytes()),
            attributes: Vec::new(),
        }
    }

    #[test]
    fn numbers_at_named_places_are_looked_for_elsewhere() {
        let mut event = event(r#"{"card":{"pan":4111111111111111,"limit":-2500.0,"ok":true},"total":5}"#);
        let found = redact_places(&mut event, &["/card".to_owned(), "/no".to_owned()]).expect("because it is there");
        assert_eq!(&event.data[..], br#"{"card":"[redacted]","total":5}"#);
        assert_eq!(found.texts, [""; 0]);
        for number in ["4111111111111111", "2500.0", "2500"] {
            assert!(found.numbers.iter().any(|found| found == number), "{number}: {:?}", found.numbers);
        }
        let redactor = Redactor::default().with(&found);
        assert_eq!(redactor.redact("card 4111111111111111, limit 2500"), "card [redacted], limit [redacted]");
        assert!(redact_places(&mut event, &["/no".to_owned()]).is_none());
    }
}
