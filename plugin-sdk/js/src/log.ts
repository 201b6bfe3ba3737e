/** The plugin's log. It is kept with the run, also with one that fails. `console` writes here, too. */

/// <reference path="../types/wit.d.ts" />
import * as host from "bulkhead:plugin/log@0.1.0";

import { show } from "./show.js";

export type Level = host.Level;

/** Writes a line with fields: `write("info", "flagged", { customer, score })`. */
export function write(level: Level, message: string, fields: Record<string, unknown> = {}): void {
  const pairs = Object.entries(fields).map(([name, value]): host.Attribute => [name.toWellFormed(), show(value)]);
  host.write(level, show(message), pairs);
}

const at =
  (level: Level) =>
  (message: string, fields?: Record<string, unknown>): void =>
    write(level, message, fields);

/** Writes a line for tracing. */
export const trace = at("trace");
/** Writes a line for the plugin's author. */
export const debug = at("debug");
/** Writes an ordinary line. */
export const info = at("info");
/** Writes a line about something unusual. */
export const warn = at("warn");
/** Writes a line about something wrong. */
export const error = at("error");
