/**
 * Keys and values of this plugin in this tenant. Reads see the run's own earlier writes.
 *
 * Values are JSON unless the functions with `Bytes` in their names are used. What `increment` counts is a JSON number,
 * so `get` reads it.
 */

/// <reference path="../types/wit.d.ts" />
import * as host from "bulkhead:plugin/state@0.1.0";

import { bytes, kindOf, optionalText, text, whole } from "./check.js";
import { asked, Reject } from "./failure.js";
import { decode, encode } from "./text.js";

export interface SetOptions {
  /** The value is gone after this many milliseconds. */
  ttlMs?: number;
}

/** The most keys that the host gives at a time. */
const PAGE_KEYS = 1_000;

/** The value under a key; `undefined` if there is none. */
export function get<T = any>(key: string): T | undefined {
  const value = getBytes(key);
  if (value === undefined) return undefined;
  try {
    return JSON.parse(decode(value)) as T;
  } catch (error) {
    throw new Reject(`the value of state key \`${key}\` is no JSON`, { cause: error });
  }
}

/** Puts a value under a key. */
export function set(key: string, value: unknown, options?: SetOptions): void {
  const json = JSON.stringify(value);
  if (json === undefined) throw new TypeError(`the value for state key \`${key}\` (${kindOf(value)}) has no JSON form`);
  setBytes(key, encode(json), options);
}

/** The bytes under a key; `undefined` if there are none. */
export function getBytes(key: string): Uint8Array | undefined {
  const name = text(key, "the key");
  return asked(() => host.get(name)) ?? undefined;
}

/** Puts bytes under a key. */
export function setBytes(key: string, value: Uint8Array, options: SetOptions = {}): void {
  const name = text(key, "the key");
  const content = bytes(value, "the value");
  const ttl = options.ttlMs === undefined ? null : whole(options.ttlMs, "ttlMs");
  asked(() => host.set(name, content, ttl));
}

/** Removes a key; nothing happens if it is not there. */
function remove(key: string): void {
  const name = text(key, "the key");
  asked(() => host.delete(name));
}
export { remove as delete };

/** Adds to a number (0 if absent) and returns the sum. Exact up to 2^53. */
export function increment(key: string, by = 1): number {
  const name = text(key, "the key");
  const amount = whole(by, "the amount", Number.MIN_SAFE_INTEGER);
  return asked(() => host.increment(name, amount));
}

/** The keys that begin with a prefix, in order, asked for page by page. */
export function* keys(prefix = ""): Generator<string, void, void> {
  let after: string | undefined;
  do {
    const { keys, next } = page(prefix, after);
    yield* keys;
    after = next;
  } while (after !== undefined);
}

/** One page of the keys that begin with a prefix, from after a cursor; at most 1,000. */
export function page(prefix: string, after?: string, limit = PAGE_KEYS): { keys: string[]; next?: string } {
  const start = text(prefix, "the prefix");
  const cursor = optionalText(after, "the cursor");
  const most = whole(limit, "the limit");
  const { keys, next } = asked(() => host.keys(start, cursor, Math.min(most, PAGE_KEYS)));
  return next === null ? { keys } : { keys, next };
}
