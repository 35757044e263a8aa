// The processes that take the place of containers: one for each Durable Object, started and ended by requests of standin.mjs.
//
// Owns them, their folders below `directory` (1/, 2/, ...: workspace/, tmp/ and root/, which the sandbox has under these names; port, pid
// and log, for tests to look at) and the server that standin.mjs asks. A container that has ended takes its files along.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, closeSync, existsSync, lstatSync, mkdirSync, openSync, readFileSync, readdirSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { connect, createServer as createTcpServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';

const START_MS = 20000;
const OWN = ['workspace', 'tmp', 'root'];

async function freePort() {
	const server = createTcpServer().listen(0, '127.0.0.1');
	await once(server, 'listening');
	const { port } = server.address();
	server.close();
	await once(server, 'close');
	return port;
}

function answers(port) {
	return new Promise((done) => {
		const socket = connect(port, '127.0.0.1', () => {
			socket.destroy();
			done(true);
		});
		socket.on('error', () => done(false));
	});
}

// This machine's programs and files with folders of its own for what commands write to, as uid 0: as in the official image.
function bubblewrap(directory) {
	const words = ['bwrap', '--die-with-parent', '--unshare-pid'];
	for (const name of readdirSync('/')) {
		const at = `/${name}`;
		if (OWN.includes(name) || name === 'proc') continue;
		if (lstatSync(at).isSymbolicLink()) words.push('--symlink', readlinkSync(at), at);
		else words.push('--dev-bind', at, at);
	}
	words.push('--proc', '/proc');
	for (const name of OWN) words.push('--bind', join(directory, name), `/${name}`);
	// where the SDK has backups made
	if (existsSync('/var/backups')) words.push('--tmpfs', '/var/backups');
	// the server's own folder, as in the official image: where it lies outside may be hidden inside
	if (process.env.CONTAINER_FILES) words.push('--ro-bind', process.env.CONTAINER_FILES, '/container-server');
	else words.push('--ro-bind', process.env.SANDBOXD, '/container-server/sandboxd');
	if (process.getuid() !== 0) words.push('--unshare-user', '--uid', '0', '--gid', '0');
	return [...words, '--chdir', '/workspace', '--setenv', 'HOME', '/root', '--'];
}

// A sandboxd; CONTAINER= is another server, a line for sh in which {port} stands for its port, with its files in CONTAINER_FILES=.
function commandLine(directory, port) {
	const inside = process.env.CONTAINER
		? ['sh', '-c', `exec ${process.env.CONTAINER.replaceAll('{port}', String(port))}`]
		: ['/container-server/sandboxd', '--listen', `127.0.0.1:${port}`, '--workspace', '/workspace'];
	return [...bubblewrap(directory), ...inside];
}

// What commands made unreadable is removed as well; what still ends in it is waited for. What stays is said and seen by the tests.
function removeFolder(path) {
	const how = { recursive: true, force: true, maxRetries: 20, retryDelay: 20 };
	try {
		rmSync(path, how);
	} catch {
		try {
			openAll(path);
			rmSync(path, how);
		} catch (error) {
			console.error(error);
		}
	}
}
function openAll(path) {
	chmodSync(path, 0o700);
	for (const entry of readdirSync(path, { withFileTypes: true })) if (entry.isDirectory()) openAll(join(path, entry.name));
}

export class Containers {
	#directory;
	#byId = new Map(); // id -> { child, ended, directory, port }
	#count = 0;
	#server;

	constructor(directory) {
		this.#directory = directory;
	}

	// Where standin.mjs asks: POST /start/ID, /wait/ID, /stop/ID.
	async listen() {
		this.#server = createServer((request, answer) => void this.#serve(request, answer)).listen(0, '127.0.0.1');
		this.#server.requestTimeout = 0;
		await once(this.#server, 'listening');
		return `http://127.0.0.1:${this.#server.address().port}`;
	}

	async close() {
		this.#server?.close();
		this.#server?.closeAllConnections();
		await Promise.all([...this.#byId.keys()].map((id) => this.#stop(id)));
	}

	async #serve(request, answer) {
		const [, verb, id] = request.url.split('/');
		try {
			let body = '';
			for await (const part of request) body += part;
			if (verb === 'start') answer.end(String(await this.#start(id, JSON.parse(body || '{}').env)));
			else if (verb === 'wait') answer.end(String((await this.#byId.get(id)?.ended) ?? ''));
			else if (verb === 'stop') answer.end(String((await this.#stop(id)) ?? ''));
			else answer.writeHead(404).end();
		} catch (error) {
			console.error(error);
			answer.writeHead(500).end(String(error));
		}
	}

	async #start(id, env) {
		const running = this.#byId.get(id);
		if (running) return running.port;
		// Another program may take the port first: then once more with another.
		for (let tries = 0; ; tries++) {
			const port = await freePort();
			const one = this.#spawn(id, port, env);
			const deadline = Date.now() + START_MS;
			while (this.#byId.get(id) === one && Date.now() < deadline) {
				if (await answers(port)) {
					one.answered = true;
					return port;
				}
				await pause(10);
			}
			await this.#stop(id);
			if (tries === 2) throw new Error('the container does not start');
		}
	}

	#spawn(id, port, env) {
		const directory = join(this.#directory, String(++this.#count));
		for (const name of OWN) mkdirSync(join(directory, name), { recursive: true });
		chmodSync(join(directory, 'tmp'), 0o1777);
		const log = openSync(join(directory, 'log'), 'a');
		const [program, ...words] = commandLine(directory, port);
		// a group of its own, so that its end takes all of it along
		const child = spawn(program, words, { stdio: ['ignore', log, log], detached: true, env: { ...clean(), ...env } });
		closeSync(log);
		const one = { child, directory, port };
		one.ended = new Promise((done) => {
			const end = (code, signal) => {
				if (this.#byId.get(id) === one) this.#byId.delete(id);
				if (!one.answered) console.error(readFileSync(join(directory, 'log'), 'utf8'));
				removeFolder(directory);
				done(code ?? signal);
			};
			child.on('exit', end);
			child.on('error', (error) => {
				console.error(error);
				end(127);
			});
		});
		this.#byId.set(id, one);
		writeFileSync(join(directory, 'port'), `${port}\n`);
		writeFileSync(join(directory, 'pid'), `${child.pid}\n`);
		return one;
	}

	#stop(id) {
		const one = this.#byId.get(id);
		if (!one) return undefined;
		try {
			process.kill(-one.child.pid, 'SIGKILL');
		} catch {
			// it has just ended by itself
		}
		return one.ended;
	}
}

// A container does not have the environment of who runs the tests, least of all its token.
function clean() {
	const kept = ['PATH', 'LANG', 'LC_ALL', 'TZ', 'ASAN_OPTIONS', 'TSAN_OPTIONS', 'UBSAN_OPTIONS'];
	return Object.fromEntries(kept.filter((name) => name in process.env).map((name) => [name, process.env[name]]));
}
