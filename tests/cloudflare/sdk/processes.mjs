import { assert, events, isRefusal, isTime, text, until } from './lib.mjs';

const ended = (sandbox, id) =>
	until(async () => {
		const process = await sandbox.getProcess(id);
		return process.status !== 'running' && process.status !== 'starting' && process;
	});

export const processes = [
	['startProcess', 'all fields of Process', async ({ sandbox }) => {
		const process = await sandbox.startProcess('sleep 300', { processId: 'long' });
		assert.equal(process.id, 'long');
		assert.ok(process.pid > 1);
		assert.equal(process.command, 'sleep 300');
		assert.equal(process.status, 'running');
		assert.ok(Math.abs(new Date(process.startTime) - Date.now()) < 60000);
		assert.equal(await process.getStatus(), 'running');
	}],
	['startProcess', 'makes an id up; cwd and env are its own', async ({ sandbox }) => {
		const process = await sandbox.startProcess('echo "$PWD $MINE"; echo err >&2', { cwd: '/usr', env: { MINE: 'm' } });
		assert.match(process.id, /^[A-Za-z0-9._-]+$/);
		await process.waitForExit(40000);
		const logs = await process.getLogs();
		assert.equal(logs.stdout.trim(), '/usr m');
		assert.equal(logs.stderr.trim(), 'err');
	}],
	['startProcess', 'a blank command is refused', async ({ refusal }) => {
		isRefusal(await refusal('startProcess', ' '), 'CommandError', 'INVALID_COMMAND', 400);
	}],
	['startProcess', 'onStart, onOutput, onExit', async ({ asked }) => {
		const { started, output, exit } = await asked.startSeen('echo one; echo two >&2; sh -c "exit 5"');
		assert.ok(started);
		assert.equal(exit, 5);
		assert.deepEqual(output.map(([stream, data]) => [stream, data.trim()]).sort(), [['stderr', 'two'], ['stdout', 'one']]);
	}],
	['getProcess', 'of one that runs, of one that ended, of none', async ({ sandbox }) => {
		assert.equal((await sandbox.getProcess('long')).status, 'running');
		await sandbox.startProcess('sh -c "exit 3"', { processId: 'three' });
		const three = await ended(sandbox, 'three');
		assert.deepEqual([three.status, three.exitCode], ['failed', 3]);
		await sandbox.startProcess('true', { processId: 'fine' });
		const fine = await ended(sandbox, 'fine');
		assert.deepEqual([fine.status, fine.exitCode], ['completed', 0]);
		assert.ok(new Date(fine.endTime) >= new Date(fine.startTime));
		assert.equal(await sandbox.getProcess('none'), null);
	}],
	['listProcesses', 'those that run and those that ended', async ({ sandbox }) => {
		const list = await sandbox.listProcesses();
		const by = Object.fromEntries(list.map((process) => [process.id, process]));
		assert.equal(by.long.status, 'running');
		assert.equal(by.three.exitCode, 3);
		assert.equal(by.fine.command, 'true');
	}],
	['process.waitForExit', 'the exit code, also of one that has ended', async ({ sandbox }) => {
		const process = await sandbox.startProcess('sleep .2; sh -c "exit 7"');
		assert.deepEqual(await process.waitForExit(40000), { exitCode: 7 });
		assert.deepEqual(await process.waitForExit(40000), { exitCode: 7 });
	}],
	['process.waitForExit', 'a time limit is a ProcessReadyTimeoutError', async ({ sandbox }) => {
		const process = await sandbox.getProcess('long');
		await assert.rejects(process.waitForExit(200), /ProcessReadyTimeoutError|did not|within|timeout/i);
	}],
	['process.waitForLog', 'a text and an expression', async ({ sandbox }) => {
		const process = await sandbox.startProcess('echo warming up; sleep .2; echo "listening on 8080 now"; sleep 300', { processId: 'logs' });
		const found = await process.waitForLog('listening', 40000);
		assert.match(found.line, /listening on 8080 now/);
		const matched = await process.waitForLog(/on (\d+)/, 40000);
		assert.equal(matched.match[1], '8080');
		await process.kill();
	}],
	['process.waitForLog', 'an end before the line is a ProcessExitedBeforeReadyError', async ({ sandbox }) => {
		const process = await sandbox.startProcess('echo nothing; sh -c "exit 2"');
		await assert.rejects(process.waitForLog('never', 40000), /exited/i);
	}],
	['process.waitForPort', 'http and tcp; an end before is said', async ({ sandbox }) => {
		const port = 20000 + Math.floor(Math.random() * 10000);
		const server = await sandbox.startProcess(`sleep .3; exec python3 -u -m http.server ${port} --bind 127.0.0.1`);
		await server.waitForPort(port, { mode: 'http', path: '/', timeout: 40000, interval: 100 });
		await server.waitForPort(port, { mode: 'tcp', timeout: 40000 });
		await assert.rejects(server.waitForPort(port + 1, { mode: 'tcp', timeout: 500, interval: 100 }), /did not|within|timeout/i);
		await server.kill();
		const dead = await sandbox.startProcess('sleep .3; sh -c "exit 1"');
		await assert.rejects(dead.waitForPort(port + 2, { mode: 'tcp', timeout: 40000 }), /exited/i);
	}],
	['getProcessLogs', 'all output, while it runs too', async ({ sandbox, refusal }) => {
		await sandbox.startProcess('seq 1 20000; echo e >&2; sleep 300', { processId: 'talks' });
		const logs = await until(async () => {
			const now = await sandbox.getProcessLogs('talks');
			return now.stderr && now.stdout.endsWith('20000\n') && now;
		});
		assert.equal(logs.processId, 'talks');
		assert.equal(logs.stdout, `${Array.from({ length: 20000 }, (_, i) => i + 1).join('\n')}\n`);
		assert.equal(logs.stderr, 'e\n');
		isRefusal(await refusal('getProcessLogs', 'none'), 'ProcessNotFoundError', 'PROCESS_NOT_FOUND', 404);
	}],
	['streamProcessLogs', 'what was, what comes, and the exit', async ({ sandbox }) => {
		await sandbox.startProcess('echo before; while [ ! -e logs.go ]; do sleep .05; done; echo after; echo e >&2; sh -c "exit 6"', { processId: 'streams' });
		const stream = await sandbox.streamProcessLogs('streams');
		const [one, two] = stream.tee();
		await events(one, (event) => event.type === 'stdout' && event.data.includes('before'));
		await sandbox.writeFile('/workspace/logs.go', '');
		const seen = await events(two);
		assert.equal(text(seen, 'stdout'), 'before\nafter\n');
		assert.equal(text(seen, 'stderr'), 'e\n');
		const exit = seen.at(-1);
		assert.deepEqual([exit.type, exit.exitCode, exit.processId], ['exit', 6, 'streams']);
		for (const event of seen) isTime(event.timestamp);
	}],
	['killProcess', 'ends it, its children too', async ({ sandbox }) => {
		const process = await sandbox.startProcess('sleep 300 & echo $!; wait', { processId: 'parent' });
		const child = await until(async () => (await sandbox.getProcessLogs('parent')).stdout.trim());
		await sandbox.killProcess('parent');
		assert.equal((await ended(sandbox, 'parent')).status, 'killed');
		// a child is its parent's to reap, and without one the server's, in its own time
		for (const pid of [process.pid, child]) await until(async () => (await sandbox.exec(`kill -0 ${pid}`)).exitCode === 1);
	}],
	['process.kill', 'the same by the object', async ({ sandbox }) => {
		const process = await sandbox.getProcess('talks');
		await process.kill();
		assert.equal((await ended(sandbox, 'talks')).status, 'killed');
	}],
	['killProcess', 'an unknown one is refused', async ({ refusal }) => {
		isRefusal(await refusal('killProcess', 'none'), 'ProcessNotFoundError', 'PROCESS_NOT_FOUND', 404);
	}],
	['killAllProcesses', 'says how many, and none runs', async ({ sandbox }) => {
		await sandbox.startProcess('sleep 300');
		assert.ok((await sandbox.killAllProcesses()) >= 2);
		const running = (await sandbox.listProcesses()).filter((process) => process.status === 'running');
		assert.deepEqual(running, []);
	}],
	['cleanupCompletedProcesses', 'gives a number', async ({ sandbox }) => {
		assert.equal(typeof (await sandbox.cleanupCompletedProcesses()), 'number');
	}],
];
