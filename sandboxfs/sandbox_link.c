/*
 * The link to one sandbox's server: requests, what is repeated of them, and whether anything is heard. See sandbox.h.
 *
 * The first exchange that hears nothing for timeout= ends with ETIMEDOUT, marks the sandbox unreachable and ends all other
 * exchanges with it; from then on each fails at once with EHOSTUNREACH until the server's prober has had an
 * answer. One slow answer alone, while others arrive, ends only itself. Streams that others opened tell what they hear.
 *
 * Owns no data: the state is the sandbox's (sandbox_impl.h), under its lock.
 */
#include <errno.h>
#include <string.h>

#include "api_error.h"
#include "cleanup.h"
#include "fileop.h"
#include "json_make.h"
#include "json_read.h"
#include "log.h"
#include "sandbox_impl.h"

enum { ODD_MAX = 3, JSON_REPLY_MOST = 16 << 20 };

void sandbox_note_heard(struct sandbox *sb)
{
	AUTO_UNLOCK(&sb->lock);

	sb->answered_ms = sb->used_ms = call_now_ms();
	if (sb->state == SANDBOX_UNREACHABLE && sb->started && !sb->died)
		sandbox_set_answering(sb);
}

/* Nothing was heard since began_ms. True if that is now the state of the link (and not of one request). */
static bool note_silence(struct sandbox *sb, int64_t began_ms, const char *why)
{
	AUTO_UNLOCK(&sb->lock);

	if (sb->answered_ms > began_ms || sb->died || !sb->started)
		return false;
	if (sb->state != SANDBOX_UNREACHABLE)
		log_error("%s: unreachable: %s", sb->name, why);
	sandbox_set_state(sb, SANDBOX_UNREACHABLE, why);
	return true;
}

void sandbox_note_unheard(struct sandbox *sb, int64_t since_ms, int err)
{
	struct server *s = sb->server;
	bool late = call_now_ms() - since_ms >= s->options->timeout_ms;

	/* One of our own that takes no connection has ended, and its driver is about to say so. */
	if (err == -EHOSTUNREACH && (late || !s->driver->ours))
		note_silence(sb, since_ms, "no connection to its server");
	else if (late && note_silence(sb, since_ms, "no answer within timeout="))
		http_abort(s->http, sandbox_target(sb), -ETIMEDOUT);
}

static int fault_unreachable(struct sandbox *sb, struct call *c)
{
	return call_fault(c, EHOSTUNREACH, NULL,
		"%s: its server does not answer; calls fail until it does (it is asked again and again)",
		sb->name);
}

/* --- who answers --- */

/* The ways to it so far; 0: that is not known otherwise than by requests. */
static unsigned ways_now(struct sandbox *sb, unsigned *seen)
{
	AUTO_UNLOCK(&sb->lock);
	*seen = sb->ways;
	return sb->started && sb->instance.ways ? sb->instance.ways(sb->instance.data) : 0;
}

/* An empty batch: its answer says whose it is. */
static int ask_who(struct sandbox *sb, struct call *c)
{
	static const uint8_t nobody[FILEOP_ID_SIZE];
	AUTO_BUF request = BUF_INIT;
	struct http_reply got = {.body = BUF_INIT};
	struct fileop_reply head;
	struct reader reader;

	fileop_begin_request(&request, nobody, 0, 0);
	fileop_end_call(&request, fileop_begin_call(&request, FILEOP_PING, 0));
	fileop_end_request(&request, 1);
	struct http_request r = {.method = "POST",
		.target = sandbox_target(sb),
		.path = "/api/sandboxfs/batch",
		.type = "application/octet-stream",
		.body = request.data,
		.size = request.size,
		.timeout_ms = PING_TIMEOUT_MS,
		.max_reply = 64 << 10};
	int err = buf_error(&request);

	if (!err)
		err = r.target ? http_exchange(sb->server->http, c, &r, &got) : -ECONNRESET;
	if (!err && got.status == 200) {
		reader_init(&reader, got.body.data, got.body.size);
		err = fileop_get_reply(&reader, 1, &head);
		if (!err) {
			sandbox_note_heard(sb);
			sandbox_note_boot(sb, head.boot, head.workspace_ino, head.avail);
		}
	} else if (!err) {
		err = -ECONNRESET;
	}
	buf_release(&got.body);
	return err;
}

