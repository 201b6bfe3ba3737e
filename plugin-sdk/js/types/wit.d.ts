// Made from wit/plugin.wit by scripts/types.mjs; do not edit.
// sha256 of that file: 2ac1dee75820234f0d3633fe962b95949402fb3304f1078dec601c3ad97c9d2d

declare module 'bulkhead:plugin/context@0.1.0' {
  export function current(): Invocation;
  /**
   * A setting of this plugin, as JSON text.
   */
  export function config(name: string): string | null;
  export function secret(name: string): string;
  /**
   * The value at a JSON pointer in the event's data, as JSON text, without parsing the whole.
   */
  export function field(pointer: string): string | null;
  /**
   * Bytes that differ between events and repeat on a re-execution. At most 64 KiB a call.
   */
  export function random(length: number): Uint8Array;
  export type Refusal = import('bulkhead:plugin/types@0.1.0').Refusal;
  export type Timestamp = import('bulkhead:plugin/types@0.1.0').Timestamp;
  export interface Invocation {
    plugin: string,
    version: string,
    rule: string,
    /**
     * 1 on the first try.
     */
    attempt: number,
    /**
     * The time of this attempt. The same on every re-execution of it.
     */
    now: Timestamp,
  }
}

declare module 'bulkhead:plugin/effects@0.1.0' {
  /**
   * Publishes an event in the same tenant. Returns the id that it will have.
   */
  export function emit(event: Draft): string;
  /**
   * Sends a body to one of the tenant's sinks. Returns the id by which the receiver can dedupe.
   */
  export function deliver(sink: string, contentType: string, body: Uint8Array, attributes: Array<Attribute>): string;
  /**
   * Publishes an event later. Returns the timer's id. A second timer with the same name replaces the first.
   */
  export function schedule(name: string | null, afterMs: number, event: Draft): string;
  export function cancel(timer: string): void;
  export type Draft = import('bulkhead:plugin/types@0.1.0').Draft;
  export type Refusal = import('bulkhead:plugin/types@0.1.0').Refusal;
  export type Attribute = import('bulkhead:plugin/types@0.1.0').Attribute;
}

declare module 'bulkhead:plugin/log@0.1.0' {
  export function write(level: Level, message: string, fields: Array<Attribute>): void;
  export type Attribute = import('bulkhead:plugin/types@0.1.0').Attribute;
  /**
   * # Variants
   *
   * ## `"trace"`
   *
   * ## `"debug"`
   *
   * ## `"info"`
   *
   * ## `"warn"`
   *
   * ## `"error"`
   */
  export type Level = 'trace' | 'debug' | 'info' | 'warn' | 'error';
}

declare module 'bulkhead:plugin/state@0.1.0' {
  export function get(key: string): Uint8Array | null;
  export function set(key: string, value: Uint8Array, ttlMs: number | null): void;
  export { _delete as delete };
  function _delete(key: string): void;
  /**
   * Adds to a number (0 if absent) and returns the sum.
   */
  export function increment(key: string, by: number): number;
  /**
   * Keys with a prefix, in order, from after a cursor; at most 1,000 a page.
   */
  export function keys(prefix: string, after: string | null, limit: number): Page;
  export type Refusal = import('bulkhead:plugin/types@0.1.0').Refusal;
  export interface Page {
    keys: Array<string>,
    next: string | null,
  }
}

declare module 'bulkhead:plugin/types@0.1.0' {
  /**
   * Milliseconds since the Unix epoch, UTC.
   */
  export type Timestamp = number;
  /**
   * A name and its value. Names are lower case, as CloudEvents asks.
   */
  export type Attribute = [string, string];
  /**
   * An event as the host stored it: a CloudEvents 1.0 event.
   */
  export interface Event {
    id: string,
    source: string,
    type: string,
    subject: string | null,
    /**
     * When it happened, as the publisher said.
     */
    time: Timestamp,
    /**
     * Events of one tenant with the same key can be kept in order.
     */
    key: string | null,
    /**
     * Shared by everything that follows from one first event.
     */
    correlationId: string,
    /**
     * The event that this one follows from; none for a first event.
     */
    causationId: string | null,
    contentType: string,
    data: Uint8Array,
    /**
     * Every other attribute: schema version, category, severity, actor, the publisher's own.
     */
    attributes: Array<Attribute>,
  }
  /**
   * An event to be: what a plugin emits or a transformer passes on. The host adds identity and causation.
   */
  export interface Draft {
    type: string,
    subject: string | null,
    key: string | null,
    contentType: string,
    data: Uint8Array,
    attributes: Array<Attribute>,
  }
  /**
   * # Variants
   *
   * ## `"retry"`
   *
   * Try again later; the host decides when unless `after-ms` says.
   * ## `"reject"`
   *
   * Never try again by itself: the run is parked for a person to look at.
   */
  export type Verdict = 'retry' | 'reject';
  export interface Failure {
    verdict: Verdict,
    /**
     * For people: what went wrong.
     */
    reason: string,
    afterMs: number | null,
    attributes: Array<Attribute>,
  }
  export type Refusal = RefusalDenied | RefusalLimit | RefusalInvalid | RefusalNotFound | RefusalOther;
  /**
   * The tenant or the operator did not grant this.
   */
  export interface RefusalDenied {
    tag: 'denied',
    val: string,
  }
  /**
   * A limit of this invocation or of the tenant's plan; the text names it.
   */
  export interface RefusalLimit {
    tag: 'limit',
    val: string,
  }
  /**
   * The argument is malformed; the text says how.
   */
  export interface RefusalInvalid {
    tag: 'invalid',
    val: string,
  }
  /**
   * No such sink, timer or name.
   */
  export interface RefusalNotFound {
    tag: 'not-found',
    val: string,
  }
  export interface RefusalOther {
    tag: 'other',
    val: string,
  }
}

declare module 'bulkhead:plugin/usage@0.1.0' {
  export function count(unit: string, amount: number): void;
  export type Refusal = import('bulkhead:plugin/types@0.1.0').Refusal;
}
