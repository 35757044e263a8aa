/*
 * See events_feed.h.
 *
 * Each has a stream of its own from sandboxd (routes_changes.c there), which is armed when the open, or the write of the
 * first line, returns. The keeper opens it again when the link broke: what was missed meanwhile nobody knows, which
 * is said by `lost ?` in its place. A reader that is slow is waited for by nobody: its lines are kept up to a limit, then counted,
 * and `lost N` stands where they are missing.
 *
 * Locks: the keeper's covers what it tends, the queue's what the loop's thread and the reader share. Wakes go out without either.
 */
#include "events_feed.h"

#include <errno.h>
#include <json-c/json.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "api_error.h"
#include "cleanup.h"
#include "ctl.h"
#include "events_line.h"
#include "events_told.h"
#include "json_make.h"
#include "keeper.h"
#include "log.h"

enum {
	QUEUE_MAX = 8 << 20, /* bytes of lines that one reader may leave */
	LINE_MAX_BYTES = 64 << 10,
	ERROR_BODY_MAX = 64 << 10,
	RETRY_FIRST_MS = 50,
	RETRY_MAX_MS = 5000,
	QUIET_EXTRA_MS = 10000 /* an empty line comes every 5 s */
};

enum events_phase { EVENTS_ARMING, EVENTS_ARMED, EVENTS_FAILED };

struct events {
	struct kept kept; /* keeper's lock, as all of this group */
	struct http_stream *stream;
	bool busy, stream_ended;
	int stream_err;
	int64_t retry_at; /* 0: not waiting to be opened again */
	struct call *waiter;
	_Atomic int phase; /* enum events_phase; read under a call's lock too */

	void (*wake)(void *arg);
	void *arg;
	char *body;
	char boot[40]; /* of the sandbox when it was armed */

	/* The loop's thread while a stream is open, else whoever is busy with it. */
	int status;
	unsigned tries;
	struct buf error_body, line;
	bool malformed, dropped;

	pthread_mutex_t lock; /* covers what follows */
	struct buf queue;
	size_t at;
	uint64_t lost;
	bool lost_unknown;
	bool over; /* nothing more will come; err says why */
	int err;
};

/* --- the queue --- */

static void queue_put_lost(struct events *e)
{
	if (e->lost_unknown)
		buf_str(&e->queue, "lost ?\n");
	else if (e->lost)
		buf_printf(&e->queue, "lost %llu\n", (unsigned long long)e->lost);
	e->lost = 0;
	e->lost_unknown = false;
}

/* Some are missing here: n, or nobody knows how many. The lock is held. */
static void queue_lose(struct events *e, uint64_t n, bool unknown)
{
	e->lost = e->lost > UINT64_MAX - n ? UINT64_MAX : e->lost + n;
	e->lost_unknown |= unknown;
}

static bool queue_full(const struct events *e, size_t n)
{
	size_t left = e->queue.size - e->at;
	/* Once something was dropped, nothing follows it before its count. */
	return e->lost || e->lost_unknown ? left > 0 : left + n > QUEUE_MAX;
}

static void queue_line(struct events *e, const char *line, size_t n)
{
	AUTO_UNLOCK(&e->lock);
	if (n >= 5 && memcmp(line, "lost ", 5) == 0) {
		AUTO_FREE char *count = strndup(line + 5, n - 6);
		int64_t lost = 0;
		bool known = count && ctl_parse_number(count, 1, INT64_MAX, &lost) == 0;
		queue_lose(e, (uint64_t)lost, !known);
		if (e->at == e->queue.size)
			queue_put_lost(e);
		return;
	}
	if (queue_full(e, n)) {
		queue_lose(e, 1, false);
		return;
	}
	queue_put_lost(e);
	if (e->at > e->queue.size / 2) {
		buf_consume(&e->queue, e->at);
		e->at = 0;
	}
	buf_add(&e->queue, line, n);
	if (buf_error(&e->queue)) {
		buf_release(&e->queue);
		e->at = 0;
		e->lost_unknown = true;
	}
}

