//! Plugins in JavaScript and TypeScript, built by the SDK, and those made from text.
//!
//! `cargo xtask guest` builds the examples; `cargo xtask test` does so by itself.

use std::sync::Arc;
use std::time::Duration;

use bulkhead_domain::effect::Effect;
use bulkhead_domain::effect::Level;
use bulkhead_domain::event::Event;
use bulkhead_domain::policy::grants::Grants;
use bulkhead_domain::policy::limits::Limits;
use bulkhead_sandbox::Attempt;
use bulkhead_sandbox::Exports;
use bulkhead_sandbox::Session;
use bulkhead_sandbox::Setup;
use bulkhead_sandbox::script;
use bulkhead_sandbox::script::Unfit;
use bytes::Bytes;

use crate::lab;
use crate::lab::Bench;
use crate::lab::assert_ends;
use crate::lab::code;
use crate::lab::reason;
use crate::toolchains;

fn setup() -> Setup {
    Setup {
        grants: Grants { emit: ["*", "greetings.*"].map(str::to_owned).into(), schedule: true, ..lab::setup().grants },
        ..toolchains::setup()
    }
}

fn example(name: &str) -> Session {
    toolchains::session(name, setup())
}

/// A session over a source.
fn script(source: &str) -> Session {
    script_with(source, setup())
}

fn script_with(source: &str, setup: Setup) -> Session {
    let wasm = script::component(&toolchains::SANDBOX, source).unwrap_or_else(|unfit| panic!("{unfit:?}"));
    toolchains::SANDBOX.session(&load(&wasm), Arc::new(setup))
}

fn load(wasm: &Bytes) -> bulkhead_sandbox::Plugin {
    toolchains::SANDBOX
        .load(&bulkhead_sandbox::inspect::digest(wasm), &|| Ok(wasm.clone()))
        .unwrap_or_else(|error| panic!("the component is refused: {error:?}"))
}

fn event(id: &str, data: &str) -> Event {
    toolchains::event(id, data)
}

fn handle(session: &mut Session, id: &str, data: &str) -> Attempt {
    session.handle(&Bench { event: event(id, data), ..Bench::default() }.call())
}

/// What was emitted: types and data.
fn emitted(attempt: &Attempt) -> Vec<(String, String)> {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    attempt
        .effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Emit { draft, .. } => Some((draft.kind.clone(), text(&draft.data))),
            _ => None,
        })
        .collect()
}

#[track_caller]
fn assert_done(attempt: &Attempt) {
    assert_eq!(code(attempt), "done", "{}", reason(attempt));
}

#[test]
fn components_of_the_sdk_need_nothing_but_the_contract() {
    for (name, transformer) in [("greeter-js", false), ("order-totals-ts", true)] {
        let inspection = toolchains::inspect(name);
        assert_eq!(inspection.exports, Exports { handler: true, transformer }, "{name}");
        assert!(
            inspection.imports.iter().all(|import| import.starts_with("bulkhead:plugin/")),
            "{:?}",
            inspection.imports
        );
        assert!(inspection.size < 2_000_000, "{name} has {} bytes", inspection.size);
    }
}

