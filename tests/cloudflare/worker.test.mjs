// The Worker of contrib/worker in workerd, as a client sees it:  BUILD=... node --test worker.test.mjs
//
// The SDK, the bridge and the Worker are what is deployed; only the container is a sandboxd of this machine.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, before as beforeAll, test as oneTest } from 'node:test';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const here = dirname(fileURLToPath(import.meta.url));
const KEY = `key-${randomBytes(16).toString('hex')}`;
const LIMIT = { timeout: 60000 * Number(process.env.SLOW ?? 1) };
const SESSIONLESS = '__DISABLE_SESSION__';

// --- a Worker of our own ---

class Worker {
	constructor(key, more = {}) {
		this.directory = mkdtempSync(join(tmpdir(), 'worker-'));
		const env = { ...process.env, WORKER: join(here, 'worker.mjs'), SANDBOX_API_KEY: key, ...more };
		this.child = spawn(process.execPath, [join(here, 'serve.mjs'), this.directory], { env, stdio: ['pipe', 'pipe', 'pipe'] });
		this.said = '';
		this.child.stderr.on('data', (part) => {
			this.said += part;
		});
	}

	async ready() {
		for await (const line of createInterface(this.child.stdout)) {
			this.child.stdout.on('data', (part) => {
				this.said += part;
			});
			this.child.stdout.resume();
			this.url = new URL(line);
			return;
		}
		throw new Error(`the Worker does not start: ${this.said}`);
	}

	async end() {
		const ended = once(this.child, 'exit');
		this.child.stdin.end();
		await ended;
		rmSync(this.directory, { recursive: true, force: true });
	}

	fetch(path, { key = KEY, headers = {}, json, ...init } = {}) {
		const all = { ...(key !== null && { Authorization: `Bearer ${key}` }), ...headers };
		if (json !== undefined) Object.assign(init, { method: init.method ?? 'POST', body: JSON.stringify(json) });
		return fetch(new URL(path, this.url), { redirect: 'manual', ...init, headers: all });
	}

	async json(path, options) {
		const answer = await this.fetch(path, options);
		return { status: answer.status, body: JSON.parse(await answer.text()) };
	}

	// As fetch, but under any host name, and for upgrades: those end in a socket.
	call(path, { headers = {}, host = this.url.host } = {}) {
		const request = httpRequest({ host: this.url.hostname, port: this.url.port, path, headers: { Host: host, ...headers } });
		return new Promise((done, fail) => {
			request.on('error', fail);
			request.on('upgrade', (answer, socket, head) => done({ status: answer.statusCode, socket, head }));
			request.on('response', async (answer) => {
				let text = '';
				for await (const part of answer) text += part;
				done({ status: answer.statusCode, headers: answer.headers, text });
			});
			request.end();
		});
	}

	async socket(path, options = {}) {
		const { headers = {}, key = KEY, host } = options;
		const answer = await this.call(path, {
			host,
			headers: {
				Connection: 'Upgrade',
				Upgrade: 'websocket',
				'Sec-WebSocket-Version': '13',
				'Sec-WebSocket-Key': randomBytes(16).toString('base64'),
				...(key !== null && { Authorization: `Bearer ${key}` }),
				...headers,
			},
		});
		return answer.socket ? new Frames(answer.socket, answer.head) : answer;
	}
}

// Enough of a WebSocket's client for frames below 64 KiB.
class Frames {
	constructor(socket, head) {
		this.socket = socket;
		this.bytes = head;
		this.parts = socket[Symbol.asyncIterator]();
	}
	send(payload, opcode = typeof payload === 'string' ? 1 : 2) {
		const data = Buffer.from(payload);
		const length = data.length < 126 ? [0x80 | data.length] : [0x80 | 126, data.length >> 8, data.length & 255];
		this.socket.write(Buffer.concat([Buffer.from([0x80 | opcode, ...length, 0, 0, 0, 0]), data])); // masked with zeros
	}
	async need(count) {
		while (this.bytes.length < count) {
			const { value, done } = await this.parts.next();
			assert.ok(!done, 'the socket has ended');
			this.bytes = Buffer.concat([this.bytes, value]);
		}
	}
	async next() {
		await this.need(4);
		const short = this.bytes[1] & 127;
		assert.ok(short < 127, 'a frame too long for this client');
		const [at, length] = short === 126 ? [4, this.bytes.readUInt16BE(2)] : [2, short];
		await this.need(at + length);
		const frame = { opcode: this.bytes[0] & 15, data: this.bytes.subarray(at, at + length) };
		this.bytes = this.bytes.subarray(at + length);
		return frame;
	}
	// Everything until the text was there.
	async until(text) {
		let all = '';
		while (!all.includes(text)) all += (await this.next()).data.toString('latin1');
		return all;
	}
	end() {
		this.socket.destroy();
	}
}

