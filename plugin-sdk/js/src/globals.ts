/**
 * What plugins expect to find: `console`, the clock, random numbers, `TextEncoder`. QuickJS has none of them, or one that
 * ends the instance because there is no system behind it. Imported for its effect, before the plugin's own modules.
 */

import * as call from "./call.js";
import { random } from "./context.js";
import { write, type Level } from "./log.js";
import { show } from "./show.js";
import { TextDecoder, TextEncoder } from "./text.js";

const line =
  (level: Level) =>
  (...values: unknown[]): void => {
    // While a plugin is built, there is no log to write to.
    if (call.isUnderWay()) write(level, values.map(show).join(" "));
  };

const console = {
  log: line("info"),
  info: line("info"),
  dir: line("info"),
  debug: line("debug"),
  trace: line("trace"),
  warn: line("warn"),
  error: line("error"),
  assert(condition: unknown, ...values: unknown[]): void {
    if (!condition) console.error("assertion failed", ...values);
  },
};

const OldDate = globalThis.Date;

/** A date whose now is the time of the attempt. */
const Date: DateConstructor = new Proxy(OldDate, {
  construct: (_, values, target): object =>
    Reflect.construct(OldDate, values.length === 0 ? [call.now()] : values, target === Date ? OldDate : target),
  apply: () => new OldDate(call.now()).toString(),
  get: (target, name, receiver) => (name === "now" ? call.now : Reflect.get(target, name, receiver)),
});
OldDate.prototype.constructor = Date;

const crypto = {
  getRandomValues<T extends ArrayBufferView>(into: T): T {
    const bytes = new Uint8Array(into.buffer, into.byteOffset, into.byteLength);
    if (bytes.length > 0) bytes.set(random(bytes.length));
    return into;
  },
  randomUUID(): string {
    const bytes = random(16);
    bytes[6] = (bytes[6]! & 0x0f) | 0x40;
    bytes[8] = (bytes[8]! & 0x3f) | 0x80;
    const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
    return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
  },
};

/** Time stands still during a call, so nothing takes any. */
const performance = { now: () => 0, timeOrigin: 0 };

for (const [name, value] of Object.entries({ console, Date, crypto, performance, TextDecoder, TextEncoder })) {
  Object.defineProperty(globalThis, name, { value, writable: true, configurable: true, enumerable: false });
}
Object.defineProperty(Math, "random", { value: call.random, writable: true, configurable: true, enumerable: false });
