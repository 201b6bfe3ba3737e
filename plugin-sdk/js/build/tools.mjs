// Finds the tools: in the plugin's own node_modules, in the SDK's, or where BULKHEAD_JS_TOOLS says.

import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

import { Fault } from "./fault.mjs";

const sdk = dirname(dirname(fileURLToPath(import.meta.url)));
const { dependencies, devDependencies } = JSON.parse(readFileSync(join(sdk, "package.json"), "utf8"));

/** Exact: the engine is part of what is built, and another one makes another component. */
const PINS = { ...dependencies, ...devDependencies };

/** The folder of a tool, or nothing. */
export function find(tool, folder = process.cwd()) {
  const places = [folder, sdk, process.env.BULKHEAD_JS_TOOLS].filter(Boolean);
  for (const place of places) {
    const { resolve } = createRequire(join(place, "package.json"));
    for (const base of resolve.paths(tool) ?? []) {
      try {
        const manifest = JSON.parse(readFileSync(join(base, tool, "package.json"), "utf8"));
        return { folder: join(base, tool), manifest };
      } catch (error) {
        if (error.code !== "ENOENT" && error.code !== "ENOTDIR") throw error;
      }
    }
  }
  return undefined;
}

/** Installs what the plugin's package.json names, if a tool that every build needs is not there. */
export function installMissing(folder) {
  if (Object.keys(dependencies).every((tool) => find(tool, folder) !== undefined)) return;
  console.error("installing the tools with npm (80 MB, once)");
  // Scripts of packages have no business here: the tools work without theirs.
  const words = ["install", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
  const { status, error } = spawnSync("npm", words, { cwd: folder, stdio: ["ignore", "ignore", "inherit"] });
  if (error) throw new Fault(`npm cannot be started: ${error.message}`, "Install Node with npm.");
  if (status !== 0) throw new Fault("npm install failed", `It was run in ${folder}.`);
}

/** A tool as a module. */
export async function load(tool) {
  const found = find(tool);
  if (found === undefined) throw new Fault(`${tool} is not installed`, "Run `npm install` in the plugin's folder.");
  if (found.manifest.version !== PINS[tool]) {
    throw new Fault(
      `${tool} is ${found.manifest.version}, and this SDK builds with ${PINS[tool]}`,
      `Run \`npm install --save-dev --save-exact ${tool}@${PINS[tool]}\`.`,
    );
  }
  const main = createRequire(join(found.folder, "package.json")).resolve(found.folder);
  const module = await import(pathToFileURL(main).href);
  return module.default ?? module;
}
