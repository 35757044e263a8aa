/*
 * Tar streams from and to a sandbox: see archive.h.
 *
 * Each reader and writer has a lock, which covers its queue and how its stream stands; it is not held over calls into http.h, nor over
 * wakes. Events come on the HTTP loop's thread.
 */
#include "archive.h"

#include <errno.h>
#include <json-c/json.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "api_error.h"
#include "cleanup.h"
#include "frame_parser.h"
#include "json_read.h"

enum { QUEUE_MAX = 1 << 20, ERROR_BODY_MAX = 64 << 10, NOTES_MAX = 4 << 10 };

void archive_query(struct buf *query, const char *name, const char *value)
{
	buf_printf(query, "&%s=", name);
	for (const unsigned char *p = (const unsigned char *)value; *p; p++) {
		if ((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9') ||
			strchr("-._~/", *p))
			buf_char(query, (char)*p);
		else
			buf_printf(query, "%%%02X", *p);
	}
}

/* What both have: a stream and how it ended. */
struct transfer {
	struct sandbox *sb; /* borrowed */
	struct http_stream *stream;
	pthread_mutex_t lock; /* covers what follows */
	struct call *waiter;
	_Atomic bool changed;
	int status;
	bool ended;
	int err;
	struct buf answer; /* the body of an error; of a writer any */
};

static void transfer_init(struct transfer *t, struct sandbox *sb, struct call *waiter)
{
	t->sb = sb;
	t->waiter = waiter;
	pthread_mutex_init(&t->lock, NULL);
}

static void transfer_release(struct transfer *t)
{
	if (t->stream)
		http_stream_close(t->stream);
	buf_release(&t->answer);
	pthread_mutex_destroy(&t->lock);
}

/* The lock is held. */
static void transfer_changed(struct transfer *t)
{
	atomic_store(&t->changed, true);
	if (t->waiter)
		call_wake(t->waiter);
}

static bool has_changed(void *arg)
{
	return atomic_exchange(&((struct transfer *)arg)->changed, false);
}

static void transfer_answer(struct transfer *t, const void *p, size_t n)
{
	if (t->answer.size < ERROR_BODY_MAX)
		buf_add(&t->answer, p, n);
}

static int transfer_open(struct transfer *t, struct call *c, const char *method, const char *dir,
	const char *query, const struct http_stream_events *ev, void *arg)
{
	AUTO_BUF path = BUF_INIT;
	int err = sandbox_ready(t->sb, c);
	if (!err)
		err = call_may_wait(c);
	if (err)
		return err;
	buf_str(&path, "/api/sandboxfs/archive?frames=1");
	archive_query(&path, "path", dir);
	buf_str(&path, query);
	struct http_request r = {.target = sandbox_target(t->sb),
		.method = method,
		.path = path.data,
		.timeout_ms = sandbox_options(t->sb)->timeout_ms,
		.max_reply = SIZE_MAX};
	if (buf_error(&path))
		return -ENOMEM;
	if (!r.target)
		return call_fault(c, EHOSTUNREACH, NULL, "the sandbox has ended");
	return http_stream_open(server_http(sandbox_server(t->sb)), &r, ev, arg, &t->stream);
}

/* 0: this is no answer about an archive, which has an errno and a sentence in its context. */
static int unpack_failed(struct call *c, const char *text)
{
	struct json_object *o = json_little(text), *context, *name, *why;
	int err = 0;
	if (o && json_object_object_get_ex(o, "context", &context) &&
		json_object_object_get_ex(context, "errno", &name) &&
		json_object_object_get_ex(context, "stderr", &why))
		err = call_fault(c, api_errno_of_text(json_object_get_string(name)), "FILESYSTEM_ERROR",
			"%s", json_object_get_string(why));
	json_object_put(o);
	return err;
}

/* What a status other than 200 means; the stream has ended or its body is no matter. */
static int transfer_refused(struct transfer *t, struct call *c)
{
	AUTO_UNLOCK(&t->lock);
	buf_add(&t->answer, "", 0);
	int err = buf_error(&t->answer) ? -ENOMEM : unpack_failed(c, t->answer.data);
	if (!err)
		err = api_error(c, t->status, t->answer.data, t->answer.size);
	if (err != -ENOTSUP)
		return err;
	fault_clear(&c->fault);
	return call_fault(c, ENOTSUP, NULL,
		"this server cannot pack or unpack a directory; it takes sandboxd in the sandbox");
}

static int transfer_broke(struct call *c, int err)
{
	return call_fault(c, err == -ETIMEDOUT ? ETIMEDOUT : EIO, NULL,
		"the link broke before the end: %s", strerror(-err));
}

/* --- reading --- */

struct archive_reader {
	struct transfer t;
	void (*wake)(void *arg);
	void *arg;
	struct frame_parser parser; /* the loop's thread */
	/* under t.lock */
	struct buf queue;
	size_t at;
	bool paused, exited, whole, malformed;
	int code; /* what could not be packed, or why it is cut: a positive errno */
	struct buf notes;
};

static void reader_on_status(void *arg, int status)
{
	struct archive_reader *r = arg;
	AUTO_UNLOCK(&r->t.lock);
	r->t.status = status;
	transfer_changed(&r->t);
}

static void reader_on_frame(void *arg, uint64_t time, unsigned stream, const void *p, size_t n)
{
	struct archive_reader *r = arg;
	(void)time;
	if (stream == FRAME_STDOUT)
		buf_add(&r->queue, p, n);
	else if (r->notes.size < NOTES_MAX)
		buf_add(&r->notes, p, n < NOTES_MAX ? n : NOTES_MAX);
}

static void reader_on_exit(void *arg, uint64_t time, int code, unsigned flags)
{
	struct archive_reader *r = arg;
	(void)time;
	r->exited = true;
	r->code = code;
	r->whole = !(flags & FRAME_EXIT_LOST);
}

/* The parser asks for all of them. */
static void reader_on_started(void *arg, uint64_t time, uint32_t pid)
{
	(void)arg;
	(void)time;
	(void)pid;
}

static void reader_on_gap(void *arg, unsigned stream, uint64_t n)
{
	struct archive_reader *r = arg;
	(void)stream;
	(void)n;
	r->malformed = true; /* an archive has none */
}

static bool reader_on_data(void *arg, const void *p, size_t n)
{
	static const struct frame_events frames = {.started = reader_on_started,
		.data = reader_on_frame,
		.gap = reader_on_gap,
		.exited = reader_on_exit};
	struct archive_reader *r = arg;
	{
		AUTO_UNLOCK(&r->t.lock);
		if (r->t.status != 200) {
			transfer_answer(&r->t, p, n);
			return true;
		}
		if (r->queue.size - r->at >= QUEUE_MAX) {
			r->paused = true;
			return false;
		}
		if (r->at) {
			buf_consume(&r->queue, r->at);
			r->at = 0;
		}
		if (!r->malformed)
			r->malformed = frame_parser_feed(&r->parser, p, n, &frames, r) < 0 || r->malformed;
	}
	r->wake(r->arg);
	return true;
}

static void reader_on_end(void *arg, int err)
{
	struct archive_reader *r = arg;
	{
		AUTO_UNLOCK(&r->t.lock);
		r->t.ended = true;
		r->t.err = err;
		transfer_changed(&r->t);
	}
	r->wake(r->arg);
}

static const struct http_stream_events reader_events = {
	.on_status = reader_on_status, .on_data = reader_on_data, .on_end = reader_on_end};

static int reader_await(struct archive_reader *r, struct call *c)
{
	for (;;) {
		int status, err;
		bool ended;
		{
			AUTO_UNLOCK(&r->t.lock);
			status = r->t.status;
			ended = r->t.ended;
			err = r->t.err;
		}
		if (status == 200)
			return 0;
		if (ended)
			return status ? transfer_refused(&r->t, c) : transfer_broke(c, err ? err : -EPROTO);
		err = call_wait(c, has_changed, &r->t, -1);
		if (err)
			return err;
	}
}

int archive_reader_open(struct sandbox *sb, struct call *c, const char *dir, const char *query,
	void (*wake)(void *arg), void *arg, struct archive_reader **out)
{
	struct archive_reader *r = calloc(1, sizeof *r);
	if (!r)
		return -ENOMEM;
	transfer_init(&r->t, sb, c);
	r->wake = wake;
	r->arg = arg;
	frame_parser_init(&r->parser);
	int err = transfer_open(&r->t, c, "GET", dir, query, &reader_events, r);
	if (!err)
		err = reader_await(r, c);
	{
		AUTO_UNLOCK(&r->t.lock);
		r->t.waiter = NULL;
	}
	if (err) {
		archive_reader_close(r);
		return err;
	}
	*out = r;
	return 0;
}

/* How it ended, all bytes being had; the lock is held. */
static int reader_end(const struct archive_reader *r)
{
	if (r->malformed || r->queue.failed)
		return r->malformed ? -EPROTO : -ENOMEM;
	if (r->exited)
		return r->code > 0 && r->code < 4096 ? -r->code : r->code || !r->whole ? -EIO : 0;
	return r->t.err == -ETIMEDOUT ? -ETIMEDOUT : -EIO;
}

ssize_t archive_reader_next(struct archive_reader *r, void *p, size_t n)
{
	bool resume;
	{
		AUTO_UNLOCK(&r->t.lock);
		size_t left = r->queue.size - r->at;
		if (!left)
			return r->t.ended || r->exited || r->malformed ? reader_end(r) : -EAGAIN;
		if (n > left)
			n = left;
		memcpy(p, r->queue.data + r->at, n);
		r->at += n;
		resume = r->paused && left - n < QUEUE_MAX / 2;
		if (resume)
			r->paused = false;
	}
	if (resume)
		http_stream_resume(r->t.stream);
	return (ssize_t)n;
}

void archive_reader_fault(struct archive_reader *r, struct call *c)
{
	AUTO_UNLOCK(&r->t.lock);
	int err = reader_end(r);
	size_t n = r->notes.size ? strcspn(r->notes.data, "\n") : 0;
	if (!err)
		return;
	if (!r->exited)
		(void)call_fault(c, -err, NULL, "the link broke before the end; what came is not whole");
	else if (n)
		(void)call_fault(c, -err, NULL, "%s: %.*s",
			r->whole ? "all but this was packed" : "it is not whole", (int)n, r->notes.data);
	else
		(void)call_fault(c, -err, NULL, "%s", r->whole ? "not all was packed" : "it is not whole");
}

void archive_reader_close(struct archive_reader *r)
{
	if (!r)
		return;
	transfer_release(&r->t);
	buf_release(&r->queue);
	buf_release(&r->notes);
	free(r);
}

/* --- writing --- */

struct archive_writer {
	struct transfer t;
	/* under t.lock */
	struct buf queue;
	size_t at;
	bool paused, complete;
};

static void writer_on_status(void *arg, int status)
{
	struct archive_writer *w = arg;
	AUTO_UNLOCK(&w->t.lock);
	w->t.status = status;
}

static bool writer_on_data(void *arg, const void *p, size_t n)
{
	struct archive_writer *w = arg;
	AUTO_UNLOCK(&w->t.lock);
	transfer_answer(&w->t, p, n);
	return true;
}

static void writer_on_end(void *arg, int err)
{
	struct archive_writer *w = arg;
	AUTO_UNLOCK(&w->t.lock);
	w->t.ended = true;
	w->t.err = err;
	transfer_changed(&w->t);
}

static ssize_t writer_on_pull(void *arg, void *p, size_t n)
{
	struct archive_writer *w = arg;
	AUTO_UNLOCK(&w->t.lock);
	size_t left = w->queue.size - w->at;
	if (!left) {
		w->paused = !w->complete;
		return w->complete ? 0 : -EAGAIN;
	}
	if (n > left)
		n = left;
	memcpy(p, w->queue.data + w->at, n);
	w->at += n;
	if (w->at == w->queue.size) {
		buf_clear(&w->queue);
		w->at = 0;
	}
	transfer_changed(&w->t);
	return (ssize_t)n;
}

static const struct http_stream_events writer_events = {.on_status = writer_on_status,
	.on_data = writer_on_data,
	.on_end = writer_on_end,
	.on_pull = writer_on_pull};

int archive_writer_open(struct sandbox *sb, struct call *c, const char *dir, const char *query,
	struct archive_writer **out)
{
	struct archive_writer *w = calloc(1, sizeof *w);
	if (!w)
		return -ENOMEM;
	transfer_init(&w->t, sb, NULL);
	int err = transfer_open(&w->t, c, "PUT", dir, query, &writer_events, w);
	if (err) {
		archive_writer_close(w);
		return err;
	}
	*out = w;
	return 0;
}

/* How it ended; after the stream's end. */
static int writer_end(struct archive_writer *w, struct call *c, uint64_t *entries)
{
	int status, err;
	struct json_object *o = NULL, *v;
	{
		AUTO_UNLOCK(&w->t.lock);
		status = w->t.status;
		err = w->t.err;
		buf_add(&w->t.answer, "", 0);
		if (status == 200 && !err && !buf_error(&w->t.answer))
			o = json_little(w->t.answer.data);
	}
	if (status && status != 200)
		return transfer_refused(&w->t, c);
	if (err)
		return transfer_broke(c, err);
	bool known = o && json_object_object_get_ex(o, "entries", &v);
	*entries = known ? json_object_get_uint64(v) : 0;
	json_object_put(o);
	return known ? 0 : call_fault(c, EPROTO, NULL, "the server's answer makes no sense");
}

/* Waits until there is room for more, or (complete) until the end. 1: it has ended. */
static int writer_await(struct archive_writer *w, struct call *c, bool complete)
{
	int err = 0;
	for (;;) {
		{
			AUTO_UNLOCK(&w->t.lock);
			w->t.waiter = c;
			if (w->t.ended || err || (!complete && w->queue.size - w->at < QUEUE_MAX)) {
				w->t.waiter = NULL;
				return w->t.ended ? 1 : err;
			}
		}
		err = call_wait(c, has_changed, &w->t, -1);
	}
}

int archive_writer_write(struct archive_writer *w, struct call *c, const void *p, size_t n)
{
	uint64_t entries;
	int err = writer_await(w, c, false);
	if (err > 0) {
		err = writer_end(w, c, &entries);
		return err ? err : call_fault(c, EIO, NULL, "the archive had ended already");
	}
	if (err)
		return err;
	bool resume;
	{
		AUTO_UNLOCK(&w->t.lock);
		if (w->at) {
			buf_consume(&w->queue, w->at);
			w->at = 0;
		}
		buf_add(&w->queue, p, n);
		if (buf_error(&w->queue))
			return -ENOMEM;
		resume = w->paused;
		w->paused = false;
	}
	if (resume)
		http_stream_resume(w->t.stream);
	return 0;
}

int archive_writer_finish(struct archive_writer *w, struct call *c, uint64_t *entries)
{
	{
		AUTO_UNLOCK(&w->t.lock);
		w->complete = true;
		w->paused = false;
	}
	http_stream_resume(w->t.stream);
	int err = writer_await(w, c, true);
	return err > 0 ? writer_end(w, c, entries) : err;
}

void archive_writer_close(struct archive_writer *w)
{
	if (!w)
		return;
	transfer_release(&w->t);
	buf_release(&w->queue);
	free(w);
}
