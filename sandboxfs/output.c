/*
 * Outputs: see output.h. What becomes of each is the keeper's thread to decide (keeper.h).
 *
 * An output is `busy` while one thread works on it
 * without the lock; nobody else touches it then. Order of locks: keeper, then a call's. Events are called without any.
 * A stream cannot be closed on the loop's thread, and a reader may want to close in its end: hence the ends come from the keeper.
 */
#include "output.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "api_error.h"
#include "cleanup.h"
#include "frame_parser.h"
#include "keeper.h"
#include "log.h"

enum {
	OUTPUT_RETRY_FIRST_MS = 50,
	OUTPUT_RETRY_MAX_MS = 5000,
	OUTPUT_ENDED_MS = 1000,        /* so long an end of the server may take to be known */
	OUTPUT_QUIET_EXTRA_MS = 10000, /* heartbeats come every 5 s */
	OUTPUT_ERROR_BODY_MAX = 64 << 10
};

enum output_phase { OUTPUT_STARTING, OUTPUT_STARTED, OUTPUT_FAILED };

struct output {
	struct kept kept; /* keeper's lock, as all of this group */
	struct http_stream *stream;
	bool busy, stream_ended, closed;
	int stream_err;
	int64_t retry_at; /* 0: not waiting to be opened again */
	struct call *waiter;

	const struct output_events *ev;
	void *arg;
	char *id;
	char boot[40]; /* of the sandbox when it was opened */

	/* Whoever is busy with it, or the loop's thread while a stream is open. */
	struct frame_parser parser;
	int status;
	struct buf error_body;
	uint64_t position; /* bytes had so far: where to go on */
	bool malformed, told_started, may_run, moved;
	bool full; /* there was no room: that nothing is heard says nothing of the link */
	bool exited;
	struct output_end end;
	int64_t heard_at; /* when a byte last came; before the first: when it was opened */
	unsigned tries;
	struct buf body;  /* of the start, until it is answered */
	int64_t deadline; /* of the start */

	_Atomic int phase;
};

/* ---- the stream's events, on the loop's thread ---- */

static void output_on_started(void *arg, uint64_t time, uint32_t pid)
{
	struct output *o = arg;

	o->tries = 0;
	if (o->told_started)
		return;
	o->told_started = true;
	buf_release(&o->body); /* the request has its own copy */
	if (o->ev->started)
		o->ev->started(o->arg, time, pid);
	AUTO_UNLOCK(&o->kept.keeper->lock);
	atomic_store(&o->phase, OUTPUT_STARTED);
	if (o->waiter)
		call_wake(o->waiter);
}

static void output_on_bytes(void *arg, uint64_t time, unsigned stream, const void *p, size_t n)
{
	struct output *o = arg;

	o->position += n;
	o->moved = true;
	o->ev->data(o->arg, time, stream, p, n);
}

static void output_on_gap(void *arg, unsigned stream, uint64_t n)
{
	struct output *o = arg;

	if (n > INT64_MAX || o->position > INT64_MAX - n) {
		o->malformed = true;
		return;
	}
	o->position += n;
	if (o->ev->gap)
		o->ev->gap(o->arg, stream, n);
}

static void output_on_exited(void *arg, uint64_t time, int code, unsigned flags)
{
	struct output *o = arg;

	o->exited = true;
	o->end.time = time;
	if ((flags & FRAME_EXIT_LOST) || code < 0 || code > 255) {
		o->end.err = -ESTALE;
		o->end.reason = "the sandbox has lost its exit code";
		return;
	}
	o->end.code = code;
	o->end.timed_out = flags & FRAME_EXIT_TIMED_OUT;
}

static const struct frame_events output_frame_events = {
	.started = output_on_started,
	.data = output_on_bytes,
	.gap = output_on_gap,
	.exited = output_on_exited,
};

/* The link works, whatever it carries. */
static void output_heard(struct output *o)
{
	o->heard_at = call_now_ms();
	sandbox_note_heard(o->kept.keeper->sb);
}

