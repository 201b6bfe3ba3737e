//! What a component may ask for: an exact list. Everything else is refused by name, with who pulled it in and what to do.

use super::Metadata;
use super::Refused;
use super::contract::VERSION;
use super::shape::ImportName;

/// Interfaces of the contract.
const CONTRACT: [&str; 6] = ["context", "effects", "log", "state", "types", "usage"];

/// Interfaces of WASI 0.2 that are linked, in a form that is empty, frozen or denied.
const WASI: [(&str, &[&str]); 6] = [
    ("io", &["error", "poll", "streams"]),
    (
        "cli",
        &[
            "environment",
            "exit",
            "stderr",
            "stdin",
            "stdout",
            "terminal-input",
            "terminal-output",
            "terminal-stderr",
            "terminal-stdin",
            "terminal-stdout",
        ],
    ),
    ("clocks", &["monotonic-clock", "wall-clock"]),
    ("random", &["insecure", "insecure-seed", "random"]),
    ("filesystem", &["preopens", "types"]),
    (
        "sockets",
        &["instance-network", "ip-name-lookup", "network", "tcp", "tcp-create-socket", "udp", "udp-create-socket"],
    ),
];

/// A draft of WASI that is another name for what the contract has. Drafts match by their exact version only.
struct Alias {
    package: &'static str,
    version: &'static str,
    interfaces: &'static [&'static str],
    ours: &'static str,
}

const ALIASES: [Alias; 3] = [
    Alias {
        package: "keyvalue",
        version: "0.2.0-draft2",
        interfaces: &["atomics", "batch", "store"],
        ours: "bulkhead:plugin/state",
    },
    Alias { package: "config", version: "0.2.0-rc.1", interfaces: &["store"], ours: "bulkhead:plugin/context.config" },
    Alias { package: "logging", version: "0.1.0-draft", interfaces: &["logging"], ours: "bulkhead:plugin/log" },
];

/// Imports of one component. All that is offered is fewer than forty.
const IMPORTS_MAX: usize = 200;

/// What makes a component import more of WASI than it uses, by what it leaves among the producers, and how not to. The
/// runtimes of other languages are written in Rust, so that comes last.
const RUNTIMES: [(&str, &str); 3] = [
    (
        "ComponentizeJS",
        "Leave out what JavaScript's runtime brings along (`-d all` of componentize-js and jco), or use the template \
         of `bulkhead plugin new -t js`.",
    ),
    (
        "component-init-transform",
        "Leave out what Python's runtime brings along (`--stub-wasi` of componentize-py), or use the template of \
         `bulkhead plugin new -t python`.",
    ),
    (
        "rustc",
        "Build it for wasm32-unknown-unknown, whose standard library asks nothing of a system, as the template of \
         `bulkhead plugin new -t rust` does; and look for the crate that asks for it.",
    ),
];

/// The names of the interfaces, sorted, if all of them are offered. `made` says what the component was made with.
pub(super) fn check(imports: Vec<ImportName>, made: &dyn Fn() -> Metadata) -> Result<Vec<String>, Refused> {
    if imports.len() > IMPORTS_MAX {
        return Err(refuse(
            format!("it has {} imports; at most {IMPORTS_MAX} are allowed.", imports.len()),
            "Build it with the versions of the tools that the templates use.",
        ));
    }
    let mut names = Vec::with_capacity(imports.len());
    for import in imports {
        judge(&import, made)?;
        names.push(import.name);
    }
    names.sort_unstable();
    Ok(names)
}

/// An interface's name in its parts: `namespace:package/interface@version`.
struct Parts<'a> {
    package: &'a str,
    interface: &'a str,
    version: &'a str,
}

fn parts(name: &str) -> Option<Parts<'_>> {
    let (package, rest) = name.split_once('/')?;
    let (interface, version) = rest.split_once('@').unwrap_or((rest, ""));
    package.contains(':').then_some(Parts { package, interface, version })
}

