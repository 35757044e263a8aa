/*
 * The stream of a run of code: sends it, cuts what comes into events (code.c takes them), passes an interrupt on, and tells how it
 * ended. Events are taken by who called code_run_do; on the HTTP loop's thread a large one would stop all sandboxes.
 */
#include <errno.h>
#include <json-c/json.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "api_error.h"
#include "cleanup.h"
#include "code_api.h"
#include "code_impl.h"
#include "json_make.h"
#include "json_read.h"

enum {
	LINE_MAX_SIZE = 80 << 20, /* more than a display that sandboxd takes */
	ERROR_MAX = 64 << 10,
	COME_MAX = 1 << 20,
	TRIM_FROM = 1 << 20,
	LINE_DEPTH = 512
};

/* --- events of the stream --- */

static int take_line(struct code_run *r, const char *p, size_t n)
{
	static const char head[] = "data:";
	struct json_object *o;
	if (n && p[n - 1] == '\r')
		n--;
	if (n < strlen(head) || memcmp(p, head, strlen(head)) != 0)
		return 0;
	p += strlen(head);
	n -= strlen(head);
	int err = json_read(p, n, LINE_DEPTH, JSON_MOST, &o);
	if (!err)
		err = code_run_take(r, o);
	json_object_put(o);
	/* What a display took is no other thread's to use again. */
	if (n > TRIM_FROM)
		malloc_trim(0);
	return err;
}

static int take_lines(struct code_run *r)
{
	struct code_stream *s = &r->stream;
	size_t used = 0;
	int err = 0;
	while (!err && !s->over) {
		const char *p = s->line.data + used, *from = p + s->scanned;
		const char *end = memchr(from, '\n', s->line.size - used - s->scanned);
		if (!end)
			break;
		err = take_line(r, p, (size_t)(end - p));
		s->over = err == 1;
		s->scanned = 0;
		used += (size_t)(end - p) + 1;
	}
	buf_consume(&s->line, used);
	s->scanned = s->line.size;
	return err == 1 ? 0 : err;
}

/* What has come meanwhile. */
static void take_come(struct code_run *r, struct http_stream *stream)
{
	struct code_stream *s = &r->stream;
	AUTO_BUF come = BUF_INIT;
	bool resume, failed = atomic_load(&s->status) != 200;
	{
		AUTO_UNLOCK(&r->lock);
		come = s->come;
		s->come = (struct buf)BUF_INIT;
		resume = s->paused;
		s->paused = false;
		atomic_store(&s->more, false);
	}
	if (resume)
		http_stream_resume(stream);
	if (s->err || s->over || (failed && s->line.size > ERROR_MAX))
		return;
	s->err = buf_error(&come);
	if (!s->err)
		buf_add(&s->line, come.data, come.size);
	if (!s->err)
		s->err = buf_error(&s->line);
	if (!s->err && !failed)
		s->err = take_lines(r);
	if (!s->err && s->line.size > LINE_MAX_SIZE)
		s->err = -EFBIG;
}

/* --- on the loop's thread --- */

static void on_status(void *run, int status)
{
	struct code_run *r = run;
	sandbox_note_heard(r->sb);
	atomic_store(&r->stream.status, status);
	AUTO_UNLOCK(&r->lock);
	if (r->worker)
		call_wake(r->worker);
}

static bool on_data(void *run, const void *p, size_t n)
{
	struct code_run *r = run;
	struct code_stream *s = &r->stream;
	AUTO_UNLOCK(&r->lock);
	s->paused = s->come.size >= COME_MAX;
	if (s->paused)
		return false;
	buf_add(&s->come, p, n);
	atomic_store(&s->more, true);
	if (r->worker)
		call_wake(r->worker);
	return true;
}

static void on_end(void *run, int err)
{
	struct code_run *r = run;
	struct code_stream *s = &r->stream;
	s->end = err;
	atomic_store(&s->ended, true);
	AUTO_UNLOCK(&r->lock);
	if (r->worker)
		call_wake(r->worker);
}

static const struct http_stream_events events = {
	.on_status = on_status, .on_data = on_data, .on_end = on_end};

/* --- sending --- */

static int make_id(char id[24])
{
	unsigned char random[8];
	if (getrandom(random, sizeof random, 0) != sizeof random)
		return -EIO;
	memcpy(id, "run-", 5);
	for (size_t i = 0; i < sizeof random; i++)
		snprintf(id + 4 + 2 * i, 3, "%02x", random[i]);
	return 0;
}

static struct json_object *request_of(const struct code_run *r, const struct code_spec *spec)
{
	struct json_object *o = json_object_new_object();
	bool ok = o && json_add(o, "context_id", json_object_new_string(spec->context)) &&
			  json_add(o, "code", json_object_new_string_len(spec->code, (int)spec->size)) &&
			  json_add(o, "runId", json_object_new_string(r->id));
	if (ok && spec->timeout_ms > 0)
		ok = json_add(o, "timeoutMs", json_object_new_int64(spec->timeout_ms));
	if (ok)
		return o;
	json_object_put(o);
	return NULL;
}