static void output_on_status(void *arg, int status)
{
	struct output *o = arg;

	o->status = status;
	output_heard(o);
}

static bool output_on_data(void *arg, const void *p, size_t n)
{
	struct output *o = arg;

	output_heard(o);
	if (o->status != 200) {
		if (o->error_body.size < OUTPUT_ERROR_BODY_MAX)
			buf_add(&o->error_body, p, n);
		return true;
	}
	if (o->malformed)
		return true;
	o->full = o->ev->room && !o->ev->room(o->arg);
	if (o->full)
		return false;
	if (frame_parser_feed(&o->parser, p, n, &output_frame_events, o) < 0)
		o->malformed = true;
	if (o->malformed || o->exited) { /* the keeper need not wait for the end of the body */
		AUTO_UNLOCK(&o->kept.keeper->lock);
		o->stream_ended = true;
		pthread_cond_broadcast(&o->kept.keeper->wake);
	}
	return true;
}

static void output_on_end(void *arg, int err)
{
	struct output *o = arg;

	AUTO_UNLOCK(&o->kept.keeper->lock);
	o->stream_err = err;
	o->stream_ended = true;
	pthread_cond_broadcast(&o->kept.keeper->wake);
}

static const struct http_stream_events output_stream_events = {
	.on_status = output_on_status,
	.on_data = output_on_data,
	.on_end = output_on_end,
};

/* ---- opening ---- */

/* o is busy with the caller. */
static int output_request(struct output *o, struct http_stream **out)
{
	struct sandbox *sb = o->kept.keeper->sb;
	const struct http_target *target = sandbox_target(sb);
	AUTO_BUF path = BUF_INIT;
	struct http_request r = {
		.target = target,
		.method = "POST",
		.timeout_ms = sandbox_options(sb)->timeout_ms + OUTPUT_QUIET_EXTRA_MS,
		.max_reply = SIZE_MAX,
	};

	if (!target)
		return -EHOSTUNREACH;
	if (atomic_load(&o->phase) == OUTPUT_STARTING) {
		buf_str(&path, "/api/sandboxfs/commands");
		r.type = "application/octet-stream";
		r.body = o->body.data;
		r.size = o->body.size;
	} else {
		buf_printf(&path, "/api/sandboxfs/commands/%s/attach?from=%llu", o->id,
			(unsigned long long)o->position);
	}
	if (buf_error(&path))
		return -ENOMEM;
	r.path = path.data;
	frame_parser_init(&o->parser);
	buf_clear(&o->error_body);
	o->status = 0;
	o->moved = false;
	o->full = false;
	return http_stream_open(server_http(sandbox_server(sb)), &r, &output_stream_events, o, out);
}

/* Opens its stream; o is busy with the caller, and is not when this returns. */
static void output_open(struct output *o)
{
	struct http_stream *stream = NULL;
	int err = output_request(o, &stream);

	AUTO_UNLOCK(&o->kept.keeper->lock);
	o->stream = stream;
	if (err) {
		o->stream_err = err;
		o->stream_ended = true;
	}
	o->busy = false;
	pthread_cond_broadcast(&o->kept.keeper->wake);
}

/* ---- the keeper ---- */

static void output_free(struct output *o)
{
	keeper_remove(&o->kept);
	buf_release(&o->error_body);
	buf_release(&o->body);
	free(o->id);
	free(o);
}

/* Tells the end. o is busy with the caller (the keeper), and is not, or is freed, when this returns. */
static void output_finish(struct output *o)
{
	struct keeper *k = o->kept.keeper;

	pthread_mutex_lock(&k->lock);
	if (o->waiter && atomic_load(&o->phase) == OUTPUT_STARTING) { /* the starter takes the result */
		atomic_store(&o->phase, OUTPUT_FAILED);
		call_wake(o->waiter);
	} else {
		pthread_mutex_unlock(&k->lock);
		o->ev->end(o->arg, &o->end);
		pthread_mutex_lock(&k->lock);
	}
	o->kept.finished = true;
	o->busy = false;
	bool closed = o->closed;
	pthread_cond_broadcast(&k->wake);
	pthread_mutex_unlock(&k->lock);
	if (closed)
		output_free(o);
}

