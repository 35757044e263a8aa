/*
 * Contexts, their table and their threads; see interpreter.h. The thread of a context takes runs from its queue, which
 * interpreter_run.c fills, and hands them to executor.c. Of a run it knows whose turn it is and that it is over, not what it said.
 */
#include "interpreter.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "cleanup.h"
#include "commands.h"
#include "interpreter_impl.h"
#include "json_make.h"
#include "text.h"
#include "timed.h"

enum { CONTEXTS_MAX = 64, KILL_WAIT_MS = 5000, THREAD_STACK = 256 << 10 };

struct interpreter {
	struct server *server;

	pthread_mutex_t lock; /* covers the rest */
	pthread_cond_t changed;
	struct context *first, **last;
	size_t count;   /* in the list */
	size_t threads; /* of deleted ones too */
	bool stopping;
};

/* --- a context's thread --- */

static void run_finish(struct context *c, struct run *r, struct json_object *error)
{
	{
		AUTO_UNLOCK(&c->lock);
		r->error = error;
		r->over = true;
		c->current = NULL;
		pthread_cond_broadcast(&c->changed);
	}
	run_put(r);
}

static void context_serve(struct context *c, struct run *r)
{
	struct json_object *error = NULL;
	if (executor_ready(c, r, &error) == 0)
		executor_run(c, r, &error);
	bool deleted;
	{
		AUTO_UNLOCK(&c->lock);
		deleted = c->deleted;
	}
	if (deleted) {
		json_object_put(error);
		error = run_error("ContextDeleted", "the context was deleted while this ran");
	}
	run_finish(c, r, error);
}

/* The next run (its reference is the caller's), or NULL: deleted. */
static struct run *context_take(struct context *c)
{
	AUTO_UNLOCK(&c->lock);
	while (!c->first && !c->deleted)
		pthread_cond_wait(&c->changed, &c->lock);
	struct run *r = c->first;
	if (!r)
		return NULL;
	c->first = r->next;
	if (!c->first)
		c->last = &c->first;
	r->next = NULL;
	r->begun = true;
	c->current = r;
	return r;
}

static void *context_thread(void *arg)
{
	struct context *c = arg;
	struct json_object *error = NULL;
	/* Comes up while nobody waits for it yet; what goes wrong is told to the first run. */
	(void)executor_ready(c, NULL, &error);
	json_object_put(error);
	for (struct run *r; (r = context_take(c));)
		context_serve(c, r);
	executor_end(c);
	struct interpreter *t = c->table;
	context_put(c);
	AUTO_UNLOCK(&t->lock);
	t->threads--;
	pthread_cond_broadcast(&t->changed);
	return NULL;
}

static void context_wake(struct context *c)
{
	uint64_t one = 1;
	/* A full counter is as good a wake-up as any. */
	(void)!write(c->wake, &one, sizeof one);
}

/* --- contexts --- */

void context_put(struct context *c)
{
	if (!c || atomic_fetch_sub(&c->references, 1) != 1)
		return;
	if (c->wake >= 0)
		close(c->wake);
	commands_put(c->command);
	json_object_put(c->env);
	json_object_put(c->missing);
	free(c->kernel);
	free(c->id);
	free(c->mark);
	free(c->cwd);
	pthread_cond_destroy(&c->changed);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

static char *uuid_make(void)
{
	unsigned char b[16];
	for (size_t i = 0; i < sizeof b; i++) {
		char letters[3];
		text_random(letters, 2);
		b[i] = (unsigned char)(letters[0] * 7 + letters[1] * 37);
	}
	char *id = NULL;
	b[6] = (unsigned char)((b[6] & 0x0f) | 0x40);
	b[8] = (unsigned char)((b[8] & 0x3f) | 0x80);
	if (asprintf(&id, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0],
			b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14],
			b[15]) < 0)
		return NULL;
	return id;
}

static struct context *context_make(struct interpreter *t, const struct context_spec *spec)
{
	struct context *c = calloc(1, sizeof *c);
	if (!c)
		return NULL;
	atomic_init(&c->references, 1);
	c->table = t;
	c->server = t->server;
	c->last = &c->first;
	c->language = spec->language;
	bool env = json_copy(spec->env, &c->env);
	c->id = spec->id ? strdup(spec->id) : uuid_make();
	c->cwd = strdup(spec->cwd);
	c->mark = uuid_make();
	c->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	c->executor = (struct executor){.channel = -1, .pidfd = -1};
	pthread_mutex_init(&c->lock, NULL);
	(void)timed_cond_init(&c->changed); /* CLOCK_MONOTONIC is always there */
	if (c->id && c->cwd && c->mark && env && c->wake >= 0)
		return c;
	context_put(c);
	return NULL;
}

/* With the table's lock held. */
static struct context *table_find(struct interpreter *t, const char *id)
{
	for (struct context *c = t->first; c; c = c->next)
		if (strcmp(c->id, id) == 0)
			return c;
	return NULL;
}

