//! What a component is, needs and may do, in plain words: its exports, its imports, and what the manifest grants it of
//! them. For the answer to an upload and the command line alike.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use bulkhead_domain::policy::grants::Grants;
use bulkhead_sandbox::Exports;
use bulkhead_sandbox::Inspection;

use crate::manifest::Manifest;

/// The contract's world, and the contract's version: `handler-plugin of bulkhead:plugin@0.1.0`.
#[must_use]
pub fn world(inspection: &Inspection) -> String {
    let Inspection { exports, imports, .. } = inspection;
    let exports = match (exports.handler, exports.transformer) {
        (true, true) => "handler-plugin and transformer-plugin",
        (false, true) => "transformer-plugin",
        _ => "handler-plugin",
    };
    let version = imports.iter().find_map(|import| import.strip_prefix("bulkhead:plugin/")?.split_once('@'));
    match version {
        Some((_, version)) => format!("{exports} of bulkhead:plugin@{version}"),
        None => exports.to_owned(),
    }
}

/// What it does, a line for each ability.
#[must_use]
pub fn abilities(manifest: &Manifest, exports: Exports, imports: &[String]) -> Vec<String> {
    let mut lines = Vec::new();
    if exports.handler {
        lines.push("acts on events".to_owned());
    }
    if exports.transformer {
        lines.push("turns events into others".to_owned());
    }
    let grants = &manifest.grants;
    let uses = Uses::of(imports);
    if uses.settings {
        lines.push("reads its settings and the time of the attempt".to_owned());
        if !grants.secrets.is_empty() {
            lines.push(format!("reads the secrets {}", list(&grants.secrets)));
        }
    }
    if uses.state {
        lines.push(format!("reads and writes its state, up to {}", crate::measure::Bytes(manifest.state_bytes)));
    }
    if uses.effects {
        for (verb, entries) in [("emits", &grants.emit), ("delivers to", &grants.deliver)] {
            if !entries.is_empty() {
                lines.push(format!("{verb} {}", list(entries)));
            }
        }
        if grants.schedule {
            lines.push("sets timers".to_owned());
        }
    }
    if uses.http {
        lines.push(format!("calls http hosts: {}", list(&grants.http)));
    }
    if uses.usage {
        lines.push("counts costs".to_owned());
    }
    if uses.log {
        lines.push("writes to its log".to_owned());
    }
    if !uses.wasi.is_empty() {
        let parts: Vec<&str> = uses.wasi.iter().map(String::as_str).collect();
        lines.push(format!("finds nothing of the system behind WASI's {}", parts.join(", ")));
    }
    lines
}

/// What it imports, a line for each package: `wasi:cli@0.2.3: environment, exit`.
#[must_use]
pub fn packages(imports: &[String]) -> Vec<String> {
    let mut packages: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for import in imports {
        let (name, version) = import.split_once('@').unwrap_or((import, ""));
        let (package, interface) = name.split_once('/').unwrap_or((name, ""));
        packages.entry(format!("{package}@{version}")).or_default().push(interface);
    }
    packages.into_iter().map(|(package, interfaces)| format!("{package}: {}", interfaces.join(", "))).collect()
}

/// Where the manifest and the component do not fit each other.
#[must_use]
pub fn warnings(manifest: &Manifest, inspection: &Inspection) -> Vec<String> {
    let uses = Uses::of(&inspection.imports);
    let Grants { emit, deliver, http, secrets, schedule } = &manifest.grants;
    let mut warnings = Vec::new();
    let effects = [("emit", !emit.is_empty()), ("deliver", !deliver.is_empty()), ("schedule", *schedule)];
    let asked = effects.iter().filter(|(_, is_asked)| *is_asked).map(|(name, _)| *name);
    let unused = [
        (uses.effects, asked.collect::<Vec<_>>(), "effects"),
        (uses.settings, if secrets.is_empty() { vec![] } else { vec!["secrets"] }, "context"),
        (uses.http, if http.is_empty() { vec![] } else { vec!["http"] }, "an HTTP client"),
    ];
    for (is_used, asked, interface) in unused {
        if !is_used && !asked.is_empty() {
            warnings.push(format!(
                "the manifest asks for {}, and the component does not use {interface}",
                asked.join(", ")
            ));
        }
    }
    if uses.effects && !uses.everything() && effects.iter().all(|(_, is_asked)| !is_asked) {
        warnings.push(
            "the component can emit, deliver and schedule, and the manifest asks for none of it: every such call will be refused".to_owned(),
        );
    }
    if uses.http && http.is_empty() {
        warnings.push(
            "the component calls out by HTTP, and the manifest grants no host: add `http = [\"api.example.com\"]` to its [grants]"
                .to_owned(),
        );
    }
    let said = inspection.metadata.version.as_deref().filter(|version| !version.is_empty());
    if let Some(said) = said
        && !manifest.plugin.version.is_empty()
        && said != manifest.plugin.version
    {
        warnings.push(format!(
            "the manifest says version {}, the component says {said}: was it built before the manifest changed?",
            manifest.plugin.version
        ));
    }
    warnings
}

