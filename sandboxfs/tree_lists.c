/*
 * Which nodes the kernel was told of lately, and which have something unsent: two rings under tree.lock, and lists of nodes for
 * who visits them.
 */
#include <errno.h>
#include <stdlib.h>

#include "cleanup.h"
#include "tree_impl.h"

#define RING_INIT(head, kind) ((head)->kind##_next = (head)->kind##_prev = (head))
#define RING_OUT(n, kind)                                                                          \
	do {                                                                                           \
		if ((n)->kind##_next) {                                                                    \
			(n)->kind##_prev->kind##_next = (n)->kind##_next;                                      \
			(n)->kind##_next->kind##_prev = (n)->kind##_prev;                                      \
			(n)->kind##_next = (n)->kind##_prev = NULL;                                            \
		}                                                                                          \
	} while (0)
#define RING_LAST(head, n, kind)                                                                   \
	do {                                                                                           \
		(n)->kind##_prev = (head)->kind##_prev;                                                    \
		(n)->kind##_next = (head);                                                                 \
		(head)->kind##_prev->kind##_next = (n);                                                    \
		(head)->kind##_prev = (n);                                                                 \
	} while (0)

void tree_lists_init(struct tree *t)
{
	RING_INIT(&t->granted, granted);
	RING_INIT(&t->dirty, dirty);
}

void tree_lists_leave(struct wnode *n)
{
	RING_OUT(n, granted); /* what is unsent holds a reference: it is not in the other */
}

void tree_note_granted(struct wnode *n)
{
	struct tree *t = n->tree;
	AUTO_UNLOCK(&t->lock);

	n->granted_until_ms = call_now_ms() + CACHE_MS;
	n->granted_age = t->age;
	RING_OUT(n, granted);
	RING_LAST(&t->granted, n, granted);
}

void tree_note_dirty(struct wnode *n)
{
	struct tree *t = n->tree;
	bool dirty;

	/* The one place where both locks are held: what is decided must still be true when it is noted. */
	pthread_mutex_lock(&t->lock);
	pthread_mutex_lock(&n->lock);
	dirty = n->buffer_used > 0;
	for (struct wfile *f = n->files; f && !dirty; f = f->next)
		dirty = f->staged;
	pthread_mutex_unlock(&n->lock);
	bool was = n->in_dirty;
	if (dirty && !was)
		RING_LAST(&t->dirty, n, dirty);
	else if (!dirty && was)
		RING_OUT(n, dirty);
	n->in_dirty = dirty;
	pthread_mutex_unlock(&t->lock);
	/* What is unsent keeps its node, whatever the kernel forgets. */
	if (dirty && !was)
		node_get(&n->node);
	else if (!dirty && was)
		node_put(&n->node);
}

/* Lock held: adds n to a list with a reference, if it is not about to go. */
static int collect(struct wnode ***list, size_t *count, size_t *size, struct wnode *n)
{
	if (*count == *size) {
		size_t more = *size ? *size * 2 : 64;
		struct wnode **fresh = reallocarray(*list, more, sizeof *fresh);
		if (!fresh)
			return -ENOMEM;
		*list = fresh;
		*size = more;
	}
	if (node_tryget(&n->node))
		(*list)[(*count)++] = n;
	return 0;
}

int tree_dirty_nodes(struct tree *t, struct wnode ***list, size_t *n)
{
	size_t size = 0;
	int err = 0;
	AUTO_UNLOCK(&t->lock);

	*list = NULL;
	*n = 0;
	for (struct wnode *w = t->dirty.dirty_next; w != &t->dirty && !err; w = w->dirty_next)
		err = collect(list, n, &size, w);
	return err;
}

int tree_granted_nodes(struct tree *t, struct wnode ***list, size_t *n)
{
	int64_t now = call_now_ms();
	size_t size = 0;
	int err = 0;
	AUTO_UNLOCK(&t->lock);

	*list = NULL;
	*n = 0;
	for (struct wnode *w = t->granted.granted_prev;
		 w != &t->granted && w->granted_until_ms >= now && !err; w = w->granted_prev)
		err = collect(list, n, &size, w);
	return err;
}

int tree_all_nodes(struct tree *t, struct wnode ***list, size_t *n)
{
	size_t size = 0;
	int err = 0;
	AUTO_UNLOCK(&t->lock);

	*list = NULL;
	*n = 0;
	for (size_t i = 0; i < t->node_buckets && !err; i++)
		for (struct wnode *w = t->nodes[i]; w && !err; w = w->hash_next)
			err = collect(list, n, &size, w);
	return err;
}

void tree_put_nodes(struct wnode **list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		node_put(&list[i]->node);
	free(list);
}
