/*
 * What is typed at a terminal, see terminal.h: whose turn it is, and that what is typed arrives once and in order. Owns the typists of
 * a terminal; touches nothing of its output.
 *
 * Typing is one request after the other, each with its place, so that one that got no answer can be repeated.
 */
#include "terminal.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>

#include "buf.h"
#include "cleanup.h"
#include "json_read.h"
#include "terminal_impl.h"

enum { TYPE_AGAIN_MS = 250, TYPE_PIECE = 64 << 10 };

/* Who waits for its turn to type. */
struct typist {
	struct typist *next;
	struct call *call;
	atomic_bool turn;
};

static bool has_turn(void *arg)
{
	return atomic_load(&((struct typist *)arg)->turn);
}

/* 0: nobody else types until leave_turn. */
static int take_turn(struct terminal *t, struct call *c, bool wait)
{
	struct typist me = {.call = c};

	pthread_mutex_lock(&t->lock);
	if (!t->typing || !wait) {
		int err = t->typing ? -EAGAIN : 0;
		t->typing = true;
		pthread_mutex_unlock(&t->lock);
		return err;
	}
	struct typist **last = &t->typists;
	while (*last)
		last = &(*last)->next;
	*last = &me;
	pthread_mutex_unlock(&t->lock);
	int err = call_wait(c, has_turn, &me, -1);
	pthread_mutex_lock(&t->lock);
	/* The turn may have come with the signal: then it is passed on by the caller. */
	if (atomic_load(&me.turn)) {
		pthread_mutex_unlock(&t->lock);
		return 0;
	}
	for (struct typist **at = &t->typists; *at; at = &(*at)->next) {
		if (*at == &me) {
			*at = me.next;
			break;
		}
	}
	pthread_mutex_unlock(&t->lock);
	return err;
}

static void leave_turn(struct terminal *t)
{
	AUTO_UNLOCK(&t->lock);
	struct typist *next = t->typists;

	t->typing = next != NULL;
	if (!next)
		return;
	t->typists = next->next;
	atomic_store(&next->turn, true);
	call_wake(next->call);
}

static bool link_broke(int err)
{
	return err == -ECONNRESET || err == -EHOSTUNREACH || err == -ETIMEDOUT;
}

static bool never(void *arg)
{
	(void)arg;
	return false;
}

/* One request. *typed: how many bytes the terminal has taken in all. */
static int post_input(struct terminal *t, struct sandbox *sb, struct call *c, const char *query,
	const void *p, size_t n, uint64_t *typed)
{
	AUTO_BUF path = BUF_INIT;
	AUTO_BUF reply = BUF_INIT;
	struct json_object *o, *v;

	buf_printf(&path, "/api/sandboxfs/commands/%s/input%s", t->id, query);
	if (buf_error(&path))
		return -ENOMEM;
	int err = sandbox_raw(sb, c, "POST", path.data, "application/octet-stream", p, n, &reply);
	if (err)
		return err;
	o = reply.data ? json_little(reply.data) : NULL;
	bool told = json_object_object_get_ex(o, "typed", &v) && json_object_is_type(v, json_type_int);
	if (told)
		*typed = (uint64_t)json_object_get_int64(v);
	json_object_put(o);
	return told ? 0 : -EPROTO;
}

/* Types one piece, again after a break of the link until the deadline. It is the caller's turn, so typed and synced are its own. */
static int type_piece(struct terminal *t, struct call *c, const char *p, size_t n, int64_t deadline)
{
	char query[40]; /* a number of ours */

	for (;;) {
		int err = 0;
		struct sandbox *sb = terminal_living(t, c, &err);
		if (!sb)
			return err;
		query[0] = 0;
		/* After one that was given up nobody knows its place: this one goes behind it, and cannot be repeated. */
		if (t->synced)
			snprintf(query, sizeof(query), "?at=%llu", (unsigned long long)t->typed);
		bool repeatable = t->synced;
		err = post_input(t, sb, c, query, p, n, &t->typed);
		t->synced = !err || (repeatable && link_broke(err));
		if (!err)
			return 0;
		if (err == -ESRCH || err == -ENOENT) {
			fault_clear(&c->fault);
			return call_fault(c, EPIPE, NULL, "its program has ended");
		}
		if (!repeatable || !link_broke(err) || call_now_ms() >= deadline || sandbox_gone(sb)) {
			t->synced = false;
			return err;
		}
		fault_clear(&c->fault);
		err = call_wait(c, never, NULL, call_now_ms() + TYPE_AGAIN_MS);
		if (err != -ETIMEDOUT) {
			t->synced = false;
			return err;
		}
	}
}

int terminal_type(struct terminal *t, struct call *c, const void *p, size_t n, bool wait)
{
	int err = 0;
	struct sandbox *sb = terminal_living(t, c, &err);

	if (!sb)
		return err;
	int64_t deadline = call_now_ms() + sandbox_options(sb)->timeout_ms;
	err = take_turn(t, c, wait);
	if (err)
		return err;
	for (size_t at = 0; !err && at < n; at += TYPE_PIECE)
		err = type_piece(
			t, c, (const char *)p + at, n - at < TYPE_PIECE ? n - at : TYPE_PIECE, deadline);
	leave_turn(t);
	return err;
}