static bool is_unreachable(struct sandbox *sb)
{
	AUTO_UNLOCK(&sb->lock);
	return sb->state == SANDBOX_UNREACHABLE;
}

int sandbox_look_who(struct sandbox *sb, struct call *c)
{
	int64_t began = call_now_ms(), pause = RETRY_FIRST_MS;

	for (;;) {
		unsigned seen, now = ways_now(sb, &seen);
		/* Where there is no way, asking has one made; once that has failed for too long the prober asks alone. */
		if (now != seen && now % 2 == 0 && now && is_unreachable(sb))
			return fault_unreachable(sb, c);
		int err = now == seen || !now ? 0 : ask_who(sb, c);

		if (!err) {
			AUTO_UNLOCK(&sb->lock);
			if (now)
				sb->ways = now;
			return 0;
		}
		if (err == -EINTR || err == -ENOMEM)
			return err;
		if (is_unreachable(sb))
			return fault_unreachable(sb, c);
		/* While it is made anew its requests wait as those do that were sent. */
		if (call_now_ms() - began > sb->server->options->timeout_ms) {
			note_silence(sb, began, "the link to it is broken");
			return fault_unreachable(sb, c);
		}
		err = sandbox_pause(sb, c, pause);
		if (err)
			return err;
		pause = pause * 2 > RETRY_MAX_MS ? RETRY_MAX_MS : pause * 2;
	}
}

/* May this request be sent now? 0 with the server it goes to. */
static int may_send(struct sandbox *sb, struct call *c, unsigned long *generation,
	const struct http_target **target)
{
	for (;;) {
		int err = sandbox_start(sb, c);

		if (!err)
			err = sandbox_look_who(sb, c);
		if (err)
			return err;
		AUTO_UNLOCK(&sb->lock);
		/* While it was asked who it is, it may have been let go of, or have ended. */
		if (!sb->started || sb->died || sb->starting)
			continue;
		sb->used_ms = call_now_ms();
		*generation = sb->generation;
		*target = &sb->targets->target;
		return sb->state == SANDBOX_UNREACHABLE ? fault_unreachable(sb, c) : 0;
	}
}

static bool same_server(struct sandbox *sb, unsigned long generation)
{
	AUTO_UNLOCK(&sb->lock);
	return sb->generation == generation && !sb->died;
}

/*
 * The answer is of somebody on the way (api_error.h). True: the request may be sent again, *pause later, since it was not done, or
 * since that would be harmless.
 */
static bool may_ask_again(struct sandbox *sb, const struct http_reply *reply, bool harmless,
	bool *may_be_done, int64_t began, int64_t *pause)
{
	bool not_done = reply->status == 429 || reply->status == 503;

	if (!api_error_is_passing(reply->status, reply->body.data, reply->body.size))
		return false;
	if (*pause < reply->retry_after_ms)
		*pause = reply->retry_after_ms;
	log_debug("%s: status %d on the way to its server", sb->name, reply->status);
	*may_be_done |= !not_done;
	return (not_done || harmless) &&
		   call_now_ms() + *pause - began < sb->server->options->timeout_ms;
}

/*
 * One exchange, repeated as far as that is harmless: after a refused connection always; after one broken midway
 * if the request changes nothing (safe), or if it goes to the same server again, which remembers it (`numbered`).
 */
