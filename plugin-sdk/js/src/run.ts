/** What the host calls: around the plugin's own functions, turns what they throw into a failure. */

/// <reference path="../types/wit.d.ts" />
import type * as wit from "bulkhead:plugin/types@0.1.0";

import { during } from "./call.js";
import { whole } from "./check.js";
import { attributes, draft, type Draft } from "./draft.js";
import { Event } from "./event.js";
import { Failure, Refusal, Reject } from "./failure.js";
import * as log from "./log.js";
import { headline, pluginCall, reason, show, stack } from "./show.js";

export type Handle = (event: Event) => void;
export type Transform = (event: Event) => Draft | Draft[] | null | undefined;

/** The `handle` of the contract. */
export function handling(handle: Handle): (raw: wit.Event) => void {
  return (raw) => guarded(() => settled(pluginCall(() => handle(new Event(raw))), "handle"));
}

/** The `transform` of the contract. None is no event, an event given back is passed on as it came. */
export function transforming(transform: Transform): (raw: wit.Event) => wit.Draft[] {
  return (raw) =>
    guarded(() => {
      const given: unknown = pluginCall(() => transform(new Event(raw)));
      settled(given, "transform");
      const list = given === undefined || given === null ? [] : Array.isArray(given) ? given : [given];
      return list.map((one: Draft | Event, at) => {
        return draft(one instanceof Event ? one.passOn() : one, `event ${at + 1} that transform returned`);
      });
    });
}

/** Calls it as one invocation; what it throws is thrown as the contract's failure. */
export function guarded<T>(body: () => T): T {
  return during(() => {
    try {
      return body();
    } catch (thrown) {
      throw failure(thrown);
    }
  });
}

/** Nothing runs after a call has returned, so nobody would wait for a promise. */
function settled(value: unknown, name: string): void {
  if (typeof (value as PromiseLike<unknown> | null | undefined)?.then === "function") {
    throw new Reject(`\`${name}\` returned a promise: it must be synchronous (no \`async\`, no \`await\`)`);
  }
}

/**
 * A `Retry` or `Reject` is what it says; a refusal is tried again if time may lift it. Anything else is a fault that
 * nobody thought of: its stack goes to the log, and the run is tried again.
 */
function failure(thrown: unknown): wit.Failure {
  if (thrown instanceof Failure) {
    return {
      verdict: thrown.verdict,
      reason: reason(thrown),
      afterMs: thrown.afterMs === undefined ? null : Math.max(0, whole(Math.ceil(thrown.afterMs), "afterMs", -Infinity)),
      attributes: attributes(thrown.attributes, "the failure"),
    };
  }
  if (thrown instanceof Refusal) {
    return { verdict: thrown.mayPass ? "retry" : "reject", reason: reason(thrown), afterMs: null, attributes: [] };
  }
  // The heap stays full: what is no failure of the contract ends the instance, and the host says which limit it was.
  if (thrown instanceof Error && thrown.name === "InternalError" && thrown.message === "out of memory") throw thrown;
  const isError = thrown instanceof Error;
  const text = isError ? headline(thrown) : `thrown: ${show(thrown)}`;
  log.error(text, isError ? { stack: stack(thrown) } : {});
  return { verdict: "retry", reason: text, afterMs: null, attributes: [] };
}
