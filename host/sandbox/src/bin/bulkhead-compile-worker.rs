//! A compile worker by itself, for hosts that are not the `bulkhead` binary: this crate's tests, and embedders.

fn main() {
    bulkhead_sandbox::compile_worker_main()
}
