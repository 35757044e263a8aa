import { getSandbox } from '@cloudflare/sandbox';
import { assert, until } from './lib.mjs';

export const settings = [
	['setEnvVars', 'reaches commands, processes and sessions made later', async ({ sandbox }) => {
		await sandbox.setEnvVars({ GLOBAL: "it's $one", LINES2: 'a\nb' });
		assert.equal((await sandbox.exec('printf %s "$GLOBAL"')).stdout, "it's $one");
		assert.equal((await sandbox.exec('printf %s "$LINES2"')).stdout, 'a\nb');
		const session = await sandbox.createSession({ id: 'later', env: { OWN: 'o' } });
		assert.equal((await session.exec('printf %s "$GLOBAL $OWN"')).stdout, "it's $one o");
		const process = await sandbox.startProcess('printf "%s\\n" "$GLOBAL"');
		await process.waitForExit(40000);
		assert.equal((await process.getLogs()).stdout.trim(), "it's $one");
	}],
	['setEnvVars', 'undefined unsets', async ({ sandbox }) => {
		await sandbox.setEnvVars({ GLOBAL: undefined });
		assert.equal((await sandbox.exec('printf %s "${GLOBAL-unset}"')).stdout, 'unset');
	}],
	['setKeepAlive, setSleepAfter, setLabels', 'are taken', async ({ sandbox }) => {
		await sandbox.setKeepAlive(true);
		await sandbox.setKeepAlive(false);
		await sandbox.setSleepAfter('20m');
		await sandbox.setLabels?.({ team: 'a' });
	}],
	['getContainerPlacementId', 'null where there is none', async ({ sandbox }) => {
		await sandbox.createSession();
		assert.equal((await sandbox.getContainerPlacementId()) ?? null, null);
	}],
	['containerFetch', 'passes a request to the server', async ({ sandbox }) => {
		const answer = await sandbox.fetch(new Request('http://localhost/api/ping'));
		assert.equal(answer.status, 200);
		assert.equal((await answer.json()).status, 'healthy');
	}],
	['fetch', 'an unknown route is 404 with its code', async ({ sandbox }) => {
		const answer = await sandbox.fetch(new Request('http://localhost/api/no/such'));
		assert.equal(answer.status, 404);
		assert.equal((await answer.json()).code, 'UNKNOWN_ERROR');
	}],
	['terminal', 'a shell over a WebSocket', async ({ sandbox }) => {
		const answer = await sandbox.terminal(new Request('http://localhost/', { headers: { Upgrade: 'websocket' } }), { cols: 90, rows: 30 });
		assert.equal(answer.status, 101);
		const socket = answer.webSocket;
		let shown = '';
		let ready = false;
		socket.addEventListener('message', ({ data }) => {
			if (typeof data === 'string') ready ||= JSON.parse(data).type === 'ready';
			else shown += new TextDecoder().decode(data);
		});
		socket.accept();
		await until(() => ready);
		socket.send(new TextEncoder().encode('stty size; echo "typed-$((6 * 7))"\n'));
		await until(() => /30 90/.test(shown) && /typed-42/.test(shown));
		socket.send(JSON.stringify({ type: 'resize', cols: 100, rows: 40 }));
		socket.send(new TextEncoder().encode('stty size\n'));
		await until(() => /40 100/.test(shown));
		socket.close();
	}],
	['getSandbox', 'two names are two sandboxes; destroy ends all of one', async ({ env, id, sandbox }) => {
		await sandbox.writeFile('/workspace/mine', 'x');
		const other = getSandbox(env.Sandbox, `${id}-other`);
		assert.equal((await other.exists('/workspace/mine')).exists, false);
		await other.writeFile('/workspace/theirs', 'x');
		await other.destroy();
		assert.equal((await other.exists('/workspace/theirs')).exists, false);
		await other.destroy();
		assert.equal((await sandbox.exists('/workspace/mine')).exists, true);
	}],
];
