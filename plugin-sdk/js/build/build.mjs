// The steps of a build: type check, bundle, component. Everything that a person can put right is a `Fault`.

import { existsSync, mkdirSync, renameSync, writeFileSync } from "node:fs";
import { dirname, extname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

import { bundle } from "./bundle.mjs";
import { component } from "./component.mjs";
import { Fault } from "./fault.mjs";
import { installMissing } from "./tools.mjs";
import { typeCheck } from "./typecheck.mjs";

export { Fault };

/** The folder of this SDK. */
export const SDK = dirname(dirname(fileURLToPath(import.meta.url)));

const ENTRIES = ["src/index.ts", "src/index.js", "index.ts", "index.js"];

/** Which function of a plugin stands behind which interface of the contract. */
const INTERFACES = { handle: "handler", transform: "transformer" };

export async function build({ folder, entry, out, optSize, check, install }) {
  const main = entry ?? ENTRIES.find((path) => existsSync(join(folder, path)));
  if (main === undefined) throw new Fault(`no entry here: none of ${ENTRIES.join(", ")} is in ${folder}`);
  if (!existsSync(resolve(folder, main))) throw new Fault(`there is no ${main} in ${folder}`);
  if (install) installMissing(folder);
  if (check) typeCheck(folder, /^\.[cm]?tsx?$/.test(extname(main)));

  const names = (await bundle({ folder, sdk: SDK, entry: main })).exports;
  const found = Object.keys(INTERFACES).filter((name) => names.includes(name));
  if (found.length === 0) {
    const instead = names.length > 0 ? `it exports ${names.join(", ")}` : "it exports nothing";
    throw new Fault(
      `${main} exports neither \`handle\` nor \`transform\`: ${instead}`,
      "export function handle(event) {\n  …\n}",
    );
  }
  const { text } = await bundle({ folder, sdk: SDK, source: wrapper(main, found) });
  const exports = found.map((name) => INTERFACES[name]);
  const wasm = await component({ sdk: SDK, text, exports, optSize });

  const target = resolve(folder, out);
  const beside = target.replace(/(\.wasm)?$/, ".js");
  mkdirSync(dirname(target), { recursive: true });
  writeFileSync(beside, text);
  // By a rename, so that whoever watches the file never sees half of it.
  writeFileSync(`${target}.new`, wasm);
  renameSync(`${target}.new`, target);
  return { out: { component: target, bundle: beside }, size: wasm.length, bundled: Buffer.byteLength(text), exports };
}

/** The module that the host's calls go to. */
function wrapper(entry, found) {
  const lines = [
    'import "bulkhead-plugin/globals";',
    'import { handling, transforming } from "bulkhead-plugin/run";',
    `import { ${found.join(", ")} } from ${JSON.stringify("./" + entry.replace(/^\.\//, ""))};`,
  ];
  if (found.includes("handle")) lines.push("export const handler = { handle: handling(handle) };");
  if (found.includes("transform")) lines.push("export const transformer = { transform: transforming(transform) };");
  return lines.join("\n");
}
