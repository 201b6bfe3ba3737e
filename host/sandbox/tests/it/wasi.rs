//! WASI without power: what a guest finds is empty, frozen or denied, and waiting does not wait.

use std::time::Duration;

use bulkhead_domain::effect::Level;

use crate::guest::Guest;
use crate::lab;
use crate::lab::assert_ends;
use crate::lab::code;
use crate::lab::reason;

const IO: &str = "package wasi:io@0.2.6;
    interface error { resource error; }
    interface poll { resource pollable { ready: func() -> bool; block: func(); } poll: func(in: list<borrow<pollable>>) -> list<u32>; }
    interface streams {
        use error.{error};
        use poll.{pollable};
        variant stream-error { last-operation-failed(error), closed }
        resource input-stream { blocking-read: func(len: u64) -> result<list<u8>, stream-error>; }
        resource output-stream {
            blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>;
            subscribe: func() -> pollable;
        }
    }";
const CLI: &str = "package wasi:cli@0.2.6;
    interface environment {
        get-environment: func() -> list<tuple<string, string>>;
        get-arguments: func() -> list<string>;
        initial-cwd: func() -> option<string>;
    }
    interface exit { exit: func(status: result); }
    interface stdin { use wasi:io/streams@0.2.6.{input-stream}; get-stdin: func() -> input-stream; }
    interface stderr { use wasi:io/streams@0.2.6.{output-stream}; get-stderr: func() -> output-stream; }
    interface terminal-output { resource terminal-output; }
    interface terminal-stdout { use terminal-output.{terminal-output}; get-terminal-stdout: func() -> option<terminal-output>; }";
const CLOCKS: &str = "package wasi:clocks@0.2.6;
    interface wall-clock { record datetime { seconds: u64, nanoseconds: u32 } now: func() -> datetime; }
    interface monotonic-clock {
        use wasi:io/poll@0.2.6.{pollable};
        now: func() -> u64;
        subscribe-duration: func(when: u64) -> pollable;
    }";
const RANDOM: &str = "package wasi:random@0.2.6; interface random { get-random-bytes: func(len: u64) -> list<u8>; }";
const FILESYSTEM: &str = "package wasi:filesystem@0.2.6;
    interface types {
        use wasi:io/streams@0.2.6.{output-stream, error};
        enum error-code { access, io }
        resource descriptor {
            write-via-stream: func(offset: u64) -> result<output-stream, error-code>;
        }
        filesystem-error-code: func(err: borrow<error>) -> option<error-code>;
    }
    interface preopens { use types.{descriptor}; get-directories: func() -> list<tuple<descriptor, string>>; }";
const SOCKETS: &str = "package wasi:sockets@0.2.6;
    interface network { enum error-code { unknown, access-denied, other } enum ip-address-family { ipv4, ipv6 } resource network; }
    interface instance-network { use network.{network}; instance-network: func() -> network; }
    interface tcp { use network.{network, error-code}; resource tcp-socket { start-listen: func() -> result<_, error-code>; } }
    interface tcp-create-socket {
        use network.{error-code, ip-address-family};
        use tcp.{tcp-socket};
        create-tcp-socket: func(address-family: ip-address-family) -> result<tcp-socket, error-code>;
    }";

/// A handler that imports these interfaces of WASI.
fn guest(interfaces: &[&str], body: &str) -> Guest {
    let mut guest = Guest::handler(body);
    guest.packages = [IO, CLI, CLOCKS, RANDOM, FILESYSTEM, SOCKETS].map(str::to_owned).to_vec();
    for interface in interfaces {
        guest.world += &format!("import wasi:{interface}@0.2.6;");
    }
    guest
}

#[track_caller]
fn assert_done(guest: &Guest) {
    let attempt = lab::handle(&guest.component());
    assert_eq!(code(&attempt), "done", "{}", reason(&attempt));
}

/// H83: nobody's environment.
#[test]
fn there_is_no_environment() {
    let guest = guest(
        &["cli/environment"],
        "(call $environment (i32.const 64))
         (call $arguments (i32.const 72))
         (call $cwd (i32.const 80))
         (if (i32.load (i32.const 68)) (then unreachable))
         (if (i32.load (i32.const 76)) (then unreachable))
         (if (i32.load8_u (i32.const 80)) (then unreachable))
         (i32.const 16)",
    )
    .import_from("wasi:cli/environment@0.2.6", "get-environment", "environment", "(param i32)")
    .import_from("wasi:cli/environment@0.2.6", "get-arguments", "arguments", "(param i32)")
    .import_from("wasi:cli/environment@0.2.6", "initial-cwd", "cwd", "(param i32)");
    assert_done(&guest);
}

