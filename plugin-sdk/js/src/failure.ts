/** Failures: how a run ends when it does not succeed, and how errors become one. */

/// <reference path="../types/wit.d.ts" />
import type * as wit from "bulkhead:plugin/types@0.1.0";

import type { Attributes } from "./draft.js";

/** `retry`: later, as often as the rule allows. `reject`: not by itself; the run is parked for a person to look at. */
export type Verdict = wit.Verdict;

export interface FailureOptions {
  /** No attempt before this many milliseconds have passed. Only a retry heeds it. */
  afterMs?: number;
  /** Further facts for whoever looks at the run. */
  attributes?: Attributes;
  /** The error that led to this one; its message is added to the reason. */
  cause?: unknown;
}

/** The end of a run that did not succeed. Its effects are discarded. */
export class Failure extends Error {
  readonly verdict: Verdict;
  readonly afterMs: number | undefined;
  readonly attributes: Attributes;

  constructor(verdict: Verdict, reason: string, options: FailureOptions = {}) {
    super(reason, "cause" in options ? { cause: options.cause } : undefined);
    this.name = new.target.name;
    this.verdict = verdict;
    this.afterMs = options.afterMs;
    this.attributes = options.attributes ?? {};
  }
}

/** Asks for another attempt: `throw new Retry("the price list is not here yet", { afterMs: 30_000 })`. */
export class Retry extends Failure {
  constructor(reason: string, options?: FailureOptions) {
    super("retry", reason, options);
    this.name = "Retry";
  }
}

/** Parks the run, since another attempt would end the same: `throw new Reject("an order without lines")`. */
export class Reject extends Failure {
  constructor(reason: string, options?: FailureOptions) {
    super("reject", reason, options);
    this.name = "Reject";
  }
}

export type RefusalKind = wit.Refusal["tag"];

const WORDS: Record<RefusalKind, string> = {
  denied: "denied",
  limit: "over a limit",
  invalid: "invalid",
  "not-found": "not found",
  other: "refused",
};

/** The host did not carry out a call. Nothing was written by it, and the plugin may go on. */
export class Refusal extends Error {
  readonly kind: RefusalKind;

  constructor(kind: RefusalKind, text: string) {
    super(`${WORDS[kind] ?? kind}: ${text}`);
    this.name = "Refusal";
    this.kind = kind;
  }

  /** Whether the same call may be carried out later without anybody doing anything. */
  get mayPass(): boolean {
    return this.kind === "limit" || this.kind === "other";
  }
}

/** Carries out a call of the host; what it refuses is thrown as a `Refusal`. */
export function asked<T>(call: () => T): T {
  try {
    return call();
  } catch (thrown) {
    const refusal = (thrown as { payload?: wit.Refusal } | null)?.payload;
    throw refusal?.tag === undefined ? thrown : new Refusal(refusal.tag, refusal.val);
  }
}