static void output_fail(struct output *o, int err, const char *reason)
{
	o->end.err = err;
	o->end.reason = reason;
	o->end.may_run = o->may_run || o->told_started;
	output_finish(o);
}

static bool output_sandbox_gone(struct output *o)
{
	struct sandbox_status st;

	if (o->boot[0] && sandbox_replaced_since(o->kept.keeper->sb, o->boot))
		return true;
	sandbox_get_status(o->kept.keeper->sb, &st);
	return st.state == SANDBOX_UNKNOWN || st.state == SANDBOX_IN_USE;
}

static void output_retry(struct output *o)
{
	int64_t wait = OUTPUT_RETRY_FIRST_MS;

	for (unsigned i = 0; i < o->tries && wait < OUTPUT_RETRY_MAX_MS; i++)
		wait *= 2;
	if (wait > OUTPUT_RETRY_MAX_MS)
		wait = OUTPUT_RETRY_MAX_MS;
	if (o->moved)
		o->tries = 0;
	o->tries++;
	AUTO_UNLOCK(&o->kept.keeper->lock);
	o->retry_at = call_now_ms() + wait;
	o->busy = false;
	pthread_cond_broadcast(&o->kept.keeper->wake);
}

/* Somebody on the way to the server has answered, or it will answer otherwise soon. */
static bool output_may_ask_again(struct output *o)
{
	return o->status == 503 ||
		   api_error_is_passing(o->status, o->error_body.data, o->error_body.size);
}

/* Its stream has ended and is closed: what follows from it? o is busy with the keeper. */
static void output_settle(struct output *o, int err)
{
	bool starting = atomic_load(&o->phase) == OUTPUT_STARTING;

	if (!o->exited && !o->full && err && err != -ECANCELED && err != -ENOMEM)
		sandbox_note_unheard(o->kept.keeper->sb, o->heard_at, err);
	if (o->exited) {
		output_finish(o);
	} else if (o->malformed) {
		o->may_run = true;
		output_fail(o, -EPROTO, "the server's answer makes no sense");
	} else if (err == -ECANCELED) {
		output_fail(o, -ECANCELED, "the mount has ended");
	} else if (err == 0 && o->status != 0 && o->status != 200 && !output_may_ask_again(o)) {
		if (starting) {
			o->may_run = false; /* refused */
			output_fail(o, -EREMOTEIO, NULL);
		} else if (o->status >= 500) {
			output_retry(o);
		} else {
			output_fail(o, -ESTALE, "the sandbox no longer knows it");
		}
	} else if (starting && err == -EHOSTUNREACH && !o->may_run) {
		output_fail(o, -EHOSTUNREACH, "the sandbox's server takes no connections");
	} else {
		if (err != -EHOSTUNREACH && o->status != 503 && o->status != 429)
			o->may_run = true;
		if (output_sandbox_gone(o)) {
			output_fail(o, -ESTALE, "the sandbox has ended");
			return;
		}
		log_debug("%s: link of command %s broke: %s", sandbox_name(o->kept.keeper->sb), o->id,
			strerror(err ? -err : EPIPE));
		output_retry(o);
	}
}

/* An end that came while its stream was being closed says nothing new. */
static void output_forget_end(struct output *o)
{
	AUTO_UNLOCK(&o->kept.keeper->lock);
	o->stream_ended = false;
}

