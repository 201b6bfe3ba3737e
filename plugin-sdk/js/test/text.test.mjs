import assert from "node:assert/strict";
import { test } from "node:test";

import { sdk } from "./fake-host.mjs";

const ours = await sdk('export * from "../src/text";');

/** Repeatable, and rich in what is almost UTF-8. */
function* samples() {
  const edges = [0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xed, 0xef, 0xf0, 0xf4, 0xf5, 0xff];
  let seed = 7;
  for (let nth = 0; nth < 20_000; nth++) {
    const bytes = new Uint8Array(nth % 9);
    for (let at = 0; at < bytes.length; at++) {
      seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
      bytes[at] = edges[(seed >>> 16) % edges.length];
    }
    yield bytes;
  }
}

test("bytes are decoded as the platform's decoder does", () => {
  const theirs = new TextDecoder("utf-8", { ignoreBOM: true });
  for (const bytes of samples()) assert.equal(ours.decode(bytes), theirs.decode(bytes), String(bytes));
});

test("what is not UTF-8 is an error where that is asked for", () => {
  const theirs = new TextDecoder("utf-8", { fatal: true });
  const decoder = new ours.TextDecoder("UTF-8", { fatal: true });
  let thrown = 0;
  for (const bytes of samples()) {
    let expected;
    try {
      expected = theirs.decode(bytes);
    } catch {
      thrown++;
      assert.throws(() => decoder.decode(bytes), TypeError, String(bytes));
      continue;
    }
    assert.equal(decoder.decode(bytes), expected);
  }
  assert.ok(thrown > 1000 && thrown < 20_000);
});

test("text is encoded as the platform's encoder does", () => {
  const texts = ["", "plain", "äöü€", "😀 and \ud83d alone", "\ude00\ud83d", "\u07ff\u0800\uffff", "x".repeat(100_000) + "ß"];
  for (const text of texts) assert.deepEqual(ours.encode(text), new TextEncoder().encode(text));
  const long = "aé€😀".repeat(50_000);
  assert.equal(ours.decode(ours.encode(long)), long);
});

test("other encodings and streams are refused in words", () => {
  assert.throws(() => new ours.TextDecoder("latin1"), /"latin1" is not supported/);
  assert.throws(() => new ours.TextDecoder().decode(new Uint8Array(1), { stream: true }), /hand it the whole/);
});
