// Greets customers, each time in other words.

import { context, effects, Reject, state } from "bulkhead-plugin";

export function handle(event) {
  const { name } = event.json();
  if (typeof name !== "string") throw new Reject("nobody to greet: the data has no `name`");

  const times = state.increment(`greeted:${name}`);
  const greetings = context.config("greetings", ["Hello"]);
  const greeting = greetings[Math.floor(Math.random() * greetings.length)];
  // A misspelt setting is a bug of whoever set it: this throws, the log has the stack, and the run is tried again.
  const text = `${greeting.trim()}, ${name}!`;

  const hour = new Date().getUTCHours();
  console.info(`${text} (number ${times}, at ${hour} o'clock)`);
  effects.emit({ type: "greetings.sent", data: { text, times, at: Date.now() }, key: name });
}
