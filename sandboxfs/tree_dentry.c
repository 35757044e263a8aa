/*
 * Names of the file tree: which node is what name of which directory, and the paths that follow. Owns the dentries and their table
 * (under tree.lock); what a node is is tree.c's.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "tree_impl.h"

/* --- the table --- */

static uint64_t hash_name(const struct wnode *parent, const char *name)
{
	return tree_mix(node_hash(NODE_HASH_BEGIN, name) + parent->node.id);
}

/* Lock held. A table that cannot grow stays slow, no more. */
static void grow_dentries(struct tree *t)
{
	size_t n = t->dentry_buckets * 2;
	struct dentry **fresh = calloc(n, sizeof *fresh), *d, *next;

	if (!fresh)
		return;
	for (size_t i = 0; i < t->dentry_buckets; i++) {
		for (d = t->dentries[i]; d; d = next) {
			size_t at = hash_name(d->parent, d->name) % n;
			next = d->hash_next;
			d->hash_next = fresh[at];
			fresh[at] = d;
		}
	}
	free(t->dentries);
	t->dentries = fresh;
	t->dentry_buckets = n;
}

/* Lock held. */
struct dentry **tree_dentry_find(struct tree *t, struct wnode *parent, const char *name)
{
	struct dentry **at = &t->dentries[hash_name(parent, name) % t->dentry_buckets];

	while (*at && ((*at)->parent != parent || strcmp((*at)->name, name) != 0))
		at = &(*at)->hash_next;
	return at;
}

/* Lock held: takes it out of both lists; the caller frees it without the lock (it holds a reference). */
struct dentry *tree_dentry_take(struct tree *t, struct dentry *d)
{
	struct dentry **at = &t->dentries[hash_name(d->parent, d->name) % t->dentry_buckets];

	while (*at != d)
		at = &(*at)->hash_next;
	*at = d->hash_next;
	for (at = &d->node->dentries; *at != d; at = &(*at)->node_next)
		;
	*at = d->node_next;
	t->dentry_count--;
	return d;
}

void tree_dentry_free(struct dentry *d)
{
	if (!d)
		return;
	node_put(&d->parent->node);
	free(d->name);
	free(d);
}

/* Lock held: the path of a node by the dentry d (NULL: by its first one), written from its end to its begin. */
static int path_of(struct wnode *n, struct dentry *d, struct buf *out)
{
	struct dentry *chain[512];
	size_t depth = 0, limit = sizeof chain / sizeof chain[0];
	AUTO_FREE struct dentry **more = NULL;
	struct dentry **list = chain;

	while (!n->root_path) {
		if (!d)
			d = n->dentries;
		if (!d)
			return -ESTALE;
		if (depth == limit) { /* deeper than anybody builds: still no fixed bound */
			struct dentry **fresh = reallocarray(more, limit * 2, sizeof *fresh);
			if (!fresh)
				return -ENOMEM;
			if (!more)
				memcpy(fresh, chain, sizeof chain);
			list = more = fresh;
			limit *= 2;
		}
		list[depth++] = d;
		n = d->parent;
		d = NULL;
	}
	buf_str(out, n->root_path);
	while (depth) {
		if (out->size && out->data[out->size - 1] != '/')
			buf_char(out, '/');
		buf_str(out, list[--depth]->name);
	}
	return buf_error(out);
}

/* Lock held, before d is taken: bytes that are written to its file afterwards still belong beside what it was called. */
static void keep_last_path(struct dentry *d)
{
	struct wnode *n = d->node;
	AUTO_BUF path = BUF_INIT;

	if (n->dentries != d || d->node_next || n->type != S_IFREG || path_of(n, d, &path) < 0)
		return;
	free(n->last_path);
	n->last_path = buf_steal(&path);
}

/* Lock held: parent/name is node from now on. *old: what it was before, to be freed. */
int tree_dentry_set(
	struct tree *t, struct wnode *parent, const char *name, struct wnode *node, struct dentry **old)
{
	struct dentry *d = *tree_dentry_find(t, parent, name);

	*old = NULL;
	tree_missing_note(parent, name, true);
	if (d && d->node == node) {
		d->known_until_ms = call_now_ms() + CACHE_MS;
		d->known_age = t->age;
		/* the name it was last seen under comes first */
		struct dentry **at = &node->dentries;
		while (*at != d)
			at = &(*at)->node_next;
		*at = d->node_next;
		d->node_next = node->dentries;
		node->dentries = d;
		return 0;
	}
	struct dentry *fresh = calloc(1, sizeof *fresh);
	if (!fresh)
		return -ENOMEM;
	fresh->name = strdup(name);
	if (!fresh->name) {
		free(fresh);
		return -ENOMEM;
	}
	if (d) {
		keep_last_path(d);
		*old = tree_dentry_take(t, d);
	}
	node_get(&parent->node);
	fresh->known_until_ms = call_now_ms() + CACHE_MS;
	fresh->known_age = t->age;
	fresh->parent = parent;
	fresh->node = node;
	fresh->node_next = node->dentries;
	node->dentries = fresh;
	struct dentry **at = tree_dentry_find(t, parent, name);
	fresh->hash_next = *at;
	*at = fresh;
	if (++t->dentry_count > t->dentry_buckets)
		grow_dentries(t);
	return 0;
}