// --- a service in a sandbox: says what it was asked, and echoes over a WebSocket ---

const SERVICE = `
import { createHash } from 'node:crypto';
import { createServer } from 'node:http';
createServer(async (request, answer) => {
	const hash = createHash('sha256');
	let size = 0;
	for await (const part of request) { hash.update(part); size += part.length; }
	if (request.url === '/away') return answer.writeHead(302, { Location: 'http://elsewhere.invalid/' }).end();
	answer.writeHead(request.url === '/teapot' ? 418 : 200, { 'Content-Type': 'application/json', 'X-Own': 'yes' });
	answer.end(JSON.stringify({ method: request.method, url: request.url, headers: request.headers, size, hash: hash.digest('hex') }));
}).on('upgrade', (request, socket) => {
	const accept = createHash('sha1').update(request.headers['sec-websocket-key'] + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11').digest('base64');
	socket.write('HTTP/1.1 101 Switching Protocols\\r\\nConnection: Upgrade\\r\\nUpgrade: websocket\\r\\nSec-WebSocket-Accept: ' + accept + '\\r\\n\\r\\n');
	socket.on('error', () => {});
	socket.on('data', (frame) => { // short ones, one at a time
		const length = frame[1] & 127;
		const data = Buffer.from(frame.subarray(6, 6 + length)).map((byte, i) => byte ^ frame[2 + (i & 3)]);
		const text = frame[0] & 15;
		if (text === 8) return socket.end();
		socket.write(Buffer.concat([Buffer.from([0x80 | text, data.length]), data]));
	});
}).listen(Number(process.argv[2]), '127.0.0.1');
`;

// --- a container's server that notes what comes to it, as whoever is root in a sandbox could ---

const SPY = `
import { spawn } from 'node:child_process';
import { appendFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
const socket = '/tmp/real';
spawn('/container-server/sandboxd', ['--listen', 'unix:' + socket, '--workspace', '/workspace', '--ready', '3'], {
	stdio: ['ignore', 'inherit', 'inherit', 'pipe'],
}).stdio[3].once('data', () => {
	createServer((here) => {
		const there = connect(socket);
		here.on('data', (part) => appendFileSync('/workspace/heard', part));
		for (const end of [here, there]) end.on('error', () => {});
		here.pipe(there).pipe(here);
	}).listen(Number(process.argv[2]), '127.0.0.1');
});
`;

async function freePort() {
	const server = createServer().listen(0, '127.0.0.1');
	await once(server, 'listening');
	const { port } = server.address();
	server.close();
	await once(server, 'close');
	return port;
}

async function serve(worker, id) {
	const port = await freePort();
	const put = await worker.fetch(`/v1/sandbox/${id}/file/workspace/service.mjs`, { method: 'PUT', body: SERVICE });
	assert.equal(put.status, 200, await put.text());
	const command = `exec node /workspace/service.mjs ${port}`;
	const started = await worker.json(`/v1/sandbox/${id}/api/process/start`, { json: { command, sessionId: SESSIONLESS } });
	assert.equal(started.status, 200, JSON.stringify(started.body));
	const watch = await worker.fetch(`/v1/sandbox/${id}/api/port-watch`, {
		json: { port, mode: 'tcp', processId: started.body.processId, interval: 100 },
	});
	assert.match(await watch.text(), /"type":"ready"/);
	return port;
}

// --- tests ---

// Groups are names only: whoever counts tests counts the outermost ones.
let group = '';
function describe(name, body) {
	group = `${name}: `;
	body();
	group = '';
}
const test = (name, ...rest) => oneTest(group + name, ...rest);
const preparations = [];
const before = (prepare) => preparations.push(prepare);

let worker;
beforeAll(async () => {
	worker = new Worker(KEY);
	await worker.ready();
	for (const prepare of preparations) await prepare();
}, LIMIT);
after(() => worker.end(), LIMIT);

const listed = async () => (await worker.json('/v1/sandboxes')).body.sandboxes.map(({ id }) => id);

