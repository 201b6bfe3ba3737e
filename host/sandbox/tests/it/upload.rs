//! Uploads: what is no plugin is refused with a reason, and no upload can harm the host, not even while it is
//! compiled. These compile in a process of their own, as a host does.

use std::fmt::Write;
use std::sync::LazyLock;

use bulkhead_sandbox::Compiler;
use bulkhead_sandbox::Inspection;
use bulkhead_sandbox::Options;
use bulkhead_sandbox::Refused;
use bulkhead_sandbox::Sandbox;

use crate::guest;
use crate::guest::Guest;
use crate::guest::OK;
use crate::guest::raw;
use crate::lab;

/// A sandbox as a host has it.
static HOST: LazyLock<Sandbox> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("because there is room").keep();
    let worker = Compiler::Command(vec![env!("CARGO_BIN_EXE_bulkhead-compile-worker").into()]);
    Sandbox::open(Options { compiler: worker, ..Options::new(dir, [2; 32]) }).expect("because the pool fits")
});

fn inspect(wasm: &[u8]) -> Result<Inspection, Refused> {
    HOST.inspect(wasm)
}

#[track_caller]
fn assert_refused(wasm: &[u8], what: &str) {
    let refused = inspect(wasm).expect_err("because it is not fit");
    assert_eq!(refused.code, format!("rejected_upload:{what}"), "{refused}");
    assert!(!refused.detail.is_empty() && !refused.hint.is_empty());
    for host in ["/root", "/home", "/usr", ".rs", "wasmtime", "Caused by"] {
        assert!(!refused.to_string().contains(host), "{refused}");
    }
}

#[test]
fn a_good_plugin_is_described() {
    let wasm = Guest::handler(OK).import("log", "write", "(param i32 i32 i32 i32 i32)").component();
    let found = inspect(&wasm).expect("because it is a plugin");
    assert!(found.digest.starts_with("sha256:") && found.digest.len() == 71);
    assert!(found.exports.handler && !found.exports.transformer);
    assert_eq!(found.imports, ["bulkhead:plugin/log@0.1.0", "bulkhead:plugin/types@0.1.0"]);
    assert_eq!(found.size, wasm.len() as u64);
    assert!(found.artefact_size > 0);
    assert!(found.engine.starts_with("wasmtime 48."), "{}", found.engine);
    assert!(found.metadata.producers.iter().any(|(_, name, _)| name == "wit-component"), "{:?}", found.metadata);
}

/// H71-H75: what is not a component.
#[test]
fn other_files_are_told_what_they_are() {
    assert_refused(&Guest::handler(OK).module(), "module");
    assert_refused(b"(component)", "text");
    assert_refused(b"\x7fELF\x02\x01\x01", "native");
    assert_refused(b"not at all", "garbage");
    assert_refused(b"", "empty");
    assert!(inspect(&Guest::handler(OK).module()).expect_err("because it is a module").hint.contains("component new"));
}

/// H69: every truncation.
#[test]
fn a_truncated_plugin_is_refused() {
    let wasm = guest::idle();
    for length in (8..wasm.len()).step_by(wasm.len() / 60) {
        let refused = inspect(&wasm[..length]).expect_err("because it is cut");
        assert!(refused.code.starts_with("rejected_upload:"), "{length}: {refused}");
    }
}

/// H74: archives in, before and after a component.
#[test]
fn polyglots_are_refused_or_harmless() {
    let wasm = guest::idle();
    let zip = b"PK\x03\x04 and so on PK\x05\x06";
    assert_refused(&[zip, &wasm[..]].concat(), "archive");
    assert_refused(&[&wasm[..], zip].concat(), "invalid");
    let section = [&[0, 1 + 1 + zip.len() as u8, 1, b'z'][..], zip].concat();
    assert!(inspect(&[&wasm[..], &section].concat()).is_ok(), "a custom section means nothing");
}

