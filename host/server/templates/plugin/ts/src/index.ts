// Flags orders above a threshold, and counts them by customer.

import { context, effects, log, Reject, state, type Event } from "bulkhead-plugin";

interface Order {
  id: string;
  customer: string;
  total: number;
}

// Nothing that is done here happens before the host commits the run; if it throws, nothing of it happened.
export function handle(event: Event<Order>): void {
  const { id, customer, total } = event.json();
  if (total < 0) throw new Reject(`order ${id} has a total below zero`);
  if (total <= context.config("threshold", 1_000)) return;

  const flagged = state.increment(`flagged:${customer}`);
  log.info("flagged", { order: id, customer, flagged });
  effects.emit({ type: "orders.flagged", data: { order: id, total, flagged }, subject: id, key: customer });
}