fn judge(import: &ImportName, made: &dyn Fn() -> Metadata) -> Result<(), Refused> {
    let name = import.name.escape_debug().to_string();
    if !import.name.is_ascii() {
        return Err(refuse(
            format!("it needs `{name}`, whose name is not plain ASCII and only looks like one that is offered."),
            "Correct the name of the import.",
        ));
    }
    let Some(parts) = parts(&import.name).filter(|_| import.is_interface) else {
        return Err(refuse(
            format!("it needs `{name}`, which is not an interface of this host."),
            "Import functions through the interfaces of bulkhead:plugin@0.1.0.",
        ));
    };
    match parts.package {
        "bulkhead:plugin" => contract(&parts, &name),
        "wasi:http" => http(&parts, &name),
        package => match package.strip_prefix("wasi:") {
            Some(package) => wasi(package, &parts, &name, made),
            None => Err(refuse(
                format!("it needs `{name}`, which this host does not offer."),
                "A host offers bulkhead:plugin@0.1 and an empty WASI 0.2. If it is a part of your own program, \
                 compose it in (`wac plug`) before uploading.",
            )),
        },
    }
}

fn contract(parts: &Parts<'_>, name: &str) -> Result<(), Refused> {
    if !track(parts.version, "0.1.") {
        return Err(Refused::upload(
            "version",
            format!("it is built for `{name}`; this host has bulkhead:plugin@{VERSION}."),
            "Build it with the SDK of this host's version (`bulkhead --version`), or upgrade the host.",
        ));
    }
    if CONTRACT.contains(&parts.interface) {
        return Ok(());
    }
    Err(Refused::upload(
        "version",
        format!(
            "it is built for `{name}`; this host has bulkhead:plugin@{VERSION}, without `{}`.",
            parts.interface.escape_debug()
        ),
        "Upgrade the host, or build with an older SDK.",
    ))
}

/// Whether it may send anything is decided when it does: a component may import what its language's runtime brings along
/// and never use it.
fn http(parts: &Parts<'_>, name: &str) -> Result<(), Refused> {
    if ["types", "outgoing-handler"].contains(&parts.interface) && track(parts.version, "0.2.") {
        return Ok(());
    }
    Err(Refused::upload(
        "http",
        format!("it needs `{name}`, which this host does not offer; supported: wasi:http/outgoing-handler@0.2."),
        "Build it for WASI 0.2, as a client: requests go out with the `http` grant, and events are what comes in.",
    ))
}

fn wasi(package: &str, parts: &Parts<'_>, name: &str, made: &dyn Fn() -> Metadata) -> Result<(), Refused> {
    if let Some(alias) = ALIASES.iter().find(|alias| alias.package == package) {
        return draft(alias, parts, name);
    }
    if parts.version.starts_with("0.3") {
        return Err(refuse(
            format!("it needs `{name}`; WASI 0.3 is not offered, because the engine calls it experimental."),
            "Build it for WASI 0.2 (wasm32-wasip2, or the synchronous mode of your language's tool).",
        ));
    }
    let offered = WASI.iter().find(|(offered, _)| *offered == package).map(|(_, interfaces)| *interfaces);
    match offered {
        Some(interfaces) if interfaces.contains(&parts.interface) && track(parts.version, "0.2.") => Ok(()),
        Some(_) => Err(pulled_in(name, "; of WASI, only stable interfaces of version 0.2 are", &made())),
        None => Err(pulled_in(name, "", &made())),
    }
}

/// Nobody writes such an import: a language's runtime or a library does.
fn pulled_in(name: &str, but: &str, made: &Metadata) -> Refused {
    let tools = made.made_with();
    let by = if tools.is_empty() { "a language's runtime or a library".to_owned() } else { tools.join(", ") };
    let has = |tool: &str| made.producers.iter().any(|(_, name, _)| name == tool);
    let advice = RUNTIMES.iter().find(|(tool, _)| has(tool)).map_or(
        "Look for the option of your language's tool to stub WASI (`--stub-wasi`, `-d all`), or use a template of \
         `bulkhead plugin new`.",
        |(_, advice)| advice,
    );
    refuse(format!("it needs `{name}`, which this host does not offer{but}. Pulled in by: {by}."), advice)
}