/// H76, H80: imports by the exact list.
#[test]
fn imports_are_an_exact_list() {
    for (name, what) in [
        ("wasi:http/incoming-handler@0.2.0", "http"),
        ("wasi:nn/graph@0.2.0", "import"),
        ("demo:host/x", "import"),
        ("wasi:keyvalue/store@0.2.0-draft", "import"),
        ("wasi:cli/environment@0.3.0", "import"),
        ("bulkhead:plugin/effects@0.2.0", "version"),
        ("bulkhead:plugin/telepathy@0.1.0", "version"),
    ] {
        assert_refused(&raw(&format!("(component (import \"{name}\" (instance)))")), what);
    }
    assert_refused(&raw("(component (import \"log\" (func)))"), "import");
    assert_refused(&raw("(component (import \"a\" (core module)))"), "import");
}

/// H67: very many imports, each of them fine.
#[test]
fn floods_of_imports_are_refused() {
    let mut text = String::from("(component ");
    for patch in 0..1_000 {
        write!(text, "(import \"wasi:io/error@0.2.{patch}\" (instance))").expect("because a string takes everything");
    }
    assert_refused(&raw(&(text + ")")), "import");

    let mut guest = Guest::handler(OK);
    let mut functions = String::new();
    for number in 0..501 {
        write!(functions, "call{number}: func();").expect("because a string takes everything");
        guest = guest.import_from("wasi:filesystem/types@0.2.0", &format!("call{number}"), &format!("f{number}"), "");
    }
    guest.packages.push(format!("package wasi:filesystem@0.2.0; interface types {{ {functions} }}"));
    guest.world += "import wasi:filesystem/types@0.2.0;";
    assert_refused(&guest.component(), "import");
}

