// The SDK's modules, bundled for Node over a host of maps: enough to look at what does not depend on the engine.

import { rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

import { load } from "../build/tools.mjs";

export const SDK = dirname(dirname(fileURLToPath(import.meta.url)));

const HOST = `
  export const calls = (globalThis.hostCalls ??= []);
  const answer = (name) => (...values) => {
    calls.push([name, ...values]);
    const given = globalThis.hostAnswers?.[name];
    if (given instanceof Error) throw given;
    return given ?? null;
  };
  const made = { emit: answer("emit"), deliver: answer("deliver"), write: answer("write"), get: answer("get"),
    set: answer("set"), random: answer("random"), current: answer("current"), increment: answer("increment") };
  export const { emit, deliver, write, get, set, random, current, increment } = made;
  export const schedule = answer("schedule"), cancel = answer("cancel"), keys = answer("keys"),
    config = answer("config"), secret = answer("secret"), field = answer("field"), count = answer("count");
  const drop = answer("delete");
  export { drop as delete };
`;

/** Imports a module that is written here, with the SDK behind \`../src/…\`. */
export async function sdk(source) {
  const esbuild = await load("esbuild");
  const { outputFiles } = await esbuild.build({
    stdin: { contents: source, resolveDir: join(SDK, "test"), loader: "ts" },
    bundle: true,
    write: false,
    format: "esm",
    target: "es2023",
    plugins: [
      {
        name: "host",
        setup(build) {
          build.onResolve({ filter: /^bulkhead:/ }, ({ path }) => ({ path, namespace: "host" }));
          build.onLoad({ filter: /.*/, namespace: "host" }, () => ({ contents: HOST }));
        },
      },
    ],
  });
  const file = join(tmpdir(), `bulkhead-sdk-${process.pid}-${Math.random().toString(36).slice(2)}.mjs`);
  writeFileSync(file, outputFiles[0].text);
  try {
    return await import(pathToFileURL(file).href);
  } finally {
    rmSync(file);
  }
}
