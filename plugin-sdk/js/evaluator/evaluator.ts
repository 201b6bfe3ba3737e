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
import { ownCodeIs, placeIn, pluginCall } from "../src/show.js";

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

/** Behind the source, on lines of its own. */
const AFTER = `
;({ handle: typeof handle === "function" ? handle : undefined,
  transform: typeof transform === "function" ? transform : undefined })`;

/**
 * Evaluates a text that is strict, as a module is, without a word before it: so its lines and columns stay what they are
 * for its author. It sees what is global and nothing of this module, since a function that is made so closes over nothing.
 */
const strictly = new Function('"use strict"; return eval(arguments[0]);') as (text: string) => unknown;
// In stacks, the plugin's own code ends here.
Object.defineProperty(strictly, "name", { value: pluginCall.name });

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
  ownCodeIs(text);
  return loading(() => strictly.call(globalThis, text + AFTER) as Plugin);
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
    let reason = `${error.name}: ${error.message}`;
    let place = placeIn(text, error.stack ?? "");
    if (place !== undefined && place[0] > text.split("\n").length) {
      // What does not fit is what is behind the source, of which its author knows nothing.
      const lines = text.trimEnd().split("\n");
      place = [lines.length, [...lines.at(-1)!].length + 1];
      reason = `${error.name}: the source ends too early`;
    }
    const attributes = place === undefined ? {} : { line: String(place[0]), column: String(place[1]) };
    throw new sdk.Reject(reason, { attributes });
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
