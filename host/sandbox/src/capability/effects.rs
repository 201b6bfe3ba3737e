//! Effects: collected in order, within limits, granted one by one. None of them happens here.

use std::time::Duration;

use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::effect::Delivery;
use bulkhead_domain::effect::Effect;
use bulkhead_domain::effect::EffectSeed;
use bulkhead_domain::event::Draft;
use bulkhead_domain::policy::limits::Limits;

use super::Refusal;
use super::check;
use super::not_granted;
use crate::port::Setup;

/// The farthest that a timer can be set.
const SCHEDULE_MAX: Duration = Duration::from_secs(366 * 24 * 3_600);

/// What one call wants to happen.
#[derive(Debug)]
pub(crate) struct Effects {
    seed: EffectSeed,
    first: usize,
    now: Timestamp,
    list: Vec<Effect>,
    ordinals: usize,
    events: usize,
    deliveries: usize,
    cancels: usize,
    bytes: usize,
}

impl Effects {
    pub(crate) fn new(seed: EffectSeed, first: usize, now: Timestamp) -> Self {
        Self { seed, first, now, list: Vec::new(), ordinals: 0, events: 0, deliveries: 0, cancels: 0, bytes: 0 }
    }

    /// Publishes an event; its id.
    pub(crate) fn emit(&mut self, setup: &Setup, draft: Draft) -> Result<String, Refusal> {
        check::draft(&draft)?;
        may_emit(setup, &draft)?;
        self.charge_event(&setup.limits, &draft)?;
        let id = self.next_id();
        self.list.push(Effect::Emit { id: id.clone(), draft });
        Ok(id)
    }

    /// Sends a body to a sink; the id by which the receiver can dedupe.
    pub(crate) fn deliver(
        &mut self,
        setup: &Setup,
        sink: String,
        content_type: String,
        body: Vec<u8>,
        attributes: Vec<(String, String)>,
    ) -> Result<String, Refusal> {
        check::name("the sink's name", &sink)?;
        if !setup.grants.may_deliver(&sink) {
            return Err(Refusal::Denied(not_granted(&format!("delivering to `{sink}`"), "it to `deliver`")));
        }
        if !setup.sinks.contains(&sink) {
            return Err(Refusal::NotFound(format!("there is no sink `{sink}`")));
        }
        check::content_type(&content_type)?;
        check::attributes(&attributes, true)?;
        let limits = &setup.limits;
        charge_count(&mut self.deliveries, limits.effects, "deliveries")?;
        let size = sink.len() + content_type.len() + body.len() + check::attributes_size(&attributes);
        self.charge_bytes(limits, body.len(), size)?;
        let id = self.next_id();
        let delivery = Delivery { id: id.clone(), sink, content_type, body: body.into(), attributes };
        self.list.push(Effect::Deliver(delivery));
        Ok(id)
    }

    /// Publishes an event later; the timer's id.
    pub(crate) fn schedule(
        &mut self,
        setup: &Setup,
        name: Option<String>,
        after_ms: u64,
        draft: Draft,
    ) -> Result<String, Refusal> {
        may_schedule(setup)?;
        if let Some(name) = &name {
            check::name("the timer's name", name)?;
        }
        check::draft(&draft)?;
        may_emit(setup, &draft)?;
        let after = Duration::from_millis(after_ms);
        if after > SCHEDULE_MAX {
            return Err(Refusal::Invalid(format!("{after_ms} ms is more than 366 days ahead")));
        }
        self.charge_event(&setup.limits, &draft)?;
        let id = self.next_id();
        self.list.push(Effect::Schedule { id: id.clone(), name, due: self.now.after(after), draft });
        Ok(id)
    }

    /// Takes a timer back.
    pub(crate) fn cancel(&mut self, setup: &Setup, timer: String) -> Result<(), Refusal> {
        may_schedule(setup)?;
        check::name("the timer's name", &timer)?;
        charge_count(&mut self.cancels, setup.limits.effects, "timers taken back")?;
        self.list.push(Effect::Cancel { plugin: setup.plugin, timer });
        Ok(())
    }

    /// The effects in order, and how many ordinals they took.
    pub(crate) fn into_parts(self) -> (Vec<Effect>, usize) {
        (self.list, self.ordinals)
    }

    fn next_id(&mut self) -> String {
        let id = self.seed.id(self.first + self.ordinals);
        self.ordinals += 1;
        id
    }

    fn charge_event(&mut self, limits: &Limits, draft: &Draft) -> Result<(), Refusal> {
        charge_count(&mut self.events, limits.effects, "events and timers")?;
        self.charge_bytes(limits, draft.data.len(), check::draft_size(draft))
    }

    fn charge_bytes(&mut self, limits: &Limits, body: usize, all: usize) -> Result<(), Refusal> {
        if body > limits.effect_body {
            return Err(Refusal::Limit(format!(
                "the body has {body} bytes; one effect may have {}",
                limits.effect_body
            )));
        }
        if self.bytes + all > limits.effect_bytes {
            return Err(Refusal::Limit(format!(
                "the effects of this run have more than {} bytes together",
                limits.effect_bytes
            )));
        }
        self.bytes += all;
        Ok(())
    }
}

fn charge_count(count: &mut usize, limit: usize, what: &str) -> Result<(), Refusal> {
    if *count >= limit {
        return Err(Refusal::Limit(format!("one run may have {limit} {what}")));
    }
    *count += 1;
    Ok(())
}

fn may_emit(setup: &Setup, draft: &Draft) -> Result<(), Refusal> {
    if setup.grants.may_emit(&draft.kind) {
        return Ok(());
    }
    Err(Refusal::Denied(not_granted(&format!("emitting `{}`", draft.kind), "a pattern to `emit`")))
}

