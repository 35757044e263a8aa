// The Worker of contrib/worker as it is, but for where its containers come from.
import worker, { Sandbox as Own } from '../../contrib/worker/src/index.ts';
import { withStandIn } from './standin.mjs';

export { WarmPool } from '../../contrib/worker/src/index.ts';
export const Sandbox = withStandIn(Own);
export default worker;
