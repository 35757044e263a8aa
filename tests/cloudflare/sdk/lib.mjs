// What the rows share: streams of events read whole or up to a condition, and assertions about shapes.
import assert from 'node:assert/strict';
import { Buffer } from 'node:buffer';
import { parseSSEStream } from '@cloudflare/sandbox';

export { assert };

// All events of a stream, or those up to and with the first for which `enough` holds.
export async function events(stream, enough) {
	const seen = [];
	for await (const event of parseSSEStream(stream)) {
		seen.push(event);
		if (enough?.(event)) break;
	}
	return seen;
}
export const text = (seen, type, field = 'data') =>
	seen
		.filter((event) => event.type === type)
		.map((event) => event[field])
		.join('');

// The UTC timestamps of all answers.
export function isTime(value) {
	assert.match(value, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
}
export function isResult(result, fields) {
	assert.equal(result.success, true);
	isTime(result.timestamp);
	for (const [name, value] of Object.entries(fields)) assert.deepEqual(result[name], value, name);
}
export function isRefusal(error, name, code, httpStatus) {
	assert.deepEqual({ name: error.name, code: error.code, httpStatus: error.httpStatus }, { name, code, httpStatus }, JSON.stringify(error));
	assert.ok(error.message.length > 0);
}

// Until `what` gives something true; with a deadline.
export async function until(what, ms = 40000) {
	const end = Date.now() + ms;
	for (;;) {
		const value = await what();
		if (value) return value;
		if (Date.now() > end) throw new Error(`never: ${what}`);
		await new Promise((next) => setTimeout(next, 20));
	}
}

export const bytes = (n, seed = 1) => {
	const all = new Uint8Array(n);
	for (let i = 0, x = seed; i < n; i++) {
		x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
		all[i] = x >>> 24;
	}
	return all;
};
export const base64 = (all) => Buffer.from(all).toString('base64');