const ROUTES = [
	['GET', '/v1/sandboxes'],
	['POST', '/v1/sandbox'],
	['GET', '/v1/sandbox/keyless/api/ping'],
	['POST', '/v1/sandbox/keyless/api/execute'],
	['GET', '/v1/sandbox/keyless/ws'],
	['GET', '/v1/sandbox/keyless/ws/pty?sessionId=x'],
	['GET', '/v1/sandbox/keyless/port/8080/'],
	['GET', '/v1/sandbox/keyless/expose'],
	['POST', '/v1/sandbox/keyless/expose/8080'],
	['DELETE', '/v1/sandbox/keyless/expose/8080'],
	['POST', '/v1/sandbox/keyless/settings'],
	['GET', '/v1/sandbox/keyless/tunnel'],
	['POST', '/v1/sandbox/keyless/tunnel/8080'],
	['POST', '/v1/sandbox/keyless/backup'],
	['POST', '/v1/sandbox/keyless/backup/restore'],
	['POST', '/v1/sandbox/keyless/exec'],
	['GET', '/v1/sandbox/keyless/running'],
	['PUT', '/v1/sandbox/keyless/file/workspace/x'],
	['DELETE', '/v1/sandbox/keyless'],
	['GET', '/v1/sandbox/NOT-AN-ID/api/ping'],
	['GET', '/v1/pool/stats'],
	['GET', '/v1/openapi.json'],
	['GET', '/v1/none'],
	['GET', '/v1'],
];

describe('the key', () => {
	const wrong = {
		'no key': {},
		'another key': { Authorization: 'Bearer nonsense' },
		'an empty key': { Authorization: 'Bearer ' },
		'part of the key': { Authorization: `Bearer ${KEY.slice(0, -1)}` },
		'more than the key': { Authorization: `Bearer ${KEY}x` },
		'another scheme': { Authorization: `Basic ${KEY}` },
		'the key alone': { Authorization: KEY },
	};
	for (const [what, headers] of Object.entries(wrong)) {
		test(`${what} is 401 on every route, and nothing is started`, LIMIT, async () => {
			for (const [method, path] of ROUTES) {
				const answer = await worker.json(path, { key: null, method, headers });
				assert.equal(answer.status, 401, `${method} ${path}`);
				assert.equal(answer.body.code, 'unauthorized', `${method} ${path}`);
			}
			assert.deepEqual(
				(await listed()).filter((id) => id === 'keyless'),
				[],
			);
		});
	}
	test('a WebSocket needs it too', LIMIT, async () => {
		for (const path of ['/v1/sandbox/keyless/ws/pty?sessionId=x', '/v1/sandbox/keyless/port/8080/', '/v1/sandbox/keyless/pty'])
			assert.equal((await worker.socket(path, { key: 'nonsense' })).status, 401, path);
	});
	test('the word before it is of any case', LIMIT, async () => {
		assert.equal((await worker.fetch('/v1/sandboxes', { key: null, headers: { Authorization: `bEARER ${KEY}` } })).status, 200);
	});
	test('health is open, and so is the schema with the key in the query', LIMIT, async () => {
		assert.equal((await worker.fetch('/health', { key: null })).status, 200);
		assert.equal((await worker.fetch(`/v1/openapi.json?token=${KEY}`, { key: null })).status, 200);
	});
	test('a Worker without a key lets nobody in', LIMIT, async () => {
		const open = new Worker('');
		try {
			await open.ready();
			for (const [method, path] of ROUTES) {
				for (const headers of [{}, { Authorization: 'Bearer ' }, { Authorization: 'Bearer undefined' }]) {
					const { status, body } = await open.json(path, { key: null, method, headers });
					assert.equal(status, 401, `${method} ${path}`);
					assert.match(body.error, /wrangler secret put SANDBOX_API_KEY/);
				}
			}
			assert.equal((await open.fetch('/health', { key: null })).status, 200);
		} finally {
			await open.end();
		}
	});
});