#[test]
fn a_handler_in_javascript_greets() {
    let mut greeter = example("greeter-js");
    let attempt = handle(&mut greeter, "e-1", r#"{"name": "Zoë"}"#);
    assert_done(&attempt);
    let [(kind, data)] = emitted(&attempt).try_into().expect("one event");
    assert_eq!(kind, "greetings.sent");
    // The clock is the attempt's.
    assert_eq!(data, r#"{"text":"Hello, Zoë!","times":1,"at":1795176000123}"#);
    assert!(matches!(attempt.effects.last(), Some(Effect::State(write)) if write.key == "greeted:Zoë"));
    assert_eq!(attempt.logs.len(), 1);
    assert_eq!(attempt.logs[0].level, Level::Info);
    assert_eq!(attempt.logs[0].message, "Hello, Zoë! (number 1, at 12 o'clock)");
}

#[test]
fn a_reject_parks_and_any_other_exception_is_tried_again_with_its_stack_in_the_log() {
    let mut greeter = example("greeter-js");
    let rejected = handle(&mut greeter, "e-1", "{}");
    assert_ends(&rejected, "plugin:reject");
    assert_eq!(reason(&rejected), "nobody to greet: the data has no `name`");

    let no_json = handle(&mut greeter, "e-1", "{no");
    assert_ends(&no_json, "plugin:reject");
    assert!(reason(&no_json).contains("is no JSON"), "{}", reason(&no_json));

    let config = [("greetings".to_owned(), "[7]".to_owned())].into();
    let failed =
        handle(&mut toolchains::session("greeter-js", Setup { config, ..setup() }), "e-1", r#"{"name": "Ada"}"#);
    assert_ends(&failed, "plugin:retry");
    assert_eq!(reason(&failed), "TypeError: not a function");
    let line = failed.logs.last().expect("a line about the exception");
    assert_eq!((line.level, line.message.as_str()), (Level::Error, "TypeError: not a function"));
    let stack = &line.fields.iter().find(|(name, _)| name == "stack").expect("a stack").1;
    assert!(stack.contains("at handle (plugin.js:"), "{stack}");
    // The exception was caught inside: the same instance serves on.
    assert!(!handle(&mut greeter, "e-1", r#"{"name": "Ada"}"#).instantiated);
}

#[test]
fn a_transformer_in_typescript_works_out_totals() {
    let mut totals = example("order-totals-ts");
    let data = r#"{"id": "A-1", "lines": [{"sku": "a", "quantity": 3, "price": 0.1}, {"sku": "b", "quantity": 1, "price": 5}]}"#;
    let bench = Bench { event: event("e-1", data), ..Bench::default() };
    let attempt = totals.transform(&bench.call());
    assert_done(&attempt);
    let draft = &attempt.drafts[0];
    assert!(draft.data.ends_with(br#""total":5.3}"#), "{:?}", draft.data);
    assert_eq!((draft.kind.as_str(), draft.subject.as_deref()), ("orders.created", Some("order-1")));
    assert_eq!(draft.attributes, bench.event.attributes);

    let as_it_came = Bench { event: event("e-1", r#"{"id":"A-1",  "total":1}"#), ..Bench::default() };
    assert_eq!(totals.transform(&as_it_came.call()).drafts[0].data, as_it_came.event.data);
    let empty = Bench { event: event("e-1", r#"{"id": "A-1"}"#), ..Bench::default() };
    assert_ends(&totals.transform(&empty.call()), "plugin:reject");
}

#[test]
fn random_numbers_differ_between_events_and_repeat_when_one_is_executed_again() {
    let source = "
        function handle(event) {
            effects.emit({ type: 'dice', data: [Math.random(), Math.random(), crypto.randomUUID(), Date.now()] });
        }";
    let mut warm = script(source);
    let drawn = |session: &mut Session, id: &str| {
        let attempt = handle(session, id, "{}");
        assert_done(&attempt);
        emitted(&attempt)
    };
    let first = drawn(&mut warm, "e-1");
    let second = drawn(&mut warm, "e-2");
    assert_ne!(first, second);
    // In the same instance, and in a fresh one.
    assert_eq!(drawn(&mut warm, "e-1"), first);
    assert_eq!(drawn(&mut script(source), "e-2"), second);
    let fuel = |id: &str| handle(&mut script(source), id, "{}").fuel;
    assert_eq!(fuel("e-1"), fuel("e-1"));
}

#[test]
fn the_language_works_beyond_ascii() {
    let attempt = handle(
        &mut script(
            "function handle(event) {
                const bytes = new TextEncoder().encode(event.json().text);
                state.setBytes('bytes', bytes);
                console.log(bytes.length, new TextDecoder().decode(bytes), 'tö', /\\p{Lu}/u.test('Ä'), '\\ud83d');
            }",
        ),
        "e-1",
        r#"{"text": "aé€😀"}"#,
    );
    assert_done(&attempt);
    assert_eq!(attempt.logs[0].message, "10 aé€😀 tö true \u{fffd}");
    assert!(matches!(&attempt.effects[0], Effect::State(write) if write.value.as_deref() == Some("aé€😀".as_bytes())));
}

#[test]
fn refusals_are_errors_that_can_be_caught() {
    let source = "
        function handle(event) {
            try {
                effects.deliver('nowhere', { data: 1 });
            } catch (error) {
                log.info(error.name, { kind: error.kind, passes: error.mayPass, is: error instanceof Refusal });
            }
            effects.deliver('elsewhere', { data: 1 });
        }";
    let attempt = handle(&mut script(source), "e-1", "{}");
    assert_ends(&attempt, "plugin:reject");
    assert!(reason(&attempt).starts_with("denied: "), "{}", reason(&attempt));
    let fields = [("kind", "denied"), ("passes", "false"), ("is", "true")];
    assert_eq!(attempt.logs[0].fields, fields.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

#[test]
fn an_endless_loop_is_stopped() {
    let limits = Limits { fuel: 50_000_000, ..setup().limits };
    let by_fuel = handle(&mut script_with("function handle() { for (;;); }", Setup { limits, ..setup() }), "e-1", "{}");
    assert_ends(&by_fuel, "limit:fuel");
    let limits = Limits { time: Duration::from_millis(200), fuel: u64::MAX / 2, ..setup().limits };
    let mut regex =
        script_with("function handle() { /(a+)+$/.test('a'.repeat(40) + 'b') }", Setup { limits, ..setup() });
    assert_ends(&handle(&mut regex, "e-1", "{}"), "limit:wall");
}

#[test]
fn endless_allocation_and_recursion_are_stopped() {
    let hoard = "const kept = []; function handle() { for (;;) kept.push(new Uint8Array(1 << 20)); }";
    let limits = Limits { memory: 8 << 20, ..setup().limits };
    let attempt = handle(&mut script_with(hoard, Setup { limits: limits.clone(), ..setup() }), "e-1", "{}");
    assert_ends(&attempt, "limit:memory");
    assert!(attempt.memory <= limits.memory);

    let attempt = handle(&mut script("function handle(event) { return handle(event) + 1; }"), "e-1", "{}");
    assert_ends(&attempt, "trap:stack");
}

#[test]
fn an_asynchronous_function_is_rejected_in_words() {
    let attempt = handle(&mut script("async function handle(event) { await 1; }"), "e-1", "{}");
    assert_ends(&attempt, "plugin:reject");
    assert!(reason(&attempt).contains("must be synchronous"), "{}", reason(&attempt));
}

#[test]
fn a_component_of_a_text_is_what_its_functions_are() {
    let exports = |source: &str| {
        let wasm = script::component(&toolchains::SANDBOX, source).unwrap_or_else(|unfit| panic!("{unfit:?}"));
        let inspection = toolchains::SANDBOX.inspect(&wasm).unwrap_or_else(|refused| panic!("{refused}"));
        assert!(inspection.imports.iter().all(|import| import.starts_with("bulkhead:plugin/")));
        (inspection.exports, inspection.digest)
    };
    let (handler, first) = exports("function handle(event) {}");
    assert_eq!(handler, Exports { handler: true, transformer: false });
    let (transformer, second) = exports("const transform = (event) => event;");
    assert_eq!(transformer, Exports { handler: false, transformer: true });
    let (both, _) = exports("function handle() {}\nfunction transform() {}");
    assert_eq!(both, Exports { handler: true, transformer: true });
    // The digest covers the source.
    assert_ne!(first, second);
    assert_eq!(exports("function handle(event) {}").1, first);
    assert_ne!(exports("function handle(event) { }").1, first);
}

#[test]
fn a_module_of_one_file_is_a_text_too() {
    let source = "// Counts.\nimport { effects, state } from \"bulkhead-plugin\";\n\n\
                  export const limit = 2;\nexport function handle(event) {\n  \
                  if (state.increment(\"n\") < limit) effects.emit({ type: \"counted\", data: event.json() });\n}\n";
    let attempt = handle(&mut script(source), "e-1", r#"{"ü":1}"#);
    assert_done(&attempt);
    assert_eq!(emitted(&attempt), [("counted".to_owned(), r#"{"ü":1}"#.to_owned())]);
}

#[track_caller]
fn unfit(source: &str) -> (String, Option<(u32, u32)>) {
    match script::component(&toolchains::SANDBOX, source) {
        Err(Unfit::Source { detail, place }) => (detail, place),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_mistake_in_a_text_has_its_place() {
    let (detail, place) = unfit("function handle(event) {\n  let x = ;\n}");
    assert!(detail.starts_with("SyntaxError: "), "{detail}");
    assert_eq!(place, Some((2, 11)));
    let (_, place) = unfit("let x = ;");
    assert_eq!(place, Some((1, 9)));
    let (_, place) = unfit("\n/* ü€😀 */ let x = ;");
    assert_eq!(place, Some((2, 19)), "characters, not bytes");
    let (detail, place) = unfit("function handle(event) {}\n\n  nothing.at.all;");
    assert_eq!(detail, "ReferenceError: nothing is not defined");
    assert_eq!(place.map(|(line, _)| line), Some(3));
    let (detail, place) = unfit("function handler(event) {}");
    assert_eq!(detail, "the source has neither a function `handle` nor a function `transform`");
    assert_eq!(place, None);
    assert_eq!(unfit("function handle() {} /*").0.split(':').next(), Some("SyntaxError"));
}

#[test]
fn a_text_that_ends_too_early_is_wrong_at_its_end() {
    for (source, place) in [
        ("function handle(event) { if (event", (1, 35)),
        ("function handle(event) {\n  if (event) {\n    state.get('ü');\n\n", (3, 20)),
        ("function handle(event) {\n  return [1, 2\n", (2, 15)),
        ("const handle =", (1, 15)),
    ] {
        let (detail, found) = unfit(source);
        assert_eq!((detail.as_str(), found), ("SyntaxError: the source ends too early", Some(place)), "{source}");
    }
}

/// Where an exception was thrown that nobody caught, frame by frame.
fn frames(source: &str) -> Vec<String> {
    let attempt = handle(&mut script(source), "e-1", "{}");
    assert_ends(&attempt, "plugin:retry");
    let line = attempt.logs.last().expect("a line about the exception");
    assert_eq!(line.level, Level::Error);
    let stack = &line.fields.iter().find(|(name, _)| name == "stack").expect("a stack").1;
    // Lines within a field stay on one.
    stack.split("\\n").map(|line| line.trim().to_owned()).collect()
}

#[test]
fn an_exception_in_a_text_has_its_places_in_that_text() {
    let one_line = "function handle(event) { const order = event.json(); order.total(); }";
    assert_eq!(frames(one_line), ["at handle (plugin.js:1:59)"]);
    let lines = "import { state } from \"bulkhead-plugin\";\n\nexport function handle(event) {\n  inner(event.json());\n}\n\n\
                 function inner(order) {\n  /* ü€😀 */ order.total();\n}\n";
    assert_eq!(frames(lines), ["at inner (plugin.js:8:19)", "at handle (plugin.js:4:15)"]);
    // What the SDK does is no place of the text's.
    let within = "function handle(event) {\n  effects.schedule('soon', { type: 'orders.late' });\n}";
    assert_eq!(frames(within), ["at handle (plugin.js:2:11)"]);
}

#[test]
fn a_text_is_strict_and_sees_nothing_of_what_is_around_it() {
    let source = "function handle(event) { log.info([this, typeof slot, typeof strictly, typeof loaded].join()); }";
    let attempt = handle(&mut script(source), "e-1", "{}");
    assert_done(&attempt);
    assert_eq!(attempt.logs[0].message, ",undefined,undefined,undefined");
    assert_eq!(unfit("undeclared = 1; function handle() {}").0, "ReferenceError: undeclared is not defined");
    assert_eq!(unfit("function handle() { with ({}) {} }").0.split(':').next(), Some("SyntaxError"));
}

#[test]
fn what_stands_outside_of_functions_reaches_nothing_and_ends() {
    let (detail, _) = unfit("const now = Date.now(); function handle() {}");
    assert!(detail.contains("the time was asked for while the plugin is loaded"), "{detail}");
    let (detail, _) = unfit("effects.emit({ type: 'x' }); function handle() {}");
    assert!(detail.contains("denied"), "{detail}");
    let (detail, _) = unfit("for (;;);");
    assert!(detail.contains("does not end well"), "{detail}");
}

#[test]
fn a_text_has_its_limit() {
    let most = format!("function handle() {{}}\n//{}", "ü".repeat(script::SIZE_MAX / 2 - 12));
    assert!(most.len() <= script::SIZE_MAX && most.len() > script::SIZE_MAX - 2);
    assert_done(&handle(&mut script(&most), "e-1", "{}"));
    let more = script::component(&toolchains::SANDBOX, &format!("{most}  "));
    assert!(matches!(more, Err(Unfit::Size(bytes)) if bytes > script::SIZE_MAX), "{more:?}");
}

#[test]
fn an_event_brings_no_code_into_a_plugin() {
    // The evaluator reads a source from an event only while it has none of its own.
    let source = "function handle(event) { log.info(event.text().slice(0, 8)); }";
    let attempt = handle(&mut script(source), "e-1", "function handle() { effects.emit({ type: 'x' }) }");
    assert_done(&attempt);
    assert_eq!(attempt.logs[0].message, "function");
    assert!(attempt.effects.is_empty());
}
