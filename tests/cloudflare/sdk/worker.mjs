// A Worker that calls the methods of the official SDK and looks at what comes back: GET /GROUP runs the rows of one group in a sandbox
// of its own and answers in lines of TAP, with 500 when a row fails. `?session=none` switches the default session off, as the bridge does.
//
// A row is a method, a sentence and a function; it asserts what the SDK's types and documentation promise, not how a server gets there.
import { Sandbox as Official, getSandbox } from '@cloudflare/sandbox';
import { withStandIn } from '../standin.mjs';
import { backups } from './backups.mjs';
import { code } from './code.mjs';
import { commands } from './commands.mjs';
import { files } from './files.mjs';
import { git } from './git.mjs';
import { ports } from './ports.mjs';
import { processes } from './processes.mjs';
import { sessions } from './sessions.mjs';
import { settings } from './settings.mjs';
import { watches } from './watches.mjs';

const groups = { backups, code, commands, files, git, ports, processes, sessions, settings, watches };
const ROW_MS = 60000;

// Errors keep their class and fields, and callbacks their way back, only inside the object, so it is asked there.
class Asked extends Official {
	async answer(method, args, sessionId) {
		try {
			const target = sessionId === undefined ? this : await this.getSession(sessionId);
			return { result: JSON.parse(JSON.stringify((await target[method](...args)) ?? null)) };
		} catch (error) {
			const { name, message, code, httpStatus, context, operation, suggestion } = error;
			return { error: JSON.parse(JSON.stringify({ name, message, code, httpStatus, context, operation, suggestion })) };
		}
	}

	startSeen(command) {
		const seen = { output: [] };
		return new Promise((done, fail) => {
			const options = {
				onStart: (process) => {
					seen.started = process.id;
				},
				onOutput: (stream, data) => void seen.output.push([stream, data]),
				onExit: (exit) => done({ ...seen, exit }),
				onError: fail,
			};
			this.startProcess(command, options).catch(fail);
		});
	}
}
export const Sandbox = withStandIn(Asked);

function within(ms, promise) {
	let timer;
	const late = new Promise((_, fail) => {
		timer = setTimeout(() => fail(new Error(`it did not end within ${ms} ms`)), ms);
	});
	return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

export default {
	async fetch(request, env) {
		const url = new URL(request.url);
		const rows = groups[url.pathname.slice(1)];
		if (!rows) return new Response(`no such group; there are ${Object.keys(groups).join(' ')}\n`, { status: 404 });
		const id = `sdk-${url.pathname.slice(1)}-${crypto.randomUUID().slice(0, 8)}`;
		const sandbox = getSandbox(env.Sandbox, id, { enableDefaultSession: url.searchParams.get('session') !== 'none' });
		const asked = env.Sandbox.get(env.Sandbox.idFromName(id));
		const answer = (session, method, ...args) => asked.answer(method, args, session);
		const refusal = async (method, ...args) => {
			const { error } = await answer(undefined, method, ...args);
			if (!error) throw new Error(`${method} should have been refused`);
			return error;
		};
		const row = { sandbox, asked, env, id, answer, refusal };
		const only = url.searchParams.get('only');
		const lines = [];
		let failed = 0;
		for (const [method, sentence, check] of rows) {
			if (only && !method.includes(only)) continue;
			try {
				await within(ROW_MS, check(row));
				lines.push(`ok - ${method}: ${sentence}`);
			} catch (error) {
				failed++;
				lines.push(`not ok - ${method}: ${sentence}`, ...String(error.stack ?? error).split('\n').map((line) => `#   ${line}`));
			}
		}
		await sandbox.destroy().catch((error) => lines.push(`# destroy: ${error}`));
		return new Response(`${lines.join('\n')}\n1..${rows.length}\n`, { status: failed ? 500 : 200 });
	},
};
