/*
 * Bytes whose name is gone: the file was removed or replaced in the sandbox while it was open for writing here. They go to
 * NAME.conflict-HOST-TIME beside it, so that they neither vanish nor bring the name back, and ctl/sync names that file until it
 * is removed or renamed through this mount.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "log.h"
#include "shown.h"
#include "tree_impl.h"

struct conflict {
	char *path; /* in the sandbox */
	struct conflict *next;
};

/* path with the suffix, its last component cut to what a name may have. */
static int conflict_path(const char *path, unsigned again, struct buf *out)
{
	const char *name = strrchr(path, '/') + 1;
	char host[65] = "", when[32] = "";
	size_t room, n = strlen(name);
	time_t now = time(NULL);
	struct tm tm;
	AUTO_BUF suffix = BUF_INIT;

	gethostname(host, sizeof host - 1);
	if (gmtime_r(&now, &tm))
		strftime(when, sizeof when, "%Y%m%dT%H%M%SZ", &tm);
	buf_printf(&suffix, ".conflict-%s-%s", host, when);
	if (again)
		buf_printf(&suffix, "-%u", again);
	room = 255 - suffix.size;
	buf_add(out, path, (size_t)(name - path) + (n < room ? n : room));
	buf_add(out, suffix.data, suffix.size);
	out->failed |= suffix.failed;
	return buf_error(out);
}

static void note_conflict(struct tree *t, const char *path)
{
	struct conflict *k = calloc(1, sizeof *k);

	if (!k)
		return;
	k->path = strdup(path);
	AUTO_UNLOCK(&t->lock);
	k->next = t->conflicts;
	t->conflicts = k;
}

/* What is to be kept: the content of a handle, or (handle 0) bytes that never left. */
struct rescue {
	uint64_t handle;
	const void *bytes;
	size_t size;
	mode_t mode;
};

static int send_rescue(
	struct wnode *n, const struct rescue *r, struct call *c, const struct buf *to)
{
	AUTO_BATCH b;
	struct reader body;
	unsigned calls = 1;

	batch_init(&b, n->tree->client, c);
	if (r->handle) {
		struct buf *q = batch_add(&b, FILEOP_SALVAGE, 0);
		buf_u64(q, r->handle);
		buf_bytes(q, to->data, to->size);
	} else {
		uint64_t fresh = batch_client_handle(n->tree->client);
		tree_add_open(
			&b, fresh, to->data, NULL, FILEOP_O_WRITE | FILEOP_O_CREATE | FILEOP_O_EXCL, r->mode);
		struct buf *q = batch_add(&b, FILEOP_WRITE, FILEOP_MUST);
		buf_u64(q, fresh);
		buf_u64(q, 0);
		buf_bytes(q, r->bytes, r->size);
		buf_u64(batch_add(&b, FILEOP_CLOSE, 0), fresh);
		calls = 2;
	}
	int err = batch_send(&b);
	for (; !err && calls; calls--)
		err = batch_next(&b, &body);
	return err;
}

/* Gives it a name like path; -ENOENT and -ENOTDIR: its directory is gone, too. */
static int rescue_beside(struct wnode *n, const struct rescue *r, struct call *c, const char *path)
{
	for (unsigned again = 0; again < 100; again++) {
		AUTO_BUF to = BUF_INIT;
		int err = conflict_path(path, again, &to);

		if (!err)
			err = send_rescue(n, r, c, &to);
		if (err == -EEXIST)
			continue;
		if (err)
			return err;
		note_conflict(n->tree, to.data);
		call_fault(c, ESTALE, NULL,
			"%s: changed, removed or replaced in the sandbox while written here; our bytes are in "
			"%s%s",
			path, to.data, r->handle ? "" : ", but for those that a sandbox had which is no more");
		sandbox_note_fault(n->sandbox, &c->fault);
		fault_clear(&c->fault); /* the close itself succeeds: nothing is lost */
		return 0;
	}
	return -EEXIST;
}

static int rescue(struct wnode *n, const struct rescue *r, struct call *c)
{
	AUTO_BUF path = BUF_INIT;
	int err = tree_known_path(n, &path);

	if (!err)
		err = rescue_beside(n, r, c, path.data);
	if (err == -ENOENT || err == -ENOTDIR) {
		AUTO_BUF top = BUF_INIT;
		buf_printf(&top, "/workspace%s", strrchr(path.data, '/'));
		err = buf_error(&top);
		if (!err)
			err = rescue_beside(n, r, c, top.data);
	}
	return err;
}

int tree_salvage(struct wnode *n, struct wfile *f, struct call *c)
{
	return rescue(n, &(struct rescue){.handle = f->handle}, c);
}

int tree_salvage_unsent(struct wnode *n, struct wfile *f, const void *bytes, size_t size,
	struct call *c, struct fileop_attr *a)
{
	struct rescue r = {.bytes = bytes, .size = size, .mode = 0644};
	struct sandbox_status s;

	bool gone = tree_gone_by_us(n);

	sandbox_get_status(n->sandbox, &s);
	if (s.state != SANDBOX_RUNNING && !gone)
		return -ESTALE; /* of another sandbox in its place nothing is known until it is accepted */
	pthread_mutex_lock(&n->lock);
	bool unread = gone && f->released; /* removed and closed: nobody can miss them */
	if (n->has_attr)
		r.mode = n->attr.mode & 0777;
	f->staged = f->unborn = f->pushed = false; /* there is no stage any more */
	*a = n->attr;
	pthread_mutex_unlock(&n->lock);
	return unread ? 0 : size && !gone ? rescue(n, &r, c) : -ESTALE;
}

void tree_forget_conflict(struct tree *t, const char *path)
{
	struct conflict *gone = NULL;

	pthread_mutex_lock(&t->lock);
	for (struct conflict **at = &t->conflicts; *at; at = &(*at)->next) {
		if ((*at)->path && strcmp((*at)->path, path) == 0) {
			gone = *at;
			*at = gone->next;
			break;
		}
	}
	pthread_mutex_unlock(&t->lock);
	if (gone)
		free(gone->path);
	free(gone);
}

void tree_describe_conflicts(struct tree *t, struct buf *out)
{
	AUTO_UNLOCK(&t->lock);

	for (struct conflict *k = t->conflicts; k; k = k->next) {
		const char *path = k->path;

		if (!path)
			continue;
		if (strncmp(path, "/workspace/", 11) == 0)
			path += 11;
		buf_str(out, "conflict ");
		shown_add(out, path, strlen(path), SHOWN_ESCAPE);
		buf_char(out, '\n');
	}
}

void tree_free_conflicts(struct tree *t)
{
	struct conflict *k, *next;

	for (k = t->conflicts; k; k = next) {
		next = k->next;
		free(k->path);
		free(k);
	}
}
