/*
 * Buckets in local sandboxes: s3fs on the host's side of the wall, its mount on the other. Part of the local driver (local.h).
 *
 * s3fs runs outside of the sandbox's mount, process and network namespaces, so that neither the key nor the way to the store is in
 * there, but in the user namespace that owns the sandbox's mounts: there it may mount, what it mounts may be entered by the
 * sandbox, and whoever started the sandbox needs no right on the host for it. local_bucket_attach.c has the mount moved over. From
 * then on the file system ends with the sandbox's mount of it, and s3fs with the file system, however that comes about.
 *
 * A record lives from the request to rm (or to the set's end); s3fs that ends before leaves it there with what it said last. Lock: the
 * set's, a leaf; not held over anything that waits. What a record points to is the affair of the thread that set its state to
 * BUCKET_COMING or BUCKET_GOING; of a BUCKET_MOUNTED one nobody's until then.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "local_bucket_impl.h"
#include "log.h"

enum { BUSY_MS = 2000 };

int local_buckets_new(
	struct local *l, const char *name, int init, pid_t pid, struct bucket_set **out)
{
	struct bucket_set *s = calloc(1, sizeof *s);
	char *copy = strdup(name);
	if (!s || !copy) {
		free(s);
		free(copy);
		return -ENOMEM;
	}
	*s = (struct bucket_set){.l = l, .name = copy, .init = init, .pid = pid};
	pthread_mutex_init(&s->lock, NULL);
	*out = s;
	return 0;
}

static void record_free(struct record *r)
{
	bucket_release(&r->bucket);
	child_put(r->s3fs);
	free(r);
}

void local_buckets_free(struct bucket_set *s)
{
	if (!s)
		return;
	while (s->first) {
		struct record *r = s->first;
		s->first = r->next;
		record_free(r);
	}
	pthread_mutex_destroy(&s->lock);
	free(s->name);
	free(s);
}

/* --- records --- */

/* A new record, or why there cannot be one: lock held by the caller. */
static int record_refused(struct bucket_set *s, struct call *c, const struct bucket *b)
{
	if (s->closing)
		return call_fault(c, ESTALE, NULL, "the sandbox is ending");
	for (struct record *r = s->first; r; r = r->next) {
		if (strcmp(r->bucket.dir, b->dir) == 0)
			return call_fault(c, EEXIST, NULL, "%s has a bucket already; rm mounts/%s first",
				b->dir, r->bucket.name);
		if (strcmp(r->bucket.name, b->name) == 0)
			return call_fault(c, EEXIST, NULL,
				"%s and %s would both be called %s; choose another directory", b->dir,
				r->bucket.dir, b->name);
		if (bucket_dirs_meet(r->bucket.dir, b->dir))
			return call_fault(c, EBUSY, NULL, "%s and %s: one bucket cannot be within another",
				b->dir, r->bucket.dir);
	}
	return 0;
}

static int record_add(
	struct bucket_set *s, struct call *c, const struct bucket *b, struct record **out)
{
	struct record *r = calloc(1, sizeof *r);
	if (!r)
		return -ENOMEM;
	r->set = s;
	r->state = BUCKET_COMING;
	int err = bucket_copy(&r->bucket, b);
	if (err) {
		free(r);
		return err;
	}
	pthread_mutex_lock(&s->lock);
	err = record_refused(s, c, b);
	struct record **at = &s->first;
	while (*at && strcmp((*at)->bucket.name, b->name) < 0)
		at = &(*at)->next;
	if (!err) {
		r->next = *at;
		*at = r;
		s->used = true;
	}
	pthread_mutex_unlock(&s->lock);
	if (err)
		record_free(r);
	else
		*out = r;
	return err;
}

/* Its s3fs, if it has one, has ended. */
static void record_remove(struct record *r)
{
	struct bucket_set *s = r->set;
	pthread_mutex_lock(&s->lock);
	for (struct record **at = &s->first; *at; at = &(*at)->next)
		if (*at == r) {
			*at = r->next;
			break;
		}
	pthread_mutex_unlock(&s->lock);
	record_free(r);
}

static void s3fs_exited(void *arg) /* on the spawner's thread */
{
	struct record *r = arg;
	AUTO_UNLOCK(&r->set->lock);
	r->ended = true;
}

/* --- mounting --- */

