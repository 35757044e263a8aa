import { assert, events, isRefusal, text } from './lib.mjs';

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
		const result = await quick.exec('sleep 5').catch((error) => error);
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