/* Looks after one output; the lock is held and may be let go. True: it was, look again from the start. */
static bool output_tend(struct kept *item, int64_t now, int64_t *next)
{
	struct output *o = (struct output *)item;
	struct keeper *k = item->keeper;

	if (o->busy)
		return false;
	bool late = atomic_load(&o->phase) == OUTPUT_STARTING && o->deadline <= now;
	if (o->stream_ended || late || k->stopping) {
		struct http_stream *stream = steal(o->stream);
		int err = o->stream_ended ? o->stream_err : 0;
		bool ended = o->stream_ended, stopping = k->stopping;

		o->busy = true;
		o->stream_ended = false;
		o->stream_err = 0;
		o->retry_at = 0;
		pthread_mutex_unlock(&k->lock);
		if (stream)
			http_stream_close(stream);
		output_forget_end(o);
		if (stopping && !o->exited)
			output_fail(o, -ECANCELED, "the mount has ended");
		else if ((ended && !(late && err)) ||
				 /* or it was answered while the stream was being closed */
				 atomic_load(&o->phase) != OUTPUT_STARTING || o->exited)
			output_settle(o, err);
		else {
			o->may_run = o->may_run || err != -EHOSTUNREACH;
			sandbox_note_unheard(k->sb, o->heard_at, err ? err : -ETIMEDOUT);
			output_fail(o, -ETIMEDOUT, "the sandbox does not answer");
		}
		pthread_mutex_lock(&k->lock);
		return true;
	}
	if (!o->stream && o->retry_at && o->retry_at <= now) {
		o->busy = true;
		o->retry_at = 0;
		pthread_mutex_unlock(&k->lock);
		output_open(o);
		pthread_mutex_lock(&k->lock);
		return true;
	}
	if (o->retry_at)
		keeper_sooner(next, o->retry_at);
	if (atomic_load(&o->phase) == OUTPUT_STARTING)
		keeper_sooner(next, o->deadline);
	return false;
}

/* ---- what callers do ---- */

/* New, in the keeper's list, busy with the caller. */
static int output_new(struct sandbox *sb, const char *id, const struct output_events *ev, void *arg,
	struct output **out)
{
	struct output *o = calloc(1, sizeof(*o));
	struct sandbox_status st;
	int err;

	if (!o || !(o->id = strdup(id))) {
		free(o);
		return -ENOMEM;
	}
	o->ev = ev;
	o->arg = arg;
	o->busy = true;
	sandbox_get_status(sb, &st);
	memcpy(o->boot, st.boot, sizeof(o->boot));
	o->heard_at = call_now_ms();
	o->kept.tend = output_tend;
	err = keeper_add(sb, &o->kept);
	if (err) {
		free(o->id);
		free(o);
		return err;
	}
	*out = o;
	return 0;
}

int output_attach(struct sandbox *sb, const char *id, uint64_t from, const struct output_events *ev,
	void *arg, struct output **out)
{
	struct output *o;
	int err = output_new(sb, id, ev, arg, &o);

	if (err)
		return err;
	o->position = from;
	atomic_store(&o->phase, OUTPUT_STARTED);
	*out = o;
	output_open(o);
	return 0;
}

static bool output_start_settled(void *arg)
{
	return atomic_load(&((struct output *)arg)->phase) != OUTPUT_STARTING;
}

/* The fault of a start that failed; o is still there. */
static int output_start_fault(struct call *c, struct output *o)
{
	if (o->end.err == -EREMOTEIO) {
		int err = api_error(c, o->status, o->error_body.data, o->error_body.size);

		if (err != -ENOTSUP) /* else it has no such route, and says no more than that */
			return err;
		fault_clear(&c->fault);
		return call_fault(c, ENOTSUP, NULL,
			"this server cannot run commands so that nothing of them is lost; it takes sandboxd in "
			"the "
			"sandbox");
	}
	return call_fault(c, -o->end.err, NULL, "%s%s",
		o->end.reason ? o->end.reason : strerror(-o->end.err),
		o->end.may_run ? "; the command may have run" : "");
}