ssize_t events_take(struct events *e, void *p, size_t n)
{
	AUTO_UNLOCK(&e->lock);
	if (e->at == e->queue.size) {
		buf_clear(&e->queue);
		e->at = 0;
		queue_put_lost(e);
	}
	size_t left = e->queue.size - e->at;
	if (!left)
		return e->over ? e->err : -EAGAIN;
	if (n > left)
		n = left;
	memcpy(p, e->queue.data + e->at, n);
	e->at += n;
	return (ssize_t)n;
}

int events_put_first(struct events *e, struct buf *line)
{
	if (buf_error(line))
		return -ENOMEM;
	if (!line->size || line->size > LINE_MAX_BYTES)
		return -EPROTO;
	AUTO_UNLOCK(&e->lock);
	buf_add(line, e->queue.data ? e->queue.data + e->at : "", e->queue.size - e->at);
	buf_release(&e->queue);
	e->queue = *line;
	e->at = 0;
	*line = (struct buf)BUF_INIT;
	return buf_error(&e->queue);
}

/* --- the stream's events, on the loop's thread --- */

static void on_status(void *arg, int status)
{
	struct events *e = arg;
	e->status = status;
}

static void on_ready(struct events *e)
{
	bool again;
	e->tries = 0;
	{
		AUTO_UNLOCK(&e->kept.keeper->lock);
		again = e->phase == EVENTS_ARMED;
		e->phase = EVENTS_ARMED;
		if (e->waiter)
			call_wake(e->waiter);
	}
	if (again)
		queue_line(e, "lost ?\n", 7);
}

/* Once: what comes in numbers is not to fill the log with them. */
static void say_dropped(struct events *e)
{
	if (!e->dropped)
		log_error(
			"%s: events: the server tells of what is not below workspace/, or no change: dropped",
			sandbox_name(e->kept.keeper->sb));
	e->dropped = true;
}

/* True: the reader is to be woken. */
static bool on_line(struct events *e)
{
	size_t n = e->line.size;
	if (n == 1)
		return false; /* it is alive */
	if (n == 6 && memcmp(e->line.data, "ready\n", 6) == 0) {
		on_ready(e);
		return true;
	}
	if (n > 5 && memcmp(e->line.data, "lost ", 5) == 0) {
		queue_line(e, e->line.data, n);
		return true;
	}
	AUTO_BUF shown = BUF_INIT;
	int err = events_told_add(e->line.data, n, &shown);
	if (!err)
		queue_line(e, shown.data, shown.size);
	else if (err == -EPROTO)
		say_dropped(e);
	else
		queue_line(e, "lost 1\n", 7);
	return err != -EPROTO;
}

static bool on_data(void *arg, const void *p, size_t n)
{
	struct events *e = arg;
	bool told = false;
	if (e->status != 200) {
		if (e->error_body.size < ERROR_BODY_MAX)
			buf_add(&e->error_body, p, n);
		return true;
	}
	for (const char *at = p, *end = at + n; at < end && !e->malformed;) {
		const char *newline = memchr(at, '\n', (size_t)(end - at));
		const char *stop = newline ? newline + 1 : end;
		buf_add(&e->line, at, (size_t)(stop - at));
		e->malformed = e->line.size > LINE_MAX_BYTES || e->line.failed;
		if (newline && !e->malformed) {
			told |= on_line(e);
			buf_clear(&e->line);
		}
		at = stop;
	}
	if (e->malformed) { /* the keeper need not wait for the end of the body */
		AUTO_UNLOCK(&e->kept.keeper->lock);
		e->stream_ended = true;
		pthread_cond_broadcast(&e->kept.keeper->wake);
	}
	if (told)
		e->wake(e->arg);
	return true;
}

static void on_end(void *arg, int err)
{
	struct events *e = arg;
	AUTO_UNLOCK(&e->kept.keeper->lock);
	e->stream_err = err;
	e->stream_ended = true;
	pthread_cond_broadcast(&e->kept.keeper->wake);
}

static const struct http_stream_events stream_events = {
	.on_status = on_status, .on_data = on_data, .on_end = on_end};

/* --- the keeper --- */