static int table_enter(struct interpreter *t, struct context *c)
{
	AUTO_UNLOCK(&t->lock);
	if (t->stopping)
		return -ESHUTDOWN;
	if (table_find(t, c->id))
		return -EEXIST;
	if (t->count == CONTEXTS_MAX)
		return -EAGAIN;
	pthread_attr_t attr;
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	int err = pthread_attr_setstacksize(&attr, THREAD_STACK);
	/* One reference for the list, one for the thread. */
	atomic_fetch_add(&c->references, 2);
	if (!err)
		err = pthread_create(&c->thread, &attr, context_thread, c);
	pthread_attr_destroy(&attr);
	if (err) {
		atomic_fetch_sub(&c->references, 2);
		return -err;
	}
	t->threads++;
	t->count++;
	*t->last = c;
	t->last = &c->next;
	return 0;
}

int context_new(struct interpreter *t, const struct context_spec *spec, struct context **out)
{
	struct context *c = context_make(t, spec);
	if (!c)
		return -ENOMEM;
	int err = table_enter(t, c);
	if (err < 0)
		context_put(c);
	else
		*out = c;
	return err;
}

struct context *context_find(struct interpreter *t, const char *id)
{
	AUTO_UNLOCK(&t->lock);
	struct context *c = table_find(t, id);
	if (c)
		atomic_fetch_add(&c->references, 1);
	return c;
}

ssize_t context_all(struct interpreter *t, struct context ***out)
{
	AUTO_UNLOCK(&t->lock);
	struct context **all = calloc(t->count + 1, sizeof(struct context *));
	ssize_t n = 0;
	if (!all)
		return -ENOMEM;
	for (struct context *c = t->first; c; c = c->next) {
		atomic_fetch_add(&c->references, 1);
		all[n++] = c;
	}
	*out = all;
	return n;
}

/* Its executor, with a reference, or NULL. */
static struct command *context_command(struct context *c)
{
	AUTO_UNLOCK(&c->lock);
	if (c->command)
		atomic_fetch_add(&c->command->references, 1);
	return c->command;
}

static void context_close(struct context *c)
{
	AUTO_UNLOCK(&c->lock);
	c->deleted = true;
	pthread_cond_broadcast(&c->changed);
	context_wake(c);
}

/* Its thread ends the executor when it sees that it is deleted; this ends a run that goes on, and waits. */
static void context_kill(struct context *c)
{
	struct command *k = context_command(c);
	if (!k)
		return;
	/* -ESRCH: it has ended by itself. */
	(void)command_cancel(k, 0);
	(void)command_wait_dead(k, text_monotonic_ms() + KILL_WAIT_MS);
	commands_put(k);
}

int context_delete(struct interpreter *t, const char *id)
{
	struct context *c = NULL;
	{
		AUTO_UNLOCK(&t->lock);
		for (struct context **at = &t->first; *at; at = &(*at)->next)
			if (strcmp((*at)->id, id) == 0) {
				c = *at;
				*at = c->next;
				if (t->last == &c->next)
					t->last = at;
				t->count--;
				break;
			}
	}
	if (!c)
		return -ENOENT;
	context_close(c);
	context_kill(c);
	context_put(c);
	return 0;
}

void context_restart(struct context *c)
{
	{
		AUTO_UNLOCK(&c->lock);
		c->restarting = c->command != NULL;
	}
	context_kill(c);
}

int context_interrupt(struct context *c, const char *run_id)
{
	AUTO_UNLOCK(&c->lock);
	struct run *r = c->current;
	if (run_id && (!r || !r->id || strcmp(r->id, run_id) != 0))
		for (r = c->first; r && (!r->id || strcmp(r->id, run_id) != 0);)
			r = r->next;
	if (!r)
		return -ESRCH;
	r->interrupted++;
	context_wake(c);
	return 0;
}

const char *context_id(const struct context *c)
{
	return c->id;
}

enum language context_language(const struct context *c)
{
	return c->language;
}

const char *context_cwd(const struct context *c)
{
	return c->cwd;
}

struct json_object *context_describe(struct context *c)
{
	struct json_object *o = json_object_new_object();
	json_add(o, "id", text_json_str(c->id));
	json_add(o, "language", json_object_new_string(language_name(c->language)));
	json_add(o, "cwd", text_json_str(c->cwd));
	AUTO_UNLOCK(&c->lock);
	json_add(o, "status",
		json_object_new_string(c->current  ? "busy"
							   : c->kernel ? "idle"
										   : "starting"));
	if (c->kernel)
		json_add(o, "kernel", text_json_str(c->kernel));
	struct json_object *missing;
	if (!json_copy(c->missing, &missing) || missing) /* this answer is put without our lock */
		json_add(o, "missing", missing);
	return o;
}

/* --- beginning and end --- */

int interpreter_new(struct server *server, struct interpreter **out)
{
	struct interpreter *t = calloc(1, sizeof *t);
	if (!t)
		return -ENOMEM;
	t->server = server;
	t->last = &t->first;
	pthread_mutex_init(&t->lock, NULL);
	pthread_cond_init(&t->changed, NULL);
	*out = t;
	return 0;
}

void interpreter_stop(struct interpreter *t)
{
	AUTO_UNLOCK(&t->lock);
	t->stopping = true;
	for (struct context *c = t->first; c; c = c->next)
		context_close(c);
}

void interpreter_free(struct interpreter *t)
{
	{
		AUTO_UNLOCK(&t->lock);
		while (t->threads)
			pthread_cond_wait(&t->changed, &t->lock);
	}
	while (t->first) {
		struct context *c = t->first;
		t->first = c->next;
		context_put(c);
	}
	pthread_cond_destroy(&t->changed);
	pthread_mutex_destroy(&t->lock);
	free(t);
}