static int output_start_once(struct sandbox *sb, struct call *c, const char *id, struct buf *body,
	const struct output_events *ev, void *arg, struct output **out, bool *may_run)
{
	struct output *o;
	int err = output_new(sb, id, ev, arg, &o);

	if (err)
		return call_fault(c, -err, NULL, "the command cannot be started: %s", strerror(-err));
	struct keeper *k = o->kept.keeper;
	o->body = *body;
	*body = (struct buf)BUF_INIT;
	o->deadline = call_now_ms() + sandbox_options(sb)->timeout_ms;
	o->waiter = c;
	output_open(o);
	err = call_wait(c, output_start_settled, o, -1);
	pthread_mutex_lock(&k->lock);
	o->waiter = NULL;
	int phase = atomic_load(&o->phase);
	pthread_mutex_unlock(&k->lock);
	if (phase == OUTPUT_FAILED) {
		*may_run = o->end.may_run;
		if (o->end.err == -EHOSTUNREACH) { /* not done: the caller may try again */
			*body = o->body;
			o->body = (struct buf)BUF_INIT;
			err = -EHOSTUNREACH;
		} else if (o->end.err == 0) { /* it has ended before a STARTED frame came */
			err = call_fault(c, EPROTO, NULL, "the server's answer makes no sense");
			*may_run = true;
		} else {
			err = output_start_fault(c, o);
		}
		output_close(o);
		return err;
	}
	*out = o;
	return err; /* 0, or -EINTR: it goes on */
}

static bool output_never(void *arg)
{
	(void)arg; /* such a wait ends with its deadline or a cancel */
	return false;
}

int output_start(struct sandbox *sb, struct call *c, const char *id, struct buf *body,
	const struct output_events *ev, void *arg, struct output **out, bool *may_run)
{
	AUTO_BUF mine = *body;
	int err = buf_error(body);

	*body = (struct buf)BUF_INIT;
	*out = NULL;
	*may_run = false;
	/*
	 * One of our own that takes no connection has ended; its driver says so a moment later, and then sandbox_ready starts it.
	 * Of any other sandbox_ready knows at once that it is unreachable.
	 */
	for (int64_t until = call_now_ms() + OUTPUT_ENDED_MS; !err;) {
		err = sandbox_ready(sb, c);
		if (err)
			return err;
		err = output_start_once(sb, c, id, &mine, ev, arg, out, may_run);
		if (err != -EHOSTUNREACH)
			break;
		if (call_now_ms() >= until)
			return call_fault(c, EHOSTUNREACH, NULL, "the sandbox's server takes no connections");
		err = call_wait(c, output_never, NULL, call_now_ms() + OUTPUT_RETRY_FIRST_MS);
		if (err == -ETIMEDOUT)
			err = 0;
	}
	if ((err == -EINTR || *may_run) && output_cancel(sb, id) < 0)
		log_error("%s: command %s could not be cancelled", sandbox_name(sb), id);
	return err;
}

void output_resume(struct output *o)
{
	struct keeper *k = o->kept.keeper;

	pthread_mutex_lock(&k->lock);
	while (o->busy && !o->kept.finished)
		pthread_cond_wait(&k->wake, &k->lock);
	if (o->stream && !o->kept.finished) {
		o->busy = true;
		pthread_mutex_unlock(&k->lock);
		http_stream_resume(o->stream);
		pthread_mutex_lock(&k->lock);
		o->busy = false;
		pthread_cond_broadcast(&k->wake);
	}
	pthread_mutex_unlock(&k->lock);
}

void output_close(struct output *o)
{
	if (!o)
		return;
	struct keeper *k = o->kept.keeper;

	pthread_mutex_lock(&k->lock);
	if (o->busy && keeper_is_self(k)) {
		o->closed = true; /* within its end: the keeper frees it */
		pthread_mutex_unlock(&k->lock);
		return;
	}
	while (o->busy)
		pthread_cond_wait(&k->wake, &k->lock);
	struct http_stream *stream = steal(o->stream);
	o->kept.finished = true; /* hands off, keeper */
	o->busy = true;
	pthread_mutex_unlock(&k->lock);
	if (stream)
		http_stream_close(stream);
	output_free(o);
}
