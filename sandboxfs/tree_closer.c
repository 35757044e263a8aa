/*
 * The closer: a thread per tree, started when first needed. It sends CLOSE for handles that were released, so that close(2) does not
 * wait for it, opens files whose open(2) did not wait (tree_open_soon), tries what could not be sent again every other second, and lets
 * the kernel forget what a server that is gone had said.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "log.h"
#include "timed.h"
#include "tree_impl.h"

enum { CLOSE_BATCH = 512, RETRY_MS = 2000 };

static void close_all(struct tree *t, const uint64_t *list, size_t count)
{
	for (size_t i = 0; i < count;) {
		AUTO_BATCH b;
		batch_init(&b, t->client, &t->closer_call);
		for (size_t n = 0; i < count && n < CLOSE_BATCH; n++)
			buf_u64(batch_add(&b, FILEOP_CLOSE, 0), list[i++]);
		/* A server that cannot be told has lost the handles anyway, or will by their lease. */
		if (batch_send(&b) < 0)
			log_debug("handles were not closed");
	}
}

/* What could not be sent, again. True: some still cannot. */
static bool retry_unsent(struct tree *t)
{
	size_t n;
	struct wnode **list;
	bool left = tree_dirty_nodes(t, &list, &n) < 0;

	for (size_t i = 0; i < n; i++) {
		pthread_mutex_lock(&list[i]->lock);
		bool held = list[i]->held_err != 0;
		for (struct wfile *f = list[i]->files; f && !held; f = f->next)
			held = f->released; /* a close that was interrupted */
		pthread_mutex_unlock(&list[i]->lock);
		if (held && tree_settle(list[i], &t->closer_call, NULL, NULL) < 0)
			left = true;
	}
	tree_put_nodes(list, n);
	return left;
}

static void open_all(struct tree *t, const struct opening *list, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (tree_open_now(list[i].file, &t->closer_call) < 0)
			log_debug("a file was not opened ahead of its use");
		tree_return_file(list[i].node, list[i].file);
		node_put(&list[i].node->node);
	}
}

/* Waits for work, at most until what could not be sent is due again. Lock held. False: due. */
static bool closer_waits(struct tree *t)
{
	if (t->stale || t->opening_count)
		return true;
	if (!t->retry)
		return pthread_cond_wait(&t->closer_wake, &t->closer_lock) == 0;
	int64_t until = call_now_ms() + RETRY_MS;
	while (t->retry && !t->closing_count && !t->closer_stop && !t->stale && !t->opening_count)
		if (timed_cond_wait(&t->closer_wake, &t->closer_lock, until) == -ETIMEDOUT)
			return false;
	return true;
}

static void *closer_thread(void *arg)
{
	struct tree *t = arg;

	pthread_mutex_lock(&t->closer_lock);
	while (t->closing_count || t->opening_count || !t->closer_stop) {
		bool due = t->closing_count == 0 && !closer_waits(t);
		uint64_t *list = t->closing;
		size_t count = t->closing_count;
		bool stale = t->stale;
		struct opening opening[sizeof t->opening / sizeof t->opening[0]];
		size_t opening_count = t->opening_count;

		memcpy(opening, t->opening, opening_count * sizeof *opening);
		t->opening_count = 0;
		t->stale = false;
		t->closing = NULL;
		t->closing_count = t->closing_size = 0;
		if (due)
			t->retry = false;
		pthread_mutex_unlock(&t->closer_lock);
		if (stale)
			tree_invalidate(t, &t->closer_call);
		open_all(t, opening, opening_count);
		close_all(t, list, count);
		free(list);
		if (due && retry_unsent(t))
			tree_retry_later(t);
		fault_clear(&t->closer_call.fault);
		pthread_mutex_lock(&t->closer_lock);
	}
	pthread_mutex_unlock(&t->closer_lock);
	return NULL;
}

/* Lock held. */
static void wake_closer(struct tree *t)
{
	if (!t->has_closer && !t->closer_stop) {
		int err = pthread_create(&t->closer, NULL, closer_thread, t);

		t->has_closer = !err;
		if (err) /* the next wake tries again */
			log_error(
				"the thread that closes and sends again could not be started: %s", strerror(err));
	}
	pthread_cond_signal(&t->closer_wake);
}

void tree_open_soon(struct tree *t, struct wfile *f)
{
	struct wnode *n = f->node;
	bool taken;

	pthread_mutex_lock(&n->lock);
	f->users++;
	pthread_mutex_unlock(&n->lock);
	node_get(&n->node);
	pthread_mutex_lock(&t->closer_lock);
	taken = !t->closer_stop && t->opening_count < sizeof t->opening / sizeof t->opening[0];
	if (taken) {
		t->opening[t->opening_count++] = (struct opening){n, f};
		wake_closer(t);
	}
	pthread_mutex_unlock(&t->closer_lock);
	if (!taken) {
		tree_return_file(n, f);
		node_put(&n->node);
	}
}

void tree_invalidate_soon(void *tree)
{
	struct tree *t = tree;
	AUTO_UNLOCK(&t->closer_lock);

	t->stale = true;
	wake_closer(t);
}

void tree_retry_later(struct tree *t)
{
	AUTO_UNLOCK(&t->closer_lock);

	t->retry = true;
	wake_closer(t);
}

void tree_close_handle(struct tree *t, uint64_t handle)
{
	AUTO_UNLOCK(&t->closer_lock);

	if (t->closer_stop)
		return; /* the server of the handles is about to end */
	if (t->closing_count == t->closing_size) {
		size_t n = t->closing_size ? t->closing_size * 2 : 64;
		uint64_t *more = reallocarray(t->closing, n, sizeof *more);
		if (!more)
			return; /* its lease ends it */
		t->closing = more;
		t->closing_size = n;
	}
	t->closing[t->closing_count++] = handle;
	wake_closer(t);
}

void tree_closer_stop(struct tree *t)
{
	bool join;

	pthread_mutex_lock(&t->closer_lock);
	t->closer_stop = true;
	t->closing_count = 0;
	join = t->has_closer;
	t->has_closer = false;
	pthread_cond_signal(&t->closer_wake);
	pthread_mutex_unlock(&t->closer_lock);
	call_cancel(&t->closer_call);
	if (join)
		pthread_join(t->closer, NULL);
	free(t->closing);
	t->closing = NULL;
	t->closing_size = 0;
}
