import { Buffer } from 'node:buffer';
import { collectFile, streamFile } from '@cloudflare/sandbox';
import { assert, base64, bytes, isRefusal, isResult } from './lib.mjs';

const at = (name) => `/workspace/files/${name}`;

export const files = [
	['writeFile, readFile', 'text, with all fields of ReadFileResult', async ({ sandbox }) => {
		isResult(await sandbox.writeFile(at('a.txt'), 'grüße 😀\nsecond\n'), { path: at('a.txt') });
		const content = 'grüße 😀\nsecond\n';
		isResult(await sandbox.readFile(at('a.txt')), {
			path: at('a.txt'), content, encoding: 'utf-8', isBinary: false, mimeType: 'text/plain', size: new TextEncoder().encode(content).length,
		});
	}],
	['writeFile', 'replaces, empties, and makes missing parents', async ({ sandbox }) => {
		await sandbox.writeFile(at('deep/er/b.txt'), 'long before');
		await sandbox.writeFile(at('deep/er/b.txt'), 'new');
		assert.equal((await sandbox.readFile(at('deep/er/b.txt'))).content, 'new');
		await sandbox.writeFile(at('deep/er/b.txt'), '');
		isResult(await sandbox.readFile(at('deep/er/b.txt')), { content: '', size: 0 });
	}],
	['writeFile, readFile', 'base64: every byte', async ({ sandbox }) => {
		const all = base64(bytes(1 << 20));
		await sandbox.writeFile(at('c.bin'), all, { encoding: 'base64' });
		isResult(await sandbox.readFile(at('c.bin'), { encoding: 'base64' }), { content: all, encoding: 'base64', isBinary: true, size: 1 << 20 });
		const { stdout } = await sandbox.exec(`base64 -w0 ${at('c.bin')}`);
		assert.equal(stdout.trim(), all);
	}],
	['readFile', 'what is not text comes as base64 by itself', async ({ sandbox }) => {
		await sandbox.writeFile(at('d.png'), base64([0x89, 0x50, 0x4e, 0x47, 0, 255]), { encoding: 'base64' });
		isResult(await sandbox.readFile(at('d.png')), { encoding: 'base64', isBinary: true, mimeType: 'image/png', content: base64([0x89, 0x50, 0x4e, 0x47, 0, 255]) });
	}],
	['writeFile', 'base64 that is none is refused', async ({ refusal }) => {
		isRefusal(await refusal('writeFile', at('e'), 'no*base64', { encoding: 'base64' }), 'ValidationFailedError', 'VALIDATION_FAILED', 400);
	}],
	['writeFile', 'onto a directory is a FileSystemError', async ({ refusal, sandbox }) => {
		await sandbox.mkdir(at('isdir'), { recursive: true });
		const error = await refusal('writeFile', at('isdir'), 'x');
		assert.equal(error.name, 'FileSystemError');
		assert.match(error.message + JSON.stringify(error.context), /EISDIR|directory/i);
	}],
	['readFile', 'a file that does not exist is a FileNotFoundError with its path', async ({ refusal }) => {
		const error = await refusal('readFile', at('none'));
		isRefusal(error, 'FileNotFoundError', 'FILE_NOT_FOUND', 404);
		assert.equal(error.context.path, at('none'));
		assert.equal(error.operation, 'file.read');
	}],
	['writeFile', 'a stream needs the transport rpc, and says so', async ({ sandbox }) => {
		const stream = new Response('x').body;
		await assert.rejects(sandbox.writeFile(at('stream'), stream), /rpc/);
	}],
	['readFile', 'encoding none needs the transport rpc, and says so', async ({ refusal }) => {
		assert.match((await refusal('readFile', at('a.txt'), { encoding: 'none' })).message, /rpc/);
	}],
	['readFileStream', 'collectFile gives text', async ({ sandbox }) => {
		const { content, metadata } = await collectFile(await sandbox.readFileStream(at('a.txt')));
		assert.equal(content, 'grüße 😀\nsecond\n');
		assert.deepEqual([metadata.mimeType, metadata.isBinary, metadata.encoding], ['text/plain', false, 'utf-8']);
	}],
	['readFileStream', 'streamFile gives three megabytes of bytes in parts', async ({ sandbox }) => {
		const all = bytes(3 << 20, 7);
		await sandbox.writeFile(at('big.bin'), base64(all), { encoding: 'base64' });
		const parts = [];
		const stream = streamFile(await sandbox.readFileStream(at('big.bin')));
		let step = await stream.next();
		for (; !step.done; step = await stream.next()) parts.push(step.value);
		assert.equal(step.value.size, all.length);
		assert.equal(step.value.isBinary, true);
		assert.ok(parts.length > 1);
		assert.equal(base64(Buffer.concat(parts)), base64(all));
	}],
	['readFileStream', 'a file that does not exist fails when it is read', async ({ sandbox }) => {
		await assert.rejects(async () => collectFile(await sandbox.readFileStream(at('none'))), /not found/i);
	}],
	['mkdir', 'one, and with recursive all', async ({ sandbox, refusal }) => {
		isResult(await sandbox.mkdir(at('m')), { path: at('m'), recursive: false });
		isResult(await sandbox.mkdir(at('m/n/o'), { recursive: true }), { recursive: true });
		isResult(await sandbox.mkdir(at('m/n/o'), { recursive: true }), {});
		assert.equal((await refusal('mkdir', at('m'))).name, 'FileSystemError');
		assert.equal((await refusal('mkdir', at('x/y/z'))).name, 'FileSystemError');
	}],
	['exists', 'files, directories, nothing', async ({ sandbox }) => {
		isResult(await sandbox.exists(at('a.txt')), { path: at('a.txt'), exists: true });
		isResult(await sandbox.exists(at('m')), { exists: true });
		isResult(await sandbox.exists(at('none')), { exists: false });
	}],
	['renameFile', 'a file and a directory', async ({ sandbox }) => {
		await sandbox.writeFile(at('r1.txt'), 'r');
		isResult(await sandbox.renameFile(at('r1.txt'), at('r2.txt')), { path: at('r1.txt'), newPath: at('r2.txt') });
		assert.equal((await sandbox.exists(at('r1.txt'))).exists, false);
		assert.equal((await sandbox.readFile(at('r2.txt'))).content, 'r');
		await sandbox.renameFile(at('m'), at('m2'));
		assert.equal((await sandbox.exists(at('m2/n/o'))).exists, true);
	}],
	['moveFile', 'into a directory, and over a file', async ({ sandbox }) => {
		await sandbox.writeFile(at('v1.txt'), 'v');
		isResult(await sandbox.moveFile(at('v1.txt'), at('m2/v2.txt')), { path: at('v1.txt'), newPath: at('m2/v2.txt') });
		await sandbox.writeFile(at('v3.txt'), 'old');
		await sandbox.moveFile(at('m2/v2.txt'), at('v3.txt'));
		assert.equal((await sandbox.readFile(at('v3.txt'))).content, 'v');
	}],
	['renameFile, moveFile', 'of what does not exist are FileNotFoundErrors', async ({ refusal }) => {
		isRefusal(await refusal('renameFile', at('none'), at('x')), 'FileNotFoundError', 'FILE_NOT_FOUND', 404);
		isRefusal(await refusal('moveFile', at('none'), at('x')), 'FileNotFoundError', 'FILE_NOT_FOUND', 404);
	}],
	['deleteFile', 'a file, and a link but not what it points to', async ({ sandbox }) => {
		await sandbox.exec(`ln -s v3.txt ${at('link')}`);
		isResult(await sandbox.deleteFile(at('link')), { path: at('link') });
		assert.equal((await sandbox.exists(at('v3.txt'))).exists, true);
		await sandbox.deleteFile(at('v3.txt'));
		assert.equal((await sandbox.exists(at('v3.txt'))).exists, false);
	}],
	['deleteFile', 'a directory and a missing file are refused', async ({ refusal }) => {
		isRefusal(await refusal('deleteFile', at('m2')), 'FileSystemError', 'IS_DIRECTORY', 400);
		isRefusal(await refusal('deleteFile', at('none')), 'FileNotFoundError', 'FILE_NOT_FOUND', 404);
	}],
	['listFiles', 'names, types, sizes, modes and permissions', async ({ sandbox }) => {
		await sandbox.mkdir(at('l/sub'), { recursive: true });
		await sandbox.exec(`printf 1234 >run.sh && chmod 755 run.sh && : >'a b*"' && : >.hidden && : >sub/x && ln -s run.sh s`, { cwd: at('l') });
		const result = await sandbox.listFiles(at('l'));
		isResult(result, { path: at('l'), count: 4 });
		const by = Object.fromEntries(result.files.map((file) => [file.name, file]));
		assert.deepEqual(Object.keys(by).sort(), ['a b*"', 'run.sh', 's', 'sub']);
		const run = by['run.sh'];
		assert.deepEqual(
			[run.type, run.size, run.mode, run.permissions, run.absolutePath, run.relativePath],
			['file', 4, 'rwxr-xr-x', { readable: true, writable: true, executable: true }, at('l/run.sh'), 'run.sh'],
		);
		assert.deepEqual([by.sub.type, by.s.type], ['directory', 'symlink']);
		assert.ok(Math.abs(Date.parse(`${run.modifiedAt.slice(0, 19)}Z`) - Date.now()) < 86400e3, run.modifiedAt);
	}],
	['listFiles', 'recursive and includeHidden', async ({ sandbox }) => {
		const all = await sandbox.listFiles(at('l'), { recursive: true, includeHidden: true });
		assert.deepEqual(all.files.map((file) => file.relativePath).sort(), ['.hidden', 'a b*"', 'run.sh', 's', 'sub', 'sub/x']);
		assert.equal(all.count, 6);
	}],
	['listFiles', 'of a file and of nothing are refused', async ({ refusal }) => {
		isRefusal(await refusal('listFiles', at('a.txt')), 'FileSystemError', 'NOT_DIRECTORY', 400);
		isRefusal(await refusal('listFiles', at('none')), 'FileNotFoundError', 'FILE_NOT_FOUND', 404);
	}],
	['all', 'relative paths are from /workspace', async ({ sandbox }) => {
		await sandbox.writeFile('relative.txt', 'here');
		assert.equal((await sandbox.readFile('/workspace/relative.txt')).content, 'here');
		assert.equal((await sandbox.exists('relative.txt')).exists, true);
		await sandbox.deleteFile('relative.txt');
	}],
	['all', 'an empty path is refused', async ({ refusal }) => {
		for (const method of ['readFile', 'deleteFile', 'mkdir']) {
			assert.equal((await refusal(method, '')).code, 'VALIDATION_FAILED', method);
		}
	}],
];
