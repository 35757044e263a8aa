/*
 * What tests of runs, feeds and relays stand on: a sandbox that is only an address, and a server of commands whose every
 * connection can be cut at a chosen byte. Included by one program each: it defines the functions of sandbox.h that are used.
 */
#ifndef RUN_RIG_H
#define RUN_RIG_H

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "buf.h"
#include "frames.h"
#include "http.h"
#include "sandbox.h"

/* --- the sandbox --- */

struct server {
	struct http *http;
};

struct sandbox {
	struct server server;
	struct options options;
	struct http_target target;
	_Atomic bool replaced;
	_Atomic int ready_calls;
	_Atomic unsigned heard;
	_Atomic int unheard; /* the errno that was told last */
	pthread_mutex_t lock;
	struct {
		const void *key;
		void *data;
		void (*release)(void *data);
	} attached[8];
	unsigned attachments;
};

const char *sandbox_name(const struct sandbox *sb)
{
	(void)sb;
	return "test";
}

struct server *sandbox_server(struct sandbox *sb)
{
	return &sb->server;
}

struct http *server_http(struct server *s)
{
	return s->http;
}

const struct options *sandbox_options(struct sandbox *sb)
{
	return &sb->options;
}

int64_t sandbox_end_by(struct sandbox *sb)
{
	(void)sb;
	return call_now_ms() + 5000;
}

void sandbox_use(struct sandbox *sb, int more)
{
	(void)sb;
	(void)more;
}

const struct http_target *sandbox_target(struct sandbox *sb)
{
	return &sb->target;
}

int sandbox_ready(struct sandbox *sb, struct call *c)
{
	(void)c;
	atomic_fetch_add(&sb->ready_calls, 1);
	return 0;
}

void sandbox_get_status(struct sandbox *sb, struct sandbox_status *out)
{
	(void)sb;
	memset(out, 0, sizeof *out);
	out->state = SANDBOX_RUNNING;
	strcpy(out->boot, "00");
}

void sandbox_note_heard(struct sandbox *sb)
{
	atomic_fetch_add(&sb->heard, 1);
}

void sandbox_note_unheard(struct sandbox *sb, int64_t since_ms, int err)
{
	(void)since_ms;
	atomic_store(&sb->unheard, err);
}

bool sandbox_replaced_since(struct sandbox *sb, const char *boot)
{
	(void)boot;
	return atomic_load(&sb->replaced);
}

int sandbox_api(struct sandbox *sb, struct call *c, const char *method, const char *path,
	struct json_object *body, struct json_object **reply)
{
	(void)sb, (void)c, (void)method, (void)path, (void)body, (void)reply;
	return -ENOTSUP;
}

int sandbox_raw(struct sandbox *sb, struct call *c, const char *method, const char *path,
	const char *type, const void *body, size_t size, struct buf *reply)
{
	(void)sb, (void)c, (void)method, (void)path, (void)type, (void)body, (void)size, (void)reply;
	return -ENOTSUP;
}

void *sandbox_attach(struct sandbox *sb, const void *key, void *(*make)(struct sandbox *sb),
	void (*stop)(void *data), void (*release)(void *data))
{
	(void)stop; /* these sandboxes are not destroyed before their end */
	void *data;

	pthread_mutex_lock(&sb->lock);
	for (unsigned i = 0; i < sb->attachments; i++) {
		if (sb->attached[i].key == key) {
			data = sb->attached[i].data;
			pthread_mutex_unlock(&sb->lock);
			return data;
		}
	}
	data = make(sb);
	sb->attached[sb->attachments].key = key;
	sb->attached[sb->attachments].data = data;
	sb->attached[sb->attachments++].release = release;
	pthread_mutex_unlock(&sb->lock);
	return data;
}

static void sandbox_open(struct sandbox *sb, char *path)
{
	memset(sb, 0, sizeof *sb);
	pthread_mutex_init(&sb->lock, NULL);
	sb->options.server = "unix:test";
	sb->options.timeout_ms = 20000;
	sb->options.output_max = 64 << 20;
	sb->target.base = "http://localhost";
	sb->target.unix_path = path;
	assert_int_equal(http_new(&sb->server.http), 0);
}

static void sandbox_close(struct sandbox *sb)
{
	while (sb->attachments > 0) {
		sb->attachments--;
		sb->attached[sb->attachments].release(sb->attached[sb->attachments].data);
	}
	http_free(sb->server.http);
	pthread_mutex_destroy(&sb->lock);
}

/* --- the server --- */

enum { RIG_PLANS = 64 };

