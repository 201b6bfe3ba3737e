/**
 * Write Bulkhead plugins in TypeScript or JavaScript.
 *
 * A plugin is a module that exports `handle`, `transform` or both: synchronous functions over an event. What they want
 * to happen (state, events, deliveries, timers) is held back by the host and committed together with the run, or
 * discarded with a run that throws. So a plugin may be run again at any time and never has to undo anything.
 *
 * ```ts
 * import { effects, log, state, type Event } from "bulkhead-plugin";
 *
 * export function handle(event: Event<{ customer: string; total: number }>) {
 *   const order = event.json();
 *   const nth = state.increment(`orders:${order.customer}`);
 *   log.info("an order", { nth });
 *   if (nth % 10 === 0) effects.emit({ type: "orders.tenth", data: { customer: order.customer, nth } });
 * }
 * ```
 */

/// <reference path="../types/globals.d.ts" />
export * as context from "./context.js";
export * as effects from "./effects.js";
export * as log from "./log.js";
export * as state from "./state.js";
export * as usage from "./usage.js";
export type { Attributes, Body, Draft } from "./draft.js";
export { Event } from "./event.js";
export { Failure, Refusal, Reject, Retry } from "./failure.js";
export type { FailureOptions, RefusalKind, Verdict } from "./failure.js";
