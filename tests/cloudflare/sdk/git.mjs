import { assert, isResult } from './lib.mjs';

const origin = 'file:///workspace/origin';

export const git = [
	['gitCheckout', 'clones the default branch into a directory of its name', async ({ sandbox }) => {
		const made = await sandbox.exec(`set -u; mkdir -p origin/src && (cd origin && git init -q -b trunk && git config user.email a@b.c &&
			git config user.name n && git config uploadpack.allowFilter true && echo hi >src/a.txt && git add . && git commit -qm one && git branch other && echo more >b.txt && git add . && git commit -qm two)`);
		assert.equal(made.exitCode, 0, made.stderr);
		const result = await sandbox.gitCheckout(origin, { targetDir: '/workspace/copy' });
		isResult(result, { repoUrl: origin, targetDir: '/workspace/copy', branch: 'trunk' });
		assert.equal((await sandbox.readFile('/workspace/copy/src/a.txt')).content, 'hi\n');
	}],
	['gitCheckout', 'a branch, one commit deep', async ({ sandbox }) => {
		isResult(await sandbox.gitCheckout(origin, { branch: 'other', depth: 1, targetDir: '/workspace/deep' }), { branch: 'other' });
		assert.equal((await sandbox.exists('/workspace/deep/b.txt')).exists, false);
		assert.equal((await sandbox.exec('git -C /workspace/deep rev-list --count HEAD')).stdout.trim(), '1');
	}],
	['gitCheckout', 'a branch, a repository and a directory that do not fit are GitErrors with their reason', async ({ refusal }) => {
		const branch = await refusal('gitCheckout', origin, { branch: 'none', targetDir: '/workspace/x1' });
		assert.match(branch.code, /^GIT_/);
		assert.match(JSON.stringify(branch), /none/);
		const there = await refusal('gitCheckout', origin, { targetDir: '/workspace/copy' });
		assert.match(there.code, /^GIT_/);
		assert.match(JSON.stringify(there), /already exists/);
		const none = await refusal('gitCheckout', 'file:///workspace/nothing', { targetDir: '/workspace/x2' });
		assert.match(none.code, /^GIT_/);
	}],
	['gitCheckout', 'a limit that is none is refused', async ({ refusal }) => {
		assert.ok((await refusal('gitCheckout', origin, { cloneTimeoutMs: 0, targetDir: '/workspace/x3' })).message);
	}],
];
