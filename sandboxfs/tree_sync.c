/*
 * What a sandbox asks of its files: the barrier before a command, the invalidation after it, unsent bytes.
 *
 * Barrier before: the dirty pages of files that may be mapped are written (the kernel is told to drop them), then all
 * that gathers here is sent. Barrier after: the kernel forgets every attribute that it was given within the last second
 * (older ones have run out), so each is asked for anew; a name that now means another file is found out by its inode
 * (tree_impl.h). Files that stay open meanwhile are asked about here, and their pages dropped when they changed: a mapped page asks nobody.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "front.h"
#include "log.h"
#include "shown.h"
#include "tree_impl.h"

enum { ASK_AT_ONCE = 512 };

/* The path below workspace/ of a node; false: it has no name. */
static bool name_of(struct wnode *n, struct buf *out)
{
	AUTO_BUF path = BUF_INIT;

	if (tree_known_path(n, &path) < 0)
		return false;
	buf_str(out, strncmp(path.data, "/workspace/", 11) == 0 ? path.data + 11 : path.data);
	return buf_error(out) == 0;
}

/* The same for people; one a line, as events have it. */
static void describe_path(struct wnode *n, struct buf *out)
{
	AUTO_BUF name = BUF_INIT;

	if (name_of(n, &name))
		shown_add(out, name.data, name.size, SHOWN_ESCAPE);
	else
		buf_str(out, "(a file without a name)");
}

/* Does path name it, as it is or as sync shows it? */
static bool is_named(struct wnode *n, const char *path)
{
	AUTO_BUF name = BUF_INIT;
	AUTO_BUF shown = BUF_INIT;

	if (!name_of(n, &name))
		return false;
	shown_add(&shown, name.data, name.size, SHOWN_ESCAPE);
	return strcmp(name.data, path) == 0 || (!buf_error(&shown) && strcmp(shown.data, path) == 0);
}

static int settle_all(struct tree *t, struct call *c)
{
	size_t n;
	struct wnode **list;
	int err = tree_dirty_nodes(t, &list, &n);

	for (size_t i = 0; i < n && !err; i++) {
		err = tree_settle(list[i], c, NULL, NULL);
		if (err && err != -EINTR) {
			AUTO_BUF name = BUF_INIT;
			describe_path(list[i], &name);
			call_fault(c, -err, NULL, "workspace/%s could not be sent: %s; see sync",
				name.data ? name.data : "", strerror(-err));
		}
	}
	tree_put_nodes(list, n);
	return err;
}

/* The nodes with open files: of these mapped pages may be dirty, or older than the file. As the lists of tree_lists.c. */
static int open_nodes(struct tree *t, bool mappable, struct wnode ***nodes, size_t *count)
{
	size_t n, kept = 0;
	int err = tree_all_nodes(t, nodes, &n);
	struct wnode **list = *nodes;

	for (size_t i = 0; i < n; i++) {
		pthread_mutex_lock(&list[i]->lock);
		bool wanted = mappable ? list[i]->mappable > 0 : list[i]->files != NULL;
		pthread_mutex_unlock(&list[i]->lock);
		if (wanted)
			list[kept++] = list[i];
		else
			node_put(&list[i]->node);
	}
	*count = kept;
	return err;
}

static int barrier(void *files, struct call *c)
{
	struct tree *t = files;
	struct front *f = server_front(sandbox_server(t->sandbox));
	struct wnode **list;
	size_t n;
	int err = open_nodes(t, true, &list, &n);

	/* The kernel answers when other requests have been: who reads these must be another thread. */
	if (!err && f && n)
		err = call_may_wait(c);
	for (size_t i = 0; f && i < n && !err; i++)
		front_forget_inode(f, &list[i]->node, true);
	tree_put_nodes(list, n);
	return err ? err : settle_all(t, c);
}

/* Did the file change behind this answer? */
static bool note_attr(struct wnode *n, const struct fileop_attr *a)
{
	AUTO_UNLOCK(&n->lock);
	bool changed = n->data_cached && !tree_same_data(a, &n->data_attr);

	if (changed)
		n->data_attr = *a;
	n->changes += changed;
	return changed;
}

/* Asks about up to ASK_AT_ONCE open files in one request; drops the pages of those that changed, or of which nothing is known. */
static void check_open(
	struct tree *t, struct front *f, struct call *c, struct wnode **list, size_t n)
{
	AUTO_BATCH b;
	int sent;

