// The stock bridge of the Sandbox SDK, and beside it, below the same /v1 and behind the same key, what it does not carry: the container's
// own API, any port, preview URLs, settings, backups and a list of the sandboxes. README.md has the table.
//
// Order: a preview URL has its own host name and its own token; then the key; then our routes; all else is the bridge's.
import { getSandbox, proxyToSandbox } from '@cloudflare/sandbox';
import { bridge } from '@cloudflare/sandbox/bridge';
import { failed, failure, Refused } from './answers';
import type { Env } from './env';

// ContainerProxy: without it buckets of a binding, or with credentialProxy, cannot be mounted.
export { ContainerProxy, Sandbox } from '@cloudflare/sandbox';
export { WarmPool } from './pool';

const MAX_PORT = 65535;
const CONTROL_PORT = 3000;
// Ours, or orders to the SDK's objects: not for the programs in a sandbox, nor to be given by a client.
const NOT_PASSED = ['Authorization', 'cf-container-target-port', 'X-Sandbox-Name', 'X-Sandbox-Preview-Proxy'];

const stock = bridge({}) as Required<Pick<ExportedHandler<Env>, 'fetch' | 'scheduled'>>;

type Box = ReturnType<typeof getSandbox>;
type Incoming = Parameters<typeof stock.fetch>[0];

interface Call {
	request: Request;
	env: Env;
	url: URL;
	id: string;
	rest: string; // what follows the route's own name, without its slash
}

// --- the key ---

async function sameText(a: string, b: string): Promise<boolean> {
	const encoder = new TextEncoder();
	// digests are of one length, so the time tells nothing of the key, its length included
	const [x, y] = await Promise.all([a, b].map((text) => crypto.subtle.digest('SHA-256', encoder.encode(text))));
	return crypto.subtle.timingSafeEqual(x, y);
}

// The bridge lets everyone in when there is no key. Sandboxes cost money and run programs: here there is none without.
async function refusal(request: Request, env: Env): Promise<Response | null> {
	if (!env.SANDBOX_API_KEY)
		return failure('this Worker has no key: npx wrangler secret put SANDBOX_API_KEY', 'unauthorized', 401);
	const given = /^bearer (.*)$/i.exec(request.headers.get('Authorization') ?? '')?.[1] ?? '';
	return (await sameText(given, env.SANDBOX_API_KEY)) ? null : failure('Unauthorized', 'unauthorized', 401);
}

// --- the sandbox of an id ---

function poolOf(env: Env) {
	return env.WarmPool.get(env.WarmPool.idFromName('global-pool'));
}

function boxOf(env: Env, container: string): Box {
	return getSandbox(env.Sandbox, container, { enableDefaultSession: false });
}

// Starts the container when there is none.
async function started({ env, id }: Call): Promise<Box> {
	try {
		return boxOf(env, await poolOf(env).getContainer(id));
	} catch (thrown) {
		const message = thrown instanceof Error ? thrown.message : String(thrown);
		if (message.includes('instance limit reached')) throw thrown;
		throw new Refused(`pool error: ${message}`, 'pool_error', 502);
	}
}

// Null when there is none: what only looks or takes away does not start a container.
async function existing({ env, id }: Call): Promise<Box | null> {
	const container = await poolOf(env).lookupContainer(id);
	return container ? boxOf(env, container) : null;
}

// --- what requests carry ---

function passed(request: Request, url: string): Request {
	const headers = new Headers(request.headers);
	for (const name of NOT_PASSED) headers.delete(name);
	// a redirect is for the client to follow: its host is another one there
	return new Request(new Request(url, request), { headers, redirect: 'manual' });
}

function isUpgrade(request: Request): boolean {
	return request.headers.get('Upgrade')?.toLowerCase() === 'websocket';
}

