import { proxyToSandbox } from '@cloudflare/sandbox';
import { assert, until } from './lib.mjs';

const SERVER = `
import base64, hashlib, http.server, struct, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def log_message(self, *rest): pass
    def do_GET(self):
        if self.headers.get('Upgrade', '').lower() == 'websocket': return self.echo()
        said = ('%s %s' % (self.command, self.path)).encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(said)))
        self.end_headers()
        self.wfile.write(said)
    def do_POST(self):
        said = self.rfile.read(int(self.headers['Content-Length']))[::-1]
        self.send_response(201)
        self.send_header('Content-Length', str(len(said)))
        self.end_headers()
        self.wfile.write(said)
    def echo(self):
        key = self.headers['Sec-WebSocket-Key'] + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11'
        self.send_response(101)
        self.send_header('Upgrade', 'websocket')
        self.send_header('Connection', 'Upgrade')
        self.send_header('Sec-WebSocket-Accept', base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
        self.end_headers()
        self.close_connection = True
        while True:
            head = self.rfile.read(2)
            if len(head) < 2 or head[0] & 15 == 8: return
            n = head[1] & 127
            if n == 126: n = struct.unpack('>H', self.rfile.read(2))[0]
            mask = self.rfile.read(4)
            data = bytes(b ^ mask[i & 3] for i, b in enumerate(self.rfile.read(n)))
            if head[0] & 15 in (1, 2):
                size = bytes([n]) if n < 126 else b'\\x7e' + struct.pack('>H', n)
                self.wfile.write(head[:1] + size + data)
http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), Handler).serve_forever()
`;
const port = 30000 + Math.floor(Math.random() * 2000);
const hostname = 'localhost:8787';

export const ports = [
	['exposePort', 'gives a URL with port, sandbox and token', async ({ sandbox, id }) => {
		await sandbox.writeFile('/workspace/server.py', SERVER);
		const server = await sandbox.startProcess(`python3 -u /workspace/server.py ${port}`);
		await server.waitForPort(port, { mode: 'http', path: '/', timeout: 40000, interval: 100 });
		const exposed = await sandbox.exposePort(port, { name: 'web', hostname, token: 'tok_1' });
		assert.deepEqual([exposed.port, exposed.name, exposed.url], [port, 'web', `http://${port}-${id}-tok_1.${hostname}/`]);
	}],
	['getExposedPorts, isPortExposed, validatePortToken', 'know it', async ({ sandbox, id }) => {
		assert.deepEqual(await sandbox.getExposedPorts(hostname), [{ url: `http://${port}-${id}-tok_1.${hostname}/`, port, status: 'active' }]);
		assert.equal(await sandbox.isPortExposed(port), true);
		assert.equal(await sandbox.isPortExposed(port + 1), false);
		assert.equal(await sandbox.validatePortToken(port, 'tok_1'), true);
		assert.equal(await sandbox.validatePortToken(port, 'other'), false);
	}],
	['proxyToSandbox', 'GET and POST reach the server', async ({ env, id }) => {
		const base = `http://${port}-${id}-tok_1.${hostname}`;
		const get = await proxyToSandbox(new Request(`${base}/a/b?c=d`), env);
		assert.equal(await get.text(), 'GET /a/b?c=d');
		const post = await proxyToSandbox(new Request(`${base}/`, { method: 'POST', body: 'abc' }), env);
		assert.deepEqual([post.status, await post.text()], [201, 'cba']);
		assert.equal(await proxyToSandbox(new Request('http://example.com/'), env), null);
		const wrong = await proxyToSandbox(new Request(`http://${port}-${id}-wrong.${hostname}/`), env);
		assert.deepEqual([wrong.status, (await wrong.json()).code], [404, 'INVALID_TOKEN']);
	}],
	['wsConnect', 'text and bytes go to and fro', async ({ sandbox }) => {
		const answer = await sandbox.wsConnect(new Request('http://localhost/echo', { headers: { Upgrade: 'websocket', Connection: 'Upgrade' } }), port);
		assert.equal(answer.status, 101);
		const seen = [];
		answer.webSocket.addEventListener('message', ({ data }) => void seen.push(data));
		answer.webSocket.accept();
		answer.webSocket.send('a text');
		answer.webSocket.send(new Uint8Array([0, 255, 10]));
		await until(() => seen.length === 2);
		assert.equal(seen[0], 'a text');
		assert.deepEqual([...new Uint8Array(seen[1])], [0, 255, 10]);
		answer.webSocket.close();
	}],
	['unexposePort', 'it is gone, and once more is fine', async ({ sandbox, env, id }) => {
		await sandbox.unexposePort(port);
		await sandbox.unexposePort(port);
		assert.deepEqual(await sandbox.getExposedPorts(hostname), []);
		const answer = await proxyToSandbox(new Request(`http://${port}-${id}-tok_1.${hostname}/`), env);
		assert.equal(answer.status, 404);
	}],
	['exposePort', 'ports that cannot be, and domains that cannot, are refused', async ({ refusal }) => {
		assert.ok((await refusal('exposePort', 80, { hostname })).message);
		assert.ok((await refusal('exposePort', 3000, { hostname })).message);
		assert.equal((await refusal('exposePort', port, { hostname: 'a.workers.dev' })).name, 'CustomDomainRequiredError');
	}],
	['tunnels', 'need the transport rpc, and say so', async ({ sandbox }) => {
		await assert.rejects(sandbox.tunnels.get(port), /rpc/);
	}],
];