test('the key: no container hears it', LIMIT, async () => {
	const files = mkdtempSync(join(tmpdir(), 'spy-'));
	const sandboxd = process.env.SANDBOXD ?? join(process.env.BUILD ?? join(here, '../../build'), 'sandboxd');
	copyFileSync(sandboxd, join(files, 'sandboxd'));
	writeFileSync(join(files, 'spy.mjs'), SPY);
	const spied = new Worker(KEY, { CONTAINER: `'${process.execPath}' /container-server/spy.mjs {port}`, CONTAINER_FILES: files });
	try {
		await spied.ready();
		assert.equal((await spied.fetch('/v1/sandbox/spied/api/ping')).status, 200);
		await (await spied.fetch('/v1/sandbox/spied/exec', { json: { argv: ['true'] } })).text();
		for (const path of ['/v1/sandbox/spied/pty?session=spied', '/v1/sandbox/spied/ws/pty?sessionId=spied'])
			(await spied.socket(path)).end();
		const heard = readFileSync(join(spied.directory, '1/workspace/heard'), 'latin1');
		for (const route of ['/api/ping', '/api/execute', '/ws/pty']) assert.ok(heard.includes(route), route);
		assert.ok(!heard.includes(KEY));
	} finally {
		await spied.end();
		rmSync(files, { recursive: true, force: true });
	}
});

describe('the stock bridge', () => {
	test('is there, exec and files and all', LIMIT, async () => {
		assert.match((await worker.json('/v1/sandbox', { method: 'POST' })).body.id, /^[a-z2-7]{26}$/);
		assert.deepEqual((await worker.json('/v1/sandbox/stock/running')).body, { running: true });
		const exec = await worker.fetch('/v1/sandbox/stock/exec', { json: { argv: ['sh', '-c', 'echo hi; exit 3'] } });
		assert.match(await exec.text(), /event: stdout\ndata: aGkK\n\nevent: exit\ndata: {"exit_code":3}/);
		assert.equal((await worker.fetch('/v1/sandbox/NOT-AN-ID/running')).status, 400);
		assert.equal((await worker.fetch('/v1/sandbox/stock/none')).status, 404);
		assert.equal((await worker.fetch('/elsewhere')).status, 404);
	});
});

describe('api/ and ws/ are the container’s own', () => {
	const box = '/v1/sandbox/passing';
	test('JSON there and back', LIMIT, async () => {
		const { status, body } = await worker.json(`${box}/api/execute`, {
			json: { command: 'printf %s "$X"; exit 4', env: { X: 'ü€' }, sessionId: SESSIONLESS },
		});
		assert.equal(status, 200);
		assert.deepEqual([body.stdout, body.exitCode], ['ü€', 4]);
	});
	test('errors keep their code, status and context', LIMIT, async () => {
		const { status, body } = await worker.json(`${box}/api/read`, { json: { path: '/workspace/none' } });
		assert.deepEqual([status, body.code, body.httpStatus, body.context.path], [404, 'FILE_NOT_FOUND', 404, '/workspace/none']);
		assert.equal((await worker.json(`${box}/api/none`)).body.code, 'UNKNOWN_ERROR');
	});
	test('events come when they happen, not at the end', LIMIT, async () => {
		const command = 'echo one; until [ -e go ]; do sleep 0.05; done; echo two';
		const answer = await worker.fetch(`${box}/api/execute/stream`, {
			json: { command, cwd: '/workspace', sessionId: SESSIONLESS },
		});
		assert.equal(answer.headers.get('Content-Type'), 'text/event-stream');
		let text = '';
		for await (const part of answer.body.pipeThrough(new TextDecoderStream())) {
			text += part;
			if (text.includes('one\\n') && !text.includes('two\\n'))
				await worker.json(`${box}/api/write`, { json: { path: '/workspace/go', content: '', sessionId: SESSIONLESS } });
		}
		assert.match(text, /two\\n[^]*"type":"complete"[^\n]*"exitCode":0/);
	});
	test('20 MB in and out, exact', LIMIT, async () => {
		const content = randomBytes(15e6).toString('base64');
		const written = await worker.json(`${box}/api/write`, { json: { path: '/workspace/big', content, encoding: 'base64' } });
		assert.equal(written.status, 200);
		const read = await worker.json(`${box}/api/read`, { json: { path: '/workspace/big', encoding: 'base64' } });
		assert.ok(read.body.content === content);
	});
	test('a terminal', LIMIT, async () => {
		const pty = await worker.socket(`${box}/ws/pty?sessionId=t&shell=/bin/sh`);
		await pty.until('"ready"'); // what is typed before is dropped
		pty.send(Buffer.from('echo a$((1000+234))z; stty size\n'));
		await pty.until('a1234z');
		pty.send(JSON.stringify({ type: 'resize', cols: 101, rows: 31 }));
		pty.send(Buffer.from('stty size\n'));
		await pty.until('31 101');
		pty.end();
	});
	test('paths that climb out reach nothing', LIMIT, async () => {
		for (const path of [
			`${box}/api/../../../health`,
			`${box}/api/%2e%2e/rpc`,
			`${box}/rpc`,
			`${box}/proxy/8080/x`,
			`${box}//api/ping`,
		])
			assert.notEqual(
				(await worker.call(path, { headers: { Authorization: `Bearer ${KEY}` } })).text.includes('healthy'),
				true,
				path,
			);
		assert.equal((await worker.call(`${box}/rpc`, { headers: { Authorization: `Bearer ${KEY}` } })).status, 404);
	});
});