static int try_exchange(struct sandbox *sb, struct call *c, struct http_request *r, bool safe,
	bool numbered, bool changes, struct http_reply *reply)
{
	struct server *s = sb->server;
	int64_t began = call_now_ms(), pause = RETRY_FIRST_MS;
	unsigned long generation, first = 0;
	bool may_be_done = false;
	unsigned odd = 0;

	r->timeout_ms = s->options->timeout_ms;
	for (;;) {
		int err = may_send(sb, c, &generation, &r->target);

		if (!err && changes)
			err = sandbox_fault_replaced(sb, c);
		if (err)
			return err;
		if (may_be_done && !safe && generation != first)
			return call_fault(c, EIO, NULL,
				"%s: its server ended during this request; whether it was done is not known",
				sb->name);
		first = generation;
		err = http_exchange(s->http, c, r, reply);
		if (!err) {
			int64_t wait = pause;

			sandbox_note_heard(sb);
			if (!may_ask_again(sb, reply, safe || numbered, &may_be_done, began, &wait))
				return 0;
			buf_release(&reply->body);
			err = sandbox_pause(sb, c, wait);
			if (err)
				return err;
			pause = pause * 2 > RETRY_MAX_MS ? RETRY_MAX_MS : pause * 2;
			continue;
		}
		if (err == -EPROTO && ++odd < ODD_MAX) /* cut off in its first line, it looks like this */
			err = -ECONNRESET;
		if (err == -EINTR || err == -ENOMEM || err == -EFBIG || err == -ECANCELED)
			return err;
		if (err == -ESTALE)
			return sandbox_fault_over(sb, c, sandbox_gone(sb));
		if (err == -EPROTO)
			return call_fault(
				c, EPROTO, NULL, "%s: its server answers with what is not HTTP", sb->name);
		if (err == -ETIMEDOUT) {
			if (note_silence(sb, began, "no answer within timeout="))
				http_abort(s->http, r->target, -ETIMEDOUT);
			return call_fault(c, ETIMEDOUT, NULL,
				"%s: no answer within %lld s; -o timeout= waits longer", sb->name,
				(long long)s->options->timeout_ms / 1000);
		}
		if (err == -ECONNRESET)
			may_be_done = true;
		if (may_be_done && !safe && !numbered)
			return call_fault(c, EIO, NULL,
				"%s: the link broke during this request; whether it was done is not known",
				sb->name);
		if (call_now_ms() - began > s->options->timeout_ms ||
			(!s->driver->ours && err == -EHOSTUNREACH && same_server(sb, generation))) {
			note_silence(sb, began, "no connection to its server");
			return fault_unreachable(sb, c);
		}
		err = sandbox_pause(sb, c, pause);
		if (err)
			return err;
		pause = pause * 2 > RETRY_MAX_MS ? RETRY_MAX_MS : pause * 2;
	}
}

/* The same; a failure of the link is what ctl/error must show, whoever asked. */
static int exchange(struct sandbox *sb, struct call *c, struct http_request *r, bool safe,
	bool numbered, bool changes, struct http_reply *reply)
{
	int err = try_exchange(sb, c, r, safe, numbered, changes, reply);

	if (err && c->fault.err)
		sandbox_note_fault(sb, &c->fault);
	return err;
}

int sandbox_batch(struct sandbox *sb, struct call *c, bool mutates, bool changes, const void *body,
	size_t size, struct buf *reply)
{
	struct http_request r = {.method = "POST",
		.path = "/api/sandboxfs/batch",
		.type = "application/octet-stream",
		.body = body,
		.size = size,
		.max_reply = 20 << 20};
	struct http_reply got = {.body = BUF_INIT};
	int err = exchange(sb, c, &r, !mutates, true, changes, &got);

	if (!err && got.status == 200) {
		*reply = got.body;
		return 0;
	}
	if (!err && got.status == 404)
		err = call_fault(c, ENOTSUP, NULL,
			"%s: this server has no file protocol; files need sandboxd in the sandbox", sb->name);
	else if (!err)
		err = api_error(c, got.status, got.body.data, got.body.size);
	buf_release(&got.body);
	return err;
}

/* sandbox_raw; r->max_reply as in http.h. */
static int answer(struct sandbox *sb, struct call *c, struct http_request *r, struct buf *reply)
{
	struct http_reply got = {.body = BUF_INIT};
	int err = exchange(sb, c, r, strcmp(r->method, "GET") == 0, false, false, &got);

	if (!err && got.status == 200 && reply) {
		*reply = got.body;
		return 0;
	}
	if (!err && got.status != 200)
		err = api_error(c, got.status, got.body.data, got.body.size);
	buf_release(&got.body);
	return err;
}