bool record_ended(const struct record *r)
{
	AUTO_UNLOCK(&r->set->lock);
	return r->ended;
}

int record_go_on(struct call *c, const struct record *r, int64_t until)
{
	pthread_mutex_lock(&r->set->lock);
	bool closing = r->set->closing;
	pthread_mutex_unlock(&r->set->lock);
	if (c && call_cancelled(c))
		return -EINTR;
	if (closing)
		return call_fault(c, ESTALE, NULL, "the sandbox is ending");
	if (call_now_ms() >= until)
		return call_fault(c, ETIMEDOUT, NULL,
			"%s at %s: no answer from the store within timeout=; -o timeout= waits longer",
			r->bucket.bucket, r->bucket.endpoint);
	return 0;
}

/* The number of s3fs's pid 1, in whose mount namespace it mounts. */
static int read_child(struct record *r, struct call *c, int info, int64_t until, pid_t *pid)
{
	AUTO_BUF text = BUF_INIT;
	for (;;) {
		struct pollfd p = {info, POLLIN, 0};
		char chunk[512];
		ssize_t n = poll(&p, 1, LOOK_MS) > 0 ? read(info, chunk, sizeof chunk) : -1;
		if (n > 0)
			buf_add(&text, chunk, (size_t)n);
		if (n > 0 && memchr(chunk, '}', (size_t)n))
			break;
		if (n == 0 || record_ended(r)) { /* its end is near, and it has told why */
			child_wait(r->s3fs, call_now_ms() + END_MS, NULL);
			return s3fs_failed(c, &r->bucket, r->s3fs, -EIO);
		}
		int err = record_go_on(c, r, until);
		if (err)
			return err;
		if (text.size > 4096)
			return -EPROTO;
	}
	return buf_error(&text) ? -ENOMEM : bwrap_child(text.data, pid);
}

static void end_s3fs(struct record *r)
{
	if (!r->s3fs)
		return;
	child_kill_group(r->s3fs);
	if (child_wait(r->s3fs, call_now_ms() + END_MS, NULL))
		log_error("s3fs of %s does not end", r->bucket.name);
}

/* The directory for files on their way, which s3fs unlinks as soon as it has made them. */
static int temporary(const struct bucket_set *s, struct call *c, int *fd)
{
	AUTO_FD int dir = -1;
	int err = names_find(&s->l->names, c, s->name, &dir);
	return err ? err : local_dir_part(s->l, c, s->name, dir, "buckets", true, fd);
}

static int bring(struct record *r, struct call *c, const struct bucket *b)
{
	struct bucket_set *s = r->set;
	AUTO_FREE char *program = NULL;
	AUTO_FD int tmp = -1;
	AUTO_FD int box = -1;
	AUTO_FD int users = -1;
	AUTO_FD int mounts = -1;
	int64_t until = call_now_ms() + s->l->options->timeout_ms;
	int info[2];
	pid_t pid = -1;
	int err = s3fs_find(s->l, c, &program);
	if (!err)
		err = temporary(s, c, &tmp);
	if (!err && (err = bucket_set_namespaces(s, &box, &users)) < 0)
		call_fault(
			c, -err, NULL, "the namespaces of the sandbox cannot be joined: %s", strerror(-err));
	if (!err && pipe2(info, O_CLOEXEC) < 0)
		err = -errno;
	if (err)
		return err;
	AUTO_FD int info_in = info[0];
	AUTO_FD int info_out = info[1];
	struct box_plan plan = {.name = s->name, .workspace = -1, .spool = tmp};
	err = bucket_plan_make(s->l, c, b, &plan);
	const struct s3fs_place at = {program, &plan, users, info_out};
	struct child *child = NULL;
	if (!err)
		err = s3fs_start(s->l, c, &r->bucket, &at, s3fs_exited, r, &child);
	pthread_mutex_lock(&s->lock);
	r->s3fs = child;
	pthread_mutex_unlock(&s->lock);
	box_plan_release(&plan);
	close(steal_fd(&info_out));
	if (!err)
		err = read_child(r, c, info_in, until, &pid);
	if (!err)
		err = record_wait_mounted(r, c, pid, until, &mounts);
	if (!err)
		err = record_attach(r, c, users, mounts, box, until);
	return !err && record_ended(r) ? s3fs_failed(c, &r->bucket, r->s3fs, -EIO) : err;
}

