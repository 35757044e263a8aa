#!/bin/sh
':' //; exec node --expose-internals --no-warnings --experimental-vm-modules "$0" 3<&0 </dev/null
// The javascript and typescript executor of sandboxd's code interpreter: one process, one context. The line above is for the
// shell: it makes descriptor 3 of what was stdin, the channel to sandboxd: a line of JSON each way, as kernel.py has it. Names declared at the top of a cell become properties of the
// global object, so that later cells see them and may declare them again; `await` and `import` work there.
'use strict';
const fs = require('fs');
const path = require('path');
const net = require('net');
const util = require('util');
const vm = require('vm');
const url = require('url');
const childProcess = require('child_process');
const Module = require('module');

// Node's own parser: without it a cell runs as it is written.
let acorn = null;
for (const name of ['internal/deps/acorn/acorn/dist/acorn', 'acorn'])
	try {
		acorn = acorn || require(name);
	} catch {
		// another version of node keeps it elsewhere
	}

const typescript = process.env.SANDBOXD_LANGUAGE === 'typescript';
const cellRequire = Module.createRequire(path.join(process.cwd(), 'cell.js'));

// --- the channel ---

const MESSAGE_MAX = 32 << 20;
const CHANNEL = 3;
const channel = new net.Socket({ fd: CHANNEL, readable: true, writable: false });
const clock = new Int32Array(new SharedArrayBuffer(4));

// The descriptor does not block, but a message must be out, and a result seen, before the cell prints on.
function insist(call) {
	for (;;)
		try {
			return call();
		} catch (error) {
			if (error.code !== 'EAGAIN') throw error;
			Atomics.wait(clock, 0, 0, 1);
		}
}

function send(message) {
	let line = Buffer.from(JSON.stringify(message) + '\n');
	if (line.length > MESSAGE_MAX) {
		process.stderr.write(`a display of ${line.length} bytes was left out: 32 MiB is the most\n`);
		return;
	}
	while (line.length) line = line.subarray(insist(() => fs.writeSync(CHANNEL, line)));
	if (message.type !== 'result') return;
	const answer = Buffer.alloc(64);
	while (insist(() => fs.readSync(CHANNEL, answer)) > 0 && !answer.includes('\n'));
}

// --- forms of a value ---

function asText(value) {
	return util.inspect(value, { colors: false, depth: 4 });
}

const MIME = {
	'text/plain': 'text', 'text/html': 'html', 'image/png': 'png', 'image/jpeg': 'jpeg', 'image/svg+xml': 'svg',
	'application/json': 'json', 'text/latex': 'latex', 'text/markdown': 'markdown', 'application/javascript': 'javascript',
};

function base64(content) {
	return typeof content === 'string' ? content : Buffer.from(content).toString('base64');
}

function formsOf(value) {
	const result = { type: 'result' };
	if (value !== null && (typeof value === 'object' || typeof value === 'function')) {
		const bundle = value._repr_mimebundle_;
		const made = typeof bundle === 'function' ? bundle.call(value) : {};
		for (const [mime, form] of Object.entries(MIME))
			if (made && made[mime] !== undefined) result[form] = made[mime];
		for (const form of ['html', 'svg', 'png', 'jpeg', 'json', 'latex', 'markdown', 'javascript']) {
			const make = value[`_repr_${form}_`];
			if (result[form] === undefined && typeof make === 'function') result[form] = make.call(value);
		}
		for (const form of ['png', 'jpeg']) if (result[form] !== undefined) result[form] = base64(result[form]);
		if (typeof value === 'object' && result.json === undefined && isPlain(value)) result.json = plainCopy(value);
		if (result.json === undefined) delete result.json;
	}
	if (result.text === undefined) result.text = asText(value);
	return result;
}

function isPlain(value) {
	if (Array.isArray(value)) return true;
	const prototype = Object.getPrototypeOf(value);
	return prototype === null || prototype === Object.prototype;
}

// What JSON would change is no JSON: NaN, functions, dates, cycles, big numbers.
function plainCopy(value) {
	try {
		const copy = JSON.parse(JSON.stringify(value));
		return util.isDeepStrictEqual(copy, value) ? copy : undefined;
	} catch {
		return undefined;
	}
}

function display(...values) {
	for (const value of values) send(formsOf(value));
}
Object.defineProperty(globalThis, 'display', { value: display, writable: true, configurable: true });

// --- TypeScript ---

function findTypescript() {
	for (const place of [process.cwd(), '/usr/share/nodejs', '/usr/lib/node_modules', '/usr/local/lib/node_modules'])
		try {
			return require(require.resolve('typescript', { paths: [place, path.join(place, 'typescript')] }));
		} catch {
			// not there
		}
	return null;
}

