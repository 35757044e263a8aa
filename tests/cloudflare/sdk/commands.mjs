import { assert, events, isTime, text, until } from './lib.mjs';

export const commands = [
	['exec', 'a command that succeeds: all fields of ExecResult', async ({ sandbox }) => {
		const result = await sandbox.exec('echo out; echo err >&2');
		assert.equal(result.success, true);
		assert.equal(result.exitCode, 0);
		assert.equal(result.stdout.trimEnd(), 'out');
		assert.equal(result.stderr.trimEnd(), 'err');
		assert.equal(result.command, 'echo out; echo err >&2');
		assert.equal(typeof result.duration, 'number');
		isTime(result.timestamp);
	}],
	['exec', 'a command that fails is a result, not an error', async ({ sandbox }) => {
		const result = await sandbox.exec('(exit 3)');
		assert.equal(result.success, false);
		assert.equal(result.exitCode, 3);
		assert.equal((await sandbox.exec('no-such-command-at-all')).exitCode, 127);
		assert.equal((await sandbox.exec('sh -c "kill -9 \\$\\$"')).exitCode, 137);
	}],
	['exec', 'begins in /workspace; cwd and env are of one command', async ({ sandbox }) => {
		assert.equal((await sandbox.exec('pwd')).stdout.trim(), '/workspace');
		const result = await sandbox.exec('echo "$PWD $SAID"', { cwd: '/usr', env: { SAID: "it's $HOME" } });
		assert.equal(result.stdout.trim(), "/usr it's $HOME");
		assert.equal((await sandbox.exec('echo "$PWD $SAID"')).stdout.trim(), '/workspace');
	}],
	['exec', 'UTF-8, quotes and lines pass as they are', async ({ sandbox }) => {
		const said = 'ä€😀 "two"\n\n  three\t\\';
		assert.equal((await sandbox.exec(`cat <<'END'\n${said}\nEND`)).stdout.trimEnd(), said);
	}],
	['exec', 'a megabyte of lines comes whole', async ({ sandbox }) => {
		const { stdout } = await sandbox.exec('seq 1 150000');
		assert.equal(stdout.trimEnd(), Array.from({ length: 150000 }, (_, i) => i + 1).join('\n'));
	}],
	['exec', 'a timeout ends the wait, and the next command works', async ({ sandbox }) => {
		const before = Date.now();
		const result = await sandbox.exec('sleep 30', { timeout: 400 }).catch((error) => error);
		if (result instanceof Error) assert.match(result.message, /timeout|timed out/i);
		else assert.equal(result.exitCode, 124);
		assert.ok(Date.now() - before < 29000, `${Date.now() - before} ms`);
	}],
	['exec', 'stream, onOutput and onComplete: output as it comes', async ({ sandbox }) => {
		const seen = [];
		let complete;
		const result = await sandbox.exec('echo one; echo two >&2', {
			stream: true,
			onOutput: (stream, data) => void seen.push([stream, data]),
			onComplete: (end) => {
				complete = end;
			},
		});
		assert.equal(result.exitCode, 0);
		assert.equal(seen.filter(([stream]) => stream === 'stdout').map(([, data]) => data).join('').trim(), 'one');
		assert.equal(seen.filter(([stream]) => stream === 'stderr').map(([, data]) => data).join('').trim(), 'two');
		await until(() => complete);
		assert.equal(complete.exitCode, 0);
	}],
	['exec', 'many at once, each with its own output', async ({ sandbox }) => {
		const all = await Promise.all(Array.from({ length: 20 }, (_, i) => sandbox.exec(`echo ${i}`)));
		assert.deepEqual(all.map(({ stdout }) => stdout.trim()), all.map((_, i) => String(i)));
	}],
	['execStream', 'start, stdout, stderr, complete with the exit code', async ({ sandbox }) => {
		const seen = await events(await sandbox.execStream('echo out; echo err >&2; sh -c "exit 3"'));
		assert.equal(seen[0].type, 'start');
		assert.equal(seen[0].command, 'echo out; echo err >&2; sh -c "exit 3"');
		assert.equal(text(seen, 'stdout'), 'out\n');
		assert.equal(text(seen, 'stderr'), 'err\n');
		assert.equal(seen.at(-1).type, 'complete');
		assert.equal(seen.at(-1).exitCode, 3);
		for (const event of seen) isTime(event.timestamp);
	}],
	['execStream', 'output comes before the end', async ({ sandbox }) => {
		const stream = await sandbox.execStream('echo first; while [ ! -e go ]; do sleep .05; done');
		const [one, two] = stream.tee();
		await events(one, (event) => event.type === 'stdout' && event.data.startsWith('first'));
		await sandbox.writeFile('/workspace/go', '');
		const seen = await events(two, (event) => event.type === 'complete');
		assert.equal(text(seen, 'stdout'), 'first\n');
		await sandbox.deleteFile('/workspace/go');
	}],
	['execStream', 'a blank command is refused', async ({ refusal }) => {
		const error = await refusal('execStream', ' ');
		assert.equal(error.code, 'INVALID_COMMAND');
		assert.equal(error.httpStatus, 400);
	}],
	['exec', 'a directory that does not exist is said', async ({ sandbox }) => {
		const result = await sandbox.exec('true', { cwd: '/no/such' }).catch((error) => error);
		if (result instanceof Error) assert.match(result.message, /ENOENT|No such|Failed to change directory/);
		else assert.notEqual(result.exitCode, 0);
	}],
	['exec', 'exit ends no more than its command: by its exit code, or as a SessionTerminatedError that has it', async ({ sandbox, answer }) => {
		await sandbox.createSession({ id: 'ends' });
		const { result, error } = await answer('ends', 'exec', 'exit 4');
		if (error) assert.deepEqual([error.name, error.code, error.httpStatus, error.context.exitCode], ['SessionTerminatedError', 'SESSION_TERMINATED', 410, 4]);
		else assert.equal(result.exitCode, 4);
		const again = await sandbox.getSession('ends');
		assert.equal((await again.exec('echo back')).stdout.trim(), 'back');
	}],
];