struct wnode *tree_find_child(struct wnode *parent, const char *name)
{
	struct tree *t = parent->tree;
	AUTO_UNLOCK(&t->lock);
	struct dentry *d = *tree_dentry_find(t, parent, name);

	return d && node_tryget(&d->node->node) ? d->node : NULL;
}

void tree_forget_name(struct wnode *parent, const char *name)
{
	struct tree *t = parent->tree;
	struct dentry *d;

	pthread_mutex_lock(&t->lock);
	d = *tree_dentry_find(t, parent, name);
	if (d) {
		keep_last_path(d);
		tree_dentry_take(t, d);
	}
	tree_missing_note(parent, name, false);
	pthread_mutex_unlock(&t->lock);
	tree_dentry_free(d);
}

void tree_drop_dentry(struct wnode *n, unsigned which)
{
	struct tree *t = n->tree;
	struct dentry *d;

	pthread_mutex_lock(&t->lock);
	for (d = n->dentries; d && which; which--)
		d = d->node_next;
	if (d) {
		keep_last_path(d);
		tree_dentry_take(t, d);
	}
	pthread_mutex_unlock(&t->lock);
	tree_dentry_free(d);
}

void tree_move_name(struct wnode *parent, const char *name, struct wnode *newparent,
	const char *newname, bool exchange)
{
	struct tree *t = parent->tree;
	struct dentry *from, *to, *gone[4] = {NULL};
	struct wnode *moved = NULL, *other = NULL;

	pthread_mutex_lock(&t->lock);
	from = *tree_dentry_find(t, parent, name);
	to = *tree_dentry_find(t, newparent, newname);
	if (from && from != to) {
		moved = from->node;
		moved->granted_age = t->age - 1; /* a rename is a change of it, too */
		gone[0] = tree_dentry_take(t, from);
	}
	if (to && from != to) {
		other = to->node;
		gone[1] = tree_dentry_take(t, to);
		if (!exchange && !other->dentries)
			other->unlinked_here = true;
	}
	if (!exchange)
		tree_missing_note(parent, name, false);
	tree_missing_note(newparent, newname, true);
	/* Without memory a name is not known any more; the kernel will look it up. */
	if (moved)
		(void)tree_dentry_set(t, newparent, newname, moved, &gone[2]);
	if (exchange && other)
		(void)tree_dentry_set(t, parent, name, other, &gone[3]);
	pthread_mutex_unlock(&t->lock);
	for (int i = 0; i < 4; i++)
		tree_dentry_free(gone[i]);
}

/* --- the path of a node --- */

int tree_path(struct wnode *n, unsigned which, struct buf *out)
{
	AUTO_UNLOCK(&n->tree->lock);
	struct dentry *d = n->dentries;

	if (n->root_path) {
		buf_str(out, n->root_path);
		return which ? -ESTALE : buf_error(out);
	}
	for (; d && which; which--)
		d = d->node_next;
	return d ? path_of(n, d, out) : -ESTALE;
}

int tree_known_path(struct wnode *n, struct buf *out)
{
	int err = tree_path(n, 0, out);
	if (err != -ESTALE)
		return err;
	AUTO_UNLOCK(&n->tree->lock);
	if (!n->last_path)
		return -ESTALE;
	buf_str(out, n->last_path);
	return buf_error(out);
}

int tree_child_path(struct wnode *dir, const char *name, struct buf *out)
{
	int err = tree_path(dir, 0, out);

	if (err)
		return err;
	if (out->data[out->size - 1] != '/')
		buf_char(out, '/');
	buf_str(out, name);
	return buf_error(out);
}

int tree_dir_depth(struct wnode *dir, enum tree_root *root)
{
	int depth = 0;
	AUTO_UNLOCK(&dir->tree->lock);

	while (!dir->root_path && dir->dentries) {
		dir = dir->dentries->parent;
		depth++;
	}
	*root = dir->root_path && !dir->root_path[1] ? TREE_SYSTEM : TREE_WORKSPACE;
	return depth;
}

struct wnode *tree_parent(struct wnode *n)
{
	AUTO_UNLOCK(&n->tree->lock);

	return n->dentries ? wnode_of(node_get(&n->dentries->parent->node)) : NULL;
}