function run(program, input, ...words) {
	const done = childProcess.spawnSync(program, words, { input, encoding: 'utf8', maxBuffer: 1 << 28 });
	if (done.error) throw done.error;
	if (done.status) {
		const error = new SyntaxError(done.stderr.trim().split('\n')[0].replace(/^.*error: /i, '').replace(/^[^ ]* *\[ERROR\] */, ''));
		error.stack = done.stderr.trimEnd();
		throw error;
	}
	return done.stdout;
}

let strip = null;
function toJavascript(code) {
	if (!strip && typeof Module.stripTypeScriptTypes === 'function')
		strip = (text) => Module.stripTypeScriptTypes(text, { mode: 'transform' });
	if (!strip && !childProcess.spawnSync('esbuild', ['--version']).error)
		strip = (text) => run('esbuild', text, '--loader=ts', '--target=esnext', '--color=false', '--log-level=error',
			'--tsconfig-raw={"compilerOptions":{"importsNotUsedAsValues":"preserve","preserveValueImports":true}}');
	const compiler = strip ? null : findTypescript();
	if (compiler)
		strip = (text) => compiler.transpileModule(text, { compilerOptions: {
			target: 'ESNext', module: 'ESNext', isolatedModules: true, verbatimModuleSyntax: true } }).outputText;
	if (!strip) throw new Error('TypeScript needs node 22.13 or newer, esbuild or typescript in the sandbox');
	return strip(code);
}

// --- cells ---

function names(pattern, out) {
	if (!pattern) return out;
	if (pattern.type === 'Identifier') out.push(pattern.name);
	for (const part of pattern.properties || []) names(part.type === 'RestElement' ? part.argument : part.value, out);
	for (const part of pattern.elements || []) names(part && part.type === 'RestElement' ? part.argument : part, out);
	if (pattern.type === 'AssignmentPattern') names(pattern.left, out);
	return out;
}

function importText(node) {
	const source = `(await import(${node.source.raw}))`;
	const parts = [];
	for (const one of node.specifiers) {
		if (one.type === 'ImportNamespaceSpecifier') parts.push(`${one.local.name} = ${source};`);
		else if (one.type === 'ImportDefaultSpecifier') parts.push(`${one.local.name} = ${source}.default;`);
		else parts.push(`${one.local.name} = ${source}[${JSON.stringify(one.imported.name || one.imported.value)}];`);
	}
	return { names: node.specifiers.map((one) => one.local.name), text: parts.join(' ') || `${source};` };
}

// Does the cell wait outside of its functions?
function waits(node) {
	if (!node || typeof node.type !== 'string') return false;
	if (/Function/.test(node.type)) return false;
	if (node.type === 'AwaitExpression' || (node.type === 'ForOfStatement' && node.await) || node.type === 'ImportDeclaration')
		return true;
	return Object.values(node).some((part) => Array.isArray(part) ? part.some(waits) : waits(part));
}

// A cell as a script: declarations at its top become assignments to names declared by `var`.
function prepare(code) {
	if (!acorn) return { script: code, waits: false };
	let tree;
	const options = { ecmaVersion: 'latest', allowAwaitOutsideFunction: true, allowReturnOutsideFunction: false };
	try {
		tree = acorn.parse(code, { ...options, sourceType: 'script' });
	} catch {
		try {
			tree = acorn.parse(code, { ...options, sourceType: 'module' });
		} catch {
			return { script: code, waits: false }; // node's own error names the place better
		}
	}
	const edits = [];
	const declared = new Set();
	let functions = '';
	const wait = waits(tree);
	for (const node of tree.body) {
		const cut = (text) => edits.push([node.start, node.end, text]);
		const declaration = node.type === 'ExportNamedDeclaration' && node.declaration ? node.declaration : node;
		const text = code.slice(declaration.start, declaration.end);
		if (node.type === 'ImportDeclaration') {
			const made = importText(node);
			made.names.forEach((name) => declared.add(name));
			cut(made.text);
		} else if (declaration.type === 'ClassDeclaration') {
			declared.add(declaration.id.name);
			cut(`${declaration.id.name} = ${text};`);
		} else if (declaration.type === 'FunctionDeclaration' && wait) {
			declared.add(declaration.id.name);
			functions += `${declaration.id.name} = ${text};\n`;
			cut('');
		} else if (declaration.type === 'VariableDeclaration') {
			const parts = [];
			for (const one of declaration.declarations) {
				names(one.id, []).forEach((name) => declared.add(name));
				const target = code.slice(one.id.start, one.id.end);
				const value = one.init ? code.slice(one.init.start, one.init.end) : 'undefined';
				if (one.init || declaration.kind !== 'var') parts.push(`(${target} = ${value})`);
			}
			cut(parts.length ? `void (${parts.join(', ')});` : ';');
		} else if (declaration !== node) {
			cut(text);
		}
	}
	const last = tree.body[tree.body.length - 1];
	const shown = last && last.type === 'ExpressionStatement' ? last : null;
	if (wait && shown) edits.push([shown.start, shown.end, `return { value: (${code.slice(shown.expression.start, shown.expression.end)}) };`]);
	let script = code;
	for (const [start, end, text] of edits.sort((a, b) => b[0] - a[0])) script = script.slice(0, start) + text + script.slice(end);
	const head = declared.size ? `var ${[...declared].join(', ')};` : '';
	if (wait) return { script: `${head}\n(async () => {${functions}${script}\n})()`, waits: true };
	return { script: head + script, waits: false, shows: Boolean(shown) };
}

