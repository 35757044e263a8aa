// The stock bridge as it is published, but for where its containers come from.
import { Sandbox as Official } from '@cloudflare/sandbox';
import { bridge } from '@cloudflare/sandbox/bridge';
import { withStandIn } from './standin.mjs';

export { WarmPool } from '@cloudflare/sandbox/bridge';
export const Sandbox = withStandIn(Official);
export default bridge({
	async fetch() {
		return new Response('not found', { status: 404 });
	},
});
