// Runs in workerd: what a Durable Object sees as its container, with nothing of the SDK changed.
//
// Owns the object that takes the place of ctx.container before the SDK's constructor looks at it. Starting and ending is asked of
// serve.mjs (SPAWNER), which has one process for each Durable Object. Port 3000 is that process's own port; every
// other is the same number on 127.0.0.1. Offers the same words in its errors as the platform, since the SDK reads them.

const NOT_LISTENING = 'the container is not listening in the TCP address 10.0.0.1:3000';
const NOT_RUNNING = 'the container is not running, consider calling start()';

class StandIn {
	#id;
	#spawner;
	#port; // promise of the process's port; undefined: it does not run
	#ended; // promise of its end

	constructor(id, spawner) {
		this.#id = id;
		this.#spawner = spawner;
	}

	#ask(verb, body) {
		return fetch(`${this.#spawner}/${verb}/${this.#id}`, { method: 'POST', body });
	}

	get running() {
		return this.#port !== undefined;
	}

	start(options = {}) {
		const port = this.#ask('start', JSON.stringify({ env: options.env ?? {} })).then(async (answer) => {
			if (!answer.ok) throw new Error(NOT_LISTENING);
			return Number(await answer.text());
		});
		port.catch(() => {}); // whoever asks for the port is told
		this.#port = port;
		this.#ended = this.#end(port);
	}

	// A process may die by itself as well: then the next use starts another.
	async #end(port) {
		try {
			await port;
			await (await this.#ask('wait')).text();
		} catch {
			// never started, or serve.mjs is gone: ended all the same
		}
		if (this.#port === port) this.#port = undefined;
	}

	monitor() {
		return this.#ended ?? Promise.resolve();
	}

	async destroy() {
		this.#port = undefined;
		await (await this.#ask('stop')).text();
	}

	signal() {
		void this.destroy();
	}

	async setInactivityTimeout() {}

	getTcpPort(port) {
		return {
			fetch: async (input, init) => {
				const running = this.#port;
				if (!running) throw new Error(NOT_RUNNING);
				const request = new Request(input, init);
				const url = new URL(request.url);
				url.protocol = 'http:';
				url.hostname = '127.0.0.1';
				url.port = String(port === 3000 ? await running : port);
				return fetch(new Request(url.toString(), request));
			},
		};
	}

	async interceptOutboundHttp() {}
	async interceptOutboundHttps() {}
	async interceptAllOutboundHttp() {}
}

// withStandIn(CLASS): the same class of Durable Objects, on containers of serve.mjs.
export function withStandIn(Base) {
	return class extends Base {
		constructor(ctx, env) {
			const value = new StandIn(ctx.id.toString(), env.SPAWNER);
			Object.defineProperty(ctx, 'container', { value, configurable: true });
			super(ctx, env);
		}
	};
}
