/** Drafts and bodies: what a plugin hands to the host to be published or sent. */

/// <reference path="../types/wit.d.ts" />
import type * as wit from "bulkhead:plugin/types@0.1.0";

import { kindOf, optionalText, text } from "./check.js";
import { encode } from "./text.js";

/** Names in lower case, and their values. */
export type Attributes = Record<string, string>;

/** What is delivered to a sink. */
export interface Body {
  /**
   * A `Uint8Array` goes as it is, a string goes as text if `contentType` is there and no JSON, and everything else goes
   * as JSON. None is no bytes.
   */
  data?: unknown;
  /** The media type. `application/json` unless the data is bytes, which are `application/octet-stream`. */
  contentType?: string;
  /** What goes along: an event's other attributes; a webhook sends them as headers. */
  attributes?: Attributes;
}

/** An event to be: emitted, scheduled, or passed on by a transformer. The host adds identity and causation. */
export interface Draft extends Body {
  /** Its type, dotted: `orders.flagged`. */
  type: string;
  /** What it is about. */
  subject?: string | null;
  /** Events of one tenant with the same key can be kept in order. */
  key?: string | null;
}

const JSON_TYPE = "application/json";

export interface Content {
  contentType: string;
  data: Uint8Array;
  attributes: Array<wit.Attribute>;
}

export function content(body: Body, what: string): Content {
  if (typeof body !== "object" || body === null) throw new TypeError(`${what} must be an object, not ${kindOf(body)}`);
  const said = optionalText(body.contentType, `contentType of ${what}`);
  const pairs = attributes(body.attributes, what);
  const { data } = body;
  if (data === undefined) return { contentType: said ?? JSON_TYPE, data: new Uint8Array(0), attributes: pairs };
  if (data instanceof Uint8Array) {
    return { contentType: said ?? "application/octet-stream", data, attributes: pairs };
  }
  const isText = typeof data === "string" && said !== null && !/[/+]json\s*(;|$)/i.test(said);
  const written = isText ? data : JSON.stringify(data);
  if (written === undefined) throw new TypeError(`data of ${what} (${kindOf(data)}) has no JSON form`);
  return { contentType: said ?? JSON_TYPE, data: encode(written), attributes: pairs };
}

export function draft(value: Draft, what: string): wit.Draft {
  const { contentType, data, attributes } = content(value, what);
  return {
    type: text(value.type, `type of ${what}`),
    subject: optionalText(value.subject, `subject of ${what}`),
    key: optionalText(value.key, `key of ${what}`),
    contentType,
    data,
    attributes,
  };
}

export function attributes(value: Attributes | undefined, what: string): Array<wit.Attribute> {
  return Object.entries(value ?? {}).map(([name, value]) => [
    text(name, "a name"),
    text(value, `attribute \`${name}\` of ${what}`),
  ]);
}