/* What one connection that asks for output gets. */
struct rig_plan {
	bool used;
	int status;       /* 0: 200 */
	const char *body; /* of another status */
	long cut;         /* bytes of the frames before the connection ends; <0: all */
	bool plain;       /* the end of the connection ends the body: a cut looks like a proper end */
	bool mute;        /* reads the request and says nothing */
};

struct rig {
	char dir[32], path[64];
	int listener;
	pthread_t thread;
	struct sandbox sandbox;

	/* The command: its output in pieces, odd ones of stderr; then its exit code. */
	const char *output;
	size_t size, piece;
	int exit_code;
	unsigned exit_flags;
	uint64_t missing; /* bytes at the start that are no longer kept */

	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct rig_plan plans[RIG_PLANS]; /* the last used one holds for all later connections */
	unsigned connections, starts, attaches, cancels, alive;
	char request[1024]; /* of the newest start: the JSON */
};

static void rig_frame(struct buf *b, int type, int stream, const void *p, size_t n)
{
	buf_u8(b, (uint8_t)type);
	buf_u8(b, (uint8_t)stream);
	buf_u16(b, 0);
	buf_u32(b, (uint32_t)n);
	buf_u64(b, 1700000000000000u);
	buf_add(b, p, n);
}

/* The frames from byte `from` of the output on. */
static void rig_frames(struct rig *r, uint64_t from, struct buf *b)
{
	struct buf small = BUF_INIT;

	buf_u32(&small, 4711);
	rig_frame(b, FRAME_STARTED, 0, small.data, small.size);
	if (from < r->missing) {
		buf_clear(&small);
		buf_u64(&small, r->missing - from);
		rig_frame(b, FRAME_GAP, 1, small.data, small.size);
		from = r->missing;
	}
	while (from < r->size) {
		size_t number = (size_t)from / r->piece, end = (number + 1) * r->piece;
		if (end > r->size)
			end = r->size;
		rig_frame(b, FRAME_DATA, number % 2 ? 2 : 1, r->output + from, end - (size_t)from);
		if (number % 3 == 0)
			rig_frame(b, FRAME_HEARTBEAT, 0, "", 0);
		from = end;
	}
	buf_clear(&small);
	buf_u32(&small, (uint32_t)r->exit_code);
	buf_u32(&small, r->exit_flags);
	rig_frame(b, FRAME_EXIT, 0, small.data, small.size);
	buf_release(&small);
}

static bool rig_send(int fd, const char *p, size_t n)
{
	while (n > 0) {
		ssize_t sent = send(fd, p, n, MSG_NOSIGNAL);
		if (sent <= 0)
			return false;
		p += sent;
		n -= (size_t)sent;
	}
	return true;
}

static void rig_answer(int fd, int status, const char *body)
{
	char text[1024];
	int n = snprintf(text, sizeof text,
		"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n"
		"Connection: close\r\n\r\n%s",
		status, strlen(body), body);

	rig_send(fd, text, (size_t)n);
}

static void rig_output(struct rig *r, int fd, const struct rig_plan *plan, uint64_t from)
{
	struct buf frames = BUF_INIT, reply = BUF_INIT;

	rig_frames(r, from, &frames);
	size_t n = plan->cut >= 0 && (size_t)plan->cut < frames.size ? (size_t)plan->cut : frames.size;
	buf_printf(&reply, "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n%s\r\n",
		plan->plain ? "Connection: close\r\n" : "Transfer-Encoding: chunked\r\n");
	if (plan->plain)
		buf_add(&reply, frames.data, n);
	/* In chunks of odd sizes: no frame may be expected in one piece. */
	for (size_t at = 0, step = 1; !plan->plain && at < n; at += step) {
		step = step * 3 % 8191 + 1;
		if (step > n - at)
			step = n - at;
		buf_printf(&reply, "%zx\r\n", step);
		buf_add(&reply, frames.data + at, step);
		buf_str(&reply, "\r\n");
	}
	if (!plan->plain && n == frames.size)
		buf_str(&reply, "0\r\n\r\n");
	rig_send(fd, reply.data, reply.size);
	buf_release(&frames);
	buf_release(&reply);
}

/* Reads one request: head, and as much body as Content-Length says. */
static bool rig_read(int fd, struct buf *in, char **body)
{
	for (;;) {
		char *end = in->data ? strstr(in->data, "\r\n\r\n") : NULL;
		char *length = in->data ? strcasestr(in->data, "content-length:") : NULL;
		size_t want = length ? strtoul(length + 15, NULL, 10) : 0;
		if (end && in->size >= (size_t)(end - in->data) + 4 + want) {
			*body = end + 4;
			return true;
		}
		char *room = buf_reserve(in, 65536);
		ssize_t n = recv(fd, room, 65535, 0);
		if (n <= 0)
			return false;
		in->size += (size_t)n;
		in->data[in->size] = 0;
	}
}