function portOf(text: string): number {
	const port = /^\d{1,5}$/.test(text) ? Number(text) : 0;
	if (port < 1 || port > MAX_PORT || port === CONTROL_PORT)
		throw new Refused(`${text || 'a port'}: must be a port, 1 to ${MAX_PORT} but ${CONTROL_PORT}`);
	return port;
}

async function objectOf(request: Request): Promise<Record<string, unknown>> {
	const text = await request.text();
	if (text.trim() === '') return {};
	let value: unknown;
	try {
		value = JSON.parse(text);
	} catch {
		throw new Refused('Invalid JSON body');
	}
	if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new Refused('the body must be a JSON object');
	return value as Record<string, unknown>;
}

function textOf(body: Record<string, unknown>, name: string): string | undefined {
	const value = body[name] ?? undefined;
	if (value !== undefined && typeof value !== 'string') throw new Refused(`${name} must be a string`);
	return value;
}

// --- our routes: each gets what follows /v1/sandbox/ID/NAME, or answers null for a method that is not its own ---

type Route = (call: Call) => Promise<Response | null>;

// Verbatim to the container's server: what it answers, codes and event streams and WebSockets, is what the client gets.
async function api(call: Call): Promise<Response> {
	const path = call.url.pathname.slice(`/v1/sandbox/${call.id}`.length);
	return (await started(call)).fetch(passed(call.request, `http://localhost${path}${call.url.search}`));
}

async function port(call: Call): Promise<Response> {
	const [number, ...path] = call.rest.split('/');
	const to = portOf(number);
	const request = passed(call.request, `http://localhost:${to}/${path.join('/')}${call.url.search}`);
	const box = await started(call);
	return isUpgrade(request) ? box.wsConnect(request, to) : box.containerFetch(request, to);
}

