/** Values as text for people: for the log, for `console`, for reasons. Never throws. */

/** How componentize-qjs calls the module that the build writes as `plugin.js`. */
const MODULE = "componentize-qjs:user.js";
/** Places in a text that is evaluated, as QuickJS writes them: line and column, both from 1. */
const PLACES = /<input>:(\d+):(\d+)/g;

/** The plugin's own code, if it is a text that is evaluated. All of this module is then the SDK's, and in no stack. */
let own: string | undefined;

/** Says that the plugin's own code is this text. */
export function ownCodeIs(text: string): void {
  own = text;
}

/** A string as it is, an error with its stack, anything else much like JSON. */
export function show(value: unknown): string {
  if (typeof value === "string") return value.toWellFormed();
  if (value instanceof Error) return [headline(value), stack(value)].filter(Boolean).join("\n");
  if (typeof value !== "object" || value === null) return typeof value === "function" ? `[function ${value.name}]` : String(value);
  try {
    const seen: unknown[] = [];
    const json = JSON.stringify(value, function (this: unknown, _, inner) {
      // What is above the value that is being looked at; a value that is there twice side by side is no circle.
      while (seen.length > 0 && seen[seen.length - 1] !== this) seen.pop();
      if (typeof inner === "bigint") return `${inner}n`;
      if (typeof inner !== "object" || inner === null) return inner;
      if (seen.includes(inner)) return "[circular]";
      seen.push(inner);
      if (inner instanceof Error) return headline(inner);
      if (inner instanceof Map) return Object.fromEntries(inner);
      return inner instanceof Set || ArrayBuffer.isView(inner) ? Array.from(inner as Iterable<unknown>) : inner;
    });
    return (json ?? String(value)).toWellFormed();
  } catch {
    return Object.prototype.toString.call(value);
  }
}

/** `TypeError: not a function`, with its causes. */
export function headline(error: Error): string {
  const name = String(error.name || "Error");
  return reason(error) === "" ? name : `${name}: ${reason(error)}`;
}

/** The message of an error and those of its causes. */
export function reason(error: Error): string {
  const texts: string[] = [];
  let link: unknown = error;
  // A chain that long is a circle.
  for (let depth = 0; depth < 10 && link instanceof Error; depth++) {
    texts.push(String(link.message));
    link = link.cause;
  }
  return texts.join(": ").toWellFormed();
}

/** Where it was thrown, line by line, as far as the plugin's own code goes. */
export function stack(error: Error): string {
  if (typeof error.stack !== "string") return "";
  const lines = error.stack.trimEnd().split("\n");
  const end = lines.findIndex((line) => line.includes(` ${pluginCall.name} (`));
  const until = end < 0 ? lines : lines.slice(0, end);
  if (own === undefined) return until.join("\n").replaceAll(MODULE, "plugin.js").toWellFormed();
  const text = own;
  return until
    .filter((line) => !line.includes(MODULE))
    .join("\n")
    .replace(PLACES, (place) => `plugin.js:${placeIn(text, place)!.join(":")}`)
    .toWellFormed();
}

/** The first place of a stack in a text that was evaluated, as line and column. The engine counts bytes, we characters. */
export function placeIn(text: string, stack: string): [line: number, column: number] | undefined {
  const [found] = stack.matchAll(PLACES);
  if (found === undefined) return undefined;
  const [line, byte] = [Number(found[1]), Number(found[2])];
  let [bytes, column] = [1, 1];
  for (const character of text.split("\n")[line - 1] ?? "") {
    if (bytes >= byte) break;
    const code = character.codePointAt(0)!;
    bytes += code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    column++;
  }
  return [line, column];
}

/** Calls the plugin; stands in stacks where the plugin's own code ends. */
export function pluginCall<T>(body: () => T): T {
  return body();
}
