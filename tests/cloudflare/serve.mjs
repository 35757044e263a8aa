// Serves a Worker with the Sandbox SDK on 127.0.0.1, without Docker and without an account:
//
//   node serve.mjs DIRECTORY
//
// prints its address when it answers, and serves until SIGTERM or the end of its standard input. Everything it keeps is below
// DIRECTORY, which must exist; nothing of it is left at the end. Each Durable Object's container is a process of containers.mjs.
//
// BUILD            whose sandboxd are the containers (build)
// WORKER           the Worker's entry (the stock bridge); CLASSES, its Durable Objects (Sandbox,WarmPool)
// SANDBOX_API_KEY  the Worker's key (none: it asks for none)
// TRANSPORT        how the SDK speaks to the container (http)
// CONTAINER        another server for the containers: a line for sh with {port} in it; CONTAINER_FILES, what it finds at /container-server
import { mkdtempSync, rmSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { Miniflare } from 'miniflare';
import { Containers } from './containers.mjs';

const END_MS = 10000;
const here = dirname(fileURLToPath(import.meta.url));
const directory = resolve(process.argv[2] ?? '');
if (!process.argv[2]) {
	console.error('usage: node serve.mjs DIRECTORY');
	process.exit(2);
}
process.env.SANDBOXD ??= join(resolve(process.env.BUILD ?? join(here, '../../build')), 'sandboxd');

let server;
let ending;
const containers = new Containers(directory);
const scratch = mkdtempSync(join(directory, '.serve-'));
process.env.TMPDIR = scratch; // what workerd keeps goes with it
process.on('exit', () => rmSync(scratch, { recursive: true, force: true, maxRetries: 5 }));

function end(status) {
	ending ??= (async () => {
		// with a limit: at the exit all that is left is killed in any case
		const patience = setTimeout(() => {
			console.error('the end takes too long');
			process.exit(1);
		}, END_MS);
		await containers.close();
		await server?.dispose().catch(console.error);
		clearTimeout(patience);
		process.exit(status);
	})();
	return ending;
}
function listenToSignals() {
	for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP']) process.removeAllListeners(signal).on(signal, () => void end(0));
}
listenToSignals();
process.stdin.on('end', () => void end(0)).on('error', () => void end(0)).resume();
process.on('uncaughtException', (error) => {
	console.error(error);
	void end(1);
});

// A tenth of a second: nothing is gained by keeping it.
const module = join(scratch, 'worker.mjs');
await build({
	entryPoints: [resolve(process.env.WORKER ?? join(here, 'bridge.mjs'))],
	bundle: true,
	format: 'esm',
	platform: 'neutral',
	outfile: module,
	logLevel: 'error',
	mainFields: ['module', 'main'],
	conditions: ['workerd', 'worker', 'import'],
	external: ['cloudflare:*', 'node:*'],
	nodePaths: [join(here, 'node_modules')],
});
const classes = (process.env.CLASSES ?? 'Sandbox,WarmPool').split(',');
server = new Miniflare({
	modules: true,
	scriptPath: module,
	modulesRoot: dirname(module),
	compatibilityDate: '2025-05-06',
	compatibilityFlags: ['nodejs_compat', 'enable_ctx_exports'],
	host: '127.0.0.1',
	port: 0,
	cf: false,
	bindings: {
		...(process.env.SANDBOX_API_KEY && { SANDBOX_API_KEY: process.env.SANDBOX_API_KEY }),
		SPAWNER: await containers.listen(),
		SANDBOX_TRANSPORT: process.env.TRANSPORT ?? 'http',
		WARM_POOL_TARGET: '0',
	},
	r2Buckets: ['TEST_BUCKET', 'BACKUP_BUCKET'],
	// A container outlives the object in front of it; a stand-in that is evicted would forget its own.
	durableObjects: Object.fromEntries(
		classes.map((name) => [name, { className: name, useSQLite: true, unsafePreventEviction: true }]),
	),
});
listenToSignals(); // again: miniflare has its own way to end, which waits for nobody
console.log(String(await server.ready).replace(/\/$/, ''));