let interrupt = null; // rejects what the running cell waits for
process.on('SIGINT', () => {
	if (interrupt) interrupt();
});

class KeyboardInterrupt extends Error {
	constructor() {
		super('the run was interrupted');
		this.name = 'KeyboardInterrupt';
		this.stack = 'KeyboardInterrupt: the run was interrupted';
	}
}

function resolveImport(specifier) {
	if (/^(node:|data:|file:|https?:)/.test(specifier) || Module.isBuiltin(specifier)) return specifier;
	return url.pathToFileURL(cellRequire.resolve(specifier)).href;
}

async function evaluate(code, name) {
	const cell = prepare(typescript ? toJavascript(code) : code);
	const script = new vm.Script(cell.script, {
		filename: name,
		importModuleDynamically: (specifier) => import(resolveImport(specifier)),
	});
	let value;
	send({ type: 'begun' });
	try {
		value = script.runInThisContext({ breakOnSigint: true, displayErrors: false });
	} catch (error) {
		throw error && error.code === 'ERR_SCRIPT_EXECUTION_INTERRUPTED' ? new KeyboardInterrupt() : error;
	}
	if (!cell.waits) return cell.shows === false ? undefined : { value };
	return settle(value);
}

// Waits for a cell's own promise. One that is only the value of a cell is shown as it is.
function settle(value) {
	return new Promise((resolve, reject) => {
		interrupt = () => reject(new KeyboardInterrupt());
		value.then(resolve, reject);
	}).finally(() => {
		interrupt = null;
	});
}

function errorOf(error) {
	if (!(error instanceof Error) && !(error && typeof error.stack === 'string')) return { ename: 'Error', evalue: asText(error), traceback: [asText(error)] };
	const lines = String(error.stack || error).split('\n');
	// The frames below the cell's own are those of this file.
	const own = lines.findIndex((line) => /^\s+at (.*\()?(Script\.runInThisContext|node:vm|new Script|evaluate )/.test(line) || line.includes(__filename));
	return { ename: String(error.name || 'Error'), evalue: String(error.message), traceback: own < 0 ? lines : lines.slice(0, own) };
}

let count = 0;
async function answer(request) {
	const message = { type: 'done' };
	try {
		if (request.op === 'set') {
			Object.assign(globalThis, request.variables);
		} else {
			count++;
			const made = await evaluate(request.code, `cell-${count}.${typescript ? 'ts' : 'js'}`);
			if (made && made.value !== undefined) display(made.value);
		}
	} catch (error) {
		message.error = errorOf(error);
	}
	message.count = count;
	send(message);
}

// An error that no cell waits for ends no context.
process.on('uncaughtException', (error) => process.stderr.write(`${errorOf(error).traceback.join('\n')}\n`));
process.on('unhandledRejection', (error) => process.stderr.write(`Unhandled rejection: ${errorOf(error).traceback.join('\n')}\n`));

Object.assign(globalThis, { require: cellRequire, module: { exports: {} }, exports: {}, __dirname: process.cwd(), __filename: path.join(process.cwd(), 'cell.js') });

let pending = '';
let queue = Promise.resolve();
channel.setEncoding('utf8');
channel.on('data', (text) => {
	pending += text;
	for (let end; (end = pending.indexOf('\n')) >= 0; ) {
		const request = JSON.parse(pending.slice(0, end));
		pending = pending.slice(end + 1);
		queue = queue.then(() => answer(request));
	}
});
channel.on('end', () => process.exit(0));
send({ type: 'ready', kernel: `node ${process.version.slice(1)}${typescript ? ', typescript' : ''}`, missing: acorn ? [] : ['acorn'] });
