// esbuild: one module of everything that the plugin imports, save for the host's interfaces.

import { isBuiltin } from "node:module";
import { join } from "node:path";

import { Fault } from "./fault.mjs";
import { load } from "./tools.mjs";

/** Bundles an entry file, or a source that stands in the folder. Gives the text and the names that it exports. */
export async function bundle({ folder, sdk, entry, source }) {
  const esbuild = await load("esbuild");
  const input = source === undefined ? { entryPoints: [entry] } : { stdin: { contents: source, resolveDir: folder } };
  try {
    const { outputFiles, metafile } = await esbuild.build({
      ...input,
      absWorkingDir: folder,
      bundle: true,
      write: false,
      metafile: true,
      outfile: "plugin.js",
      format: "esm",
      platform: "neutral",
      mainFields: ["module", "main"],
      target: "es2023",
      charset: "utf8",
      legalComments: "inline",
      logLevel: "silent",
      external: ["bulkhead:*"],
      // The SDK that builds is the one that is built in.
      alias: {
        "bulkhead-plugin": join(sdk, "src/index.ts"),
        "bulkhead-plugin/globals": join(sdk, "src/globals.ts"),
        "bulkhead-plugin/run": join(sdk, "src/run.ts"),
      },
    });
    return { text: outputFiles[0].text, exports: Object.values(metafile.outputs)[0].exports };
  } catch (error) {
    if (!Array.isArray(error.errors)) throw error;
    const missing = error.errors.map(({ text }) => /^Could not resolve "([^"]+)"/.exec(text)?.[1]);
    const builtin = missing.find((name) => name !== undefined && isBuiltin(name));
    // They would advise to build for Node.
    if (builtin !== undefined) error.errors.forEach((one) => (one.notes = []));
    const messages = await esbuild.formatMessages(error.errors, { kind: "error", color: process.stderr.isTTY });
    throw new Fault(
      `the plugin cannot be bundled\n\n${messages.join("")}`.trimEnd(),
      builtin && `\`${builtin}\` is part of Node. A plugin has no files, no sockets and no processes; use another package.`,
    );
  }
}
