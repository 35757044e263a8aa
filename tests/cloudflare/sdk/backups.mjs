import { assert, until } from './lib.mjs';

export const backups = [
	['createBackup, restoreBackup', 'a directory comes back as it was', async ({ sandbox }) => {
		await sandbox.exec('mkdir -p /workspace/b/sub && cd /workspace/b && echo one >a && echo two >sub/c && ln -s a l && chmod 750 sub && head -c 3000000 /dev/urandom >big && sha256sum big >/workspace/sum');
		const backup = await sandbox.createBackup({ dir: '/workspace/b', name: 'first', localBucket: true });
		assert.ok(backup.id);
		assert.equal(backup.dir, '/workspace/b');
		await sandbox.exec('cd /workspace/b && echo changed >a && rm -r sub big && : >new');
		const restored = await sandbox.restoreBackup(backup);
		assert.deepEqual([restored.success, restored.dir, restored.id], [true, '/workspace/b', backup.id]);
		const seen = await sandbox.exec('cd /workspace/b && cat a sub/c && readlink l && stat -c %a sub && sha256sum -c --status /workspace/sum');
		assert.match(seen.stdout.trim(), /^one\ntwo\na\n750$/);
		assert.equal(seen.exitCode, 0);
	}],
	['createBackup', 'excludes', async ({ sandbox }) => {
		await sandbox.exec('mkdir -p /workspace/e/node_modules && cd /workspace/e && : >keep && : >node_modules/x && : >a.log');
		const backup = await sandbox.createBackup({ dir: '/workspace/e', excludes: ['node_modules', '*.log'], localBucket: true });
		await sandbox.exec('rm -r /workspace/e; mkdir /workspace/e');
		await sandbox.restoreBackup(backup);
		assert.equal((await sandbox.exec('cd /workspace/e && find . | sort | xargs')).stdout.trim(), '. ./keep');
	}],
	['createBackup', 'a directory that is not there, and a name that is none, are refused', async ({ refusal }) => {
		const error = await refusal('createBackup', { dir: '/workspace/none', localBucket: true });
		assert.deepEqual([error.name, error.code], ['BackupCreateError', 'BACKUP_CREATE_FAILED']);
		assert.equal((await refusal('createBackup', { dir: 'relative', localBucket: true })).name, 'InvalidBackupConfigError');
	}],
	['restoreBackup', 'one that is not there is a BackupNotFoundError', async ({ refusal }) => {
		const error = await refusal('restoreBackup', { id: '00000000-0000-4000-8000-000000000000', dir: '/workspace/b', localBucket: true });
		assert.deepEqual([error.name, error.code], ['BackupNotFoundError', 'BACKUP_NOT_FOUND']);
	}],
	['mountBucket', 'a path, a bucket and an address that cannot be are refused', async ({ refusal }) => {
		const endpoint = 'https://storage.example.com';
		assert.equal((await refusal('mountBucket', 'b', 'relative', { endpoint })).name, 'InvalidMountConfigError');
		assert.equal((await refusal('mountBucket', 'b', '/mnt/b', { endpoint: 'no address' })).name, 'InvalidMountConfigError');
		assert.equal((await refusal('mountBucket', 'bucket', '/mnt/b', { endpoint })).name, 'MissingCredentialsError');
		assert.equal((await refusal('unmountBucket', '/mnt/none')).name, 'InvalidMountConfigError');
	}],
	['mountBucket, unmountBucket', 'a bucket of the Worker is a directory, both ways', async ({ sandbox, env }) => {
		await env.TEST_BUCKET.put('pre/there.txt', 'from the bucket');
		await sandbox.mountBucket('TEST_BUCKET', '/workspace/bucket', { localBucket: true, prefix: '/pre/' });
		await until(async () => (await sandbox.exists('/workspace/bucket/there.txt')).exists);
		assert.equal((await sandbox.readFile('/workspace/bucket/there.txt')).content, 'from the bucket');
		await sandbox.writeFile('/workspace/bucket/back.txt', 'from the sandbox');
		await until(async () => (await env.TEST_BUCKET.get('pre/back.txt').then((object) => object?.text())) === 'from the sandbox');
		await sandbox.unmountBucket('/workspace/bucket');
	}],
];
