//! Plugins that no example needs: made here from text.

use wit_component::ComponentEncoder;
use wit_component::StringEncoding;
use wit_parser::Resolve;

use anyhow::Result;

const CONTRACT: &str = include_str!("../../wit/plugin.wit");

/// A handler that, for each event, sets a timer that publishes `timer.fired` after this time. With a name, a second
/// timer takes the place of the first. Component and manifest.
pub fn scheduler(name: Option<&str>, after_ms: u64) -> Result<(Vec<u8>, String)> {
    // The arguments of `schedule` are too many for the stack. They stand at 600: an optional name, the wait at 616, and
    // at 624 the draft: type, subject, key, content type, data, attributes.
    let name = name.unwrap_or_default();
    let named = u8::from(!name.is_empty());
    let length = name.len();
    let core = format!(
        r#"(module
            (import "bulkhead:plugin/effects@0.1.0" "schedule" (func $schedule (param i32 i32)))
            (memory (export "memory") 2)
            (global $next (mut i32) (i32.const 8192))
            (data (i32.const 256) "timer.fired")
            (data (i32.const 288) "application/json")
            (data (i32.const 320) "{{}}")
            (data (i32.const 352) "{name}")
            (func (export "cabi_realloc")
                (param $old i32) (param $old_size i32) (param $align i32) (param $size i32) (result i32)
                (local $at i32)
                (local.set $at (i32.and (i32.add (global.get $next) (i32.const 15)) (i32.const -16)))
                (global.set $next (i32.add (local.get $at) (local.get $size)))
                (if (i32.gt_u (global.get $next) (i32.mul (memory.size) (i32.const 65536)))
                    (then (drop (memory.grow (i32.const 16)))))
                (local.get $at))
            (func (export "bulkhead:plugin/handler@0.1.0#handle") (param $event i32) (result i32)
                (i32.store8 (i32.const 600) (i32.const {named}))
                (i32.store (i32.const 604) (i32.const 352)) (i32.store (i32.const 608) (i32.const {length}))
                (i64.store (i32.const 616) (i64.const {after_ms}))
                (i32.store (i32.const 624) (i32.const 256)) (i32.store (i32.const 628) (i32.const 11))
                (i32.store (i32.const 656) (i32.const 288)) (i32.store (i32.const 660) (i32.const 16))
                (i32.store (i32.const 664) (i32.const 320)) (i32.store (i32.const 668) (i32.const 2))
                (call $schedule (i32.const 600) (i32.const 64))
                ;; A refusal would go unnoticed: trap instead.
                (if (i32.load8_u (i32.const 64)) (then unreachable))
                (i32.const 16))
            (func (export "cabi_post_bulkhead:plugin/handler@0.1.0#handle") (param $answer i32)
                (global.set $next (i32.const 8192)))
        )"#
    );
    let manifest =
        "[plugin]\nname = \"scheduler\"\nversion = \"0.1.0\"\n[grants]\nschedule = true\nemit = [\"timer.*\"]\n";
    Ok((component(&core)?, manifest.to_owned()))
}

/// A handler that computes until it is stopped.
pub fn burner() -> Result<Vec<u8>> {
    handler("(loop $on (br $on))")
}

/// A handler that does nothing.
pub fn idler() -> Result<Vec<u8>> {
    handler("")
}

/// A handler that traps.
pub fn trapper() -> Result<Vec<u8>> {
    handler("unreachable")
}

/// A handler whose core function has this body and then answers that all is well.
fn handler(body: &str) -> Result<Vec<u8>> {
    component(&format!(
        r#"(module
            (memory (export "memory") 1)
            (global $next (mut i32) (i32.const 4096))
            (func (export "cabi_realloc")
                (param $old i32) (param $old_size i32) (param $align i32) (param $size i32) (result i32)
                (local $at i32)
                (local.set $at (i32.and (i32.add (global.get $next) (i32.const 15)) (i32.const -16)))
                (global.set $next (i32.add (local.get $at) (local.get $size)))
                (if (i32.gt_u (global.get $next) (i32.mul (memory.size) (i32.const 65536)))
                    (then (drop (memory.grow (i32.const 16)))))
                (local.get $at))
            (func (export "bulkhead:plugin/handler@0.1.0#handle") (param $event i32) (result i32)
                {body}
                (i32.const 16))
            (func (export "cabi_post_bulkhead:plugin/handler@0.1.0#handle") (param $answer i32)
                (global.set $next (i32.const 4096)))
        )"#
    ))
}

/// A component of the contract's handler world around a core module.
fn component(core: &str) -> Result<Vec<u8>> {
    let mut module = wat::parse_str(core)?;
    let mut resolve = Resolve::default();
    resolve.push_str("plugin.wit", CONTRACT)?;
    let world = "package test:guest; world guest { include bulkhead:plugin/handler-plugin@0.1.0; }";
    let package = resolve.push_str("world.wit", world)?;
    let world = resolve.select_world(&[package], Some("guest"))?;
    wit_component::embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)?;
    ComponentEncoder::default().module(&module)?.encode()
}

/// The same component with other bytes: a custom section at the end, which nobody looks at.
#[must_use]
pub fn marked(wasm: &[u8], mark: u32) -> Vec<u8> {
    let name = format!("mark-{mark}");
    let mut marked = wasm.to_vec();
    // Section 0, its size, the length of its name: all below 128, so one byte each.
    marked.extend([0, 1 + name.len() as u8, name.len() as u8]);
    marked.extend(name.as_bytes());
    marked
}
