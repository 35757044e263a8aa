import { collectFile } from '@cloudflare/sandbox';
import { assert, events, isRefusal, text, until } from './lib.mjs';

export const sessions = [
	['createSession', 'has its own directory and environment', async ({ sandbox }) => {
		await sandbox.mkdir('/workspace/s1', { recursive: true });
		const one = await sandbox.createSession({ id: 'one', cwd: '/workspace/s1', env: { WHO: 'one', NOT: undefined } });
		const two = await sandbox.createSession({ id: 'two', env: { WHO: 'two' } });
		assert.equal(one.id, 'one');
		assert.equal((await one.exec('echo "$PWD $WHO"')).stdout.trim(), '/workspace/s1 one');
		assert.equal((await two.exec('echo "$PWD $WHO"')).stdout.trim(), '/workspace two');
	}],
	['session.exec', 'cd, exports, functions stay in the session', async ({ sandbox }) => {
		const one = await sandbox.getSession('one');
		await one.exec('cd /usr; export KEPT=yes; shout() { echo "$1!"; }');
		assert.equal((await one.exec('echo "$PWD $KEPT"; shout a')).stdout.trim(), '/usr yes\na!');
		const two = await sandbox.getSession('two');
		assert.equal((await two.exec('echo "$PWD ${KEPT-no}"')).stdout.trim(), '/workspace no');
	}],
	['session.exec', 'cwd and env of one command leave no trace', async ({ sandbox }) => {
		const one = await sandbox.getSession('one');
		assert.equal((await one.exec('echo "$PWD $ONCE"', { cwd: '/tmp', env: { ONCE: '1' } })).stdout.trim(), '/tmp 1');
		assert.equal((await one.exec('echo "$PWD ${ONCE-gone}"')).stdout.trim(), '/usr gone');
	}],
	['session.exec', 'one after the other in the order of the calls', async ({ sandbox }) => {
		const one = await sandbox.getSession('one');
		await Promise.all([1, 2, 3, 4, 5].map((n) => one.exec(`sleep .0$((5 - ${n})); ORDER="$ORDER"${n}`)));
		assert.equal((await one.exec('echo $ORDER')).stdout.trim().length, 5);
	}],
	['session.execStream', 'knows the session', async ({ sandbox }) => {
		const one = await sandbox.getSession('one');
		const seen = await events(await one.execStream('echo "$PWD $KEPT"'));
		assert.equal(text(seen, 'stdout').trim(), '/usr yes');
		assert.equal(seen.at(-1).exitCode, 0);
	}],
	['session: files', 'relative paths are from the session\'s directory', async ({ sandbox }) => {
		const two = await sandbox.getSession('two');
		await two.exec('cd /workspace/s1');
		await two.writeFile('rel.txt', 'rel');
		assert.equal((await sandbox.readFile('/workspace/s1/rel.txt')).content, 'rel');
		assert.equal((await two.exists('rel.txt')).exists, true);
		await two.renameFile('rel.txt', 'rel2.txt');
		assert.deepEqual((await two.listFiles('.')).files.map((file) => file.name), ['rel2.txt']);
		await two.mkdir('d');
		await two.deleteFile('rel2.txt');
	}],
	['session.setEnvVars', 'sets and unsets in this session alone', async ({ sandbox }) => {
		const two = await sandbox.getSession('two');
		await two.setEnvVars({ SET: "it's a 'word'", EMPTY: '' });
		assert.equal((await two.exec('echo "$SET${EMPTY-unset}"')).stdout.trim(), "it's a 'word'");
		await two.setEnvVars({ SET: undefined });
		assert.equal((await two.exec('echo "${SET-unset}"')).stdout.trim(), 'unset');
		assert.equal((await (await sandbox.getSession('one')).exec('echo "${EMPTY-unset}"')).stdout.trim(), 'unset');
	}],
	['session: the rest', 'processes, logs, code, watches and git by the object of a session', async ({ sandbox }) => {
		const session = await sandbox.createSession({ id: 'rest', env: { MINE: 'rest' } });
		const process = await session.startProcess('echo "$MINE"', { processId: 'in-rest' });
		assert.deepEqual(await process.waitForExit(40000), { exitCode: 0 });
		assert.equal((await session.getProcessLogs('in-rest')).stdout.trim(), 'rest');
		assert.equal(text(await events(await session.streamProcessLogs('in-rest')), 'stdout').trim(), 'rest');
		assert.equal((await session.getProcess('in-rest')).status, 'completed');
		assert.ok((await session.listProcesses()).some(({ id }) => id === 'in-rest'));
		await session.startProcess('sleep 300', { processId: 'sleeps' });
		await session.killProcess('sleeps');
		assert.equal(typeof (await session.killAllProcesses()), 'number');
		assert.equal(typeof (await session.cleanupCompletedProcesses()), 'number');
		await session.mkdir('/workspace/rest/sub', { recursive: true });
		await session.writeFile('/workspace/rest/a', 'x');
		await session.moveFile('/workspace/rest/a', '/workspace/rest/sub/a.txt');
		assert.equal((await collectFile(await session.readFileStream('/workspace/rest/sub/a.txt'))).content, 'x');
		assert.equal((await session.readFile('/workspace/rest/sub/a.txt')).content, 'x');
		const watching = await events(await session.watch('/workspace/rest'), () => true);
		assert.equal(watching[0].type, 'watching');
		assert.equal((await session.checkChanges('/workspace/rest')).success, true);
		const context = await session.createCodeContext({ language: 'python' });
		assert.equal((await session.runCode('2 + 3', { context })).results[0].text, '5');
		assert.ok((await events(await session.runCodeStream('1', { language: 'python' }))).length > 0);
		assert.ok((await session.listCodeContexts()).some(({ id }) => id === context.id));
		await session.deleteCodeContext(context.id);
		await session.exec('git init -q /workspace/rest/origin && git -C /workspace/rest/origin -c user.name=n -c user.email=e commit -q --allow-empty -m one');
		assert.equal((await session.gitCheckout('file:///workspace/rest/origin', { targetDir: '/workspace/rest/copy' })).success, true);
	}],
	['session.terminal', 'a shell of that session, where it is', async ({ sandbox }) => {
		const session = await sandbox.getSession('rest');
		await session.exec('cd /workspace/rest');
		const answer = await session.terminal(new Request('http://localhost/', { headers: { Upgrade: 'websocket', Connection: 'Upgrade' } }));
		let shown = '';
		answer.webSocket.addEventListener('message', ({ data }) => {
			if (typeof data !== 'string') shown += new TextDecoder().decode(data);
			else if (JSON.parse(data).type === 'ready') answer.webSocket.send(new TextEncoder().encode('echo "in-$PWD-$MINE"\n'));
		});
		answer.webSocket.accept();
		await until(() => shown.includes('in-/workspace/rest-rest'));
		answer.webSocket.close();
	}],
	['createSession', 'an id that is taken is refused', async ({ refusal }) => {
		const error = await refusal('createSession', { id: 'one' });
		isRefusal(error, 'SessionAlreadyExistsError', 'SESSION_ALREADY_EXISTS', 409);
		assert.equal(error.context.sessionId, 'one');
	}],
	['createSession', 'without an id makes one up', async ({ sandbox }) => {
		const made = await sandbox.createSession();
		assert.ok(made.id.length > 4);
		assert.equal((await made.exec('echo hi')).stdout.trim(), 'hi');
	}],
	['createSession', 'commandTimeoutMs limits its commands', async ({ sandbox }) => {
		const quick = await sandbox.createSession({ id: 'quick', commandTimeoutMs: 400 });
		const result = await quick.exec('sleep 30').catch((error) => error);
		if (result instanceof Error) assert.match(result.message, /timeout|timed out/i);
		else assert.equal(result.exitCode, 124);
	}],
	['deleteSession', 'its processes end, and a new one starts afresh', async ({ sandbox }) => {
		const one = await sandbox.getSession('one');
		const process = await one.startProcess('sleep 300', { processId: 'of-one' });
		const result = await sandbox.deleteSession('one');
		assert.deepEqual([result.success, result.sessionId], [true, 'one']);
		assert.equal((await sandbox.exec(`kill -0 ${process.pid}`)).exitCode, 1);
		const again = await sandbox.createSession({ id: 'one' });
		assert.equal((await again.exec('echo "$PWD ${KEPT-no}"')).stdout.trim(), '/workspace no');
	}],
	['deleteSession', 'an unknown one is refused', async ({ refusal }) => {
		const error = await refusal('deleteSession', 'unknown');
		assert.equal(error.httpStatus, 500);
		assert.match(error.message, /not found/);
	}],
];
