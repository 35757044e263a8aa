/*
 * Contexts, their queues and the reading of runs; see interpreter.h. The thread of a context takes runs from its queue and
 * hands them to executor.c.
 */
#include "interpreter.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdarg.h>
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

enum { CONTEXTS_MAX = 64, KILL_WAIT_MS = 5000, PIECE = 64 << 10, THREAD_STACK = 256 << 10 };

struct interpreter {
	struct server *server;

	pthread_mutex_t lock; /* covers the rest */
	pthread_cond_t changed;
	struct context *first, **last;
	size_t count;   /* in the list */
	size_t threads; /* of deleted ones too */
	bool stopping;
};

/* --- languages --- */

static const struct {
	const char *name, *other[3], *program, *lack;
} languages[] = {
	[LANGUAGE_PYTHON] = {"python", {"python3"}, "python3",
		"python3 is not installed in the sandbox (package python3)"},
	[LANGUAGE_JAVASCRIPT] = {"javascript", {"js", "node"}, "node",
		"node is not installed in the sandbox (package nodejs)"},
	[LANGUAGE_TYPESCRIPT] = {"typescript", {"ts"}, "node",
		"node is not installed in the sandbox (package nodejs)"},
};

const char *language_name(enum language l)
{
	return languages[l].name;
}

bool language_find(const char *word, enum language *out)
{
	for (int l = 0; l < LANGUAGES; l++) {
		bool same = strcmp(word, languages[l].name) == 0;
		for (int i = 0; i < 3 && languages[l].other[i]; i++)
			same = same || strcmp(word, languages[l].other[i]) == 0;
		if (same) {
			*out = (enum language)l;
			return true;
		}
	}
	return false;
}

/* Where commands look by default. */
static bool is_installed(const char *program)
{
	static const char *const places[] = {
		"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"};
	for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
		AUTO_BUF path = BUF_INIT;
		buf_printf(&path, "%s/%s", places[i], program);
		if (!buf_error(&path) && access(path.data, X_OK) == 0)
			return true;
	}
	return false;
}

/* Does node itself know types (22.13 and later), or is there something that takes them away? */
static bool has_typescript(struct server *server)
{
	static const char *const compilers[] = {"/usr/share/nodejs/typescript/package.json",
		"/usr/lib/node_modules/typescript/package.json",
		"/usr/local/lib/node_modules/typescript/package.json"};
	if (is_installed("esbuild"))
		return true;
	for (size_t i = 0; i < sizeof compilers / sizeof *compilers; i++)
		if (access(compilers[i], R_OK) == 0)
			return true;
	static const char ask[] =
		"node -p 'typeof require(\"module\").stripTypeScriptTypes' 2>/dev/null";
	struct command_spec spec = {.text = ask, .size = sizeof ask - 1, .timeout_ms = 5000};
	struct command *node;
	AUTO_BUF answer = BUF_INIT;
	if (commands_start(server->commands, &spec, EXISTS_REPLACE, &node, NULL) < 0)
		return false;
	int64_t until = text_monotonic_ms() + 2 * spec.timeout_ms;
	bool yes = command_wait_output(node, SPOOL_BOTH, UINT64_MAX, until) == 0 &&
			   command_output(node, SPOOL_STDOUT, UINT64_MAX, &answer) == 0 && answer.data &&
			   strncmp(answer.data, "function", 8) == 0;
	/* Its record is of no use; one that still runs ends by its time-out. */
	(void)commands_forget(server->commands, node->id);
	commands_put(node);
	return yes;
}

const char *language_lack(struct server *server, enum language l)
{
	if (!is_installed(languages[l].program))
		return languages[l].lack;
	if (l == LANGUAGE_TYPESCRIPT && !has_typescript(server))
		return "TypeScript needs node 22.13 or newer, esbuild or typescript in the sandbox "
			   "(package esbuild)";
	return NULL;
}

/* --- runs --- */

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
	r->variables = json_object_get(variables);
	r->size = n;
	r->id = run_id ? strdup(run_id) : NULL;
	r->code = code ? malloc(n + 1) : NULL;
	if ((run_id && !r->id) || (code && !r->code)) {
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

/* Up to which byte of the output the reader may go before the next thing. With the lock held. */
static uint64_t run_limit(const struct run *r)
{
	if (r->results_read < r->results_count)
		return r->results[r->results_read].at;
	return r->over ? r->end : UINT64_MAX;
}

/* 1: something was read; 0: nothing is there. With no lock held: the command is the run's own. */
static int run_read(struct run *r, uint64_t limit, struct run_event *e, struct buf *data)
{
	uint64_t end = spool_size(r->command->spool, SPOOL_BOTH), next = r->off;
	if (end > limit)
		end = limit;
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
		uint64_t limit = run_limit(r);
		if (r->command) {
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
		/* Output tells it with the lock held; what came since the look above is seen here. */
		if (r->command && spool_size(r->command->spool, SPOOL_BOTH) > r->off)
			continue;
		if (timed_cond_wait(&c->changed, &c->lock, deadline_ms) == -ETIMEDOUT)
			return -ETIMEDOUT;
	}
}

/* --- a context's thread --- */

static void run_finish(struct context *c, struct run *r, struct json_object *error)
{
	{
		AUTO_UNLOCK(&c->lock);
		r->error = error;
		r->over = true;
		if (r->command)
			r->end = spool_size(r->command->spool, SPOOL_BOTH);
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
	c->env = json_object_get(spec->env);
	c->id = spec->id ? strdup(spec->id) : uuid_make();
	c->cwd = strdup(spec->cwd);
	c->mark = uuid_make();
	c->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	c->executor = (struct executor){.channel = -1, .pidfd = -1};
	pthread_mutex_init(&c->lock, NULL);
	(void)timed_cond_init(&c->changed); /* CLOCK_MONOTONIC is always there */
	if (c->id && c->cwd && c->mark && c->wake >= 0)
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
	r->interrupted = true;
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
	if (c->missing)
		json_add_as(o, "missing", c->missing);
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
