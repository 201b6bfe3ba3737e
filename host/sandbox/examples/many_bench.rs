//! Many plugins on one host: what a loaded one costs in memory beside what it costs wasmtime alone, how long a restart takes
//! until those in use are loaded again, and whether what is kept loaded stays within its bound.
//!
//! ```text
//! many_bench plugin.wasm [REGISTERED [HOT [FOLDER]]]      10,000 distinct plugins, 2,000 of them in use
//! ```
//!
//! The plugins are the same component with other bytes at the end, so each has a digest, an artefact and machine code of
//! its own. Most of the time goes into compiling them; with FOLDER their artefacts are kept there, and a second run begins
//! where the first one ended. "bare" deserializes as many artefacts with wasmtime and links each of them once, with nothing
//! around it. Each measurement is a process of its own, because memory that was given back is not seen to be. The files are
//! in the kernel's cache, as they are after a restart of the process; after one of the machine they are read from disk.
//!
//! Ends with 1 if a mark is missed.

mod bare;

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::process::ExitCode;
use std::time::Instant;

use bulkhead_sandbox::Compiler;
use bulkhead_sandbox::Options;
use bulkhead_sandbox::Plugin;
use bulkhead_sandbox::Sandbox;
use bytes::Bytes;

/// The marks: memory of a loaded plugin beside the bare one, and seconds from the start until all that are hot are loaded.
const RATIO_MAX: f64 = 1.5;
const READY_MAX: f64 = 10.0;
/// The machine code of the bare side, in the folder.
const BARE: &str = "bare.machine-code";
/// Between two words on how far the compiling is.
const WORD_EVERY: u32 = 500;

/// What a run is about.
struct Case {
    path: PathBuf,
    wasm: Vec<u8>,
    registered: u32,
    hot: u32,
    folder: PathBuf,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, otherwise: u32| {
        arguments.get(at).map_or(otherwise, |count| count.parse().expect("because it is a number"))
    };
    let path = PathBuf::from(arguments.first().expect("because the guest is the first argument"));
    let wasm = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (registered, hot) = (number(1, 10_000), number(2, 2_000));
    assert!(0 < hot && hot <= registered, "some of those registered are hot");
    let mut passing = None;
    let folder = arguments.get(3).map_or_else(
        || passing.insert(tempfile::tempdir().expect("because there is room")).path().to_owned(),
        PathBuf::from,
    );
    let case = Case { path, wasm, registered, hot, folder };
    match arguments.get(4).map(String::as_str) {
        None => case.measure(),
        Some("bare") => print(&case.bare()),
        Some("hot") => print(&case.hot()),
        Some("all") => print(&case.all()),
        Some(other) => panic!("no measurement is called {other}"),
    }
}

fn print(numbers: &[f64]) -> ExitCode {
    println!("{}", numbers.iter().map(f64::to_string).collect::<Vec<_>>().join(" "));
    ExitCode::SUCCESS
}

