/**
 * The call that is under way: its clock and its random numbers. Both come from the host, and both are the same when it
 * re-executes an attempt. Outside a call there is neither: what is worked out when a plugin is built would be the same
 * in every instance for ever.
 */

/// <reference path="../types/wit.d.ts" />
import * as host from "bulkhead:plugin/context@0.1.0";

interface Call {
  /** The plugin's own code is being loaded: there is a host, but what is asked now would be kept for later calls. */
  loading?: boolean;
  now?: number;
  next?: () => number;
}

let call: Call | undefined;

/** Does something as one call. */
export function during<T>(body: () => T): T {
  call = {};
  try {
    return body();
  } finally {
    call = undefined;
  }
}

/** Does something within a call that later calls of the instance will rely on: there is no clock, nor random numbers. */
export function loading<T>(body: () => T): T {
  const current = underWay("loading");
  current.loading = true;
  try {
    return body();
  } finally {
    current.loading = false;
  }
}

/** Whether the host can be asked. */
export function isUnderWay(): boolean {
  return call !== undefined;
}

/** The time of the attempt in milliseconds. */
export function now(): number {
  const { now } = underWay("the time");
  return now ?? (underWay("the time").now = host.current().now);
}

/** A random number from 0 to below 1. */
export function random(): number {
  const call = underWay("a random number");
  call.next ??= generator(host.random(16));
  return call.next();
}

function underWay(what: string): Call {
  if (call === undefined || call.loading) {
    throw new Error(`${what} was asked for while the plugin is loaded; ask inside \`handle\` or \`transform\``);
  }
  return call;
}

/** sfc32, the small fast counting generator: 128 bits of state, and 53 bits a number. */
function generator(seed: Uint8Array): () => number {
  const words = new Uint32Array(seed.buffer.slice(seed.byteOffset, seed.byteOffset + 16));
  let [a, b, c, d] = words as unknown as [number, number, number, number];
  const next = (): number => {
    const t = (a + b + d) | 0;
    d = (d + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = ((c << 21) | (c >>> 11)) + t | 0;
    return t >>> 0;
  };
  for (let at = 0; at < 12; at++) next();
  return () => ((next() >>> 5) * 0x4000000 + (next() >>> 6)) / 0x20000000000000;
}
