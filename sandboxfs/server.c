/*
 * The server of a mount: its sandboxes by name, their birth and end. See sandbox.h; the end of the mount is server_end.c's.
 *
 * Owns the list of sandboxes, the threads that start sandboxes in the background (mkdir answers before its sandbox runs) or let go of
 * them, and the prober, which asks unreachable sandboxes again and again whether they are back, and sees what is due with the others.
 */
#include <errno.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "json_make.h"
#include "log.h"
#include "sandbox_impl.h"
#include "timed.h"
#include "version.h"

enum { PROBE_MS = 1000 };

const struct options *server_options(struct server *s)
{
	return s->options;
}

struct http *server_http(struct server *s)
{
	return s->http;
}

void server_set_front(struct server *s, struct front *f)
{
	s->front = f;
}

struct front *server_front(struct server *s)
{
	return s->front;
}

/* --- names --- */

/* MNT/ctl is not a sandbox, whatever lies on the disk. */
static bool is_taken(const char *name)
{
	return strcmp(name, "ctl") == 0;
}

static int check_name(struct server *s, struct call *c, const char *name)
{
	regex_t re;
	int bad;

	if (name[0] == '.')
		return call_fault(
			c, EPERM, NULL, "%s: names of sandboxes do not begin with a dot; choose another", name);
	if (is_taken(name))
		return call_fault(
			c, EINVAL, NULL, "%s: no sandbox can have this name, it is the control tree's", name);
	if (!s->driver->many)
		return call_fault(
			c, EPERM, NULL, "%s: this server is one sandbox; it makes and removes none", name);
	if (regcomp(&re, s->driver->id_names, REG_EXTENDED | REG_NOSUB) != 0)
		return -ENOMEM;
	bad = regexec(&re, name, 0, NULL, 0);
	regfree(&re);
	if (bad)
		return call_fault(c, EINVAL, NULL, "%s: names of sandboxes here are %s; choose such a one",
			name, s->driver->id_names);
	return 0;
}

/* Lock held: the place of name in the list, or where it would be. */
static struct sandbox **place_of(struct server *s, const char *name)
{
	struct sandbox **at = &s->sandboxes;

	while (*at && strcmp((*at)->name, name) < 0)
		at = &(*at)->next;
	return at;
}

static struct sandbox *find_locked(struct server *s, const char *name)
{
	struct sandbox *sb = *place_of(s, name);

	return sb && strcmp(sb->name, name) == 0 ? sb : NULL;
}

/* Takes it into the list. *out: a reference for the caller. */
static int adopt(struct server *s, const char *name, struct sandbox **out)
{
	struct sandbox *fresh, **at;
	int err = sandbox_new(s, name, &fresh);

	if (err)
		return err;
	pthread_mutex_lock(&s->lock);
	at = place_of(s, name);
	if (*at && strcmp((*at)->name, name) == 0) {
		*out = sandbox_get(*at);
		pthread_mutex_unlock(&s->lock);
		sandbox_put(fresh);
		return 0;
	}
	fresh->next = *at;
	*at = fresh;
	*out = sandbox_get(fresh);
	pthread_mutex_unlock(&s->lock);
	return 0;
}

struct sandbox *server_find(struct server *s, const char *name)
{
	struct sandbox *sb;

	if (is_taken(name))
		return NULL;
	pthread_mutex_lock(&s->lock);
	sb = find_locked(s, name);
	if (sb)
		sandbox_get(sb);
	pthread_mutex_unlock(&s->lock);
	/* Another mount may have made it since: the driver knows without asking anybody. */
	if (!sb && s->driver->probe && name[0] != '.' && s->driver->probe(s->driver_state, name) == 0 &&
		adopt(s, name, &sb) != 0)
		sb = NULL;
	return sb;
}

static bool adopt_listed(const char *name, void *arg)
{
	struct sandbox *sb = NULL;

	if (!is_taken(name) && adopt(arg, name, &sb) == 0)
		sandbox_put(sb);
	return true;
}