	batch_init(&b, t->client, c);
	for (size_t i = 0; i < n; i++) {
		struct fileop_target target = {.handle = tree_any_handle(list[i]), .path = "/"};
		fileop_put_target(batch_add(&b, FILEOP_GETATTR, 0), &target);
	}
	sent = batch_send(&b);
	for (size_t i = 0; i < n; i++) {
		struct fileop_attr a;
		struct reader body;
		bool known = !sent && batch_next(&b, &body) == 0 && fileop_get_attr(&body, &a) == 0;

		if (!known || note_attr(list[i], &a))
			front_forget_inode(f, &list[i]->node, true);
	}
}

static void forget_names(struct tree *t)
{
	AUTO_UNLOCK(&t->lock);
	t->age++;
}

void tree_invalidate(struct tree *t, struct call *c)
{
	struct front *f = server_front(sandbox_server(t->sandbox));
	struct wnode **list;
	size_t n;

	forget_names(t);
	if (!f)
		return;
	/* Without memory for all of them the rest runs out by itself, within a second. */
	if (tree_granted_nodes(t, &list, &n) < 0)
		log_error("%s: no memory to forget all that was cached", sandbox_name(t->sandbox));
	for (size_t i = 0; i < n; i++)
		front_forget_inode(f, &list[i]->node, false);
	tree_put_nodes(list, n);
	if (open_nodes(t, false, &list, &n) < 0)
		log_error("%s: no memory to look at all open files", sandbox_name(t->sandbox));
	for (size_t i = 0; i < n; i += ASK_AT_ONCE)
		check_open(t, f, c, list + i, n - i < ASK_AT_ONCE ? n - i : ASK_AT_ONCE);
	tree_put_nodes(list, n);
}

static void invalidate(void *files)
{
	struct call c;

	call_init(&c, 0);
	tree_invalidate(files, &c);
	call_destroy(&c);
}

static void describe_sync(void *files, struct buf *out)
{
	size_t n;
	struct wnode **list;

	if (tree_dirty_nodes(files, &list, &n) < 0)
		buf_str(out, "failed ENOMEM : no memory to list all\n");
	for (size_t i = 0; i < n; i++) {
		struct wnode *w = list[i];
		size_t bytes;
		int err;

		pthread_mutex_lock(&w->lock);
		bytes = w->buffer_used;
		err = w->held_err;
		pthread_mutex_unlock(&w->lock);
		if (err) {
			buf_printf(out, "failed %s ", fault_errno_name(-err));
			describe_path(w, out);
			buf_printf(out, ": %s; held, %zu bytes\n", strerror(-err), bytes);
		} else {
			buf_printf(out, "queued %zu ", bytes);
			describe_path(w, out);
			buf_char(out, '\n');
		}
	}
	tree_put_nodes(list, n);
	tree_describe_conflicts(files, out);
}

/* The dirty nodes with that path below workspace/ (NULL: all). */
static int each_unsent(
	struct tree *t, const char *path, int (*act)(struct wnode *n, struct call *c), struct call *c)
{
	size_t n, found = 0;
	struct wnode **list;
	int err = tree_dirty_nodes(t, &list, &n);

	for (size_t i = 0; i < n; i++) {
		if (path && !is_named(list[i], path))
			continue;
		found++;
		int one = act(list[i], c);
		err = err ? err : one;
	}
	tree_put_nodes(list, n);
	return path && !found ? -ENOENT : err;
}

static int settle_one(struct wnode *n, struct call *c)
{
	return tree_settle(n, c, NULL, NULL);
}

static int drop_one(struct wnode *n, struct call *c)
{
	return tree_drop_unsent(n, c);
}

static int retry(void *files, struct call *c, const char *path)
{
	return each_unsent(files, path, settle_one, c);
}

static int discard(void *files, struct call *c, const char *path)
{
	return each_unsent(files, path, drop_one, c);
}

static void drop_caches(void *files)
{
	struct tree *t = files;
	struct front *f = server_front(sandbox_server(t->sandbox));
	size_t n;
	struct wnode **list;

	forget_names(t);
	if (tree_all_nodes(t, &list, &n) < 0)
		log_error("%s: no memory to drop all caches", sandbox_name(t->sandbox));
	for (size_t i = 0; f && i < n; i++)
		front_forget_inode(f, &list[i]->node, true);
	tree_put_nodes(list, n);
}

static void end(void *files)
{
	struct tree *t = files;
	struct node *ctl;

	tree_closer_stop(t); /* it tells the kernel things, and the front goes next */
	pthread_mutex_lock(&t->lock);
	ctl = t->control;
	t->control = NULL;
	pthread_mutex_unlock(&t->lock);
	node_put(ctl);
}

const struct sandbox_files tree_files_ops = {
	.barrier = barrier,
	.invalidate = invalidate,
	.invalidate_soon = tree_invalidate_soon,
	.end = end,
	.describe_sync = describe_sync,
	.retry = retry,
	.discard = discard,
	.drop_caches = drop_caches,
	.free = tree_free,
};
