import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";

import { SDK } from "./fake-host.mjs";

const read = (path) => readFileSync(join(SDK, path), "utf8");

test("the bundled WIT is the repository's", () => {
  assert.ok(read("wit/plugin.wit") === read("../../wit/plugin.wit"), "copy wit/plugin.wit over it, then `npm run types`");
});

test("the types were made from this WIT", () => {
  const digest = createHash("sha256").update(read("wit/plugin.wit")).digest("hex");
  assert.ok(read("types/wit.d.ts").includes(digest), "`npm run types` makes them anew");
});

test("the README names this version and the contract's", () => {
  const { version } = JSON.parse(read("package.json"));
  const contract = /^package (.+);/m.exec(read("wit/plugin.wit"))[1];
  const rows = read("README.md").split("\n").filter((line) => line.startsWith("|"));
  assert.ok(rows.some((row) => row.includes(version) && row.includes(contract)));
});

test("the evaluator was made from these sources", () => {
  const { status, stderr } = spawnSync(process.execPath, [join(SDK, "scripts/evaluator.mjs"), "--check"], { encoding: "utf8" });
  assert.equal(status, 0, stderr);
});
