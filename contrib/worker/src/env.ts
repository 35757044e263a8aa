// What wrangler.jsonc and `wrangler secret put` give to the Worker.
import type { Sandbox } from '@cloudflare/sandbox';
import type { BridgeEnv } from '@cloudflare/sandbox/bridge';
import type { WarmPool } from './pool';

export type SandboxNamespace = DurableObjectNamespace<Sandbox>;

export interface Env extends BridgeEnv {
	Sandbox: SandboxNamespace;
	WarmPool: DurableObjectNamespace<WarmPool>;
	// below which preview URLs are made, where it is not the name that the request came to
	PREVIEW_HOSTNAME?: string;
}
