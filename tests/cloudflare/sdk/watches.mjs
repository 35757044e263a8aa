import { parseSSEStream } from '@cloudflare/sandbox';
import { assert, isRefusal, isTime, until } from './lib.mjs';

// The events of a watch from now on; `seen` grows, `stop` ends it.
async function follow(stream) {
	const seen = [];
	const reader = stream.getReader();
	const through = new ReadableStream({
		async pull(to) {
			const { done, value } = await reader.read();
			if (done) to.close();
			else to.enqueue(value);
		},
	});
	const reading = (async () => {
		for await (const event of parseSSEStream(through)) seen.push(event);
	})().catch(() => {});
	await until(() => seen.length > 0);
	return {
		seen,
		has: (type, path) => until(() => seen.find((event) => event.eventType === type && event.path === path)),
		stop: () => reader.cancel().then(() => reading),
	};
}

export const watches = [
	['watch', 'begins with watching, then create, modify, delete', async ({ sandbox }) => {
		await sandbox.mkdir('/workspace/w', { recursive: true });
		const watch = await follow(await sandbox.watch('/workspace/w'));
		assert.deepEqual([watch.seen[0].type, watch.seen[0].path], ['watching', '/workspace/w']);
		assert.ok(watch.seen[0].watchId);
		await sandbox.writeFile('/workspace/w/a', 'x');
		const made = await watch.has('create', '/workspace/w/a');
		assert.deepEqual([made.type, made.isDirectory], ['event', false]);
		isTime(made.timestamp);
		await sandbox.exec('echo more >>/workspace/w/a');
		await watch.has('modify', '/workspace/w/a');
		await sandbox.exec('mkdir /workspace/w/d');
		assert.equal((await watch.has('create', '/workspace/w/d')).isDirectory, true);
		await sandbox.deleteFile('/workspace/w/a');
		await watch.has('delete', '/workspace/w/a');
		await watch.stop();
	}],
	['watch', 'renames are move_from and move_to', async ({ sandbox }) => {
		await sandbox.writeFile('/workspace/w/old', 'x');
		const watch = await follow(await sandbox.watch('/workspace/w'));
		await sandbox.renameFile('/workspace/w/old', '/workspace/w/new');
		await watch.has('move_from', '/workspace/w/old');
		await watch.has('move_to', '/workspace/w/new');
		await watch.stop();
	}],
	['watch', 'below, unless recursive is false', async ({ sandbox }) => {
		await sandbox.mkdir('/workspace/w/below', { recursive: true });
		const all = await follow(await sandbox.watch('/workspace/w', { recursive: true }));
		const flat = await follow(await sandbox.watch('/workspace/w', { recursive: false }));
		await sandbox.writeFile('/workspace/w/below/f', 'x');
		await sandbox.writeFile('/workspace/w/top', 'x');
		await all.has('create', '/workspace/w/below/f');
		await flat.has('create', '/workspace/w/top');
		assert.equal(flat.seen.some((event) => event.path === '/workspace/w/below/f'), false);
		await all.stop();
		await flat.stop();
	}],
	['watch', 'include and exclude', async ({ sandbox }) => {
		const only = await follow(await sandbox.watch('/workspace/w', { include: ['*.ts'] }));
		const less = await follow(await sandbox.watch('/workspace/w', { exclude: ['*.log'] }));
		await sandbox.exec('cd /workspace/w; : >one.log; : >two.ts');
		await only.has('create', '/workspace/w/two.ts');
		await less.has('create', '/workspace/w/two.ts');
		for (const watch of [only, less]) assert.equal(watch.seen.some((event) => event.path?.endsWith('.log')), false);
		await only.stop();
		await less.stop();
	}],
	['watch', 'a path that is not there, and one outside, are refused', async ({ refusal }) => {
		isRefusal(await refusal('watch', '/workspace/none'), 'FileNotFoundError', 'FILE_NOT_FOUND', 404);
		isRefusal(await refusal('watch', '/etc'), 'PermissionDeniedError', 'PERMISSION_DENIED', 403);
	}],
	['checkChanges', 'changed and unchanged since a version', async ({ sandbox }) => {
		const first = await sandbox.checkChanges('/workspace/w');
		assert.equal(first.success, true);
		isTime(first.timestamp);
		const still = await sandbox.checkChanges('/workspace/w', { since: first.version });
		assert.equal(still.status, 'unchanged');
		await sandbox.writeFile('/workspace/w/checked', 'x');
		const changed = await until(async () => {
			const now = await sandbox.checkChanges('/workspace/w', { since: first.version });
			return now.status === 'changed' && now;
		});
		assert.equal((await sandbox.checkChanges('/workspace/w', { since: changed.version })).status, 'unchanged');
	}],
];