// A preview URL is a name below this one, so an address will not do; of *.workers.dev the SDK says so itself.
function needsName(host: string): void {
	if (/^[\d.]+(:\d+)?$|^\[/.test(host))
		throw new Refused(`${host}: preview URLs need a host name: give "hostname"`, 'CUSTOM_DOMAIN_REQUIRED');
}

// Preview URLs: GET lists, POST /PORT makes one, DELETE /PORT takes it back.
async function expose(call: Call): Promise<Response | null> {
	const { request, env, url } = call;
	const host = (given?: string) => given || env.PREVIEW_HOSTNAME || url.host;
	if (request.method === 'GET' && call.rest === '') {
		const box = await existing(call);
		return Response.json({ ports: box ? await box.getExposedPorts(host(url.searchParams.get('hostname') ?? '')) : [] });
	}
	if (request.method === 'POST') {
		const number = portOf(call.rest);
		const body = await objectOf(request);
		const options = { hostname: host(textOf(body, 'hostname')), name: textOf(body, 'name'), token: textOf(body, 'token') };
		needsName(options.hostname);
		return Response.json(await (await started(call)).exposePort(number, options));
	}
	if (request.method !== 'DELETE') return null;
	const number = portOf(call.rest);
	await (await existing(call))?.unexposePort(number);
	return new Response(null, { status: 204 });
}

// Checked here and all at once: the SDK stores a sleepAfter before it looks at it, and puts names of variables into a command line.
async function settings(call: Call): Promise<Response | null> {
	if (call.request.method !== 'POST' || call.rest !== '') return null;
	const { keepAlive, sleepAfter, env, ...others } = await objectOf(call.request);
	const [unknown] = Object.keys(others);
	if (unknown !== undefined) throw new Refused(`${unknown}: the settings are keepAlive, sleepAfter and env`);
	if (keepAlive !== undefined && typeof keepAlive !== 'boolean') throw new Refused('keepAlive must be true or false');
	const sleeps =
		typeof sleepAfter === 'number'
			? Number.isFinite(sleepAfter) && sleepAfter > 0
			: /^[1-9]\d{0,8}[smh]$/.test(String(sleepAfter));
	if (sleepAfter !== undefined && !sleeps) throw new Refused('sleepAfter must be seconds, or a number with s, m or h');
	if (typeof (env ?? {}) !== 'object' || Array.isArray(env)) throw new Refused('env must be an object of names and values');
	const variables = Object.entries(env ?? {}).map(([name, value]) => {
		if (!/^[A-Za-z_]\w*$/.test(name)) throw new Refused(`env: ${name} is no name of a variable`);
		if (value !== null && typeof value !== 'string') throw new Refused(`env: ${name} must be a string, or null to unset it`);
		return [name, value ?? undefined] as const;
	});
	const box = await started(call);
	if (keepAlive !== undefined) await box.setKeepAlive(keepAlive as boolean);
	if (sleepAfter !== undefined) await box.setSleepAfter(sleepAfter as string | number);
	if (variables.length > 0) await box.setEnvVars(Object.fromEntries(variables));
	return Response.json({ ok: true });
}

// The bridge makes and ends tunnels; only their list is ours.
async function tunnel(call: Call): Promise<Response | null> {
	if (call.request.method !== 'GET' || call.rest !== '') return null;
	const box = await existing(call);
	return Response.json({ tunnels: box ? await box.tunnels.list() : [] });
}

// To R2, where they outlive the sandbox. What the SDK wants to know is in the body; it checks it.
async function backup(call: Call): Promise<Response | null> {
	if (call.request.method !== 'POST') return null;
	const body = await objectOf(call.request);
	const dir = textOf(body, 'dir');
	if (!dir) throw new Refused('dir must be a directory of the sandbox');
	if (call.rest === '') return Response.json(await (await started(call)).createBackup({ ...body, dir }));
	if (call.rest !== 'restore') return null;
	const id = textOf(body, 'id');
	if (!id) throw new Refused('id must be that of a backup');
	return Response.json(await (await started(call)).restoreBackup({ ...body, id, dir }));
}

const ROUTES: Record<string, Route> = { api, ws: api, port, expose, settings, tunnel, backup };

async function ours(request: Request, env: Env, url: URL): Promise<Response | null> {
	if (url.pathname === '/v1/sandboxes' && request.method === 'GET')
		return Response.json({ sandboxes: await poolOf(env).listSandboxes() });
	// ids as the bridge has them; what it would refuse is left to it to refuse
	const parts = /^\/v1\/sandbox\/([a-z2-7]{1,128})\/([a-z]+)(?:\/(.*))?$/s.exec(url.pathname);
	if (!parts || !Object.hasOwn(ROUTES, parts[2])) return null;
	return ROUTES[parts[2]]({ request, env, url, id: parts[1], rest: parts[3] ?? '' });
}

// The bridge hands the request for a terminal to the container as it came, and whoever is root there hears it: the key, which has been
// looked at by now, stays here. Without one in its environment the bridge asks for none.
function theirs(request: Incoming, env: Env, ctx: ExecutionContext, keyed: boolean): Response | Promise<Response> {
	if (keyed) return stock.fetch(request, env, ctx);
	const headers = new Headers(request.headers);
	headers.delete('Authorization');
	return stock.fetch(new Request(request, { headers }) as Incoming, { ...env, SANDBOX_API_KEY: undefined }, ctx);
}

export default {
	...stock,
	async fetch(request, env, ctx): Promise<Response> {
		const preview = await proxyToSandbox(request, env);
		if (preview) return preview;
		const url = new URL(request.url);
		// the bridge guards its schema itself, since it takes the key from the query as well; without a key it would not
		const schema = !!env.SANDBOX_API_KEY && url.pathname.startsWith('/v1/openapi');
		if (/^\/v1(\/|$)/.test(url.pathname) && !schema) {
			const refused = await refusal(request, env);
			if (refused) return refused;
		}
		try {
			return (await ours(request, env, url)) ?? (await theirs(request, env, ctx, schema));
		} catch (thrown) {
			return failed(thrown);
		}
	},
} satisfies ExportedHandler<Env>;
