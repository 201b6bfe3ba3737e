/** Event: what a plugin is called with. */

/// <reference path="../types/wit.d.ts" />
import type * as wit from "bulkhead:plugin/types@0.1.0";

import type { Attributes, Draft } from "./draft.js";
import { Reject } from "./failure.js";
import { decode } from "./text.js";

/** An event as the host stored it: a CloudEvents 1.0 event. `T` is what its data is taken for; nothing checks that. */
export class Event<T = any> {
  /** The publisher's id, unique within its source. */
  readonly id: string;
  /** Where it happened. */
  readonly source: string;
  /** Its type, dotted: `orders.created`. */
  readonly type: string;
  /** What it is about. */
  readonly subject: string | null;
  /** When it happened, as the publisher said: milliseconds since the epoch. */
  readonly time: number;
  /** Events of one tenant with the same key can be kept in order. */
  readonly key: string | null;
  /** Shared by everything that follows from one first event. */
  readonly correlationId: string;
  /** The event that this one follows from; none for a first event. */
  readonly causationId: string | null;
  /** The media type of the data. */
  readonly contentType: string;
  /** The payload, byte for byte. */
  readonly bytes: Uint8Array;
  /** Every other attribute: schema version, category, severity, actor, the publisher's own. */
  readonly attributes: Attributes;

  #parsed: { value: T } | undefined;

  constructor(raw: wit.Event) {
    this.id = raw.id;
    this.source = raw.source;
    this.type = raw.type;
    this.subject = raw.subject;
    this.time = raw.time;
    this.key = raw.key;
    this.correlationId = raw.correlationId;
    this.causationId = raw.causationId;
    this.contentType = raw.contentType;
    this.bytes = raw.data;
    this.attributes = Object.fromEntries(raw.attributes);
  }

  /** The payload as JSON, read once. What is no JSON rejects the run: it would be none the next time, too. */
  json(): T {
    if (this.#parsed === undefined) {
      try {
        this.#parsed = { value: JSON.parse(this.text()) };
      } catch (error) {
        const { bytes, contentType, type } = this;
        throw new Reject(`the data of this \`${type}\` (${contentType}, ${bytes.length} bytes) is no JSON`, { cause: error });
      }
    }
    return this.#parsed.value;
  }

  /** The payload as text. What is not UTF-8 becomes U+FFFD. */
  text(): string {
    const text = decode(this.bytes);
    return text.startsWith("\ufeff") ? text.slice(1) : text;
  }

  /** A draft of the same type, subject, key and attributes with other data: what a transformer passes on. */
  withData(data: unknown): Draft {
    const { type, subject, key, attributes } = this;
    return { type, subject, key, data, attributes };
  }

  /** A draft that is the event as it came. */
  passOn(): Draft {
    return { ...this.withData(this.bytes), contentType: this.contentType };
  }
}