static void rig_changed(struct rig *r)
{
	pthread_cond_broadcast(&r->changed);
	pthread_mutex_unlock(&r->lock);
}

struct rig_connection {
	struct rig *rig;
	int fd;
};

static void rig_serve(struct rig *r, int fd, const char *head, const char *body, size_t size)
{
	const char *attach = strstr(head, "/attach?from=");
	struct rig_plan plan;

	pthread_mutex_lock(&r->lock);
	if (strstr(head, "/signal HTTP")) {
		r->cancels += strstr(body, "\"cancel\"") != NULL;
		rig_changed(r);
		rig_answer(fd, 200, "{\"success\":true}");
		return;
	}
	unsigned i = r->connections++;
	while (i > 0 && (i >= RIG_PLANS || !r->plans[i].used))
		i--;
	plan = r->plans[i];
	r->attaches += attach != NULL;
	r->starts += attach == NULL;
	if (!attach && size > 4)
		snprintf(r->request, sizeof r->request, "%.*s", (int)(size - 4 < 1000 ? size - 4 : 1000),
			body + 4);
	rig_changed(r);
	if (plan.mute) {
		char byte;
		while (recv(fd, &byte, 1, 0) > 0)
			;
	} else if (plan.status) {
		rig_answer(fd, plan.status, plan.body);
	} else {
		rig_output(r, fd, &plan, attach ? strtoull(attach + 13, NULL, 10) : 0);
	}
}

static void *rig_connection(void *arg)
{
	struct rig_connection *x = arg;
	struct buf in = BUF_INIT;
	char *body;

	if (rig_read(x->fd, &in, &body))
		rig_serve(x->rig, x->fd, in.data, body, in.size - (size_t)(body - in.data));
	close(x->fd);
	buf_release(&in);
	pthread_mutex_lock(&x->rig->lock);
	x->rig->alive--;
	rig_changed(x->rig);
	free(x);
	return NULL;
}

static void *rig_main(void *arg)
{
	struct rig *r = arg;

	for (;;) {
		int fd = accept(r->listener, NULL, NULL);
		if (fd < 0)
			return NULL;
		struct rig_connection *x = malloc(sizeof *x);
		pthread_t t;
		x->rig = r;
		x->fd = fd;
		pthread_mutex_lock(&r->lock);
		r->alive++;
		pthread_mutex_unlock(&r->lock);
		assert_int_equal(pthread_create(&t, NULL, rig_connection, x), 0);
		pthread_detach(t);
	}
}

static inline void rig_open(struct rig *r)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};

	memset(r, 0, sizeof *r);
	strcpy(r->dir, "/tmp/run-rig-XXXXXX");
	assert_non_null(mkdtemp(r->dir));
	snprintf(r->path, sizeof r->path, "%s/socket", r->dir);
	strcpy(un.sun_path, r->path);
	pthread_mutex_init(&r->lock, NULL);
	pthread_cond_init(&r->changed, NULL);
	r->plans[0] = (struct rig_plan){.used = true, .cut = -1};
	r->output = "";
	r->piece = 1;
	r->listener = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(r->listener, (struct sockaddr *)&un, sizeof un), 0);
	assert_int_equal(listen(r->listener, 64), 0);
	assert_int_equal(pthread_create(&r->thread, NULL, rig_main, r), 0);
	sandbox_open(&r->sandbox, r->path);
}

static inline void rig_close(struct rig *r)
{
	sandbox_close(&r->sandbox);
	shutdown(r->listener, SHUT_RDWR);
	pthread_join(r->thread, NULL);
	close(r->listener);
	pthread_mutex_lock(&r->lock);
	while (r->alive > 0)
		pthread_cond_wait(&r->changed, &r->lock);
	pthread_mutex_unlock(&r->lock);
	pthread_cond_destroy(&r->changed);
	pthread_mutex_destroy(&r->lock);
	unlink(r->path);
	rmdir(r->dir);
}

/* Waits until *count is at least n; the test's own time limit ends it otherwise. */
static inline void rig_await(struct rig *r, const unsigned *count, unsigned n)
{
	pthread_mutex_lock(&r->lock);
	while (*count < n)
		pthread_cond_wait(&r->changed, &r->lock);
	pthread_mutex_unlock(&r->lock);
}

#endif