describe('port/PORT', () => {
	const box = '/v1/sandbox/serving';
	let port;
	before(async () => {
		port = await serve(worker, 'serving');
	});

	test('method, path, query, headers and body arrive, but not the key', LIMIT, async () => {
		const body = randomBytes(5e6);
		const options = {
			method: 'PUT',
			body,
			headers: { 'X-Mine': 'a b', Cookie: 'c=1', 'cf-container-target-port': '1', 'X-Sandbox-Name': 'other' },
		};
		const answer = await worker.fetch(`${box}/port/${port}/a%20b/c%2Fd//e?x=1&y=%26`, options);
		const told = JSON.parse(await answer.text());
		assert.equal(answer.headers.get('X-Own'), 'yes');
		assert.deepEqual([told.method, told.url, told.size], ['PUT', '/a%20b/c%2Fd//e?x=1&y=%26', body.length]);
		assert.deepEqual([told.headers['x-mine'], told.headers.cookie], ['a b', 'c=1']);
		assert.ok(!JSON.stringify(told.headers).includes(KEY));
		for (const name of ['authorization', 'cf-container-target-port', 'x-sandbox-name']) assert.ok(!(name in told.headers), name);
	});
	test('status and redirects are the client’s to see', LIMIT, async () => {
		assert.equal((await worker.fetch(`${box}/port/${port}/teapot`)).status, 418);
		const away = await worker.fetch(`${box}/port/${port}/away`);
		assert.deepEqual([away.status, away.headers.get('Location')], [302, 'http://elsewhere.invalid/']);
		assert.equal(JSON.parse(await (await worker.fetch(`${box}/port/${port}`)).text()).url, '/');
	});
	test('a WebSocket, text and bytes', LIMIT, async () => {
		const socket = await worker.socket(`${box}/port/${port}/socket?x=1`);
		socket.send('grüß');
		assert.deepEqual(await socket.next(), { opcode: 1, data: Buffer.from('grüß') });
		socket.send(Buffer.from([0, 255, 128]));
		assert.deepEqual(await socket.next(), { opcode: 2, data: Buffer.from([0, 255, 128]) });
		socket.end();
	});
	test('what is no port, or the container’s own, is refused', LIMIT, async () => {
		for (const bad of ['0', '3000', '65536', '080x', '', '-1', '1e3']) {
			const { status, body } = await worker.json(`${box}/port/${bad}/`);
			assert.deepEqual([status, body.code], [400, 'invalid_request'], bad);
		}
	});
	test('where nobody listens is an error', LIMIT, async () => {
		assert.ok((await worker.fetch(`${box}/port/${await freePort()}/`)).status >= 500);
	});
});

