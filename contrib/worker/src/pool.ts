// The stock pool, which also remembers which sandboxes there are.
//
// Owns the keys "sandbox:ID" in the pool's storage. It is the one object that sees every sandbox begin, whoever asked for it, so a
// list kept here needs no second Durable Object and cannot miss one. It builds on the pool's public methods and touches nothing
// that the pool stores for itself.
import { getSandbox } from '@cloudflare/sandbox';
import { WarmPool as StockPool } from '@cloudflare/sandbox/bridge';
import type { SandboxNamespace } from './env';

export interface Listed {
	id: string;
	since: string;
}
interface Kept {
	container: string;
	since: string;
}
const PREFIX = 'sandbox:';

export class WarmPool extends StockPool {
	// what is in the storage already: a request for a sandbox that runs writes nothing
	private readonly noted = new Map<string, string>();

	override async getContainer(id: string): Promise<string> {
		const container = await super.getContainer(id);
		if (this.noted.get(id) !== container) {
			const kept = await this.ctx.storage.get<Kept>(PREFIX + id);
			if (kept?.container !== container)
				await this.ctx.storage.put<Kept>(PREFIX + id, { container, since: new Date().toISOString() });
			this.noted.set(id, container);
		}
		return container;
	}

	// Those whose container runs. One that was destroyed or fell asleep holds nothing any more, so it is forgotten.
	async listSandboxes(): Promise<Listed[]> {
		const kept = await this.ctx.storage.list<Kept>({ prefix: PREFIX });
		const looked = await Promise.all(
			[...kept].map(async ([key, { container, since }]) => {
				const id = key.slice(PREFIX.length);
				if (await this.runs(container)) return [{ id, since }];
				// it may have got a new container while we looked at the old one
				if ((await this.ctx.storage.get<Kept>(key))?.container === container) {
					this.noted.delete(id);
					await this.ctx.storage.delete(key);
				}
				return [];
			}),
		);
		return looked.flat();
	}

	private async runs(container: string): Promise<boolean> {
		const { status } = await getSandbox(this.env.Sandbox as SandboxNamespace, container).getState();
		return status === 'running' || status === 'healthy';
	}
}
