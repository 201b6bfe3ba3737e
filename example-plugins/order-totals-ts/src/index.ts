// Works out an order's total (transform), and keeps the totals of each day (handle).

import { context, effects, log, Reject, Retry, state, type Draft, type Event } from "bulkhead-plugin";

import { add, type Day } from "./day.js";

interface Line {
  sku: string;
  quantity: number;
  price: number;
}

interface Order {
  id: string;
  lines?: Line[];
  total?: number;
}

/** The total is the sum of the lines; an order that has one already goes on as it came. */
export function transform(event: Event<Order>): Draft | Event {
  const order = event.json();
  if (order.total !== undefined) return event;
  if (order.lines === undefined || order.lines.length === 0) throw new Reject(`order ${order.id} has no lines`);
  const cents = order.lines.reduce((sum, { quantity, price }) => sum + Math.round(quantity * price * 100), 0);
  return event.withData({ ...order, total: cents / 100 });
}

/** The day is that of this attempt: an order that was late by days still counts when it arrived. */
export function handle(event: Event<Order>): void {
  const { id, total } = event.json();
  if (total === undefined) throw new Retry("the total is not there yet", { afterMs: 5_000 });

  const date = new Date().toISOString().slice(0, 10);
  const day = add(state.get<Day>(`day:${date}`), total);
  state.set(`day:${date}`, day, { ttlMs: 90 * 86_400_000 });

  if (Math.random() < context.config("sample", 0.1)) {
    log.debug("sampled", { order: id });
    effects.emit({ type: "totals.sample", data: { order: id, total }, subject: id });
  }
  if (day.orders % context.config("every", 10) === 0) {
    console.log("totals of", date, day);
    effects.emit({ type: "totals.day", data: { date, ...day }, subject: date });
  }
}
