import { assert, events, isRefusal, text } from './lib.mjs';

export const code = [
	['createCodeContext', 'all fields of CodeContext', async ({ sandbox }) => {
		const context = await sandbox.createCodeContext({ language: 'python', cwd: '/workspace' });
		assert.ok(context.id);
		assert.deepEqual([context.language, context.cwd], ['python', '/workspace']);
		assert.ok(new Date(context.createdAt) <= new Date());
		assert.ok(new Date(context.lastUsed) <= new Date());
	}],
	['runCode', 'output and result', async ({ sandbox }) => {
		const context = await sandbox.createCodeContext({ language: 'python' });
		const execution = await sandbox.runCode('import sys\nprint("hi")\nprint("e", file=sys.stderr)\n6 * 7', { context });
		assert.equal(execution.error, undefined);
		assert.match(execution.logs.stdout.join(''), /^hi\n/);
		assert.equal(execution.logs.stderr.join(''), 'e\n');
		assert.equal(execution.results.at(-1).text, '42');
		assert.equal(execution.code, 'import sys\nprint("hi")\nprint("e", file=sys.stderr)\n6 * 7');
	}],
	['runCode', 'names stay in their context, and only there', async ({ sandbox }) => {
		const one = await sandbox.createCodeContext({ language: 'python' });
		const two = await sandbox.createCodeContext({ language: 'python' });
		await sandbox.runCode('x = 20', { context: one });
		assert.equal((await sandbox.runCode('x + 1', { context: one })).results[0].text, '21');
		assert.equal((await sandbox.runCode('x', { context: two })).error.name, 'NameError');
	}],
	['runCode', 'an exception has name, value and traceback', async ({ sandbox }) => {
		const { error } = await sandbox.runCode('def f():\n  1/0\nf()', { language: 'python' });
		assert.equal(error.name, 'ZeroDivisionError');
		assert.match(error.message ?? error.value, /division by zero/);
		assert.match(error.traceback.join('\n'), /1\/0/);
	}],
	['runCode', 'html and pictures are results of their form', async ({ sandbox }) => {
		const shown = await sandbox.runCode('class H:\n  def _repr_html_(self): return "<b>x</b>"\nH()', { language: 'python' });
		assert.equal(shown.results.find((one) => one.html)?.html, '<b>x</b>');
		const drawn = await sandbox.runCode(
			'from IPython.display import Image, display\nimport base64\n' +
				'display(Image(base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")))',
			{ language: 'python' },
		);
		assert.match(drawn.results.find((one) => one.png)?.png ?? JSON.stringify(drawn), /^iVBORw0KGgo/);
	}],
	['runCode', 'a dictionary is json', async ({ sandbox }) => {
		const { results } = await sandbox.runCode('{"a": [1, None]}', { language: 'python' });
		assert.deepEqual(results.find((one) => one.json)?.json, { a: [1, null] });
	}],
	['runCode', 'JavaScript and TypeScript', async ({ sandbox }) => {
		const js = await sandbox.createCodeContext({ language: 'javascript' });
		await sandbox.runCode('const y = 5; console.log("said")', { context: js });
		const { results } = await sandbox.runCode('y * 2', { context: js });
		assert.equal(String(results[0].text ?? results[0].json), '10');
		const ts = await sandbox.runCode('const n: number = 3; n + 1', { language: 'typescript' });
		assert.equal(ts.error, undefined);
		assert.equal(String(ts.results[0].text ?? ts.results[0].json), '4');
	}],
	['runCode', 'without a context there is one for each language', async ({ sandbox }) => {
		await sandbox.runCode('kept = 1', { language: 'python' });
		assert.equal((await sandbox.runCode('kept', { language: 'python' })).results[0].text, '1');
	}],
	['runCodeStream', 'events of output, result and end', async ({ sandbox }) => {
		const seen = await events(await sandbox.runCodeStream('print("hi")\n1 + 1', { language: 'python' }));
		assert.match(text(seen, 'stdout', 'text'), /^hi\n/);
		assert.equal(text(seen, 'result', 'text'), '2');
		assert.ok(seen.some((event) => event.type === 'execution_complete'));
	}],
	['listCodeContexts', 'those there are', async ({ sandbox }) => {
		const context = await sandbox.createCodeContext({ language: 'python' });
		const list = await sandbox.listCodeContexts();
		const found = list.find((one) => one.id === context.id);
		assert.deepEqual([found.language, found.cwd], ['python', '/workspace']);
	}],
	['deleteCodeContext', 'it is gone', async ({ sandbox, refusal }) => {
		const context = await sandbox.createCodeContext({ language: 'python' });
		await sandbox.deleteCodeContext(context.id);
		assert.equal((await sandbox.listCodeContexts()).some((one) => one.id === context.id), false);
		isRefusal(await refusal('deleteCodeContext', context.id), 'ContextNotFoundError', 'CONTEXT_NOT_FOUND', 404);
	}],
	['runCode', 'in a context that is not there is refused', async ({ refusal }) => {
		const error = await refusal('runCode', '1', { context: { id: 'none', language: 'python', cwd: '/workspace', createdAt: new Date(), lastUsed: new Date() } });
		assert.equal(error.name, 'ContextNotFoundError');
		assert.equal(error.code, 'CONTEXT_NOT_FOUND');
	}],
];
