// Writes types/wit.d.ts anew from wit/plugin.wit.
//
//   npm install --no-save @bytecodealliance/jco@1.34.0 && npm run types
//
// jco writes types for StarlingMonkey. QuickJS differs in two things, which are put right here: numbers of 64 bits are
// numbers (exact up to 2^53), and an option that is none is null. 1.35.0 of jco cannot read a WIT file.

import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(dirname(fileURLToPath(import.meta.url)));
const wit = join(here, "wit");
const room = mkdtempSync(join(tmpdir(), "bulkhead-types-"));

try {
  const jco = process.env.JCO ?? join(here, "node_modules/.bin/jco");
  execFileSync(jco, ["guest-types", wit, "-n", "imports", "-o", room, "--quiet"], { stdio: "inherit" });
  const folder = join(room, "interfaces");
  const parts = readdirSync(folder).sort().map((file) => readFileSync(join(folder, file), "utf8"));
  const text = parts
    .join("\n")
    .replace(/^\/\/\/ <reference.*\n/gm, "")
    .replaceAll("bigint", "number")
    .replace(/(\w+)\?: (\w+)/g, "$1: $2 | null")
    .replaceAll("| undefined", "| null")
    .replace(/[ \t]+$/gm, "");
  const digest = createHash("sha256").update(readFileSync(join(wit, "plugin.wit"))).digest("hex");
  const head = `// Made from wit/plugin.wit by scripts/types.mjs; do not edit.\n// sha256 of that file: ${digest}\n\n`;
  writeFileSync(join(here, "types/wit.d.ts"), head + text.trimEnd() + "\n");
} finally {
  rmSync(room, { recursive: true });
}
