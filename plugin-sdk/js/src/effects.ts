/** What the plugin wants to happen. Nothing happens before the run commits, and nothing if it fails. */

/// <reference path="../types/wit.d.ts" />
import * as host from "bulkhead:plugin/effects@0.1.0";

import { optionalText, text, whole } from "./check.js";
import { content, draft, type Body, type Draft } from "./draft.js";
import { asked } from "./failure.js";

/** Publishes an event in the same tenant, and returns the id that it will have. */
export function emit(event: Draft): string {
  const made = draft(event, "the event");
  return asked(() => host.emit(made));
}

/** Sends a body to one of the tenant's sinks, and returns the id by which the receiver can dedupe. */
export function deliver(sink: string, body: Body): string {
  const name = text(sink, "the sink");
  const { contentType, data, attributes } = content(body, "the body");
  return asked(() => host.deliver(name, contentType, data, attributes));
}

/** Publishes an event later, and returns the timer's id. A second timer of the same name replaces the first. */
export function schedule(afterMs: number, event: Draft, name?: string): string {
  const timer = optionalText(name, "the timer's name");
  const delay = whole(afterMs, "the delay");
  const made = draft(event, "the event");
  return asked(() => host.schedule(timer, delay, made));
}

/** Takes a timer back, by its id or name. */
export function cancel(timer: string): void {
  const which = text(timer, "the timer");
  asked(() => host.cancel(which));
}
