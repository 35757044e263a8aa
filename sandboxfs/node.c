/*
 * Reference counts of nodes. See node.h.
 */
#include "node.h"

#include <assert.h>

void node_init(struct node *n, const struct node_ops *ops)
{
	static _Atomic uint64_t next_id = 1;

	n->ops = ops;
	n->id = atomic_fetch_add(&next_id, 1);
	atomic_init(&n->refs, 1);
}

struct node *node_get(struct node *n)
{
	atomic_fetch_add(&n->refs, 1);
	return n;
}

void node_put_many(struct node *n, uint64_t count)
{
	uint64_t before = atomic_fetch_sub(&n->refs, count);

	assert(before >= count);
	if (before == count && n->ops->destroy)
		n->ops->destroy(n);
}

void node_put(struct node *n)
{
	if (n)
		node_put_many(n, 1);
}
