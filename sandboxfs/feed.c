/*
 * Feeds: see feed.h.
 *
 * Two buffers: the loop's thread fills one under the lock, the reader drains the other without it, and they change places when the
 * reader's is empty. The end of the output is told after everything before it was taken.
 */
#include "feed.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"

enum { FEED_FULL = 512 << 10 };

struct feed_record {
	enum feed_kind kind;
	unsigned stream;
	uint64_t time;
	uint64_t n; /* bytes that follow, or of the gap */
};

struct feed {
	struct sandbox *sb;
	void (*wake)(void *arg);
	void *arg;
	struct output *output; /* set by feed_attach before any reader can need it */

	pthread_mutex_t lock;
	struct buf filling; /* under the lock */
	bool paused;        /* likewise */
	bool ended;         /* likewise */
	struct output_end end;
	char *reason;

	struct buf draining; /* the reader's */
	size_t at;
	bool end_taken;
};

static bool feed_room(void *arg)
{
	struct feed *f = arg;

	AUTO_UNLOCK(&f->lock);
	f->paused = f->filling.size >= FEED_FULL;
	return !f->paused;
}

static void feed_put(struct feed *f, const struct feed_record *r, const void *p, size_t n)
{
	pthread_mutex_lock(&f->lock);
	buf_add(&f->filling, r, sizeof(*r));
	buf_add(&f->filling, p, n);
	pthread_mutex_unlock(&f->lock);
	f->wake(f->arg);
}

static void feed_on_data(void *arg, uint64_t time, unsigned stream, const void *p, size_t n)
{
	struct feed_record r = {FEED_DATA, stream, time, n};

	feed_put(arg, &r, p, n);
}

static void feed_on_gap(void *arg, unsigned stream, uint64_t n)
{
	struct feed_record r = {FEED_GAP, stream, 0, n};

	feed_put(arg, &r, "", 0);
}

static void feed_on_end(void *arg, const struct output_end *end)
{
	struct feed *f = arg;

	pthread_mutex_lock(&f->lock);
	f->end = *end;
	f->reason = end->reason ? strdup(end->reason) : NULL;
	f->ended = true;
	pthread_mutex_unlock(&f->lock);
	f->wake(f->arg);
}

static const struct output_events feed_events = {
	.room = feed_room,
	.data = feed_on_data,
	.gap = feed_on_gap,
	.end = feed_on_end,
};

int feed_new(struct sandbox *sb, void (*wake)(void *arg), void *arg, struct feed **out)
{
	struct feed *f = calloc(1, sizeof(*f));

	if (!f)
		return -ENOMEM;
	pthread_mutex_init(&f->lock, NULL);
	f->sb = sb;
	f->wake = wake;
	f->arg = arg;
	*out = f;
	return 0;
}

int feed_attach(struct feed *f, const char *id, uint64_t from)
{
	struct output *o;
	int err = output_attach(f->sb, id, from, &feed_events, f, &o);

	if (err)
		return err;
	pthread_mutex_lock(&f->lock);
	f->output = o;
	bool resume =
		f->paused && f->filling.size < FEED_FULL; /* emptied before there was something to resume */
	if (resume)
		f->paused = false;
	pthread_mutex_unlock(&f->lock);
	if (resume)
		output_resume(o);
	return 0;
}

static int feed_end(struct feed *f, struct feed_item *item)
{
	f->end_taken = true;
	item->time = f->end.time;
	item->err = f->end.err;
	item->reason = f->reason;
	item->code = f->end.code;
	item->timed_out = f->end.timed_out;
	item->kind = f->end.err ? FEED_LOST : FEED_EXIT;
	return 1;
}

/* Takes over what was filled. 1: there is something, 0: the end, -EAGAIN. */
static int feed_swap(struct feed *f, struct output **resume)
{
	struct buf empty = f->draining;

	AUTO_UNLOCK(&f->lock);
	if (f->filling.failed)
		return -ENOMEM;
	if (f->filling.size == 0)
		return f->ended ? 0 : -EAGAIN;
	empty.size = 0;
	f->draining = f->filling;
	f->filling = empty;
	f->at = 0;
	if (f->paused && f->output) {
		*resume = f->output;
		f->paused = false;
	}
	return 1;
}

int feed_next(struct feed *f, struct feed_item *item)
{
	struct feed_record r;
	struct output *resume = NULL;

	memset(item, 0, sizeof(*item));
	if (f->end_taken)
		return 0;
	if (f->at == f->draining.size) {
		int err = feed_swap(f, &resume);
		if (err < 0)
			return err;
		if (err == 0)
			return feed_end(f, item);
		if (resume)
			output_resume(resume);
	}
	memcpy(&r, f->draining.data + f->at, sizeof(r));
	f->at += sizeof(r);
	item->kind = r.kind;
	item->stream = r.stream;
	item->time = r.time;
	if (r.kind == FEED_GAP) {
		item->gap = r.n;
	} else {
		item->p = f->draining.data + f->at;
		item->n = (size_t)r.n;
		f->at += item->n;
	}
	return 1;
}

void feed_close(struct feed *f)
{
	if (!f)
		return;
	pthread_mutex_lock(&f->lock);
	struct output *o = steal(f->output);
	pthread_mutex_unlock(&f->lock);
	output_close(o);
	pthread_mutex_destroy(&f->lock);
	buf_release(&f->filling);
	buf_release(&f->draining);
	free(f->reason);
	free(f);
}
