/*
 * Terminals, see terminal.h: their life, the stream of their output and who reads it. What is typed is terminal_type.c's.
 *
 * A ring holds the newest output. Places are counted from the first byte ever; while a reader is TERMINAL_KEEP behind and nobody waits
 * for more, the stream is paused (the sandbox keeps what comes meanwhile, the program does not wait), so that it loses no byte.
 */
#include "terminal.h"

#include <errno.h>
#include <json-c/json.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "buf.h"
#include "cleanup.h"
#include "json_make.h"
#include "output.h"
#include "process.h"
#include "terminal_impl.h"

enum {
	RING = 2 * TERMINAL_KEEP, /* a piece may come after the last look for room */
	HANG_UP_MS = 500
};

struct terminal_reader {
	struct terminal_reader *next;
	struct terminal *t; /* a reference */
	bool end_alone;
	void (*wake)(void *arg);
	void *arg;

	/* under the terminal's lock */
	bool reading;
	uint64_t at;
	bool told; /* the end, or how it is not known */
};

/* --- output --- */

static uint64_t ring_first(const struct terminal *t)
{
	return t->end > RING ? t->end - RING : 0;
}

static void ring_add(struct terminal *t, const char *p, size_t n)
{
	if (n > RING) {
		t->end += n - RING;
		p += n - RING;
		n = RING;
	}
	while (n) {
		size_t at = (size_t)(t->end % RING), part = RING - at < n ? RING - at : n;
		memcpy(t->ring + at, p, part);
		t->end += part;
		p += part;
		n -= part;
	}
}

static void wake_readers(struct terminal *t)
{
	for (struct terminal_reader *r = t->readers; r; r = r->next)
		r->wake(r->arg);
}

static bool has_room(const struct terminal *t)
{
	bool behind = false;

	/* Who waits for what comes, or for the end, is not held up by another who does not read. */
	for (const struct terminal_reader *r = t->readers; r; r = r->next) {
		if (r->end_alone || (r->reading && r->at == t->end))
			return true;
		behind = behind || (r->reading && t->end - r->at >= TERMINAL_KEEP);
	}
	return !behind;
}

static bool on_room(void *arg)
{
	struct terminal *t = arg;
	AUTO_UNLOCK(&t->lock);

	t->paused = !has_room(t);
	return !t->paused;
}

static void on_data(void *arg, uint64_t time, unsigned stream, const void *p, size_t n)
{
	struct terminal *t = arg;

	(void)time;
	(void)stream;
	AUTO_UNLOCK(&t->lock);
	ring_add(t, p, n);
	wake_readers(t);
}

/* A hole is never silent. */
static void on_gap(void *arg, unsigned stream, uint64_t n)
{
	struct terminal *t = arg;
	char text[48]; /* a number of ours */

	(void)stream;
	snprintf(text, sizeof(text), "\r\nlost %llu\r\n", (unsigned long long)n);
	AUTO_UNLOCK(&t->lock);
	ring_add(t, text, strlen(text));
	wake_readers(t);
}

static void on_end(void *arg, const struct output_end *end)
{
	struct terminal *t = arg;
	{
		AUTO_UNLOCK(&t->lock);
		if (t->over)
			return;
		t->over = true;
		t->err = end->err;
		t->code = end->code;
	}
	t->ended_hook(t->hook_arg, t);
}

static const struct output_events terminal_events = {
	.room = on_room, .data = on_data, .gap = on_gap, .end = on_end};

void terminal_tell_end(struct terminal *t)
{
	AUTO_UNLOCK(&t->lock);

	t->settled = t->over;
	wake_readers(t);
}

/* --- life --- */

static struct json_object *make_size(unsigned columns, unsigned rows)
{
	struct json_object *o = json_object_new_object();

	if (o && json_add(o, "cols", json_object_new_int((int)columns)) &&
		json_add(o, "rows", json_object_new_int((int)rows)))
		return o;
	json_object_put(o);
	return NULL;
}

/* What the program is told of its terminal, under what the user set. */
static struct json_object *make_env(struct json_object *given)
{
	struct json_object *o = json_object_new_object();
	bool ok = o && json_add(o, "TERM", json_object_new_string("xterm-256color"));

	if (given) {
		json_object_object_foreach(given, key, value) ok =
			ok && json_add(o, key, json_object_get(value));
	}
	if (ok)
		return o;
	json_object_put(o);
	return NULL;
}