static int open_stream(
	struct code_run *r, struct call *c, const struct code_spec *spec, struct http_stream **out)
{
	size_t n = 0;
	struct json_object *o = request_of(r, spec);
	const char *body = json_text_of(o, &n);
	int err = body ? sandbox_stream(r->sb, c, "POST", "/api/execute/code", "application/json", body,
						 n, &events, r, out)
				   : -ENOMEM;
	json_object_put(o);
	return err;
}

/* --- its end --- */

void code_run_interrupt(struct code_run *r)
{
	atomic_store(&r->interrupt, true);
	AUTO_UNLOCK(&r->lock);
	if (r->worker)
		call_wake(r->worker);
}

/* The server must have heard of it before it can be told to end it. */
static bool interrupt_due(struct code_run *r)
{
	return atomic_load(&r->interrupt) && !atomic_load(&r->interrupt_sent) &&
		   atomic_load(&r->stream.status) == 200;
}

static bool is_due(void *run)
{
	struct code_run *r = run;
	return atomic_load(&r->stream.ended) || atomic_load(&r->stream.more) || interrupt_due(r);
}

static int wait_end(
	struct code_run *r, struct call *c, struct http_stream *stream, const char *context)
{
	struct code_stream *s = &r->stream;
	for (;;) {
		int err = call_wait(c, is_due, r, -1);
		if (err)
			return err;
		bool ended = atomic_load(&s->ended); /* before: nothing comes after it */
		take_come(r, stream);
		if (ended) {
			if (!s->err)
				s->err = s->end;
			return 0;
		}
		if (!interrupt_due(r))
			continue;
		atomic_store(&r->interrupt_sent, true);
		err = code_api_interrupt(r->sb, c, context, r->id);
		if (err == -EINTR)
			return err;
		/* Where it could not be interrupted it runs to its end. */
		fault_clear(&c->fault);
	}
}

/* Errors of its own are no failures; that there is no interpreter any more is one. */
static int judge_error(struct code_run *r, struct call *c, const struct code_spec *spec)
{
	static const struct {
		const char *name;
		int err;
	} ends[] = {{"KernelDied", EIO}, {"KernelRestarted", ESTALE}, {"ContextDeleted", ESTALE}};
	AUTO_UNLOCK(&r->lock);
	if (!r->has_error)
		return 0;
	bool own = *r->traceback && strncmp(r->value, "the ", 4) != 0;
	for (size_t i = 0; !own && i < sizeof ends / sizeof *ends; i++)
		if (strcmp(r->name, ends[i].name) == 0)
			return call_fault(c, ends[i].err, "CODE_EXECUTION_ERROR", "%s", r->value);
	if (!own && spec->timeout_ms > 0 && strcmp(r->name, "TimeoutError") == 0)
		return call_fault(c, ETIMEDOUT, "CODE_EXECUTION_ERROR",
			"%s; echo timeout DUR > ctl gives it more", r->value);
	return 0;
}

static int judge(struct code_run *r, struct call *c, const struct code_spec *spec)
{
	struct code_stream *s = &r->stream;
	int status = atomic_load(&s->status);
	if (s->over)
		return judge_error(r, c, spec);
	if (status && status != 200)
		return api_error(c, status, s->line.data ? s->line.data : "", s->line.size);
	if (s->err == -EPROTO)
		return call_fault(c, EPROTO, NULL, "the server's answer makes no sense");
	if (s->err == -EFBIG)
		return call_fault(
			c, EFBIG, NULL, "the server sent more in one piece than is taken; it may still run");
	int err = s->err ? -s->err : ECONNRESET;
	return call_fault(c, err, NULL,
		"the link broke while it ran (%s); it may still run, and what it came to is not known",
		strerror(err));
}

static void set_worker(struct code_run *r, struct call *c)
{
	AUTO_UNLOCK(&r->lock);
	r->worker = c;
}

int code_run_do(struct code_run *r, struct call *c, const struct code_spec *spec)
{
	struct http_stream *stream = NULL;
	struct code_stream *s = &r->stream;
	buf_release(&s->line);
	buf_release(&s->come);
	s->scanned = 0;
	s->err = s->end = 0;
	s->paused = false;
	atomic_store(&s->more, false);
	atomic_store(&s->status, 0);
	atomic_store(&s->ended, false);
	int err = make_id(r->id);
	if (err)
		return err;
	set_worker(r, c);
	err = open_stream(r, c, spec, &stream);
	if (!err) {
		err = wait_end(r, c, stream, spec->context);
		http_stream_close(stream);
	}
	set_worker(r, NULL);
	if (!err)
		err = judge(r, c, spec);
	buf_release(&s->line);
	buf_release(&s->come);
	return err;
}