/// H83: no files, H82: and nothing to call on them.
#[test]
fn there_are_no_files() {
    let guest = guest(
        &["filesystem/types", "filesystem/preopens"],
        "(call $directories (i32.const 64))
         (if (i32.load (i32.const 68)) (then unreachable))
         (i32.const 16)",
    )
    .import_from("wasi:filesystem/preopens@0.2.6", "get-directories", "directories", "(param i32)")
    .import_from(
        "wasi:filesystem/types@0.2.6",
        "[method]descriptor.write-via-stream",
        "write",
        "(param i32 i64 i32)",
    );
    assert_done(&guest);
    let mut forged = guest;
    forged.body = "(call $write (i32.const 1) (i64.const 0) (i32.const 64)) (i32.const 16)".into();
    assert_ends(&lab::handle(&forged.component()), "trap:abi");
}

/// H80: sockets cannot be made.
#[test]
fn there_is_no_network() {
    let guest = guest(
        &["sockets/instance-network", "sockets/tcp", "sockets/tcp-create-socket"],
        "(call $drop (call $network))
         (call $create (i32.const 0) (i32.const 64))
         (if (i32.ne (i32.load8_u (i32.const 64)) (i32.const 1)) (then unreachable))
         (if (i32.ne (i32.load8_u (i32.const 68)) (i32.const 1)) (then unreachable))
         (i32.const 16)",
    )
    .import_from("wasi:sockets/instance-network@0.2.6", "instance-network", "network", "(result i32)")
    .import_from("wasi:sockets/network@0.2.6", "[resource-drop]network", "drop", "(param i32)")
    .import_from("wasi:sockets/tcp-create-socket@0.2.6", "create-tcp-socket", "create", "(param i32 i32)");
    assert_done(&guest);
}

/// H88: the clocks show the attempt's time, to the millisecond, and stand still.
#[test]
fn the_clocks_stand_still() {
    let guest = guest(
        &["clocks/wall-clock", "clocks/monotonic-clock"],
        "(local $now i64)
         (call $wall (i32.const 64))
         (if (i64.ne (i64.load (i32.const 64)) (i64.const 1795176000)) (then unreachable))
         (if (i32.ne (i32.load (i32.const 72)) (i32.const 123000000)) (then unreachable))
         (local.set $now (call $now))
         (if (i64.ne (local.get $now) (i64.const 1795176000123000000)) (then unreachable))
         (if (i64.ne (local.get $now) (call $now)) (then unreachable))
         (i32.const 16)",
    )
    .import_from("wasi:clocks/wall-clock@0.2.6", "now", "wall", "(param i32)")
    .import_from("wasi:clocks/monotonic-clock@0.2.6", "now", "now", "(result i64)");
    assert_done(&guest);
}

/// H09: an hour's sleep takes no time, and the guest's clock knows of it.
#[test]
fn sleeping_does_not_hold_the_thread() {
    let hour = "3600000000000";
    let guest = guest(
        &["clocks/monotonic-clock", "io/poll"],
        &format!(
            "(local $before i64) (local $pollable i32)
             (local.set $before (call $now))
             (local.set $pollable (call $subscribe (i64.const {hour})))
             (if (call $ready (local.get $pollable)) (then unreachable))
             (call $block (local.get $pollable))
             (if (i32.eqz (call $ready (local.get $pollable))) (then unreachable))
             (if (i64.ne (i64.sub (call $now) (local.get $before)) (i64.const {hour})) (then unreachable))
             ;; two at once: the nearer one is ready
             (i32.store (i32.const 512) (call $subscribe (i64.const 2000000)))
             (i32.store (i32.const 516) (call $subscribe (i64.const 1000000)))
             (call $poll (i32.const 512) (i32.const 2) (i32.const 64))
             (if (i32.ne (i32.load (i32.const 68)) (i32.const 1)) (then unreachable))
             (if (i32.ne (i32.load (i32.load (i32.const 64))) (i32.const 1)) (then unreachable))
             (i32.const 16)"
        ),
    )
    .import_from("wasi:clocks/monotonic-clock@0.2.6", "now", "now", "(result i64)")
    .import_from("wasi:clocks/monotonic-clock@0.2.6", "subscribe-duration", "subscribe", "(param i64) (result i32)")
    .import_from("wasi:io/poll@0.2.6", "[method]pollable.ready", "ready", "(param i32) (result i32)")
    .import_from("wasi:io/poll@0.2.6", "[method]pollable.block", "block", "(param i32)")
    .import_from("wasi:io/poll@0.2.6", "poll", "poll", "(param i32 i32 i32)");
    let attempt = lab::handle(&guest.component());
    assert_eq!(code(&attempt), "done", "{}", reason(&attempt));
    assert!(attempt.duration < Duration::from_millis(250));
}

