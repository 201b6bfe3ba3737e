#!/bin/sh
# Makes the bindings anew. They are kept here because wit-bindgen is distributed as source only and takes minutes to build.
# Their licence is wit-bindgen's: Apache-2.0 WITH LLVM-exception, Apache-2.0 or MIT.
set -eu
cd "$(dirname "$0")"
cargo install --locked wit-bindgen-cli --version 0.63.0 --no-default-features --features c
wit=$(mktemp -d)
mkdir "$wit/deps"
cp ../world.wit "$wit/"
cp ../../../wit/plugin.wit "$wit/deps/"
wit-bindgen c "$wit" --world plugin --out-dir generated
rm -r "$wit"