/* Opens its stream; e is busy with the caller, and is not when this returns. */
static void events_connect(struct events *e)
{
	struct sandbox *sb = e->kept.keeper->sb;
	struct http_stream *stream = NULL;
	struct http_request r = {
		.target = sandbox_target(sb),
		.method = "POST",
		.path = "/api/sandboxfs/changes",
		.type = "application/json",
		.body = e->body,
		.size = strlen(e->body),
		.timeout_ms = sandbox_options(sb)->timeout_ms + QUIET_EXTRA_MS,
		.max_reply = SIZE_MAX,
	};
	e->status = 0;
	buf_clear(&e->error_body);
	buf_clear(&e->line);
	int err =
		r.target ? http_stream_open(server_http(sandbox_server(sb)), &r, &stream_events, e, &stream)
				 : -EHOSTUNREACH;
	AUTO_UNLOCK(&e->kept.keeper->lock);
	e->stream = stream;
	if (err) {
		e->stream_err = err;
		e->stream_ended = true;
	}
	e->busy = false;
	pthread_cond_broadcast(&e->kept.keeper->wake);
}

/* The person's sentence of an end that has no call of its own. */
static void note_end(struct events *e, int err, const char *why)
{
	struct call c;
	call_init(&c, 0);
	(void)call_fault(&c, -err, NULL, "events: %s", why);
	sandbox_note_fault(e->kept.keeper->sb, &c.fault);
	call_destroy(&c);
}

/* Nothing more comes. e is busy with the keeper, and is not when this returns. */
static void events_fail(struct events *e, int err, const char *why)
{
	struct keeper *k = e->kept.keeper;
	pthread_mutex_lock(&k->lock);
	bool armed = e->phase == EVENTS_ARMED;
	pthread_mutex_unlock(&k->lock);
	if (armed && err != -ECANCELED)
		note_end(e, err, why);
	pthread_mutex_lock(&e->lock);
	e->over = true;
	e->err = err;
	pthread_mutex_unlock(&e->lock);
	if (armed)
		e->wake(e->arg);
	AUTO_UNLOCK(&k->lock);
	if (!armed)
		e->phase = EVENTS_FAILED;
	if (e->waiter)
		call_wake(e->waiter);
	e->kept.finished = true;
	e->busy = false;
	pthread_cond_broadcast(&k->wake);
}

static void events_retry(struct events *e)
{
	int64_t wait = RETRY_FIRST_MS;
	for (unsigned i = 0; i < e->tries && wait < RETRY_MAX_MS; i++)
		wait *= 2;
	e->tries++;
	AUTO_UNLOCK(&e->kept.keeper->lock);
	e->retry_at = call_now_ms() + (wait < RETRY_MAX_MS ? wait : RETRY_MAX_MS);
	e->busy = false;
	pthread_cond_broadcast(&e->kept.keeper->wake);
}

static bool sandbox_is_gone(struct events *e)
{
	struct sandbox_status st;
	if (e->boot[0] && sandbox_replaced_since(e->kept.keeper->sb, e->boot))
		return true;
	sandbox_get_status(e->kept.keeper->sb, &st);
	return st.state == SANDBOX_UNKNOWN || st.state == SANDBOX_IN_USE;
}

/* Its stream has ended and is closed: what follows from it? e is busy with the keeper. */
static void events_settle(struct events *e, int err, bool armed)
{
	bool refused = !err && e->status && e->status != 200 && e->status != 503;
	if (e->malformed)
		events_fail(e, -EPROTO, "the server's answer makes no sense");
	else if (err == -ECANCELED)
		events_fail(e, err, "the mount has ended");
	else if (refused && (!armed || e->status < 500))
		events_fail(e, armed ? -ESTALE : -EREMOTEIO, "what was watched is gone");
	else if (!armed && err == -EHOSTUNREACH)
		events_fail(e, err, "the sandbox's server takes no connections");
	else if (sandbox_is_gone(e))
		events_fail(e, -ESTALE, "the sandbox has ended");
	else
		events_retry(e);
}