describe('expose', () => {
	const box = '/v1/sandbox/showing';
	let port;
	let url;
	before(async () => {
		port = await serve(worker, 'showing');
	});
	const visit = (path, host = url.host) => worker.call(path, { host });

	test('gives a URL that answers without the key, and is listed', LIMIT, async () => {
		const hostname = `localhost:${worker.url.port}`;
		const { status, body } = await worker.json(`${box}/expose/${port}`, { json: { hostname, name: 'web', token: 'tok_1' } });
		assert.deepEqual([status, body.port, body.name], [200, port, 'web']);
		url = new URL(body.url);
		assert.match(url.hostname, new RegExp(`^${port}-[0-9a-f-]{36}-tok_1\\.localhost$`));
		const told = JSON.parse((await visit('/page?q=1')).text);
		assert.equal(told.url, '/page?q=1');
		const { body: list } = await worker.json(`${box}/expose?hostname=${hostname}`);
		assert.deepEqual(list.ports, [{ url: body.url, port, status: 'active' }]);
	});
	test('a WebSocket passes as well', LIMIT, async () => {
		const socket = await worker.socket('/', { host: url.host, key: null });
		socket.send('hello');
		assert.equal((await socket.next()).data.toString(), 'hello');
		socket.end();
	});
	test('another token is 404', LIMIT, async () => {
		const answer = await visit('/', url.host.replace('tok_1', 'tok_2'));
		assert.deepEqual([answer.status, JSON.parse(answer.text).code], [404, 'INVALID_TOKEN']);
	});
	test('a preview’s host name is no way into the API', LIMIT, async () => {
		const told = JSON.parse((await visit('/v1/sandboxes')).text);
		assert.equal(told.url, '/v1/sandboxes');
	});
	test('names that cannot have preview URLs are refused with the reason', LIMIT, async () => {
		for (const hostname of ['me.workers.dev', '127.0.0.1:8787', '[::1]:8787', undefined]) {
			const { status, body } = await worker.json(`${box}/expose/${port}`, { json: { hostname } });
			assert.deepEqual([status, body.code], [400, 'CUSTOM_DOMAIN_REQUIRED'], hostname);
		}
	});
	test('what the SDK refuses is the sender’s fault', LIMIT, async () => {
		const hostname = 'example.com';
		for (const [to, json] of [
			['80', { hostname }],
			['3000', { hostname }],
			[port, { hostname, token: 'UPPER' }],
			[port, { hostname: 7 }],
			['x', { hostname }],
			[port, [1]],
		]) {
			const { status, body } = await worker.json(`${box}/expose/${to}`, { json });
			assert.deepEqual([status, body.code], [400, 'invalid_request'], JSON.stringify([to, json]));
		}
		assert.equal((await worker.json(`${box}/expose/${port}`, { method: 'POST', body: '{' })).body.error, 'Invalid JSON body');
	});
	test('is taken back, twice as well', LIMIT, async () => {
		for (let i = 0; i < 2; i++) assert.equal((await worker.fetch(`${box}/expose/${port}`, { method: 'DELETE' })).status, 204);
		assert.equal((await visit('/')).status, 404);
		assert.deepEqual((await worker.json(`${box}/expose`)).body, { ports: [] });
	});
});

describe('settings', () => {
	const set = (json) => worker.json('/v1/sandbox/settled/settings', { json });
	test('keepAlive, sleepAfter and env are taken, and commands see env', LIMIT, async () => {
		assert.deepEqual(await set({ keepAlive: true, sleepAfter: '20m', env: { GREETING: "it's", GONE: 'x' } }), {
			status: 200,
			body: { ok: true },
		});
		assert.deepEqual(await set({ env: { GONE: null } }), { status: 200, body: { ok: true } });
		const exec = await worker.fetch('/v1/sandbox/settled/exec', {
			json: { argv: ['sh', '-c', 'echo "$GREETING,${GONE-unset}"'] },
		});
		assert.match(await exec.text(), new RegExp(Buffer.from("it's,unset\n").toString('base64')));
		for (const one of [{ keepAlive: false }, { sleepAfter: 600 }, { sleepAfter: '1h' }, {}])
			assert.equal((await set(one)).status, 200);
	});
	test('what makes no sense is refused before anything is set', LIMIT, async () => {
		const bad = [
			{ keepAlive: 'on' },
			{ sleepAfter: 'soon' },
			{ sleepAfter: 0 },
			{ sleepAfter: null },
			{ sleepAfter: '10' },
			{ sleepAfter: '0s' },
			{ env: { 'A;reboot': '1' } },
			{ env: { A: 1 } },
			{ env: 'A=1' },
			{ env: [] },
			{ keepalive: true },
		];
		for (const one of bad) {
			const { status, body } = await set({ env: { BEFORE: '1' }, ...one });
			assert.deepEqual([status, body.code], [400, 'invalid_request'], JSON.stringify(one));
		}
		const exec = await worker.fetch('/v1/sandbox/settled/exec', { json: { argv: ['sh', '-c', 'echo "${BEFORE-unset}"'] } });
		assert.match(await exec.text(), new RegExp(Buffer.from('unset\n').toString('base64')));
	});
});