fn draft(alias: &Alias, parts: &Parts<'_>, name: &str) -> Result<(), Refused> {
    let Alias { package, version, interfaces, ours } = alias;
    if parts.version == *version && interfaces.contains(&parts.interface) {
        return Ok(());
    }
    let offered: Vec<String> =
        interfaces.iter().map(|interface| format!("wasi:{package}/{interface}@{version}")).collect();
    Err(refuse(
        format!("it needs `{name}`, which this host does not offer; supported: {}.", offered.join(", ")),
        format!("Drafts of WASI match by their exact version: build it against that one, or use `{ours}`."),
    ))
}

/// What the interfaces that a component imports let it ask for, in plain words, each once. An interface that lets it ask
/// for nothing (types, empty WASI) has none.
#[must_use]
pub fn needs(imports: &[String]) -> Vec<&'static str> {
    let mut needs: Vec<&str> = imports.iter().filter_map(|name| need(name)).collect();
    needs.sort_unstable();
    needs.dedup();
    needs
}

fn need(name: &str) -> Option<&'static str> {
    let parts = parts(name)?;
    match (parts.package, parts.interface) {
        ("bulkhead:plugin", "context") => Some("its settings, secrets and who is running"),
        ("bulkhead:plugin", "effects") => Some("events, deliveries and timers"),
        ("bulkhead:plugin", "state") => Some("its state"),
        ("bulkhead:plugin", "log") => Some("its log"),
        ("bulkhead:plugin", "usage") => Some("costs on the usage statement"),
        ("wasi:keyvalue", _) => Some("its state, as wasi:keyvalue"),
        ("wasi:config", _) => Some("its settings, as wasi:config"),
        ("wasi:logging", _) => Some("its log, as wasi:logging"),
        ("wasi:http", "outgoing-handler") => Some("calls to other hosts, as far as `http` is granted"),
        ("wasi:cli", "stdout" | "stderr") => Some("its log, as standard output"),
        ("wasi:clocks", _) => Some("the time of the attempt"),
        ("wasi:random", _) => Some("random bytes of the attempt"),
        ("wasi:filesystem", _) => Some("files, of which there are none"),
        ("wasi:sockets", _) => Some("the network, which is denied"),
        _ => None,
    }
}

/// A release (no draft) of this track: `0.2.` and digits.
fn track(version: &str, track: &str) -> bool {
    version
        .strip_prefix(track)
        .is_some_and(|patch| !patch.is_empty() && patch.len() < 6 && patch.bytes().all(|byte| byte.is_ascii_digit()))
}