void server_each(struct server *s, bool (*cb)(struct sandbox *sb, void *arg), void *arg)
{
	struct sandbox *sb, *next;
	bool more = true;

	if (s->driver->list)
		(void)s->driver->list(
			s->driver_state, adopt_listed, s); /* what is known already is still listed */
	pthread_mutex_lock(&s->lock);
	sb = s->sandboxes ? sandbox_get(s->sandboxes) : NULL;
	pthread_mutex_unlock(&s->lock);
	while (sb) {
		if (more)
			more = cb(sb, arg);
		pthread_mutex_lock(&s->lock);
		/* It may have left the list meanwhile: go on by name. */
		next = *place_of(s, sb->name);
		if (next && strcmp(next->name, sb->name) == 0)
			next = next->next;
		if (next && more)
			sandbox_get(next);
		pthread_mutex_unlock(&s->lock);
		sandbox_put(sb);
		sb = more ? next : NULL;
	}
}

/* --- birth and end --- */

struct background {
	struct sandbox *sb;
	void (*f)(struct sandbox *sb);
};

static void *run_background(void *arg)
{
	struct background job = *(struct background *)arg;
	struct server *s = job.sb->server;

	free(arg);
	job.f(job.sb);
	sandbox_put(job.sb);
	pthread_mutex_lock(&s->lock);
	s->background--;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

int server_in_background(struct sandbox *sb, void (*f)(struct sandbox *sb))
{
	struct server *s = sb->server;
	struct background *job = malloc(sizeof *job);
	pthread_attr_t attr;
	pthread_t t;

	if (!job)
		return -ENOMEM;
	*job = (struct background){sandbox_get(sb), f};
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_mutex_lock(&s->lock);
	s->background++;
	pthread_mutex_unlock(&s->lock);
	int err = -pthread_create(&t, &attr, run_background, job);
	pthread_attr_destroy(&attr);
	if (err) {
		free(job);
		sandbox_put(sb);
		pthread_mutex_lock(&s->lock);
		s->background--;
		pthread_mutex_unlock(&s->lock);
	}
	return err;
}

static void start_now(struct sandbox *sb)
{
	struct call c;

	call_init(&c, 0);
	if (sandbox_start(sb, &c) < 0 && c.fault.err)
		sandbox_note_fault(sb, &c.fault);
	call_destroy(&c);
}

int server_create(struct server *s, struct call *c, const char *name, struct sandbox **out)
{
	struct sandbox *known;
	int err = check_name(s, c, name);

	if (err)
		return err;
	known = server_find(s, name);
	if (known) {
		sandbox_put(known);
		return -EEXIST;
	}
	err = s->driver->create(s->driver_state, c, name);
	if (!err)
		err = adopt(s, name, out);
	if (!err)
		(void)server_in_background(*out, start_now); /* else the first use starts it */
	return err;
}

static int count_entries(struct sandbox *sb, struct call *c, size_t *count)
{
	struct json_object *body = json_object_new_object(), *options = json_object_new_object();
	struct json_object *reply = NULL, *files;
	int err;

	bool ok = json_add(options, "includeHidden", json_object_new_boolean(true));
	ok = json_add(body, "options", options) && ok;
	ok = ok && json_add(body, "path", json_object_new_string("/workspace"));
	err = ok ? sandbox_api(sb, c, "POST", "/api/list-files", body, &reply) : -ENOMEM;
	json_object_put(body);
	if (err)
		return err;
	if (!json_object_object_get_ex(reply, "files", &files) ||
		!json_object_is_type(files, json_type_array))
		err = -EPROTO;
	else
		*count = json_object_array_length(files);
	json_object_put(reply);
	return err;
}

static int count_processes(struct sandbox *sb, struct call *c, size_t *count)
{
	struct json_object *reply = NULL, *list;
	int err = sandbox_api(sb, c, "GET", "/api/process/list?status=running", NULL, &reply);

	if (err)
		return err;
	if (!json_object_object_get_ex(reply, "processes", &list) ||
		!json_object_is_type(list, json_type_array))
		err = -EPROTO;
	else
		*count = json_object_array_length(list);
	json_object_put(reply);
	return err;
}

static int check_empty(struct sandbox *sb, struct call *c)
{
	size_t files = 0, processes = 0;
	int err = count_entries(sb, c, &files);

	if (!err)
		err = count_processes(sb, c, &processes);
	if (err == -EPROTO)
		call_fault_prefix(
			c, "what is in it cannot be told, echo destroy > its ctl/ctl ends it anyway; ");
	if (err)
		return err;
	if (files || processes)
		return call_fault(c, ENOTEMPTY, NULL,
			"%s: %zu file%s, %zu process%s; echo destroy > %s/ctl/ctl", sb->name, files,
			files == 1 ? "" : "s", processes, processes == 1 ? "" : "es", sb->name);
	return 0;
}

static int check_sent(struct sandbox *sb, struct call *c)
{
	AUTO_BUF left = BUF_INIT;

	sandbox_describe_sync(sb, &left);
	if (left.size && strncmp(left.data, "conflict", 8) != 0)
		return call_fault(c, EBUSY, NULL,
			"%s: not all that was written is in the sandbox (see ctl/sync); destroy force does it "
			"anyway",
			sb->name);
	return 0;
}

int server_destroy(struct server *s, struct call *c, const char *name, bool force)
{
	struct sandbox *sb = server_find(s, name), **at;
	char user[256];
	int err = 0;

	if (!sb)
		return -ENOENT;
	if (!s->driver->many)
		err = call_fault(
			c, EPERM, NULL, "%s: this server is one sandbox; it cannot be destroyed here", name);
	if (!err && !sandbox_target(sb) && s->driver->in_use &&
		s->driver->in_use(s->driver_state, name, user, sizeof user) == 1)
		err = call_fault(c, EBUSY, NULL, "%s: in use by %s", name, user);
	if (!err)
		err = force ? 0 : check_empty(sb, c);
	if (!err && !force)
		err = check_sent(sb, c);
	if (err) {
		sandbox_put(sb);
		return err;
	}
	pthread_mutex_lock(&sb->lock);
	bool mine = !sb->gone;
	sb->gone = true;
	waitq_wake(&sb->changed);
	pthread_mutex_unlock(&sb->lock);
	if (!mine) { /* another destroys it at this moment */
		sandbox_put(sb);
		return -ENOENT;
	}
	sandbox_stop(sb);
	err = s->driver->destroy(s->driver_state, c, name);
	if (err) { /* it is still there: the next use may start it again */
		pthread_mutex_lock(&sb->lock);
		sb->gone = sb->closed = false;
		pthread_mutex_unlock(&sb->lock);
		sandbox_put(sb);
		return err;
	}
	pthread_mutex_lock(&s->lock);
	at = place_of(s, name);
	if (*at == sb) {
		*at = sb->next;
		sb->next = s->destroyed;
		s->destroyed = sb;
		sb->attachments_due = true;
		s->end_due = true;
		pthread_cond_broadcast(&s->changed);
	}
	pthread_mutex_unlock(&s->lock);
	sandbox_put(sb);
	return 0;
}

/* --- the prober --- */

/*
 * What the rooms above keep for a destroyed sandbox ends here and not in server_destroy: a thread that is waited for may
 * be telling the kernel of a directory that the kernel keeps locked until its rmdir is answered. Lock held, let go meanwhile.
 */
static void end_destroyed(struct server *s)
{
	s->end_due = false;
	for (struct sandbox *sb = s->destroyed; sb; sb = sb->next) {
		if (!sb->attachments_due)
			continue;
		sb->attachments_due = false;
		pthread_mutex_unlock(&s->lock);
		sandbox_probe_end(sb);
		/* It stays in the list until the end. */
		if (server_in_background(sb, sandbox_stop_attachments))
			sandbox_stop_attachments(sb);
		pthread_mutex_lock(&s->lock);
	}
}

/* Waits for no sandbox: what lasts is done in the background. */
static void *prober_thread(void *arg)
{
	struct server *s = arg;

	for (;;) {
		int64_t until = call_now_ms() + PROBE_MS;
		struct sandbox *sb, *next;

		pthread_mutex_lock(&s->lock);
		while (!s->stop && !s->end_due && timed_cond_wait(&s->changed, &s->lock, until) == 0)
			;
		if (s->stop) {
			pthread_mutex_unlock(&s->lock);
			return NULL;
		}
		end_destroyed(s);
		sb = s->sandboxes ? sandbox_get(s->sandboxes) : NULL;
		pthread_mutex_unlock(&s->lock);
		for (; sb; sb = next) {
			sandbox_probe(sb);
			sandbox_rest(sb);
			pthread_mutex_lock(&s->lock);
			next = *place_of(s, sb->name);
			if (next == sb)
				next = sb->next;
			if (next)
				sandbox_get(next);
			pthread_mutex_unlock(&s->lock);
			sandbox_put(sb);
		}
	}
}

/* --- the whole --- */

static const struct driver_ops *driver_of(const char *address)
{
	if (strncmp(address, "local:", 6) == 0)
		return &local_driver;
	if (bridge_is_address(address))
		return &bridge_driver;
	if (strncmp(address, "unix:", 5) == 0 || strncmp(address, "http://", 7) == 0)
		return &container_driver;
	return NULL;
}

/* What is mounted alone is started at once, and asked whether it answers: a mount that returns 0 works. */
static int check_single(struct server *s, struct call *c)
{
	const struct options *o = s->options;
	struct sandbox *sb = NULL;
	int err = o->sandbox && s->driver->many ? check_name(s, c, o->sandbox) : 0;

	if (err)
		return err;
	sb = server_find(s, o->sandbox ? o->sandbox : "default");
	if (!sb && !s->driver->many)
		return call_fault(c, ENOENT, NULL,
			"%s: there is no sandbox %s; this server has only `default`", o->server, o->sandbox);
	if (!sb && !o->create)
		return call_fault(c, ENOENT, NULL,
			"-o sandbox=%s: %s has no such sandbox; -o create makes it, as mkdir does in a mount "
			"of "
			"all",
			o->sandbox, o->server);
	if (!sb)
		err = server_create(s, c, o->sandbox, &sb);
	if (!err)
		err = sandbox_ready(sb, c);
	sandbox_put(sb);
	return err;
}

int server_new(const struct options *o, struct http *h, struct call *c, struct server **out)
{
	const struct driver_ops *d = driver_of(o->server);
	struct server *s;
	int err;

	if (!d)
		return call_fault(c, EINVAL, NULL,
			"%s: not a server; use local:, local:DIR, unix:/path, http://host:port or https://host",
			o->server);
	s = calloc(1, sizeof *s);
	if (!s)
		return -ENOMEM;
	s->options = o;
	s->http = h;
	s->driver = d;
	pthread_mutex_init(&s->lock, NULL);
	err = timed_cond_init(&s->changed);
	if (err) {
		pthread_mutex_destroy(&s->lock);
		free(s);
		return err;
	}
	err = d->open(o, c, &s->driver_state);
	if (!err && (!d->many || o->sandbox))
		err = check_single(s, c);
	if (!err) {
		err = -pthread_create(&s->prober, NULL, prober_thread, s);
		s->has_prober = !err;
	}
	if (err) {
		server_free(s);
		return err;
	}
	*out = s;
	return 0;
}

/* --- what is said of it --- */

int server_space(struct server *s, struct statvfs *out)
{
	return s->driver->space ? s->driver->space(s->driver_state, out) : -ENOTSUP;
}

void server_note_fault(struct server *s, const struct fault *f)
{
	AUTO_UNLOCK(&s->lock);
	fault_copy(&s->fault, f);
}

void server_last_fault(struct server *s, struct fault *copy)
{
	AUTO_UNLOCK(&s->lock);
	memset(copy, 0, sizeof *copy);
	fault_copy(copy, &s->fault);
}

void server_describe(struct server *s, struct buf *out)
{
	buf_printf(out, "url %s\nkind %s\nversion %s\nid-names %s\n", s->options->server,
		s->driver->kind, SANDBOXFS_VERSION, s->driver->id_names);
}

const char *server_cannot(struct server *s, const char *name)
{
	if (!s->driver->many && strcmp(name, "create") == 0)
		return "this server is one sandbox; mount local: for many";
	if (!s->driver->bucket_mount && strcmp(name, "mounts") == 0)
		return "this server's API has no route for buckets";
	return NULL;
}

void server_describe_stats(struct server *s, struct buf *out)
{
	uint64_t requests, sent, received, ops = 0, active = 0, threads = 0;

	http_counts(s->http, &requests, &sent, &received);
	if (s->front)
		front_counts(s->front, &ops, &active, &threads);
	buf_printf(out, "pid %d\n", (int)getpid());
	buf_printf(out, "kernel-requests %llu\nkernel-requests-active %llu\nthreads %llu\n",
		(unsigned long long)ops, (unsigned long long)active, (unsigned long long)threads);
	buf_printf(out, "requests %llu\nbytes-sent %llu\nbytes-received %llu\n",
		(unsigned long long)requests, (unsigned long long)sent, (unsigned long long)received);
}
