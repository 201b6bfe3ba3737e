// componentize-qjs: the engine, with the plugin loaded into it, as a component without any system interface.

import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { Fault } from "./fault.mjs";
import { load } from "./tools.mjs";

/** Makes a component that exports these interfaces of the contract. */
export async function component({ sdk, text, exports, optSize }) {
  const { componentize } = await load("componentize-qjs");
  const room = mkdtempSync(join(tmpdir(), "bulkhead-js-"));
  try {
    const contract = join(sdk, "wit/plugin.wit");
    const version = /^package bulkhead:plugin@([\d.]+);/m.exec(readFileSync(contract, "utf8"))[1];
    mkdirSync(join(room, "deps/bulkhead-plugin"), { recursive: true });
    copyFileSync(contract, join(room, "deps/bulkhead-plugin/plugin.wit"));
    const items = exports.map((name) => `  export bulkhead:plugin/${name}@${version};\n`).join("");
    const world = `world plugin {\n  include bulkhead:plugin/imports@${version};\n${items}}\n`;
    writeFileSync(join(room, "world.wit"), `package bulkhead-js:plugin;\n${world}`);
    const made = await componentize({ witPath: room, world: "plugin", jsSource: text, sync: true, stubWasi: true, optSize });
    return made.component;
  } catch (error) {
    throw fault(String(error.message ?? error));
  } finally {
    rmSync(room, { recursive: true, force: true });
  }
}

/** What stands outside of functions runs once, at the build, with no host behind it. */
function fault(text) {
  const called = /unknown import: `bulkhead:plugin\/([a-z-]+)@[\d.]+#([a-z-]+)`/.exec(text);
  if (called !== null) {
    return new Fault(
      `the plugin calls the host (${called[1]}.${called[2]}) outside of \`handle\` and \`transform\``,
      "What stands outside of functions runs once, when the plugin is built. Move the call into a function.",
    );
  }
  const thrown = /module evaluation: ([^]*)$/.exec(text)?.[1] ?? text;
  return new Fault(
    `the plugin throws while it is loaded: ${thrown.replaceAll("componentize-qjs:user.js", "plugin.js").trimEnd()}`,
    "What stands outside of functions runs once, when the plugin is built, and then there is no host and no system.",
  );
}
