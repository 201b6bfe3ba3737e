/** What is known of a day. */
export interface Day {
  orders: number;
  sum: number;
  largest: number;
}

export function add(day: Day = { orders: 0, sum: 0, largest: 0 }, total: number): Day {
  if (!Number.isFinite(total)) throw new TypeError(`a total of ${total}`);
  // Sums of cents, so that they stay exact.
  const sum = (Math.round(day.sum * 100) + Math.round(total * 100)) / 100;
  return { orders: day.orders + 1, sum, largest: Math.max(day.largest, total) };
}