/// H37: handles, bytes and calls of WASI have limits, too.
#[test]
fn wasi_cannot_be_made_to_take_much() {
    let pollables = guest(
        &["clocks/monotonic-clock"],
        "(loop $again (drop (call $subscribe (i64.const 1))) (br $again)) unreachable",
    )
    .import_from(
        "wasi:clocks/monotonic-clock@0.2.6",
        "subscribe-duration",
        "subscribe",
        "(param i64) (result i32)",
    );
    assert_ends(&lab::handle(&pollables.component()), "limit:handles");

    let random = guest(&["random/random"], "(call $random (i64.const 4294967296) (i32.const 64)) (i32.const 16)")
        .import_from("wasi:random/random@0.2.6", "get-random-bytes", "random", "(param i64 i32)");
    assert_ends(&lab::handle(&random.component()), "limit:bytes");

    let empty = guest(
        &["cli/stderr", "io/streams"],
        "(local $stream i32) (local.set $stream (call $stderr))
         (loop $again (call $write (local.get $stream) (i32.const 0) (i32.const 0) (i32.const 64)) (br $again))
         unreachable",
    )
    .import_from("wasi:cli/stderr@0.2.6", "get-stderr", "stderr", "(result i32)")
    .import_from(
        "wasi:io/streams@0.2.6",
        "[method]output-stream.blocking-write-and-flush",
        "write",
        "(param i32 i32 i32 i32)",
    );
    let attempt = lab::handle(&empty.component());
    assert!(["limit:hostcalls", "limit:wall"].contains(&code(&attempt)), "{}", code(&attempt));
}

/// Standard output and error are the plugin's log; what stands there last says why it ended.
#[test]
fn standard_error_is_the_log() {
    let guest = guest(
        &["cli/stderr", "io/streams", "cli/exit"],
        "(call $write (call $stderr) (i32.const 256) (i32.const 23) (i32.const 64))
         (call $exit (i32.const 1))
         unreachable",
    )
    .import_from("wasi:cli/stderr@0.2.6", "get-stderr", "stderr", "(result i32)")
    .import_from(
        "wasi:io/streams@0.2.6",
        "[method]output-stream.blocking-write-and-flush",
        "write",
        "(param i32 i32 i32 i32)",
    )
    .import_from("wasi:cli/exit@0.2.6", "exit", "exit", "(param i32)")
    .data(256, "loading\\0aTypeError: null");
    let attempt = lab::handle(&guest.component());
    assert_ends(&attempt, "trap:exit");
    assert!(reason(&attempt).ends_with("loading / TypeError: null"), "{}", reason(&attempt));
    let lines: Vec<_> = attempt.logs.iter().map(|line| (line.level, line.message.as_str())).collect();
    assert_eq!(lines, [(Level::Warn, "loading"), (Level::Warn, "TypeError: null")]);
}

/// Standard input is at its end, and there is no terminal.
#[test]
fn standard_input_is_empty() {
    let guest = guest(
        &["cli/stdin", "io/streams", "cli/terminal-stdout"],
        "(call $read (call $stdin) (i64.const 10) (i32.const 64))
         (if (i32.ne (i32.load8_u (i32.const 64)) (i32.const 1)) (then unreachable))
         (if (i32.ne (i32.load8_u (i32.const 68)) (i32.const 1)) (then unreachable))
         (call $terminal (i32.const 64))
         (if (i32.load8_u (i32.const 64)) (then unreachable))
         (i32.const 16)",
    )
    .import_from("wasi:cli/stdin@0.2.6", "get-stdin", "stdin", "(result i32)")
    .import_from("wasi:cli/terminal-stdout@0.2.6", "get-terminal-stdout", "terminal", "(param i32)")
    .import_from("wasi:io/streams@0.2.6", "[method]input-stream.blocking-read", "read", "(param i32 i64 i32)");
    assert_done(&guest);
}
