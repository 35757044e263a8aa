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

int tree_salvage(struct wnode *n, struct wfile *f, struct call *c)
{
	AUTO_BUF path = BUF_INIT;
	int err = tree_path(n, 0, &path);

	for (unsigned again = 0; !err && again < 100; again++) {
		AUTO_BUF to = BUF_INIT;
		AUTO_BATCH b;
		struct reader body;

		batch_init(&b, n->tree->client, c);
		err = conflict_path(path.data, again, &to);
		if (err)
			return err;
		struct buf *q = batch_add(&b, FILEOP_SALVAGE, 0);
		buf_u64(q, f->handle);
		buf_bytes(q, to.data, to.size);
		err = batch_send(&b);
		if (!err)
			err = batch_next(&b, &body);
		if (err == -EEXIST) {
			err = 0;
			continue;
		}
		if (err)
			return err;
		note_conflict(n->tree, to.data);
		call_fault(c, ESTALE, NULL,
			"%s: removed or replaced in the sandbox while it was written here; our bytes are in %s",
			path.data, to.data);
		sandbox_note_fault(n->sandbox, &c->fault);
		fault_clear(&c->fault); /* the close itself succeeds: nothing is lost */
		return 0;
	}
	return err ? err : -EEXIST;
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