static int make_body(const struct terminal *t, const struct terminal_spec *spec, struct buf *body)
{
	AUTO_BUF command = BUF_INIT;
	struct json_object *o = json_object_new_object();
	size_t n = 0;

	if (spec->shell) {
		buf_str(&command, "exec ");
		buf_shell_quote(&command, spec->shell);
	} else {
		buf_str(&command, "command -v bash >/dev/null && exec bash; exec sh");
	}
	bool ok = o && buf_error(&command) == 0;
	ok = ok && json_add(o, "id", json_object_new_string(t->id));
	ok = ok && json_add(o, "command", json_object_new_string(command.data));
	ok = ok && json_add(o, "terminal", make_size(spec->columns, spec->rows));
	ok = ok && json_add(o, "env", make_env(spec->env));
	const char *text = ok ? json_text_of(o, &n) : NULL;
	if (text)
		buf_bytes(body, text, n);
	json_object_put(o);
	return text ? buf_error(body) : -ENOMEM;
}

static int make(struct sandbox *sb, const struct terminal_spec *spec, struct terminal **out)
{
	struct terminal *t = calloc(1, sizeof(*t));
	unsigned char random[8];
	AUTO_BUF id = BUF_INIT;

	if (!t)
		return -ENOMEM;
	pthread_mutex_init(&t->lock, NULL);
	pthread_cond_init(&t->idle, NULL);
	atomic_init(&t->refs, 1);
	*out = t;
	if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
		return -EIO;
	/* A leading dot: no process can have such an id, for such names are refused. */
	buf_str(&id, ".pty-");
	for (size_t i = 0; i < sizeof(random); i++)
		buf_printf(&id, "%02x", random[i]);
	t->id = buf_steal(&id);
	t->ring = malloc(RING);
	t->sb = sb;
	t->columns = spec->columns;
	t->rows = spec->rows;
	t->ended_hook = spec->ended;
	t->hook_arg = spec->arg;
	t->synced = true;
	return t->id && t->ring ? 0 : -ENOMEM;
}

int terminal_start(
	struct sandbox *sb, struct call *c, const struct terminal_spec *spec, struct terminal **out)
{
	AUTO_BUF body = BUF_INIT;
	struct terminal *t = NULL;
	struct output *o = NULL;
	bool may_run;
	int err = make(sb, spec, &t);

	if (!err)
		err = make_body(t, spec, &body);
	if (!err)
		err = output_start(sb, c, t->id, &body, &terminal_events, t, &o, &may_run);
	if (err) {
		output_close(o);
		if (t)
			terminal_put(t);
		return err;
	}
	AUTO_UNLOCK(&t->lock);
	t->output = o; /* nobody reads yet, so it is not paused */
	*out = t;
	return 0;
}

static struct terminal *terminal_get(struct terminal *t)
{
	atomic_fetch_add(&t->refs, 1);
	return t;
}

void terminal_put(struct terminal *t)
{
	if (atomic_fetch_sub(&t->refs, 1) > 1)
		return;
	output_close(t->output);
	free(t->ring);
	free(t->id);
	pthread_cond_destroy(&t->idle);
	pthread_mutex_destroy(&t->lock);
	free(t);
}

void terminal_size(struct terminal *t, unsigned *columns, unsigned *rows)
{
	AUTO_UNLOCK(&t->lock);

	*columns = t->columns;
	*rows = t->rows;
}

struct sandbox *terminal_living(struct terminal *t, struct call *c, int *err)
{
	AUTO_UNLOCK(&t->lock);

	if (t->sb && !t->over)
		return t->sb;
	*err = call_fault(c, EPIPE, NULL, "its program has ended");
	return NULL;
}

/* --- what is asked --- */

int terminal_resize(struct terminal *t, struct call *c, unsigned columns, unsigned rows)
{
	AUTO_BUF path = BUF_INIT;
	int err = 0;
	struct sandbox *sb = terminal_living(t, c, &err);

	if (!sb)
		return err;
	buf_printf(&path, "/api/sandboxfs/commands/%s/resize", t->id);
	struct json_object *body = make_size(columns, rows);
	err = !body || buf_error(&path) ? -ENOMEM : sandbox_api(sb, c, "POST", path.data, body, NULL);
	json_object_put(body);
	if (err == -ESRCH) {
		fault_clear(&c->fault);
		return call_fault(c, EPIPE, NULL, "its program has ended");
	}
	if (err)
		return err;
	AUTO_UNLOCK(&t->lock);
	t->columns = columns;
	t->rows = rows;
	return 0;
}

int terminal_signal(struct terminal *t, struct call *c, const char *name)
{
	int err = 0;
	struct sandbox *sb = terminal_living(t, c, &err);

	return sb ? process_signal(sb, c, t->id, name) : err;
}

