/*
 * The doubles of a sandbox and its server in ctl_fakes.h: what they are asked is counted and answered as the test has set. The
 * lock covers what is attached and the faults; counters are atomic, for the threads of the tree use them. Starts nothing.
 */
#include "ctl_fakes.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cleanup.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

struct attached {
	struct attached *next;
	const void *key;
	void *data;
	void (*release)(void *);
};

struct server {
	struct fault fault;
};

struct sandbox {
	struct server *server;
	_Atomic int references;
	struct attached *attached;
	struct fault fault;
};

_Atomic int fake_ready_err, fake_barrier_err, fake_api_err;
_Atomic int fake_readies, fake_barriers, fake_invalidations, fake_destroys, fake_retries;
char fake_sync[256], fake_api_last[256];
struct options fake_options;

void fake_world_make(struct fake_world *w)
{
	fake_ready_err = fake_barrier_err = fake_api_err = fake_start_err = 0;
	fake_readies = fake_barriers = fake_invalidations = fake_destroys = fake_retries = 0;
	fake_sync[0] = fake_api_last[0] = 0;
	fake_options = (struct options){
		.server = (char *)"local:", .uid = getuid(), .gid = getgid(), .output_max = 1 << 20};
	w->server = calloc(1, sizeof *w->server);
	w->sandbox = calloc(1, sizeof *w->sandbox);
	w->sandbox->server = w->server;
	w->sandbox->references = 1;
}

void fake_world_free(struct fake_world *w)
{
	sandbox_put(w->sandbox);
	fault_clear(&w->server->fault);
	free(w->server);
}

struct sandbox *sandbox_get(struct sandbox *sb)
{
	sb->references++;
	return sb;
}

void sandbox_put(struct sandbox *sb)
{
	if (--sb->references)
		return;
	while (sb->attached) {
		struct attached *a = sb->attached;
		sb->attached = a->next;
		a->release(a->data);
		free(a);
	}
	fault_clear(&sb->fault);
	free(sb);
}

const char *sandbox_name(const struct sandbox *sb)
{
	(void)sb;
	return "demo";
}

const struct options *sandbox_options(struct sandbox *sb)
{
	(void)sb;
	return &fake_options;
}

const struct options *server_options(struct server *s)
{
	(void)s;
	return &fake_options;
}

void *sandbox_attach(struct sandbox *sb, const void *key, void *(*make)(struct sandbox *sb),
	void (*stop)(void *data), void (*release)(void *data))
{
	(void)stop; /* these sandboxes are not destroyed before their end */
	AUTO_UNLOCK(&lock);
	for (struct attached *a = sb->attached; a; a = a->next)
		if (a->key == key)
			return a->data;
	struct attached *a = calloc(1, sizeof *a);
	*a = (struct attached){sb->attached, key, make(sb), release};
	sb->attached = a;
	return a->data;
}

static int outcome(struct call *c, int err, const char *what)
{
	return err ? call_fault(c, -err, NULL, "%s", what) : 0;
}

int sandbox_ready(struct sandbox *sb, struct call *c)
{
	(void)sb;
	fake_readies++;
	return outcome(c, fake_ready_err, "still starting after 60 s");
}

int sandbox_barrier(struct sandbox *sb, struct call *c)
{
	(void)sb;
	fake_barriers++;
	return outcome(c, fake_barrier_err, "workspace/f could not be sent");
}

void sandbox_invalidate(struct sandbox *sb)
{
	(void)sb;
	fake_invalidations++;
}

int sandbox_api(struct sandbox *sb, struct call *c, const char *method, const char *path,
	struct json_object *body, struct json_object **reply)
{
	(void)sb;
	(void)body;
	(void)reply;
	snprintf(fake_api_last, sizeof fake_api_last, "%s %s", method, path);
	return outcome(c, fake_api_err, "refused");
}

void sandbox_note_fault(struct sandbox *sb, const struct fault *f)
{
	AUTO_UNLOCK(&lock);
	fault_copy(&sb->fault, f);
}

void sandbox_last_fault(struct sandbox *sb, struct fault *copy)
{
	AUTO_UNLOCK(&lock);
	fault_copy(copy, &sb->fault);
}

void server_note_fault(struct server *s, const struct fault *f)
{
	AUTO_UNLOCK(&lock);
	fault_copy(&s->fault, f);
}

void server_last_fault(struct server *s, struct fault *copy)
{
	AUTO_UNLOCK(&lock);
	fault_copy(copy, &s->fault);
}

const char *sandbox_state_word(enum sandbox_state s)
{
	return s == SANDBOX_RUNNING ? "running" : "unknown";
}

void sandbox_describe_status(struct sandbox *sb, struct sandbox_status *out, struct buf *detail)
{
	(void)detail;
	sandbox_get_status(sb, out);
}

void sandbox_get_status(struct sandbox *sb, struct sandbox_status *out)
{
	(void)sb;
	*out = (struct sandbox_status){
		.state = SANDBOX_RUNNING, .boot = "abc", .since = {1700000000, 0}, .network = "none: why"};
}

void sandbox_describe_sync(struct sandbox *sb, struct buf *out)
{
	(void)sb;
	buf_str(out, fake_sync);
}

bool sandbox_has_server(struct sandbox *sb)
{
	(void)sb;
	return true;
}

bool sandbox_sleeps(const struct sandbox *sb)
{
	(void)sb;
	return false;
}

void sandbox_sleep_get(struct sandbox *sb, struct sandbox_sleep *out)
{
	(void)sb;
	*out = (struct sandbox_sleep){.in_ms = -1};
}

void sandbox_sleep_set(struct sandbox *sb, const bool *keepalive, int64_t after_ms)
{
	(void)sb;
	(void)keepalive;
	(void)after_ms;
}

void sandbox_accept(struct sandbox *sb)
{
	(void)sb;
}

int sandbox_retry(struct sandbox *sb, struct call *c, const char *path)
{
	(void)sb;
	(void)c;
	(void)path;
	fake_retries++;
	return 0;
}

int sandbox_discard(struct sandbox *sb, struct call *c, const char *path)
{
	(void)sb;
	(void)c;
	(void)path;
	return 0;
}

void sandbox_drop_caches(struct sandbox *sb)
{
	(void)sb;
}

int server_destroy(struct server *s, struct call *c, const char *name, bool force)
{
	(void)s;
	(void)c;
	(void)name;
	(void)force;
	fake_destroys++;
	return 0;
}

struct sandbox *server_find(struct server *s, const char *name)
{
	(void)s;
	(void)name;
	return NULL;
}

void server_each(struct server *s, bool (*cb)(struct sandbox *sb, void *arg), void *arg)
{
	(void)s;
	(void)cb;
	(void)arg;
}

void server_describe(struct server *s, struct buf *out)
{
	(void)s;
	buf_str(out, "kind local\n");
}

const char *server_cannot(struct server *s, const char *name)
{
	(void)s;
	(void)name;
	return NULL;
}

void server_describe_stats(struct server *s, struct buf *out)
{
	(void)s;
	buf_str(out, "requests 1\n");
}
