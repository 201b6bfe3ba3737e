import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

import { sdk } from "./fake-host.mjs";

const { effects, state, log, Event, Reject, Retry, handling, transforming, encode, decode, show } = await sdk(`
  export * from "../src/index"; export * from "../src/run"; export * from "../src/text"; export * from "../src/show";
`);

beforeEach(() => {
  globalThis.hostCalls.length = 0;
  globalThis.hostAnswers = {};
});

const raw = (data, contentType = "application/json") => ({
  id: "e-1", source: "/shop", type: "orders.created", subject: "A-1", time: 5, key: null, correlationId: "e-1",
  causationId: null, contentType, data: encode(data), attributes: [["dataversion", "1"]],
});

/** What a call of the host throws when it refuses. */
const refusal = (tag, val) => Object.assign(new Error("refused"), { payload: { tag, val } });

/** What `handle` ends with when the plugin's function does this. */
function ending(body, data = "{}") {
  try {
    handling(body)(raw(data));
  } catch (failure) {
    return failure;
  }
  return "done";
}

test("bodies are JSON unless they are bytes or other text", () => {
  const sent = (body) => {
    effects.deliver("crm", body);
    const [, , type, bytes] = globalThis.hostCalls.pop();
    return [type, decode(bytes)];
  };
  assert.deepEqual(sent({ data: { a: "ü" } }), ["application/json", '{"a":"ü"}']);
  assert.deepEqual(sent({ data: "a" }), ["application/json", '"a"']);
  assert.deepEqual(sent({ data: "a", contentType: "text/plain" }), ["text/plain", "a"]);
  assert.deepEqual(sent({ data: "a", contentType: "application/x+json" }), ["application/x+json", '"a"']);
  assert.deepEqual(sent({ data: encode("a") }), ["application/octet-stream", "a"]);
  assert.deepEqual(sent({}), ["application/json", ""]);
  assert.throws(() => effects.deliver("crm", { data: () => 1 }), /has no JSON form/);
});

test("what has the wrong type never reaches the host", () => {
  const wrong = [
    () => effects.emit({ data: 1 }),
    () => effects.emit("orders.x"),
    () => effects.emit({ type: "x", key: 7 }),
    () => effects.emit({ type: "x", attributes: { a: 1 } }),
    () => effects.schedule(1.5, { type: "x" }),
    () => effects.schedule(-1, { type: "x" }),
    () => effects.schedule(1n, { type: "x" }),
    () => state.set("k", undefined),
    () => state.get(undefined),
    () => state.setBytes("k", "text"),
    () => state.increment("k", "1"),
  ];
  for (const call of wrong) assert.throws(call, (error) => error instanceof TypeError || error instanceof RangeError, String(call));
  assert.deepEqual(globalThis.hostCalls, []);
});

test("keys are asked for page by page", () => {
  const pages = [{ keys: ["a", "b"], next: "b" }, { keys: ["c"], next: null }];
  Object.defineProperty(globalThis.hostAnswers, "keys", { get: () => pages.shift() });
  assert.deepEqual([...state.keys("p")], ["a", "b", "c"]);
  assert.deepEqual(globalThis.hostCalls, [["keys", "p", null, 1000], ["keys", "p", "b", 1000]]);
});

test("an ending says what the plugin said", () => {
  assert.equal(ending(() => {}), "done");
  const retry = ending(() => { throw new Retry("later", { afterMs: 10.2, attributes: { a: "b" } }); });
  assert.deepEqual(retry, { verdict: "retry", reason: "later", afterMs: 11, attributes: [["a", "b"]] });
  const reject = ending(() => { throw new Reject("never", { cause: new Error("because") }); });
  assert.deepEqual(reject, { verdict: "reject", reason: "never: because", afterMs: null, attributes: [] });
});

test("data that is no JSON rejects, and says where", () => {
  const { verdict, reason } = ending((event) => event.json(), "{no}");
  assert.equal(verdict, "reject");
  assert.match(reason, /^the data of this `orders.created` \(application\/json, 4 bytes\) is no JSON: .*JSON/);
});

test("a refusal is tried again only if time may lift it", () => {
  const verdict = (tag) => {
    globalThis.hostAnswers.emit = refusal(tag, "text");
    return ending(() => effects.emit({ type: "x" })).verdict;
  };
  const verdicts = ["denied", "invalid", "not-found", "limit", "other"].map(verdict);
  assert.deepEqual(verdicts, ["reject", "reject", "reject", "retry", "retry"]);
});

test("any other exception is tried again and logged with its stack", () => {
  const failure = ending(function fails() { throw new TypeError("not a function"); });
  assert.deepEqual(failure, { verdict: "retry", reason: "TypeError: not a function", afterMs: null, attributes: [] });
  const [[, level, message, [[field, stack]]]] = globalThis.hostCalls;
  assert.deepEqual([level, message, field], ["error", "TypeError: not a function", "stack"]);
  assert.match(stack, /fails/);
  assert.doesNotMatch(stack, /guarded/);
  assert.equal(ending(() => { throw { odd: 1 }; }).reason, 'thrown: {"odd":1}');
});

test("a promise is refused", () => {
  assert.match(ending(async () => {}).reason, /must be synchronous/);
});

test("a transformer drops, maps, splits and passes on", () => {
  const given = (answer) => transforming(answer)(raw('{"a":1}')).map(({ type, subject, data }) => [type, subject, decode(data)]);
  assert.deepEqual(given(() => null), []);
  assert.deepEqual(given((event) => event), [["orders.created", "A-1", '{"a":1}']]);
  assert.deepEqual(given((event) => event.withData({ b: 2 })), [["orders.created", "A-1", '{"b":2}']]);
  assert.deepEqual(given((event) => [event, { type: "x", data: 1 }]), [["orders.created", "A-1", '{"a":1}'], ["x", null, "1"]]);
  assert.throws(() => given(() => [{ data: 1 }]), ({ reason }) => /type of event 1 that transform returned/.test(reason));
});

test("everything can be shown", () => {
  const circle = { name: "c" };
  circle.self = circle;
  assert.equal(show(circle), '{"name":"c","self":"[circular]"}');
  const twice = { a: 1 };
  assert.equal(show([twice, twice]), '[{"a":1},{"a":1}]');
  assert.equal(show(new Map([["a", new Set([1, 2n])]])), '{"a":[1,"2n"]}');
  assert.equal(show({ toJSON: () => { throw new Error(); } }), "[object Object]");
  assert.equal(show(undefined), "undefined");
  log.info("line", { a: [1], b: "text" });
  assert.deepEqual(globalThis.hostCalls.pop(), ["write", "info", "line", [["a", "[1]"], ["b", "text"]]]);
});