describe('backups and tunnels', () => {
	test('a backup without its bucket says what is missing', LIMIT, async () => {
		const { status, body } = await worker.json('/v1/sandbox/kept/backup', { json: { dir: '/workspace' } });
		assert.deepEqual([status, body.code], [400, 'INVALID_BACKUP_CONFIG']);
		assert.match(body.error, /R2_ACCESS_KEY_ID/);
	});
	test('what is no backup is refused', LIMIT, async () => {
		for (const [path, json] of [
			['backup', {}],
			['backup', { dir: 1 }],
			['backup/restore', { dir: '/workspace' }],
			['backup/restore', { id: 'x' }],
		])
			assert.equal((await worker.json(`/v1/sandbox/kept/${path}`, { json })).body.code, 'invalid_request');
	});
	test('a backup that is not there is 404, a directory that cannot have one 400', LIMIT, async () => {
		const gone = { id: '00000000-0000-4000-8000-000000000000', dir: '/workspace', localBucket: true };
		const { status, body } = await worker.json('/v1/sandbox/kept/backup/restore', { json: gone });
		assert.deepEqual([status, body.code], [404, 'BACKUP_NOT_FOUND']);
		const etc = await worker.json('/v1/sandbox/kept/backup', { json: { dir: '/etc', localBucket: true } });
		assert.deepEqual([etc.status, etc.body.code], [400, 'INVALID_BACKUP_CONFIG']);
	});
	test('there is a list of tunnels', LIMIT, async () => {
		assert.deepEqual((await worker.json('/v1/sandbox/kept/tunnel')).body, { tunnels: [] });
	});
});

describe('the list of sandboxes', () => {
	test('has what runs, since when, and not what was destroyed', LIMIT, async () => {
		const from = Date.now();
		assert.equal((await worker.fetch('/v1/sandbox/listed/api/ping')).status, 200);
		const [one] = (await worker.json('/v1/sandboxes')).body.sandboxes.filter(({ id }) => id === 'listed');
		assert.ok(Date.parse(one.since) >= from && Date.parse(one.since) <= Date.now());
		assert.equal((await worker.fetch('/v1/sandbox/listed', { method: 'DELETE' })).status, 204);
		assert.ok(!(await listed()).includes('listed'));
		// the same name again is another sandbox
		assert.equal((await worker.fetch('/v1/sandbox/listed/running')).status, 200);
		const [again] = (await worker.json('/v1/sandboxes')).body.sandboxes.filter(({ id }) => id === 'listed');
		assert.ok(again.since > one.since);
	});
	test('looking at what is not there starts nothing', LIMIT, async () => {
		assert.deepEqual((await worker.json('/v1/sandbox/nobody/expose')).body, { ports: [] });
		assert.deepEqual((await worker.json('/v1/sandbox/nobody/tunnel')).body, { tunnels: [] });
		assert.equal((await worker.fetch('/v1/sandbox/nobody/expose/8080', { method: 'DELETE' })).status, 204);
		assert.ok(!(await listed()).includes('nobody'));
	});
});

describe('what fails', () => {
	let answers;
	before(async () => {
		const entryPoints = [join(here, '../../contrib/worker/src/answers.ts')];
		const { outputFiles } = await build({ entryPoints, bundle: true, format: 'esm', write: false });
		answers = await import(`data:text/javascript;base64,${Buffer.from(outputFiles[0].contents).toString('base64')}`);
	});
	const tell = async (thrown) => {
		const answer = answers.failed(thrown);
		return [answer.status, (await answer.json()).code, answer.headers.get('Retry-After')];
	};
	test('has the same code whether or not its class survived the way', async () => {
		const named = Object.assign(new Error('no'), { name: 'BackupNotFoundError' });
		assert.deepEqual(await tell(named), [404, 'BACKUP_NOT_FOUND', null]);
		assert.deepEqual(await tell(new Error('BackupNotFoundError: no')), [404, 'BACKUP_NOT_FOUND', null]);
		assert.deepEqual(await tell(new Error('SandboxSecurityError: Invalid port')), [400, 'invalid_request', null]);
	});
	test('for want of room says so and when to come again', async () => {
		assert.deepEqual(await tell(new Error('Cannot start container: instance limit reached (3/3).')), [
			503,
			'capacity_exceeded',
			'5',
		]);
	});
	test('unknown is 502', async () => {
		assert.deepEqual(await tell(new Error('Network connection lost.')), [502, 'INTERNAL_ERROR', null]);
		assert.deepEqual(await tell('text'), [502, 'INTERNAL_ERROR', null]);
	});
});

test('neither the Worker nor the SDK logs the key', LIMIT, () => {
	assert.ok(!worker.said.includes(KEY));
});
