#!/usr/bin/env node
// bulkhead-js build: from a plugin's sources to its component.

import { relative } from "node:path";

import { Fault, build } from "../build/build.mjs";

const USAGE = `Builds a Bulkhead plugin from TypeScript or JavaScript.

Usage: bulkhead-js build [options] [entry]

  entry            the module that exports \`handle\`, \`transform\` or both
                   (src/index.ts, src/index.js, index.ts or index.js unless given)
  -o, --out FILE   the component (dist/plugin.wasm); the bundle goes beside it as .js
  --opt-size       half a megabyte smaller, and a third slower
  --install        run npm install first, if a tool is missing
  --no-check       do not run tsc
`;

function options(words) {
  const found = { entry: undefined, out: "dist/plugin.wasm", optSize: false, check: true, install: false };
  for (let at = 0; at < words.length; at++) {
    const word = words[at];
    if (word === "-o" || word === "--out") {
      found.out = words[++at];
      if (found.out === undefined) throw new Fault(`${word} needs a file`, USAGE);
    } else if (word === "--opt-size") found.optSize = true;
    else if (word === "--no-check") found.check = false;
    else if (word === "--install") found.install = true;
    else if (word.startsWith("-")) throw new Fault(`there is no option ${word}`, USAGE);
    else if (found.entry !== undefined) throw new Fault(`one entry, not two: ${found.entry} and ${word}`, USAGE);
    else found.entry = word;
  }
  return found;
}

const [command, ...words] = process.argv.slice(2);
try {
  if (command === undefined || command === "help" || words.includes("--help") || command === "--help") {
    process.stdout.write(USAGE);
  } else if (command === "build") {
    const { out, size, bundled, exports } = await build({ folder: process.cwd(), ...options(words) });
    const kilo = (bytes) => (bytes / 1000).toFixed(1).padStart(8) + " kB";
    const line = (file, bytes, what) => console.log(`${relative(process.cwd(), file).padEnd(24)}${kilo(bytes)}  ${what}`);
    line(out.bundle, bundled, "your code and the SDK");
    line(out.component, size, `with the engine; exports ${exports.join(" and ")}`);
    // `bulkhead plugin build` says itself what comes next.
    if (!process.env.BULKHEAD_PLUGIN_BUILD) console.error("next: bulkhead plugin test");
  } else {
    throw new Fault(`there is no command ${command}`, USAGE);
  }
} catch (error) {
  if (!(error instanceof Fault)) throw error;
  console.error(`error: ${error.message}`);
  if (error.hint) console.error(`\n${error.hint}`);
  process.exitCode = 1;
}
