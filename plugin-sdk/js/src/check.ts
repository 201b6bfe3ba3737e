/**
 * Checks of what goes to the host. A value of the wrong type would end the instance without a word, so it is refused
 * here with one.
 */

export function text(value: unknown, what: string): string {
  if (typeof value !== "string") throw new TypeError(`${what} must be a string, not ${kindOf(value)}`);
  return value.toWellFormed();
}

export function optionalText(value: unknown, what: string): string | null {
  return value === undefined || value === null ? null : text(value, what);
}

/** A whole number from `least` on that JavaScript can hold exactly. */
export function whole(value: unknown, what: string, least = 0): number {
  if (!Number.isSafeInteger(value)) {
    throw new TypeError(`${what} must be a whole number, not ${typeof value === "number" ? value : kindOf(value)}`);
  }
  if ((value as number) < least) throw new RangeError(`${what} must be at least ${least}, not ${value}`);
  return value as number;
}

export function bytes(value: unknown, what: string): Uint8Array {
  if (value instanceof Uint8Array) return value;
  throw new TypeError(`${what} must be a Uint8Array, not ${kindOf(value)}`);
}

export function kindOf(value: unknown): string {
  if (value === null) return "null";
  if (Array.isArray(value)) return "an array";
  return typeof value === "object" ? (value.constructor?.name ?? "an object") : `a value of type ${typeof value}`;
}
