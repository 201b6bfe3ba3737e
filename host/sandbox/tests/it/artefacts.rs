//! The artefact cache believes nothing that this node did not write.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use bulkhead_sandbox::Compiler;
use bulkhead_sandbox::Error;
use bulkhead_sandbox::Options;
use bulkhead_sandbox::Pool;
use bulkhead_sandbox::Sandbox;
use bulkhead_sandbox::inspect::digest;
use bytes::Bytes;

use crate::guest;
use crate::guest::Guest;
use crate::guest::OK;
use crate::lab;

fn open(dir: &Path, key: u8) -> Sandbox {
    let pool = Pool { enabled: false, ..Pool::default() };
    let options = Options { compiler: Compiler::InProcess, pool, ..Options::new(dir, [key; 32]) };
    Sandbox::open(options).expect("because nothing is reserved")
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("because it is there");
    entries.map(|entry| entry.expect("because it is there").path()).collect()
}

/// Loads, and says whether the component had to be fetched.
fn load(sandbox: &Sandbox, wasm: &[u8]) -> bool {
    let fetched = AtomicUsize::new(0);
    let bytes = Bytes::copy_from_slice(wasm);
    let plugin = sandbox.load(&digest(wasm), &|| {
        fetched.fetch_add(1, Ordering::Relaxed);
        Ok(bytes.clone())
    });
    let plugin = plugin.expect("because it is fit");
    let attempt = sandbox.session(&plugin, Arc::new(lab::setup())).handle(&lab::Bench::default().call());
    assert_eq!(lab::code(&attempt), "done");
    fetched.into_inner() > 0
}

#[test]
fn an_artefact_is_made_once_and_found_again() {
    let dir = tempfile::tempdir().expect("because there is room");
    let wasm = guest::idle();
    let sandbox = open(dir.path(), 1);
    assert!(load(&sandbox, &wasm));
    assert!(!load(&sandbox, &wasm), "from memory");
    assert_eq!(files(dir.path()).len(), 1);
    let again = open(dir.path(), 1);
    assert!(!load(&again, &wasm), "from the file");
    assert_eq!((again.stats().compiled, again.stats().artefacts_rejected, again.stats().loaded), (0, 0, 1));
}

/// S01: any byte, any length.
#[test]
fn damage_is_found_and_mended() {
    let dir = tempfile::tempdir().expect("because there is room");
    let wasm = guest::idle();
    assert!(load(&open(dir.path(), 1), &wasm));
    let path = files(dir.path()).remove(0);
    let good = fs::read(&path).expect("because it is there");
    let put = |bytes: &[u8]| {
        let _ = fs::remove_file(&path);
        fs::write(&path, bytes).expect("because there is room");
    };
    let step = good.len() / 40;
    let flips = (0..8).chain((0..good.len()).step_by(step)).chain(good.len() - 8..good.len());
    for at in flips {
        let mut damaged = good.clone();
        damaged[at] ^= 1 << (at % 8);
        put(&damaged);
        assert!(reload(dir.path(), &wasm), "byte {at}");
    }
    for length in [0, 1, 39, 47, 48, 79, 80, good.len() / 2, good.len() - 1] {
        put(&good[..length]);
        assert!(reload(dir.path(), &wasm), "length {length}");
    }
    put(&[&good[..], b"x"].concat());
    assert!(reload(dir.path(), &wasm), "longer");
    put(&good);
    assert!(!reload(dir.path(), &wasm), "the good one is still good");
}

/// Loads in a sandbox of its own, whose memory is empty; checks the counter and that the file was mended.
fn reload(dir: &Path, wasm: &[u8]) -> bool {
    let sandbox = open(dir, 1);
    let fetched = load(&sandbox, wasm);
    let stats = sandbox.stats();
    assert_eq!((stats.artefacts_rejected, stats.compiled), (u64::from(fetched), u64::from(fetched)));
    if fetched {
        assert!(!load(&open(dir, 1), wasm), "the artefact was not mended");
    }
    fetched
}