int sandbox_raw(struct sandbox *sb, struct call *c, const char *method, const char *path,
	const char *type, const void *body, size_t size, struct buf *reply)
{
	struct http_request r = {
		.method = method, .path = path, .type = type, .body = body, .size = size};
	return answer(sb, c, &r, reply);
}

int sandbox_api(struct sandbox *sb, struct call *c, const char *method, const char *path,
	struct json_object *body, struct json_object **reply)
{
	const char *text = json_text_of(body, NULL);
	struct http_request r = {.method = method,
		.path = path,
		.type = text ? "application/json" : NULL,
		.body = text,
		.size = text ? strlen(text) : 0,
		.max_reply = JSON_REPLY_MOST};
	struct json_object *o = NULL;
	AUTO_BUF got = BUF_INIT;

	if (body && !text)
		return -ENOMEM;
	int err = answer(sb, c, &r, &got);
	if (!err && !reply)
		return 0;
	if (!err)
		err = json_read(got.data ? got.data : "", got.size, JSON_DEPTH, JSON_MOST, &o);
	if (err == -EFBIG && !c->fault.err)
		return call_fault(
			c, EPROTO, NULL, "%s: its server's answer is too much to be taken in", sb->name);
	if (err && err != -EPROTO)
		return err;
	if (!json_object_is_type(o, json_type_object)) {
		json_object_put(o);
		return call_fault(c, EPROTO, "INVALID_JSON_RESPONSE",
			"%s: its server's answer is not a JSON object", sb->name);
	}
	*reply = o;
	return 0;
}

int sandbox_stream(struct sandbox *sb, struct call *c, const char *method, const char *path,
	const char *type, const void *body, size_t size, const struct http_stream_events *ev, void *arg,
	struct http_stream **out)
{
	const struct http_target *target = NULL;
	unsigned long generation;
	int err = sandbox_ready(
		sb, c); /* asks, if nothing was heard of late: a stream alone would just wait */

	if (!err)
		err = may_send(sb, c, &generation, &target);
	struct http_request r = {.target = target,
		.method = method,
		.path = path,
		.type = type,
		.body = body,
		.size = size,
		.timeout_ms = -1};

	return err ? err : http_stream_open(sb->server->http, &r, ev, arg, out);
}

/* --- whether one that did not answer does again --- */

static void on_ping_status(void *arg, int status)
{
	struct sandbox *sb = arg;
	sb->ping_status = status;
}

static bool on_ping_data(void *arg, const void *p, size_t n)
{
	(void)arg;
	(void)p;
	(void)n;
	return true;
}

static void on_ping_end(void *arg, int err)
{
	struct sandbox *sb = arg;

	if (!err && sb->ping_status == 200)
		sandbox_note_heard(sb);
	AUTO_UNLOCK(&sb->lock);
	sb->ping_over = true;
}

void sandbox_probe_end(struct sandbox *sb)
{
	if (sb->ping)
		http_stream_close(steal(sb->ping));
}

/* A stream, since one that is silent must not hold up who asks the others. */
void sandbox_probe(struct sandbox *sb)
{
	static const struct http_stream_events events = {
		.on_status = on_ping_status, .on_data = on_ping_data, .on_end = on_ping_end};
	struct http_request r = {.method = "GET", .path = "/api/ping", .timeout_ms = PING_TIMEOUT_MS};
	bool over, due;

	pthread_mutex_lock(&sb->lock);
	over = sb->ping_over || call_now_ms() >= sb->ping_until_ms; /* or its answer drips */
	due = sb->state == SANDBOX_UNREACHABLE && sb->started && !sb->died && !sb->starting;
	r.target = due ? &sb->targets->target : NULL;
	pthread_mutex_unlock(&sb->lock);
	if (over)
		sandbox_probe_end(sb);
	if (!due || sb->ping)
		return;
	sb->ping_status = 0;
	sb->ping_over = false;
	sb->ping_until_ms = call_now_ms() + PING_TIMEOUT_MS;
	(void)http_stream_open(sb->server->http, &r, &events, sb, &sb->ping); /* the next time then */
}
