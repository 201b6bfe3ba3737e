// tsc, where the plugin has a tsconfig.json and TypeScript is installed. esbuild drops types without reading them.

import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";

import { Fault } from "./fault.mjs";
import { find } from "./tools.mjs";

export function typeCheck(folder, isTypeScript) {
  if (!existsSync(join(folder, "tsconfig.json"))) {
    if (isTypeScript) console.error("note: types are not checked, as there is no tsconfig.json");
    return;
  }
  const typescript = find("typescript", folder);
  if (typescript === undefined) {
    if (isTypeScript) console.error("note: types are not checked, as typescript is not installed");
    return;
  }
  const tsc = join(typescript.folder, typescript.manifest.bin.tsc);
  const { status, error } = spawnSync(process.execPath, [tsc, "--noEmit", "--project", folder], { stdio: "inherit" });
  if (error) throw error;
  if (status !== 0) throw new Fault("the types do not fit (`--no-check` builds all the same)");
}