impl Case {
    fn measure(&self) -> ExitCode {
        let size = self.register();
        let code = self.compile_bare();
        assert_eq!(code, size, "the bare settings make other machine code than the sandbox's");
        let [bare_bytes, bare_time] = self.child("bare");
        let [our_bytes, our_time] = self.child("hot");
        let [held, bound, loaded, all_bytes, all_time] = self.child("all");

        let each = |bytes: f64| bytes / f64::from(self.hot) / 1024.0;
        println!("\n{} hot plugins, {} KiB of machine code each:", self.hot, size >> 10);
        println!("{:<8}{:>16}{:>18}", "", "KiB a plugin", "all loaded in s");
        println!("{:<8}{:>16.1}{:>18.2}", "bare", each(bare_bytes), bare_time);
        println!("{:<8}{:>16.1}{:>18.2}", "ours", each(our_bytes), our_time);
        println!("\nall {} in turn, from their artefacts, in {all_time:.1} s:", self.registered);
        println!(
            "  {loaded} are loaded afterwards, {:.1} MiB of machine code; memory grew by {:.1} MiB",
            mib(held),
            mib(all_bytes)
        );

        let ratio = our_bytes / bare_bytes;
        let marks = [
            (format!("memory of a loaded plugin ours/bare {ratio:.2} (at most {RATIO_MAX})"), ratio <= RATIO_MAX),
            (
                format!(
                    "from a restart with {} registered until {} are loaded {our_time:.2} s (at most {READY_MAX})",
                    self.registered, self.hot
                ),
                our_time <= READY_MAX,
            ),
            (format!("machine code kept {:.1} MiB (bound {:.1})", mib(held), mib(bound)), held <= bound),
            (
                // What is evicted must be gone, not only uncounted.
                format!(
                    "memory after all of them {:.2} times that of the hot ones (at most {RATIO_MAX})",
                    all_bytes / our_bytes
                ),
                all_bytes <= our_bytes * RATIO_MAX,
            ),
        ];
        println!("\nmarks:");
        for (what, met) in &marks {
            println!("  {what}: {}", if *met { "met" } else { "missed" });
        }
        if marks.iter().all(|(_, met)| *met) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    /// Runs one measurement in a process of its own.
    fn child<const N: usize>(&self, what: &str) -> [f64; N] {
        let me = std::env::current_exe().expect("because it runs");
        let mut command = Command::new(me);
        command.arg(&self.path).args([self.registered, self.hot].map(|count| count.to_string()));
        let output = command.arg(&self.folder).arg(what).output().expect("because the program is there");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("because it prints numbers");
        let mut numbers = text.split_whitespace().map(|number| number.parse().expect("because it prints numbers"));
        std::array::from_fn(|_| numbers.next().expect("because there are as many"))
    }

    /// Compiles what has no artefact yet; gives the bytes of machine code of one.
    fn register(&self) -> u64 {
        // Nothing stays loaded: the point is the files.
        let sandbox = self.open(1);
        let began = Instant::now();
        for mark in 0..self.registered {
            self.load(&sandbox, mark);
            if (mark + 1).is_multiple_of(WORD_EVERY) {
                print!("\r{} of {} compiled", mark + 1, self.registered);
                let _ = std::io::stdout().flush();
            }
        }
        println!(
            "\r{} plugins of {} KiB are registered, {} of them compiled just now, in {:.1} s",
            self.registered,
            self.wasm.len() >> 10,
            sandbox.stats().compiled,
            began.elapsed().as_secs_f64()
        );
        sandbox.inspect(&self.wasm).expect("because it was compiled").artefact_size
    }

    /// As after a restart: those that are hot are loaded. Bytes of memory and seconds.
    fn hot(&self) -> [f64; 2] {
        let (before, began) = (resident(), Instant::now());
        let sandbox = self.open(u64::MAX);
        let loaded: Vec<Plugin> = (0..self.hot).map(|mark| self.load(&sandbox, mark)).collect();
        let numbers = [resident() - before, began.elapsed().as_secs_f64()];
        assert_eq!(sandbox.stats().compiled, 0, "every artefact was there");
        drop(loaded);
        numbers
    }

    /// All of them in turn, with room for those that are hot: what is kept, what may be kept, how many these are, the
    /// memory, and the seconds.
    fn all(&self) -> [f64; 5] {
        let size = self.load(&self.open(1), 0).artefact_size() as u64;
        let bound = size * u64::from(self.hot);
        let (before, began) = (resident(), Instant::now());
        let sandbox = self.open(bound);
        for mark in 0..self.registered {
            self.load(&sandbox, mark);
        }
        let time = began.elapsed().as_secs_f64();
        let stats = sandbox.stats();
        assert_eq!(stats.compiled, 0, "every artefact was there");
        [stats.loaded_bytes as f64, bound as f64, stats.loaded as f64, resident() - before, time]
    }

    /// What the bare side loads, made in this process: a compiler leaves memory behind that would count as nothing.
    fn compile_bare(&self) -> u64 {
        let engine = wasmtime::Engine::new(&bare::config()).expect("because the settings fit each other");
        let code = engine.precompile_component(&self.wasm).expect("because the guest is a component");
        std::fs::write(self.folder.join(BARE), &code).expect("because there is room");
        code.len() as u64
    }

    /// wasmtime alone: bytes of memory and seconds.
    #[allow(unsafe_code, reason = "the machine code was made a moment ago, by the process that started this one")]
    fn bare(&self) -> [f64; 2] {
        let code = std::fs::read(self.folder.join(BARE)).expect("because it was made a moment ago");
        let (before, began) = (resident(), Instant::now());
        let engine = wasmtime::Engine::new(&bare::config()).expect("because the settings fit each other");
        let load = |_| {
            // SAFETY: the bytes are what an engine with these settings has just made.
            let component = unsafe { wasmtime::component::Component::deserialize(&engine, &code) };
            let component = component.expect("because such an engine made it");
            let mut linker = wasmtime::component::Linker::<()>::new(&engine);
            linker.define_unknown_imports_as_traps(&component).expect("because nothing is defined");
            linker.instantiate_pre(&component).expect("because every import is defined")
        };
        let loaded: Vec<_> = (0..self.hot).map(load).collect();
        let numbers = [resident() - before, began.elapsed().as_secs_f64()];
        drop(loaded);
        numbers
    }

    fn open(&self, cache_bytes: u64) -> Sandbox {
        let options = Options {
            compiler: Compiler::InProcess,
            cache_bytes,
            disk_bytes: u64::MAX,
            ..Options::new(&self.folder, [7; 32])
        };
        Sandbox::open(options).expect("because the pool fits")
    }

    fn load(&self, sandbox: &Sandbox, mark: u32) -> Plugin {
        let wasm = marked(&self.wasm, mark);
        let fetch = || Ok(Bytes::from(wasm.clone()));
        sandbox.load(&digest(&wasm), &fetch).unwrap_or_else(|error| panic!("{error}"))
    }
}

/// Bytes of memory that this process has for itself.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("because this is Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("because Linux says so");
    let kib: f64 = line.trim().trim_end_matches(" kB").trim().parse().expect("because it is a number");
    kib * 1024.0
}

fn mib(bytes: f64) -> f64 {
    bytes / f64::from(1 << 20)
}

/// The same component with other bytes: a custom section at the end, which nobody looks at.
fn marked(wasm: &[u8], mark: u32) -> Vec<u8> {
    let name = format!("mark-{mark}");
    let length = u8::try_from(name.len()).expect("because it is short");
    let mut marked = wasm.to_vec();
    marked.extend([0, 1 + length, length]);
    marked.extend(name.as_bytes());
    marked
}

fn digest(wasm: &[u8]) -> String {
    use sha2::Digest as _;
    let hash = sha2::Sha256::digest(wasm);
    hash.iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}