int local_bucket_mount(struct bucket_set *s, struct call *c, const struct bucket *b)
{
	struct record *r;
	int err = record_add(s, c, b, &r);
	if (err)
		return err;
	err = bring(r, c, b);
	if (err)
		end_s3fs(r);
	pthread_mutex_lock(&s->lock);
	if (!err && s->closing)
		err = -ESTALE;
	if (!err)
		r->state = BUCKET_MOUNTED;
	pthread_mutex_unlock(&s->lock);
	if (err)
		record_remove(r);
	return err;
}

/* --- unmounting --- */

/* What was closed on the mount is closed in the sandbox a moment later, and nothing tells of it. */
static int detach_when_idle(struct record *r, struct call *c)
{
	for (int64_t until = call_now_ms() + BUSY_MS;;) {
		bool last = call_now_ms() >= until;
		int err = record_detach(r, last ? c : NULL);
		if (err != -EBUSY || last)
			return err;
		if (c && call_cancelled(c))
			return -EINTR;
		nanosleep(&(struct timespec){0, LOOK_MS * 1000000}, NULL);
	}
}

int local_bucket_unmount(struct bucket_set *s, struct call *c, const char *name)
{
	int err = 0;
	pthread_mutex_lock(&s->lock);
	struct record *r = s->first;
	while (r && strcmp(r->bucket.name, name) != 0)
		r = r->next;
	if (!r)
		err = -ENOENT;
	else if (r->state != BUCKET_MOUNTED || s->closing)
		err = call_fault(c, EBUSY, NULL, "%s is being %s at this moment", name,
			r->state == BUCKET_COMING ? "mounted" : "unmounted");
	else
		r->state = BUCKET_GOING;
	pthread_mutex_unlock(&s->lock);
	if (err)
		return err;
	err = detach_when_idle(r, c);
	if (!err) {
		child_wait(r->s3fs, call_now_ms() + END_MS, NULL); /* it ends by itself */
		end_s3fs(r);
		record_remove(r);
		return 0;
	}
	AUTO_UNLOCK(&s->lock);
	r->state = BUCKET_MOUNTED;
	return err;
}

void local_bucket_each(struct bucket_set *s,
	bool (*cb)(const struct bucket *b, const char *dead, void *arg), void *arg)
{
	AUTO_UNLOCK(&s->lock);
	for (struct record *r = s->first; r; r = r->next) {
		AUTO_BUF dead = BUF_INIT;
		if (r->state == BUCKET_COMING)
			continue;
		if (r->ended) {
			AUTO_BUF words = BUF_INIT;
			s3fs_words(r->s3fs, &words);
			buf_printf(
				&dead, "s3fs has ended%s%s", words.size ? ": " : "", words.size ? words.data : "");
		}
		if (!cb(&r->bucket, r->ended && !buf_error(&dead) ? dead.data : NULL, arg))
			return;
	}
}

/* --- the end --- */

/* The children there are; a reference to each, so that the records may go meanwhile. */
static size_t children(struct bucket_set *s, struct child **list, size_t room)
{
	size_t n = 0;
	AUTO_UNLOCK(&s->lock);
	s->closing = true;
	for (struct record *r = s->first; r; r = r->next) {
		if (r->s3fs && n < room)
			list[n] = child_get(r->s3fs);
		n += r->s3fs != NULL;
	}
	return n;
}

void local_buckets_end(struct bucket_set *s, int64_t patience_ms)
{
	int64_t until = call_now_ms() + patience_ms;
	size_t n = children(s, NULL, 0);
	struct child **list = calloc(n + 1, sizeof(*list));
	/* None is added any more but by mounts in progress, which see that and end theirs. */
	size_t have = list ? children(s, list, n) : 0;
	if (have > n)
		have = n;
	for (size_t i = 0; i < have; i++) {
		if (patience_ms <= 0 || child_wait(list[i], until, NULL)) {
			child_kill_group(list[i]);
			if (child_wait(list[i], call_now_ms() + END_MS, NULL))
				log_error("%s: an s3fs does not end", s->name);
		}
		child_put(list[i]);
	}
	free(list);
	if (patience_ms <= 0 || !s->used)
		return;
	AUTO_FD int dir = -1;
	if (names_find(&s->l->names, NULL, s->name, &dir) == 0)
		local_dir_clear(s->l, NULL, s->name, dir, "buckets"); /* else at the next start */
}
