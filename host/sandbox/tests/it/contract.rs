//! The contract against what was released of it: plugins outlive versions of the host.

use std::path::Path;

use wit_component::semver_check;
use wit_parser::Resolve;

use crate::golden::assert_unchanged;

/// As the host has it.
const PRESENT: &str = include_str!("../../../../wit/plugin.wit");

const WORLDS: [&str; 2] = ["handler-plugin", "transformer-plugin"];

fn released() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit/released")
}

/// The text with its package at another version, so that two of them can stand beside each other.
fn at_version(text: &str, version: &str) -> String {
    let line = text.lines().find(|line| line.starts_with("package ")).expect("because WIT names its package");
    let (name, _) = line.split_once('@').expect("because the contract has a version");
    text.replacen(line, &format!("{name}@{version};"), 1)
}

#[track_caller]
fn is_compatible(old: &str, new: &str, world: &str) -> Result<(), String> {
    let mut resolve = Resolve::default();
    let mut world_of = |text: &str, version: &str| {
        let package =
            resolve.push_str(format!("{version}.wit"), &at_version(text, version)).expect("because it parses");
        resolve.select_world(&[package], Some(world)).expect("because both have this world")
    };
    let (old, new) = (world_of(old, "1.0.0"), world_of(new, "1.1.0"));
    semver_check(resolve, old, new).map_err(|error| format!("{error:#}"))
}

#[test]
fn the_contract_is_compatible_with_every_release() {
    let mut releases = 0;
    for entry in std::fs::read_dir(released()).expect("because there are releases") {
        let file = entry.expect("because the folder can be read").path().join("plugin.wit");
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        releases += 1;
        for world in WORLDS {
            let checked = is_compatible(&text, PRESENT, world);
            assert_eq!(checked, Ok(()), "{world} of {} is broken", file.display());
        }
    }
    assert!(releases > 0, "no release was found");
}

/// The check finds what it is for.
#[test]
fn a_change_of_a_record_is_found_and_a_new_function_is_not() {
    let changed = PRESENT.replacen("    reason: string,", "    reason: string,\n    code: u32,", 1);
    let grown = PRESENT.replacen(
        "  random: func(length: u32) -> list<u8>;",
        "  random: func(length: u32) -> list<u8>;\n  later: func();",
        1,
    );
    assert!(changed != PRESENT && grown != PRESENT, "the contract has other words by now");
    assert!(is_compatible(PRESENT, &changed, "handler-plugin").is_err());
    assert_eq!(is_compatible(PRESENT, &grown, "handler-plugin"), Ok(()));
}

#[test]
fn no_release_was_ever_changed() {
    assert_unchanged(&released(), &[".wit"]);
}
