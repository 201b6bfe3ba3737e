// A handler for StarlingMonkey, without any SDK: the event's data says what to do.

import { config } from 'bulkhead:plugin/context@0.1.0';
import { emit } from 'bulkhead:plugin/effects@0.1.0';
import { write } from 'bulkhead:plugin/log@0.1.0';
import { increment } from 'bulkhead:plugin/state@0.1.0';

export const handler = {
  handle(event) {
    switch (JSON.parse(new TextDecoder().decode(event.data)).do) {
      case 'works':
        return works();
      case 'rejects':
        throw { verdict: 'reject', reason: 'rejected', afterMs: undefined, attributes: [] };
      case 'throws':
        throw new TypeError('thrown');
      case 'loops':
        for (;;);
      case 'allocates': {
        const kept = [];
        for (;;) kept.push(new Uint8Array(1 << 20).fill(1));
      }
    }
  },
};

function works() {
  write('info', 'works', []);
  console.log('printed');
  increment('count', 1n);
  const found = { threshold: JSON.parse(config('threshold')), now: Date.now() / 1000, random: Math.random() };
  emit({
    type: 'orders.foreign',
    subject: undefined,
    key: undefined,
    contentType: 'application/json',
    data: new TextEncoder().encode(JSON.stringify(found)),
    attributes: [],
  });
}