/// Which of what is offered a component imports.
#[derive(Debug, Default, PartialEq, Eq)]
struct Uses {
    settings: bool,
    state: bool,
    effects: bool,
    http: bool,
    usage: bool,
    log: bool,
    /// Packages of WASI that are empty here.
    wasi: BTreeSet<String>,
}

impl Uses {
    /// All of the contract: a language that is interpreted imports it whole, whatever the plugin calls of it.
    fn everything(&self) -> bool {
        self.settings && self.state && self.effects && self.usage && self.log
    }

    fn of(imports: &[String]) -> Self {
        let mut uses = Self::default();
        for import in imports {
            let name = import.split('@').next().unwrap_or_default();
            match name.split_once('/').unwrap_or((name, "")) {
                ("bulkhead:plugin", "context") | ("wasi:config", _) => uses.settings = true,
                ("bulkhead:plugin", "state") | ("wasi:keyvalue", _) => uses.state = true,
                ("bulkhead:plugin", "log") | ("wasi:logging", _) => uses.log = true,
                ("bulkhead:plugin", "effects") => uses.effects = true,
                ("bulkhead:plugin", "usage") => uses.usage = true,
                ("wasi:http", _) => uses.http = true,
                (package, _) => {
                    if let Some(package) = package.strip_prefix("wasi:") {
                        uses.wasi.insert(package.to_owned());
                    }
                }
            }
        }
        uses
    }
}

fn list(entries: &BTreeSet<String>) -> String {
    if entries.is_empty() {
        return "none".to_owned();
    }
    entries.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use bulkhead_sandbox::Metadata;

    use super::*;

    fn inspection(imports: &[&str]) -> Inspection {
        Inspection {
            digest: "sha256:0".into(),
            exports: Exports { handler: true, transformer: false },
            imports: imports.iter().map(|import| (*import).to_owned()).collect(),
            size: 1,
            artefact_size: 1,
            metadata: Metadata::default(),
            engine: String::new(),
        }
    }

    fn manifest(grants: &str) -> Manifest {
        Manifest::parse(&format!("[plugin]\nname = \"a\"\n[grants]\n{grants}")).expect("because it is right")
    }

    #[test]
    fn imports_are_told_with_what_is_granted_of_them() {
        let inspection = inspection(&[
            "bulkhead:plugin/effects@0.1.0",
            "bulkhead:plugin/state@0.1.0",
            "wasi:cli/exit@0.2.6",
            "wasi:http/outgoing-handler@0.2.6",
        ]);
        let manifest = manifest("emit = [\"orders.*\"]\nschedule = true\nhttp = [\"api.example.com\"]");
        assert_eq!(
            abilities(&manifest, inspection.exports, &inspection.imports),
            [
                "acts on events",
                "reads and writes its state, up to 10MiB",
                "emits orders.*",
                "sets timers",
                "calls http hosts: api.example.com",
                "finds nothing of the system behind WASI's cli",
            ]
        );
        assert_eq!(world(&inspection), "handler-plugin of bulkhead:plugin@0.1.0");
        assert_eq!(
            packages(&inspection.imports),
            ["bulkhead:plugin@0.1.0: effects, state", "wasi:cli@0.2.6: exit", "wasi:http@0.2.6: outgoing-handler"]
        );
        assert_eq!(warnings(&manifest, &inspection), Vec::<String>::new());
    }

    #[test]
    fn what_does_not_fit_is_said() {
        let check = |grants: &str, imports: &[&str], part: &str| {
            let warnings = warnings(&manifest(grants), &inspection(imports));
            assert!(warnings.len() == 1 && warnings[0].contains(part), "{warnings:?}");
        };
        check("emit = [\"a\"]\nschedule = true", &[], "asks for emit, schedule");
        check("secrets = [\"a\"]", &["bulkhead:plugin/state@0.1.0"], "asks for secrets");
        check("", &["bulkhead:plugin/effects@0.1.0"], "asks for none of it");
        check("", &["wasi:http/outgoing-handler@0.2.6"], "grants no host");
        let all = ["context", "state", "effects", "usage", "log"].map(|name| format!("bulkhead:plugin/{name}@0.1.0"));
        let all = inspection(&all.each_ref().map(String::as_str));
        assert_eq!(warnings(&manifest(""), &all), Vec::<String>::new(), "nobody knows what it calls");
    }
}
