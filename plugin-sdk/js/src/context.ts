/** Who is running, and with what settings. */

/// <reference path="../types/wit.d.ts" />
import * as host from "bulkhead:plugin/context@0.1.0";

import { text, whole } from "./check.js";
import { asked, Reject } from "./failure.js";

/** This attempt. */
export interface Invocation {
  /** The plugin's name. */
  plugin: string;
  /** Its version. */
  version: string;
  /** The rule that called it. */
  rule: string;
  /** 1 on the first try. */
  attempt: number;
  /** The time of this attempt in milliseconds since the epoch, the same on every re-execution of it. */
  now: number;
}

/** This attempt. */
export function current(): Invocation {
  return host.current();
}

/** A setting of this plugin; `undefined` if neither the tenant nor the manifest gives it a value. */
export function config<T = any>(name: string): T | undefined;
/** A setting of this plugin, or a value in its place. */
export function config<T>(name: string, otherwise: T): T;
export function config<T>(name: string, otherwise?: T): T | undefined {
  const json = host.config(text(name, "the setting's name"));
  return json === null ? otherwise : read(json, `the setting \`${name}\``);
}

/** A secret of the tenant; the manifest must ask for it under `secrets`. */
export function secret(name: string): string {
  const which = text(name, "the secret's name");
  return asked(() => host.secret(which));
}

/**
 * One value in the event's data by its JSON pointer, without reading the whole: worth it for a few fields of a big
 * document. `undefined` if there is none.
 */
export function field<T = any>(pointer: string): T | undefined {
  const json = host.field(text(pointer, "the pointer"));
  return json === null ? undefined : read(json, `\`${pointer}\` in the event's data`);
}

/** Random bytes: they differ between events and repeat on a re-execution. At most 64 KiB a call. */
export function random(length: number): Uint8Array {
  return host.random(whole(length, "the length"));
}

function read<T>(json: string, what: string): T {
  try {
    return JSON.parse(json);
  } catch (error) {
    throw new Reject(`${what} is no JSON`, { cause: error });
  }
}
