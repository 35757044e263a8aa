/*
 * Reference counts of nodes, and the list of those that exist. See node.h.
 *
 * The list is at file scope (else only the log is): nodes are made by rooms that do not know each other, and at the end of
 * the mount the kernel sends no forget for what it still held.
 */
#include "node.h"

#include <assert.h>
#include <pthread.h>

static struct {
	pthread_mutex_t lock;
	struct node list, done; /* heads of rings */
	uint64_t next_id;
} all = {.lock = PTHREAD_MUTEX_INITIALIZER,
	.list = {.next = &all.list, .prev = &all.list},
	.done = {.next = &all.done, .prev = &all.done}};

static void unlink_node(struct node *n)
{
	n->prev->next = n->next;
	n->next->prev = n->prev;
}

static void link_node(struct node *head, struct node *n)
{
	n->next = head->next;
	n->prev = head;
	head->next->prev = n;
	head->next = n;
}

void node_init(struct node *n, const struct node_ops *ops)
{
	n->ops = ops;
	atomic_init(&n->refs, 1);
	atomic_init(&n->lookups, 0);
	pthread_mutex_lock(&all.lock);
	n->id = ++all.next_id;
	link_node(&all.list, n);
	pthread_mutex_unlock(&all.lock);
}

struct node *node_get(struct node *n)
{
	atomic_fetch_add(&n->refs, 1);
	return n;
}

bool node_tryget(struct node *n)
{
	uint64_t now = atomic_load(&n->refs);

	while (now)
		if (atomic_compare_exchange_weak(&n->refs, &now, now + 1))
			return true;
	return false;
}

static void put_many(struct node *n, uint64_t count)
{
	uint64_t before = atomic_fetch_sub(&n->refs, count);

	assert(before >= count);
	if (before != count)
		return;
	pthread_mutex_lock(&all.lock);
	unlink_node(n);
	pthread_mutex_unlock(&all.lock);
	n->ops->destroy(n);
}

void node_put(struct node *n)
{
	if (n)
		put_many(n, 1);
}

void node_hand_out(struct node *n)
{
	atomic_fetch_add(&n->lookups, 1);
}

void node_forget(struct node *n, uint64_t count)
{
	atomic_fetch_sub(&n->lookups, count);
	put_many(n, count);
}

void node_forget_all(void)
{
	for (;;) {
		struct node *n;
		uint64_t count;

		pthread_mutex_lock(&all.lock);
		n = all.list.next;
		if (n == &all.list) {
			pthread_mutex_unlock(&all.lock);
			return;
		}
		unlink_node(n);
		link_node(&all.done, n);
		count = atomic_exchange(&n->lookups, 0);
		pthread_mutex_unlock(&all.lock);
		if (count)
			put_many(n, count);
	}
}