/// S01: written by another node, or for another component.
#[test]
fn a_foreign_artefact_is_not_believed() {
    let dir = tempfile::tempdir().expect("because there is room");
    let (one, other) = (guest::idle(), Guest::handler("(nop) (i32.const 16)").component());
    assert!(load(&open(dir.path(), 1), &one));
    let first = files(dir.path()).remove(0);
    let foreign = open(dir.path(), 2);
    assert!(load(&foreign, &one));
    assert_eq!(foreign.stats().artefacts_rejected, 1, "another node's key");

    assert!(load(&open(dir.path(), 2), &other));
    let second = files(dir.path()).into_iter().find(|path| *path != first).expect("because there are two");
    fs::remove_file(&second).expect("because it is there");
    fs::copy(&first, &second).expect("because there is room");
    let swapped = open(dir.path(), 2);
    assert!(load(&swapped, &other));
    assert_eq!(swapped.stats().artefacts_rejected, 1, "another component's artefact");
}

/// S02, K18: links, folders, and what a crash left.
#[test]
fn only_regular_files_are_read() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("because there is room");
    let wasm = guest::idle();
    assert!(load(&open(dir.path(), 1), &wasm));
    let path = files(dir.path()).remove(0);
    let mode = fs::metadata(&path).expect("because it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o400);

    let elsewhere = dir.path().join("elsewhere");
    fs::rename(&path, &elsewhere).expect("because it is there");
    std::os::unix::fs::symlink(&elsewhere, &path).expect("because there is room");
    assert!(load(&open(dir.path(), 1), &wasm), "through a link");

    fs::write(dir.path().join("77-0.unfinished"), b"half").expect("because there is room");
    let _ = open(dir.path(), 1);
    assert!(files(dir.path()).iter().all(|path| path.extension().is_none_or(|extension| extension != "unfinished")));
}

/// H77: a hundred at once compile once.
#[test]
fn the_same_component_is_compiled_once() {
    let dir = tempfile::tempdir().expect("because there is room");
    let sandbox = open(dir.path(), 1);
    let wasm = guest::idle();
    std::thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| sandbox.inspect(&wasm).expect("because it is fit"));
        }
    });
    assert_eq!(sandbox.stats().compiled, 1);
}

/// S03: the stored component is not what its digest says.
#[test]
fn a_component_that_is_not_its_digest_is_refused() {
    let dir = tempfile::tempdir().expect("because there is room");
    let sandbox = open(dir.path(), 1);
    let wasm = Bytes::from(guest::idle());
    let other = digest(b"something else");
    let refused = sandbox.load(&other, &|| Ok(wasm.clone())).expect_err("because it is damaged");
    assert!(matches!(refused, Error::Damaged { .. }), "{refused}");
    let missing = sandbox.load(&other, &|| Err(Error::source(&other, "gone"))).expect_err("because it is gone");
    assert!(matches!(missing, Error::Source { .. }), "{missing}");
}

#[test]
fn the_directory_does_not_grow_for_ever() {
    let dir = tempfile::tempdir().expect("because there is room");
    let pool = Pool { enabled: false, ..Pool::default() };
    let components: Vec<Vec<u8>> =
        (0..4).map(|number| Guest::handler(&format!("{}{OK}", "(nop)".repeat(number))).component()).collect();
    let size = {
        let other = tempfile::tempdir().expect("because there is room");
        load(&open(other.path(), 1), &components[0]);
        fs::metadata(&files(other.path())[0]).expect("because it is there").len()
    };
    let options = Options {
        compiler: Compiler::InProcess,
        pool,
        disk_bytes: size * 2 + size / 2,
        ..Options::new(dir.path(), [1; 32])
    };
    let sandbox = Sandbox::open(options).expect("because nothing is reserved");
    for wasm in &components {
        assert!(load(&sandbox, wasm));
    }
    assert_eq!(files(dir.path()).len(), 2);
}
