/** Costs that only the plugin knows; they appear on the tenant's usage statement. */

/// <reference path="../types/wit.d.ts" />
import * as host from "bulkhead:plugin/usage@0.1.0";

import { kindOf, text } from "./check.js";
import { asked } from "./failure.js";

/** Counts an amount of a unit: tokens, pages, cents. */
export function count(unit: string, amount: number): void {
  const name = text(unit, "the unit");
  if (typeof amount !== "number") throw new TypeError(`the amount must be a number, not ${kindOf(amount)}`);
  asked(() => host.count(name, amount));
}
