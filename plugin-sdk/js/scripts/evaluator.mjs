// Writes evaluator/evaluator.wasm anew: `npm run evaluator`. With --check it says whether the one there is current.
//
// Two builds differ in about a hundred bytes, the seeds that QuickJS drew while it was snapshotted. So evaluator.json
// keeps what the component was made from, and the component's own digest.

import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { bundle } from "../build/bundle.mjs";
import { component } from "../build/component.mjs";

const sdk = dirname(dirname(fileURLToPath(import.meta.url)));
const target = join(sdk, "evaluator/evaluator.wasm");
const stamp = join(sdk, "evaluator/evaluator.json");

const digest = (bytes) => createHash("sha256").update(bytes).digest("hex");
const { text } = await bundle({ folder: sdk, sdk, entry: "evaluator/evaluator.ts" });
const { dependencies } = JSON.parse(readFileSync(join(sdk, "package.json"), "utf8"));
const from = { bundle: digest(text), engine: `componentize-qjs ${dependencies["componentize-qjs"]}` };

if (process.argv.includes("--check")) {
  const expected = JSON.stringify({ ...from, component: digest(readFileSync(target)) });
  if (JSON.stringify(JSON.parse(readFileSync(stamp, "utf8"))) !== expected) {
    console.error("evaluator.wasm is not what its sources make: `npm run evaluator` makes it anew");
    process.exitCode = 1;
  }
} else {
  const wasm = await component({ sdk, text, exports: ["handler", "transformer"], optSize: true });
  writeFileSync(target, wasm);
  writeFileSync(stamp, JSON.stringify({ ...from, component: digest(wasm) }, null, 2) + "\n");
  console.log(`evaluator.wasm: ${(wasm.length / 1000).toFixed(1)} kB`);
}
