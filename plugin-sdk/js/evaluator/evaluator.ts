/**
 * The evaluator: a plugin whose source is text.
 *
 * It is built once into `evaluator.wasm`. The host makes a tenant's component out of it by writing the tenant's source
 * into the slot, an array in the snapshot of its memory. So nobody needs a toolchain, and the digest of the component
 * covers the source. With an empty slot it checks: the data of an event is read as a source, and what it has is logged.
 *
 * The source is a script, not a module: the SDK's names are there without being imported.
 */

import "../src/globals.js";

import type * as wit from "bulkhead:plugin/types@0.1.0";

import * as sdk from "../src/index.js";
import { decode } from "../src/text.js";
import { guarded, handling, transforming, type Handle, type Transform } from "../src/run.js";
import { loading } from "../src/call.js";

/** What the host looks for. Then four bytes of length, little-endian, and the source as UTF-8. */
const MARK = "bulkhead:source:slot:0.1.0:8d1f6c";
/** Bytes that a source may have. */
const ROOM = 256 * 1024;
/** What an empty slot is full of; no zeros, which the snapshot leaves out. */
const FILLER = 0xa5;

const slot = new Uint8Array(MARK.length + 4 + ROOM).fill(FILLER);
for (let at = 0; at < MARK.length; at++) slot[at] = MARK.charCodeAt(at);

interface Plugin {
  handle?: Handle;
  transform?: Transform;
}

/** Strict, as a module is. The line of the source must stay its line. */
const BEFORE = '"use strict";';
const AFTER = `
;({ handle: typeof handle === "function" ? handle : undefined,
  transform: typeof transform === "function" ? transform : undefined })`;

let loaded: Plugin | undefined;

/** An empty slot has a length that no source has. */
function length(): number {
  const [a, b, c, d] = slot.subarray(MARK.length) as unknown as [number, number, number, number];
  return a | (b << 8) | (c << 16) | (d << 24);
}

function isEmpty(): boolean {
  return length() < 0 || length() > ROOM;
}

function evaluate(text: string): Plugin {
  for (const [name, value] of Object.entries(sdk)) {
    Object.defineProperty(globalThis, name, { value, writable: true, configurable: true, enumerable: false });
  }
  return loading(() => (0, eval)(BEFORE + text + AFTER) as Plugin);
}

function plugin(): Plugin {
  if (loaded === undefined) {
    if (isEmpty()) throw new sdk.Reject("this evaluator has no source");
    const start = MARK.length + 4;
    loaded = evaluate(decode(slot.subarray(start, start + length())));
  }
  return loaded;
}

/** Says what the source has, or where it is wrong. */
function check(text: string): void {
  try {
    const { handle, transform } = evaluate(text);
    sdk.log.info("checked", { handle: handle !== undefined, transform: transform !== undefined });
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    const [, line = "", column = ""] = /<input>:(\d+):(\d+)/.exec(error.stack ?? "") ?? [];
    const shift = line === "1" ? BEFORE.length : 0;
    const attributes = line === "" ? {} : { line, column: String(Number(column) - shift) };
    throw new sdk.Reject(`${error.name}: ${error.message}`, { attributes });
  }
}

const missing = (name: string) => (): never => {
  throw new sdk.Reject(`the source has no function \`${name}\``);
};

export const handler = {
  handle(event: wit.Event): void {
    if (isEmpty()) return guarded(() => check(decode(event.data)));
    const { handle } = guarded(plugin);
    handling(handle ?? missing("handle"))(event);
  },
};

export const transformer = {
  transform(event: wit.Event): wit.Draft[] {
    const { transform } = guarded(plugin);
    return transforming(transform ?? missing("transform"))(event);
  },
};
