//! The SDK's copy of the contract is the contract.

use std::fs;
use std::path::Path;

#[test]
fn the_bundled_wit_equals_the_repositorys() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| {
        let path = here.join(path);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    assert!(
        read("wit/plugin.wit") == read("../../wit/plugin.wit"),
        "plugin-sdk/rust/wit is out of date: copy wit/plugin.wit over it, and raise the SDK's version"
    );
}

#[test]
fn the_readme_names_this_version_and_the_contracts() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(here.join("README.md")).expect("a README beside the manifest");
    let wit = fs::read_to_string(here.join("wit/plugin.wit")).expect("the bundled contract");
    let package = wit.lines().find_map(|line| line.strip_prefix("package ")).expect("a package line");
    let contract = package.trim_end_matches(';');
    let row = |line: &str| line.starts_with('|') && line.contains(env!("CARGO_PKG_VERSION")) && line.contains(contract);
    assert!(readme.lines().any(row), "the compatibility table has no row for this version and {contract}");
}