/* Looks after one; the lock is held and may be let go. True: it was, look again from the start. */
static bool events_tend(struct kept *item, int64_t now, int64_t *next)
{
	struct events *e = (struct events *)item;
	struct keeper *k = item->keeper;
	if (e->busy)
		return false;
	if (e->stream_ended || k->stopping) {
		struct http_stream *stream = steal(e->stream);
		int err = e->stream_ended ? e->stream_err : 0;
		bool stopping = k->stopping, armed = e->phase == EVENTS_ARMED;
		e->busy = true;
		e->retry_at = 0;
		pthread_mutex_unlock(&k->lock);
		if (stream)
			http_stream_close(stream);
		pthread_mutex_lock(&k->lock);
		/* An end that came while its stream was being closed says nothing new. */
		e->stream_ended = false;
		e->stream_err = 0;
		pthread_mutex_unlock(&k->lock);
		if (stopping && sandbox_gone(k->sb))
			events_fail(e, -ESTALE, "the sandbox was destroyed");
		else if (stopping)
			events_fail(e, -ECANCELED, "the mount has ended");
		else
			events_settle(e, err, armed);
		pthread_mutex_lock(&k->lock);
		return true;
	}
	if (!e->stream && e->retry_at && e->retry_at <= now) {
		e->busy = true;
		e->retry_at = 0;
		pthread_mutex_unlock(&k->lock);
		events_connect(e);
		pthread_mutex_lock(&k->lock);
		return true;
	}
	if (e->retry_at)
		keeper_sooner(next, e->retry_at);
	return false;
}

/* --- from open to close --- */

void events_close(struct events *e)
{
	struct keeper *k = e->kept.keeper;
	pthread_mutex_lock(&k->lock);
	while (e->busy)
		pthread_cond_wait(&k->wake, &k->lock);
	struct http_stream *stream = steal(e->stream);
	e->kept.finished = true; /* hands off, keeper */
	e->busy = true;
	pthread_mutex_unlock(&k->lock);
	if (stream)
		http_stream_close(stream);
	keeper_remove(&e->kept);
	buf_release(&e->error_body);
	buf_release(&e->line);
	buf_release(&e->queue);
	pthread_mutex_destroy(&e->lock);
	free(e->body);
	free(e);
}

static bool is_settled(void *arg)
{
	return atomic_load(&((struct events *)arg)->phase) != EVENTS_ARMING;
}

static int refusal(struct call *c, struct events *e)
{
	if (e->err != -EREMOTEIO)
		return call_fault(c, -e->err, NULL, "it cannot be watched: %s", strerror(-e->err));
	int err = api_error(c, e->status, e->error_body.data, e->error_body.size);
	if (err != -ENOTSUP)
		return err;
	fault_clear(&c->fault);
	return call_fault(c, ENOTSUP, NULL,
		"this server cannot tell of changes so that none is lost unsaid; it takes sandboxd in the "
		"sandbox");
}

int events_open(struct sandbox *sb, struct call *c, const struct events_request *q,
	void (*wake)(void *arg), void *arg, struct events **out)
{
	struct sandbox_status st;
	int err = sandbox_ready(sb, c);
	if (!err)
		err = call_may_wait(c);
	struct events *e = err ? NULL : calloc(1, sizeof *e);
	if (!e)
		return err ? err : -ENOMEM;
	const char *body = json_text_of(q->body, NULL);
	e->body = body ? strdup(body) : NULL;
	e->wake = wake;
	e->arg = arg;
	e->busy = true;
	e->waiter = c;
	e->kept.tend = events_tend;
	sandbox_get_status(sb, &st);
	memcpy(e->boot, st.boot, sizeof e->boot);
	err = e->body ? keeper_add(sb, &e->kept) : -ENOMEM;
	if (err) {
		free(e->body);
		free(e);
		return err;
	}
	pthread_mutex_init(&e->lock, NULL);
	events_connect(e);
	err = call_wait(c, is_settled, e, call_now_ms() + sandbox_options(sb)->timeout_ms);
	pthread_mutex_lock(&e->kept.keeper->lock);
	e->waiter = NULL;
	if (!err && e->phase == EVENTS_FAILED)
		err = 1;
	pthread_mutex_unlock(&e->kept.keeper->lock);
	if (err == 1)
		err = refusal(c, e);
	else if (err == -ETIMEDOUT)
		err = call_fault(c, ETIMEDOUT, NULL, "the sandbox does not answer");
	if (err) {
		events_close(e);
		return err;
	}
	*out = e;
	return 0;
}