fn refuse(detail: impl Into<String>, hint: impl Into<String>) -> Refused {
    Refused::upload("import", detail, hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(name: &str) -> String {
        let import = ImportName { name: name.into(), is_interface: true };
        judge(&import, &Metadata::default).map_or_else(|refused| refused.code, |()| "fine".into())
    }

    #[test]
    fn the_list_is_exact() {
        for good in [
            "bulkhead:plugin/effects@0.1.0",
            "bulkhead:plugin/types@0.1.17",
            "wasi:io/streams@0.2.0",
            "wasi:cli/environment@0.2.12",
            "wasi:clocks/wall-clock@0.2.3",
            "wasi:random/insecure-seed@0.2.6",
            "wasi:filesystem/preopens@0.2.9",
            "wasi:sockets/tcp@0.2.9",
            "wasi:http/outgoing-handler@0.2.10",
            "wasi:http/types@0.2.0",
            "wasi:keyvalue/store@0.2.0-draft2",
            "wasi:keyvalue/atomics@0.2.0-draft2",
            "wasi:keyvalue/batch@0.2.0-draft2",
            "wasi:config/store@0.2.0-rc.1",
            "wasi:logging/logging@0.1.0-draft",
        ] {
            assert_eq!(code(good), "fine", "{good}");
        }
        for bad in [
            "wasi:io/streams@0.3.0",
            "wasi:io/streams@0.2.0-rc-2023-11-10",
            "wasi:io/streams@0.2.",
            "wasi:io/streams",
            "wasi:io/other@0.2.0",
            "wasi:clocks/timezone@0.2.12",
            "wasi:nn/inference@0.2.0",
            "wasi:keyvalue/store@0.2.0-draft",
            "wasi:keyvalue/store@0.2.0",
            "wasi:keyvalue/watcher@0.2.0-draft2",
            "wasi:config/store@0.2.0-draft-2024-09-27",
            "wasi:config/runtime@0.2.0-rc.1",
            "wasi:logging/logging@0.1.0",
            "wasi:logging/logging",
            "wasi:htt\u{0440}/outgoing-handler@0.2.0",
            "wasi:cl\u{0456}/exit@0.2.0",
            "demo:Host/x@1.0.0",
            "demo:plugin/host@0.1.0",
            "bulkhead:plugins/effects@0.1.0",
            "env",
            "a/b",
            "",
        ] {
            assert_eq!(code(bad), "rejected_upload:import", "{bad}");
        }
        for skew in ["bulkhead:plugin/effects@0.2.0", "bulkhead:plugin/effects@0.1.0-rc.1", "bulkhead:plugin/new@0.1.1"]
        {
            assert_eq!(code(skew), "rejected_upload:version", "{skew}");
        }
        for server in ["incoming-handler@0.2.10", "outgoing-handler@0.3.0", "types@0.2.0-rc-2023-12-05"] {
            assert_eq!(code(&format!("wasi:http/{server}")), "rejected_upload:http", "{server}");
        }
    }

    #[test]
    fn another_draft_is_told_which_one_is_supported() {
        let import = ImportName { name: "wasi:keyvalue/atomics@0.2.0-draft".into(), is_interface: true };
        let refused = judge(&import, &Metadata::default).expect_err("because it is another draft");
        assert!(refused.detail.contains("supported: wasi:keyvalue/atomics@0.2.0-draft2, wasi:keyvalue/batch@"));
        assert!(refused.hint.contains("bulkhead:plugin/state"), "{refused}");
    }

    #[test]
    fn what_it_needs_is_said_once_and_in_words() {
        let imports = [
            "bulkhead:plugin/types@0.1.0",
            "wasi:cli/stderr@0.2.3",
            "wasi:cli/stdout@0.2.3",
            "wasi:io/streams@0.2.3",
            "wasi:keyvalue/batch@0.2.0-draft2",
            "wasi:keyvalue/store@0.2.0-draft2",
        ];
        let imports = imports.map(str::to_owned);
        assert_eq!(needs(&imports), ["its log, as standard output", "its state, as wasi:keyvalue"]);
    }

    #[test]
    fn a_function_outside_of_an_interface_is_refused() {
        let import = ImportName { name: "bulkhead:plugin/log@0.1.0".into(), is_interface: false };
        assert!(judge(&import, &Metadata::default).is_err());
    }

    #[test]
    fn a_refusal_names_the_import_and_says_what_to_do() {
        for name in ["wasi:nn/inference@0.2.0", "demo:x/y@1.0.0", "wasi:http/incoming-handler@0.2.0", "x"] {
            let import = ImportName { name: name.into(), is_interface: true };
            let refused = judge(&import, &Metadata::default).expect_err("because it is not offered");
            assert!(refused.detail.contains(name), "{refused}");
            assert!(refused.hint.len() > 20, "{refused}");
        }
    }
}