/// An interface that is offered, with a function that is not, or with another type.
#[test]
fn functions_that_do_not_fit_are_named() {
    let unknown = raw("(component (import \"bulkhead:plugin/usage@0.1.9\" (instance (export \"predict\" (func)))))");
    assert_refused(&unknown, "version");
    assert!(inspect(&unknown).expect_err("because it is new").detail.contains("`predict`"));
    let other = raw("(component (import \"bulkhead:plugin/context@0.1.0\" (instance
        (export \"random\" (func (param \"length\" u64) (result (list u8)))))))");
    assert_refused(&other, "import");
    let text = inspect(&other).expect_err("because it is another type").detail;
    assert!(text.contains("`func(u64) -> list<u8>`") && text.contains("`func(u32) -> list<u8>`"), "{text}");
    let wasi = raw("(component (import \"wasi:random/random@0.2.0\" (instance
        (export \"get-random-u64\" (func (result u32))))))");
    assert!(inspect(&wasi).is_err());
}

/// H56: exports.
#[test]
fn exports_must_fit() {
    assert_refused(&raw("(component)"), "export");
    let wrong = raw("(component
            (core module $m (func (export \"handle\")))
            (core instance $i (instantiate $m))
            (func $f (canon lift (core func $i \"handle\")))
            (instance $h (export \"handle\" (func $f)))
            (export \"bulkhead:plugin/handler@0.1.0\" (instance $h)))");
    assert_refused(&wrong, "export");
    assert!(inspect(&wrong).expect_err("because of its type").detail.contains("`func()`; expected `func(record {"));
    let missing = raw("(component (instance $h) (export \"bulkhead:plugin/handler@0.1.0\" (instance $h)))");
    assert_refused(&missing, "export");
    // The same export twice is no component at all.
    let mut extra = Guest::handler(OK).with("(func (export \"init\") (result i32) (i32.const 1))");
    extra.world += "export init: func() -> u32;";
    assert!(inspect(&extra.component()).is_ok(), "extra exports are tolerated");
    let mut both = Guest::transformer(OK)
        .with("(func (export \"bulkhead:plugin/handler@0.1.0#handle\") (param i32) (result i32) (i32.const 16))");
    both.world += "export bulkhead:plugin/handler@0.1.0;";
    let exports = inspect(&both.component()).expect("because both fit").exports;
    assert!(exports.handler && exports.transformer);
}

/// H22-H26: more than any plugin may have.
#[test]
fn too_much_of_anything_is_refused_before_it_is_compiled() {
    assert_refused(&raw("(component (core module (memory 65536)))"), "memory");
    assert_refused(&raw("(component (core module (table 10000000 funcref)))"), "table");
    let instances = "(core instance (instantiate $m))".repeat(100);
    assert_refused(&raw(&format!("(component (core module $m) {instances})")), "instances");
    let memories = "(core module (memory 1))".repeat(9);
    assert_refused(&raw(&format!("(component {memories})")), "memories");
    let two = raw("(component (core module $m (memory 1) (memory 1)) (core instance (instantiate $m)))");
    assert!(inspect(&two).is_err(), "two memories in one module");
}

/// H27: parts of WebAssembly that are off.
#[test]
fn proposals_that_are_off_are_refused() {
    for module in [
        "(memory i64 1)",
        "(memory 1 1 shared)",
        "(type (struct (field i32)))",
        "(tag (param i32))",
        "(memory 1 (pagesize 1))",
        "(func (param v128 v128 v128) (result v128) local.get 0 local.get 1 local.get 2 i8x16.relaxed_laneselect)",
        "(memory 1) (func (drop (i32.atomic.load (i32.const 0))))",
        "(type $f (func)) (func (param (ref $f)) (call_ref $f (local.get 0)))",
    ] {
        let refused = inspect(&raw(&format!("(component (core module {module}))"))).expect_err("because it is off");
        assert!(
            ["rejected_upload:feature", "rejected_upload:invalid"].contains(&refused.code.as_str()),
            "{module}: {refused}"
        );
    }
}

/// H28: the asynchronous component model.
#[test]
fn async_components_are_refused() {
    let lift = raw("(component
            (core module $m (func (export \"f\") (result i32) i32.const 0)
                (func (export \"cb\") (param i32 i32 i32) (result i32) i32.const 0))
            (core instance $i (instantiate $m))
            (func (export \"x\") async (canon lift (core func $i \"f\") async (callback (core func $i \"cb\")))))");
    let refused = inspect(&lift).expect_err("because it is off");
    assert!(refused.code.starts_with("rejected_upload:"), "{refused}");
    let stream = raw("(component (type (stream u8)))");
    assert!(inspect(&stream).is_err());
}

/// `locals` variables, `blocks` blocks, woven.
fn woven(locals: usize, blocks: usize) -> Vec<u8> {
    let mut text = String::from("(component (core module (func (param i32) (result i32) (local ");
    text.push_str(&"i64 ".repeat(locals));
    text.push_str(") ");
    for at in 0..blocks {
        write!(
            text,
            "local.get {} local.get {} i64.add local.set {} (if (local.get 0) (then (local.set {} (i64.const {at})))) ",
            1 + at % locals,
            1 + at * 7 % locals,
            1 + at * 13 % locals,
            1 + at * 31 % locals,
        )
        .expect("because a string takes everything");
    }
    text.push_str("local.get 0)))");
    raw(&text)
}

/// H60-H63, H65, H66: what would choke the compiler does not reach it.
#[test]
fn compile_bombs_are_refused_by_their_shape() {
    assert_refused(&raw(&format!("(component (core module {}))", "(func)".repeat(50_001))), "functions");
    assert_refused(&woven(5_001, 2), "locals");
    assert_refused(&woven(1_000, 5_000), "weave");
    assert_refused(&woven(1, 20_001), "blocks");
    let nested = format!("{}{}", "block ".repeat(4_001), "end ".repeat(4_001));
    assert_refused(&raw(&format!("(component (core module (func {nested})))")), "nesting");
    let long = "i32.const 1 drop ".repeat(300_001);
    assert_refused(&raw(&format!("(component (core module (func {long})))")), "operators");
    let fat = "i32.const 0x7fffffff drop ".repeat(200_000);
    assert_refused(&raw(&format!("(component (core module (func {fat})))")), "body");
}

/// H61: what gets past the shape is held by the worker's limits: here the worker itself is fed directly.
#[test]
fn a_bomb_ends_the_worker_and_not_the_host() {
    use std::io::Write as _;
    use std::process::Command;
    use std::process::Stdio;
    let bomb = woven(20_000, 20_000);
    let mut child = Command::new(env!("CARGO_BIN_EXE_bulkhead-compile-worker"))
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("because the worker is built");
    child.stdin.take().expect("because it is piped").write_all(&bomb).expect("because it reads");
    let output = child.wait_with_output().expect("because it ends");
    assert!(!output.status.success());
    assert!(output.stdout.is_empty());
}

/// A worker that misbehaves in every way that it can.
#[test]
fn a_worker_that_misbehaves_is_the_host_s_fault() {
    let wasm = guest::idle();
    for script in ["exit 3", "echo nonsense >&2; exit 1", "cat > /dev/null; exit 0", "exec true", "kill -SEGV $$"] {
        let dir = tempfile::tempdir().expect("because there is room");
        let command = vec!["/bin/sh".into(), "-c".into(), script.into()];
        let options = Options { compiler: Compiler::Command(command), ..Options::new(dir.path(), [2; 32]) };
        let options = Options { pool: bulkhead_sandbox::Pool { enabled: false, ..Default::default() }, ..options };
        let sandbox = Sandbox::open(options).expect("because nothing is reserved");
        let refused = sandbox.inspect(&wasm).expect_err("because there is no artefact");
        assert!(!refused.code.is_empty(), "{script}: {refused}");
    }
    let dir = tempfile::tempdir().expect("because there is room");
    let options = Options { compiler: Compiler::Command(vec!["/nowhere".into()]), ..Options::new(dir.path(), [2; 32]) };
    let options = Options { pool: bulkhead_sandbox::Pool { enabled: false, ..Default::default() }, ..options };
    let refused =
        Sandbox::open(options).expect("because nothing is reserved").inspect(&wasm).expect_err("because of the worker");
    assert!(refused.is_host_fault(), "{refused}");
}

/// H70, in small: random damage never gets through as a panic of the host.
#[test]
fn random_damage_is_refused_or_harmless() {
    let wasm = Guest::handler(OK).import("log", "write", "(param i32 i32 i32 i32 i32)").component();
    let mut number = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = move || {
        number ^= number << 13;
        number ^= number >> 7;
        number ^= number << 17;
        usize::try_from(number >> 11).unwrap_or_default()
    };
    for _ in 0..400 {
        let mut damaged = wasm.clone();
        for _ in 0..=next() % 4 {
            let at = 8 + next() % (damaged.len() - 8);
            damaged[at] = u8::try_from(next() % 256).unwrap_or_default();
        }
        // In this process, where a panic would be seen: the compiler is not what is tried here.
        if crate::lab::SANDBOX.inspect(&damaged).is_ok() {
            let _ = crate::lab::handle(&damaged);
        }
    }
}

/// A section of a module or component: its number, its length, its content.
fn section(number: u8, content: &[u8]) -> Vec<u8> {
    let mut section = vec![number];
    leb(&mut section, content.len());
    section.extend_from_slice(content);
    section
}

fn leb(bytes: &mut Vec<u8>, mut number: usize) {
    while number > 0x7f {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// A handler with so many bytes of debug information and the like, which the machine code has nothing of.
fn with_custom(bytes: usize) -> Vec<u8> {
    [guest::idle(), section(0, &[&[1, b'x'][..], &vec![7; bytes]].concat())].concat()
}

/// A handler with so many bytes of data, such as a model, all of which it has in its memory.
fn with_data(bytes: usize) -> Vec<u8> {
    let guest = Guest { pages: u32::try_from(bytes / 65_536 + 2).expect("because it fits"), ..Guest::handler(OK) };
    // One active segment, from the second page on: `i32.const 65536`, `end`.
    let mut data = vec![1, 0, 0x41, 0x80, 0x80, 0x04, 0x0b];
    leb(&mut data, bytes);
    data.extend((0..bytes).map(|at| (at * 31 % 251) as u8));
    guest.component_of([guest.module(), section(11, &data)].concat())
}

/// Sixty mebibytes upload, compile and run, whatever they are.
#[test]
fn large_plugins_run() {
    for wasm in [with_custom(60 << 20), with_data(60 << 20)] {
        let found = inspect(&wasm).expect("because it is not too large");
        assert!(found.size > 60 << 20);
        let plugin = HOST
            .load(&found.digest, &|| Err(bulkhead_sandbox::Error::Engine { detail: "it is not at hand".to_owned() }))
            .expect("because the inspection compiled it");
        let mut session = HOST.session(&plugin, std::sync::Arc::new(lab::setup()));
        let attempt = session.handle(&lab::Bench::default().call());
        assert_eq!(lab::code(&attempt), "done", "{}", lab::reason(&attempt));
    }
}

#[test]
fn the_largest_plugin_has_64_mebibytes() {
    let size = bulkhead_sandbox::inspect::SIZE_MAX;
    let mut wasm = with_custom(size - guest::idle().len() - 7);
    assert_eq!(wasm.len(), size);
    inspect(&wasm).expect("because it is not too large");
    wasm.push(0);
    assert_refused(&wasm, "size");
    assert!(inspect(&wasm).expect_err("because it is too large").to_string().contains("64 MiB"));
}

/// A component that wants this, by the tools that leave that among its producers.
fn made_with(tool: &str, version: &str, text: &str) -> Vec<u8> {
    let word = |word: &str| [&[word.len() as u8], word.as_bytes()].concat();
    let producers = [&[1][..], &word("processed-by"), &[1], &word(tool), &word(version)].concat();
    [raw(text), section(0, &[&[9][..], b"producers", &producers].concat())].concat()
}

/// What does not link is told in sentences that say what is wrong and what to do, not in the engine's words.
#[test]
fn what_does_not_link_is_told_with_what_to_do() {
    let instance = |name: &str| format!("(component (import \"{name}\" (instance)))");
    let cases: [(&str, Vec<u8>, &[&str]); 16] = [
        (
            "not offered at all",
            made_with("rustc", "1.96.0 (ac68faa20 2026-05-25)", &instance("wasi:nn/graph@0.2.0")),
            &[
                "it needs `wasi:nn/graph@0.2.0`, which this host does not offer",
                "Pulled in by: rustc 1.96.0.",
                "wasm32-unknown-unknown",
            ],
        ),
        (
            "not offered, by Python's runtime",
            made_with("component-init-transform", "0.2.0", &instance("wasi:clocks/timezone@0.2.0")),
            &[
                "of WASI, only stable interfaces of version 0.2",
                "component-init-transform 0.2.0",
                "`--stub-wasi`",
                "-t python",
            ],
        ),
        (
            "not offered, by JavaScript's runtime",
            made_with("ComponentizeJS", "0.22.0", &instance("wasi:sockets/tls@0.2.3")),
            &["`wasi:sockets/tls@0.2.3`", "Pulled in by: ComponentizeJS 0.22.0.", "`-d all`", "-t js"],
        ),
        (
            "not offered, by nobody knows whom",
            raw(&instance("wasi:blobstore/container@0.2.0")),
            &["Pulled in by: a language's runtime or a library.", "stub WASI"],
        ),
        ("somebody's own", raw(&instance("demo:host/x@1.0.0")), &["`demo:host/x@1.0.0`", "`wac plug`"]),
        (
            "a server",
            raw(&instance("wasi:http/incoming-handler@0.2.0")),
            &["`wasi:http/incoming-handler@0.2.0`", "`http` grant", "events are what comes in"],
        ),
        (
            "another track",
            raw(&instance("bulkhead:plugin/effects@0.2.0")),
            &["built for `bulkhead:plugin/effects@0.2.0`; this host has bulkhead:plugin@0.1.0", "or upgrade the host"],
        ),
        (
            "a newer interface",
            raw(&instance("bulkhead:plugin/telepathy@0.1.3")),
            &["this host has bulkhead:plugin@0.1.0, without `telepathy`", "Upgrade the host"],
        ),
        (
            "a newer function",
            raw("(component (import \"bulkhead:plugin/usage@0.1.9\" (instance (export \"predict\" (func)))))"),
            &["`bulkhead:plugin/usage@0.1.9`", "calls its `predict`", "has bulkhead:plugin@0.1.0", "Upgrade the host"],
        ),
        (
            "another draft",
            raw(&instance("wasi:keyvalue/store@0.2.0-draft3")),
            &[
                "`wasi:keyvalue/store@0.2.0-draft3`",
                "supported: ",
                "wasi:keyvalue/store@0.2.0-draft2",
                "`bulkhead:plugin/state`",
            ],
        ),
        (
            "another type of an import",
            raw("(component (import \"bulkhead:plugin/context@0.1.0\" (instance
                (export \"random\" (func (param \"length\" u64) (result (list u8)))))))"),
            &["`func(u64) -> list<u8>`", "It has `u64` where `u32` belongs.", "wit/plugin.wit"],
        ),
        (
            "another type of an import of WASI",
            Guest {
                world: "export bulkhead:plugin/handler@0.1.0; import wasi:random/random@0.2.0;".to_owned(),
                packages: vec![
                    "package wasi:random@0.2.0; interface random { get-random-u64: func() -> u32; }".to_owned(),
                ],
                ..Guest::handler("(drop (call $random)) (i32.const 16)")
            }
            .import_from("wasi:random/random@0.2.0", "get-random-u64", "random", "(result i32)")
            .component(),
            &["its `wasi:random/random@0.2.0` is not as this host has it: ", "`get-random-u64`", "templates"],
        ),
        (
            "another type of an export",
            raw("(component
                (core module $m (func (export \"handle\") (result i32) (i32.const 0)))
                (core instance $i (instantiate $m))
                (func $f (result u32) (canon lift (core func $i \"handle\")))
                (instance $h (export \"handle\" (func $f)))
                (export \"bulkhead:plugin/handler@0.1.0\" (instance $h)))"),
            &[
                "has `handle` as `func() -> u32`; expected `func(record {",
                "It has `) -> u32` where `record { id: string",
                "wit/plugin.wit",
            ],
        ),
        (
            "no export",
            raw("(component)"),
            &["exports neither bulkhead:plugin/handler@0.1 nor", "for the world `handler-plugin`"],
        ),
        (
            "a core module",
            Guest::handler(OK).module(),
            &["core module", "`bulkhead plugin build`", "`wasm-tools component new"],
        ),
        (
            "more than a limit",
            raw("(component (core module (memory 65535)))"),
            &["begins with 4095 MiB of memory; a plugin may have 64", "ask the operator for a larger plan"],
        ),
    ];
    for (what, wasm, parts) in cases {
        let refused = inspect(&wasm).expect_err("because it does not link").to_string();
        for part in parts {
            assert!(refused.contains(part), "{what}: no `{part}` in: {refused}");
        }
        for engine in ["linker", "wasmtime", "expected func found", "func_idx"] {
            assert!(!refused.contains(engine), "{what}: {refused}");
        }
    }
}