fn may_schedule(setup: &Setup) -> Result<(), Refusal> {
    if setup.grants.schedule {
        return Ok(());
    }
    Err(Refusal::Denied(not_granted("setting timers", "`schedule = true`")))
}

#[cfg(test)]
mod tests {
    use bulkhead_domain::id::EventKey;

    use super::*;
    use crate::port::tests::setup;

    fn seed() -> EffectSeed {
        EffectSeed::new(&[7; 32], "ten_a", EventKey::of("/a", "1"), "rule", 1, 0)
    }

    fn draft(kind: &str, data: usize) -> Draft {
        Draft { kind: kind.into(), data: vec![0; data].into(), ..Draft::default() }
    }

    fn granted() -> Setup {
        let mut setup = setup();
        setup.grants.emit.insert("orders.*".into());
        setup.grants.deliver.insert("crm".into());
        setup.grants.schedule = true;
        setup.sinks.extend(["crm".to_owned(), "other".to_owned()]);
        setup
    }

    #[test]
    fn without_a_grant_everything_is_denied() {
        let setup = setup();
        let mut effects = Effects::new(seed(), 0, Timestamp(0));
        let denied = |answer: Result<String, Refusal>| assert!(matches!(answer, Err(Refusal::Denied(_))), "{answer:?}");
        denied(effects.emit(&setup, draft("orders.created", 0)));
        denied(effects.deliver(&setup, "crm".into(), String::new(), vec![], vec![]));
        denied(effects.schedule(&setup, None, 0, draft("orders.created", 0)));
        denied(effects.cancel(&setup, "x".into()).map(|()| String::new()));
        assert_eq!(effects.into_parts(), (vec![], 0));
    }

    #[test]
    fn ids_follow_the_order_of_the_effects_that_have_one() {
        let setup = granted();
        let mut effects = Effects::new(seed(), 3, Timestamp(5_000_000));
        let emitted = effects.emit(&setup, draft("orders.created", 1));
        assert_eq!(emitted, Ok(seed().id(3)));
        assert_eq!(effects.cancel(&setup, "reminder".into()), Ok(()));
        let delivered = effects.deliver(&setup, "crm".into(), "text/plain".into(), b"hi".to_vec(), vec![]);
        assert_eq!(delivered, Ok(seed().id(4)));
        let timer = effects.schedule(&setup, Some("reminder".into()), 1_000, draft("orders.late", 0));
        assert_eq!(timer, Ok(seed().id(5)));
        let (list, ordinals) = effects.into_parts();
        assert_eq!((list.len(), ordinals), (4, 3));
        assert!(matches!(&list[3], Effect::Schedule { due, .. } if *due == Timestamp(6_000_000)));
    }

    #[test]
    fn the_grant_is_asked_before_the_sink_is_looked_up() {
        let setup = granted();
        let mut effects = Effects::new(seed(), 0, Timestamp(0));
        let mut deliver = |sink: &str| effects.deliver(&setup, sink.into(), String::new(), vec![], vec![]);
        assert!(matches!(deliver("other"), Err(Refusal::Denied(_))));
        assert!(matches!(deliver("nowhere"), Err(Refusal::Denied(_))), "what exists is not told");
        let mut all = granted();
        all.grants.deliver.insert("*".into());
        let answer = effects.deliver(&all, "nowhere".into(), String::new(), vec![], vec![]);
        assert!(matches!(answer, Err(Refusal::NotFound(_))));
    }

    #[test]
    fn reserved_types_are_denied_whatever_is_granted() {
        let mut setup = granted();
        setup.grants.emit.insert("**".into());
        let mut effects = Effects::new(seed(), 0, Timestamp(0));
        assert!(matches!(effects.emit(&setup, draft("bulkhead.tenant.paused", 0)), Err(Refusal::Denied(_))));
        let timer = effects.schedule(&setup, None, 0, draft("bulkhead.x", 0));
        assert!(matches!(timer, Err(Refusal::Denied(_))));
    }

    #[test]
    fn every_limit_is_kept() {
        let mut setup = granted();
        setup.limits = Limits { effects: 2, effect_bytes: 100, effect_body: 50, ..Limits::default() };
        let mut effects = Effects::new(seed(), 0, Timestamp(0));
        let limit = |answer: Result<String, Refusal>| assert!(matches!(answer, Err(Refusal::Limit(_))), "{answer:?}");
        limit(effects.emit(&setup, draft("orders.a", 51)));
        assert!(effects.emit(&setup, draft("orders.a", 50)).is_ok());
        limit(effects.deliver(&setup, "crm".into(), String::new(), vec![0; 50], vec![]));
        limit(effects.emit(&setup, draft("orders.a", 50)));
        let far = effects.schedule(&setup, None, u64::MAX, draft("orders.a", 0));
        assert!(matches!(far, Err(Refusal::Invalid(_))));

        let mut effects = Effects::new(seed(), 0, Timestamp(0));
        for _ in 0..2 {
            assert!(effects.emit(&setup, draft("orders.a", 0)).is_ok());
            assert!(effects.deliver(&setup, "crm".into(), String::new(), vec![], vec![]).is_ok());
            assert!(effects.cancel(&setup, "x".into()).is_ok());
        }
        limit(effects.schedule(&setup, None, 0, draft("orders.a", 0)));
        limit(effects.deliver(&setup, "crm".into(), String::new(), vec![], vec![]));
        limit(effects.cancel(&setup, "x".into()).map(|()| String::new()));
    }
}