void terminal_hang_up(struct terminal *t, struct call *c)
{
	pthread_mutex_lock(&t->lock);
	struct sandbox *sb = t->sb;
	bool over = t->over;
	pthread_mutex_unlock(&t->lock);

	if (!sb)
		return;
	/* What fails here is done by the cancel, which is repeated. */
	if (!over &&
		(process_signal(sb, c, t->id, "HUP") < 0 || process_wait(sb, c, t->id, HANG_UP_MS) < 0))
		(void)output_cancel(sb, t->id); /* out of memory: it runs on until the sandbox ends */
	else
		(void)process_forget(sb, c, t->id); /* the record goes with the sandbox at last */
	fault_clear(&c->fault);
}

void terminal_stop(struct terminal *t)
{
	pthread_mutex_lock(&t->lock);
	struct sandbox *sb = steal(t->sb);
	struct output *o = steal(t->output);
	bool over = t->over;
	while (t->resuming)
		pthread_cond_wait(&t->idle, &t->lock);
	pthread_mutex_unlock(&t->lock);
	if (sb && !over)
		(void)output_cancel(sb, t->id); /* as above */
	output_close(o);
	AUTO_UNLOCK(&t->lock);
	if (!t->over) {
		t->over = true;
		t->err = -ESTALE;
	}
	t->settled = true;
	wake_readers(t);
}

/* --- readers --- */

/* The stream goes on if it was paused and there is room. With the lock held, which is let go meanwhile: an end may be waited for. */
static void resume(struct terminal *t)
{
	struct output *o = t->output;

	if (!t->paused || !o || !has_room(t))
		return;
	t->paused = false;
	t->resuming++;
	pthread_mutex_unlock(&t->lock);
	output_resume(o);
	pthread_mutex_lock(&t->lock);
	if (--t->resuming == 0)
		pthread_cond_broadcast(&t->idle);
}

int terminal_reader_new(struct terminal *t, bool end_alone, void (*wake)(void *arg), void *arg,
	struct terminal_reader **out)
{
	struct terminal_reader *r = calloc(1, sizeof(*r));

	if (!r)
		return -ENOMEM;
	r->t = terminal_get(t);
	r->end_alone = end_alone;
	r->wake = wake;
	r->arg = arg;
	AUTO_UNLOCK(&t->lock);
	r->next = t->readers;
	t->readers = r;
	*out = r;
	resume(t);
	return 0;
}

static ssize_t read_end(struct terminal_reader *r, char *p, size_t n)
{
	struct terminal *t = r->t;

	if (!t->settled)
		return -EAGAIN;
	if (r->told)
		return 0;
	r->told = true;
	if (!r->end_alone)
		return t->err ? -ESTALE : 0;
	char text[16]; /* a number of ours */
	if (t->err)
		snprintf(text, sizeof(text), "unknown\n");
	else
		snprintf(text, sizeof(text), "%d\n", t->code);
	n = n < strlen(text) ? n : strlen(text);
	memcpy(p, text, n);
	return (ssize_t)n;
}

/* With the lock held. */
static ssize_t read_some(struct terminal_reader *r, char *p, size_t n)
{
	struct terminal *t = r->t;

	if (r->end_alone)
		return read_end(r, p, n);
	if (!r->reading) {
		r->reading = true;
		r->at = t->end > TERMINAL_KEEP ? t->end - TERMINAL_KEEP : 0;
	}
	if (r->at == t->end)
		return read_end(r, p, n);
	if (r->at < ring_first(t)) { /* one piece was larger than all that fits */
		char text[48];           /* a number of ours */
		snprintf(
			text, sizeof(text), "\r\nlost %llu\r\n", (unsigned long long)(ring_first(t) - r->at));
		r->at = ring_first(t);
		n = n < strlen(text) ? n : strlen(text);
		memcpy(p, text, n);
		return (ssize_t)n;
	}
	size_t at = (size_t)(r->at % RING);
	if (n > RING - at)
		n = RING - at;
	if (n > t->end - r->at)
		n = (size_t)(t->end - r->at);
	memcpy(p, t->ring + at, n);
	r->at += n;
	return (ssize_t)n;
}

ssize_t terminal_reader_next(struct terminal_reader *r, void *p, size_t n)
{
	AUTO_UNLOCK(&r->t->lock);
	ssize_t got = read_some(r, p, n);

	resume(r->t);
	return got;
}

void terminal_reader_free(struct terminal_reader *r)
{
	struct terminal *t = r->t;
	{
		AUTO_UNLOCK(&t->lock);
		for (struct terminal_reader **at = &t->readers; *at; at = &(*at)->next) {
			if (*at == r) {
				*at = r->next;
				break;
			}
		}
		resume(t);
	}
	free(r);
	terminal_put(t);
}
