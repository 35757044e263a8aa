/*
 * Runs of a context, see interpreter.h: how one comes into the queue and leaves it, and what its reader is given: output from the
 * command's spool, results and the end in the order in which they came. All of a run is covered by its context's lock. Does nothing to
 * the process that does the work: interpreter.c takes runs from the queue, executor.c fills them.
 */
#include "interpreter.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "commands.h"
#include "interpreter_impl.h"
#include "json_make.h"
#include "text.h"
#include "timed.h"

enum { PIECE = 64 << 10 };

struct json_object *run_error(const char *name, const char *fmt, ...)
{
	AUTO_BUF words = BUF_INIT;
	va_list ap;
	va_start(ap, fmt);
	buf_vprintf(&words, fmt, ap);
	va_end(ap);
	struct json_object *o = json_object_new_object();
	json_add(o, "ename", json_object_new_string(name));
	json_add(o, "evalue", text_json(words.data ? words.data : "", words.size));
	json_add(o, "traceback", json_object_new_array());
	return o;
}

static void run_free(struct run *r)
{
	for (size_t i = 0; i < r->results_count; i++)
		json_object_put(r->results[i].json);
	free(r->results);
	json_object_put(r->error);
	json_object_put(r->given);
	json_object_put(r->variables);
	commands_put(r->command);
	free(r->id);
	free(r->code);
	struct context *c = r->context;
	free(r);
	context_put(c);
}

void run_put(struct run *r)
{
	struct context *c = r->context;
	bool last;
	{
		AUTO_UNLOCK(&c->lock);
		struct run **at = &c->first;
		/* Only the queue's reference would be left: who asked has gone before it was its turn. */
		if (r->references == 2 && !r->begun && !r->kept) {
			while (*at && *at != r)
				at = &(*at)->next;
			if (*at) {
				*at = r->next;
				if (c->last == &r->next)
					c->last = at;
				r->references--;
			}
		}
		last = --r->references == 0;
	}
	if (last)
		run_free(r);
}

void run_leave(struct run *r)
{
	{
		AUTO_UNLOCK(&r->context->lock);
		r->kept = true;
	}
	run_put(r);
}

int run_new(struct context *c, const char *run_id, const char *code, size_t n,
	struct json_object *variables, int64_t timeout_ms, struct run **out)
{
	struct run *r = calloc(1, sizeof *r);
	if (!r)
		return -ENOMEM;
	atomic_fetch_add(&c->references, 1);
	r->context = c;
	r->references = 2;
	r->timeout_ms = timeout_ms;
	bool whole = json_copy(variables, &r->variables);
	r->size = n;
	r->id = run_id ? strdup(run_id) : NULL;
	r->code = code ? malloc(n + 1) : NULL;
	if (!whole || (run_id && !r->id) || (code && !r->code)) {
		run_free(r);
		return -ENOMEM;
	}
	if (code) {
		memcpy(r->code, code, n);
		r->code[n] = '\0';
	}
	bool deleted;
	{
		AUTO_UNLOCK(&c->lock);
		deleted = c->deleted;
		if (!deleted) {
			*c->last = r;
			c->last = &r->next;
			pthread_cond_broadcast(&c->changed);
		}
	}
	if (deleted) {
		run_free(r);
		return -ENOENT;
	}
	*out = r;
	return 0;
}

/*
 * Up to which byte of the output the reader may go before the next thing. Never beyond what is there now: what comes later may come after a
 * result, or be the next run's. With the lock held.
 */
static uint64_t run_limit(const struct run *r)
{
	if (r->results_read < r->results_count)
		return r->results[r->results_read].at;
	uint64_t size = spool_size(r->command->spool, SPOOL_BOTH);
	return size < r->end ? size : r->end;
}

/* 1: something was read; 0: nothing is there. With no lock held: the command is the run's own. */
static int run_read(struct run *r, uint64_t end, struct run_event *e, struct buf *data)
{
	uint64_t next = r->off;
	if (r->off >= end)
		return 0;
	size_t want = end - r->off < PIECE ? (size_t)(end - r->off) : PIECE;
	char *to = buf_reserve(data, want);
	if (!to)
		return -ENOMEM;
	e->part = RUN_OUTPUT;
	e->stream = SPOOL_STDOUT;
	ssize_t n = spool_pread(r->command->spool, SPOOL_BOTH, to, want, r->off, &e->stream, &next);
	if (n == -ESPIPE && next > r->off) {
		if (next > end)
			next = end;
		e->stream = SPOOL_STDERR;
		buf_printf(data, "\n[%llu bytes of output are no longer kept]\n",
			(unsigned long long)next - r->off);
		r->off = next;
		return 1;
	}
	if (n <= 0)
		return n < 0 ? (int)n : 0;
	data->size += (size_t)n;
	r->off += (uint64_t)n;
	return 1;
}

/* What is not output: 1 and *e, or 0. With the lock held. */
static int run_other(struct run *r, struct run_event *e)
{
	json_object_put(r->given);
	r->given = NULL;
	if (r->results_read < r->results_count) {
		r->given = steal(r->results[r->results_read].json);
		r->results_read++;
		*e = (struct run_event){.part = RUN_RESULT, .json = r->given};
		return 1;
	}
	if (!r->over)
		return 0;
	r->given = json_object_get(r->error);
	*e = (struct run_event){.part = RUN_OVER, .json = r->given, .count = r->count};
	return 1;
}

int run_next(struct run *r, int64_t deadline_ms, struct run_event *e, struct buf *data)
{
	struct context *c = r->context;
	AUTO_UNLOCK(&c->lock);
	for (;;) {
		if (r->command) {
			uint64_t limit = run_limit(r);
			/* The spool's own lock may be held for a write to the disk: not under ours. */
			pthread_mutex_unlock(&c->lock);
			int got = run_read(r, limit, e, data);
			pthread_mutex_lock(&c->lock);
			if (got)
				return got;
			if (run_limit(r) != limit)
				continue;
		}
		if (run_other(r, e))
			return 1;
		/* Output tells it with the lock held: what came since the look above wakes this. */
		if (timed_cond_wait(&c->changed, &c->lock, deadline_ms) == -ETIMEDOUT)
			return -ETIMEDOUT;
	}
}
