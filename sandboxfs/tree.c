/*
 * Nodes and names of the file tree: the tables. See tree_impl.h for what they promise.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cleanup.h"
#include "log.h"
#include "timed.h"
#include "tree_impl.h"

enum { FIRST_BUCKETS = 256 };

static const char *const root_paths[] = {"/workspace", "/"};

/* --- hashes --- */

static uint64_t mix(uint64_t h)
{
	h ^= h >> 33;
	h *= 0xff51afd7ed558ccdULL;
	h ^= h >> 33;
	h *= 0xc4ceb9fe1a85ec53ULL;
	return h ^ h >> 33;
}

static uint64_t hash_inode(uint64_t dev, uint64_t ino)
{
	return mix(ino + mix(dev));
}

static uint64_t hash_name(const struct wnode *parent, const char *name)
{
	uint64_t h = 0xcbf29ce484222325ULL;

	for (; *name; name++)
		h = (h ^ (unsigned char)*name) * 0x100000001b3ULL;
	return mix(h + parent->node.id);
}

/* Lock held. A table that cannot grow stays slow, no more. */
static void grow_nodes(struct tree *t)
{
	size_t n = t->node_buckets * 2;
	struct wnode **fresh = calloc(n, sizeof *fresh), *w, *next;

	if (!fresh)
		return;
	for (size_t i = 0; i < t->node_buckets; i++) {
		for (w = t->nodes[i]; w; w = next) {
			size_t at = hash_inode(w->dev, w->ino) % n;
			next = w->hash_next;
			w->hash_next = fresh[at];
			fresh[at] = w;
		}
	}
	free(t->nodes);
	t->nodes = fresh;
	t->node_buckets = n;
}

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

/* --- rings --- */

#define RING_INIT(head, kind) ((head)->kind##_next = (head)->kind##_prev = (head))
#define RING_OUT(n, kind)                                                                          \
	do {                                                                                           \
		if ((n)->kind##_next) {                                                                    \
			(n)->kind##_prev->kind##_next = (n)->kind##_next;                                      \
			(n)->kind##_next->kind##_prev = (n)->kind##_prev;                                      \
			(n)->kind##_next = (n)->kind##_prev = NULL;                                            \
		}                                                                                          \
	} while (0)
#define RING_LAST(head, n, kind)                                                                   \
	do {                                                                                           \
		(n)->kind##_prev = (head)->kind##_prev;                                                    \
		(n)->kind##_next = (head);                                                                 \
		(head)->kind##_prev->kind##_next = (n);                                                    \
		(head)->kind##_prev = (n);                                                                 \
	} while (0)

void tree_note_granted(struct wnode *n)
{
	struct tree *t = n->tree;
	AUTO_UNLOCK(&t->lock);

	n->granted_until_ms = call_now_ms() + CACHE_MS;
	RING_OUT(n, granted);
	RING_LAST(&t->granted, n, granted);
}

void tree_note_dirty(struct wnode *n)
{
	struct tree *t = n->tree;
	bool dirty;

	/* The one place where both locks are held: what is decided must still be true when it is noted. */
	pthread_mutex_lock(&t->lock);
	pthread_mutex_lock(&n->lock);
	dirty = n->buffer_used > 0;
	for (struct wfile *f = n->files; f && !dirty; f = f->next)
		dirty = f->staged;
	pthread_mutex_unlock(&n->lock);
	bool was = n->in_dirty;
	if (dirty && !was)
		RING_LAST(&t->dirty, n, dirty);
	else if (!dirty && was)
		RING_OUT(n, dirty);
	n->in_dirty = dirty;
	pthread_mutex_unlock(&t->lock);
	/* What is unsent keeps its node, whatever the kernel forgets. */
	if (dirty && !was)
		node_get(&n->node);
	else if (!dirty && was)
		node_put(&n->node);
}

/* Lock held: adds n to a list with a reference, if it is not about to go. */
static bool collect(struct wnode ***list, size_t *count, size_t *size, struct wnode *n)
{
	if (!node_tryget(&n->node))
		return true;
	if (*count == *size) {
		size_t more = *size ? *size * 2 : 64;
		struct wnode **fresh = reallocarray(*list, more, sizeof *fresh);
		if (!fresh)
			return false;
		*list = fresh;
		*size = more;
	}
	(*list)[(*count)++] = n;
	return true;
}

struct wnode **tree_dirty_nodes(struct tree *t, size_t *n)
{
	struct wnode **list = NULL;
	size_t size = 0;
	AUTO_UNLOCK(&t->lock);

	*n = 0;
	for (struct wnode *w = t->dirty.dirty_next; w != &t->dirty; w = w->dirty_next)
		if (!collect(&list, n, &size, w))
			break;
	return list;
}

struct wnode **tree_granted_nodes(struct tree *t, size_t *n)
{
	int64_t now = call_now_ms();
	struct wnode **list = NULL;
	size_t size = 0;
	AUTO_UNLOCK(&t->lock);

	*n = 0;
	for (struct wnode *w = t->granted.granted_prev; w != &t->granted; w = w->granted_prev)
		if (w->granted_until_ms < now || !collect(&list, n, &size, w))
			break;
	return list;
}

struct wnode **tree_all_nodes(struct tree *t, size_t *n)
{
	struct wnode **list = NULL;
	size_t size = 0;
	AUTO_UNLOCK(&t->lock);

	*n = 0;
	for (size_t i = 0; i < t->node_buckets; i++)
		for (struct wnode *w = t->nodes[i]; w; w = w->hash_next)
			if (!collect(&list, n, &size, w))
				return list;
	return list;
}

void tree_put_nodes(struct wnode **list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		node_put(&list[i]->node);
	free(list);
}

/* --- dentries --- */

/* Lock held. */
static struct dentry **find_dentry(struct tree *t, struct wnode *parent, const char *name)
{
	struct dentry **at = &t->dentries[hash_name(parent, name) % t->dentry_buckets];

	while (*at && ((*at)->parent != parent || strcmp((*at)->name, name) != 0))
		at = &(*at)->hash_next;
	return at;
}

/* Lock held: takes it out of both lists; the caller frees it without the lock (it holds a reference). */
static struct dentry *take_dentry(struct tree *t, struct dentry *d)
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

static void free_dentry(struct dentry *d)
{
	if (!d)
		return;
	node_put(&d->parent->node);
	free(d->name);
	free(d);
}

/* Lock held: parent/name is node from now on. *old: what it was before, to be freed. */
static int set_dentry(
	struct tree *t, struct wnode *parent, const char *name, struct wnode *node, struct dentry **old)
{
	struct dentry *d = *find_dentry(t, parent, name);

	*old = NULL;
	if (d && d->node == node) {
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
	if (d)
		*old = take_dentry(t, d);
	node_get(&parent->node);
	fresh->parent = parent;
	fresh->node = node;
	fresh->node_next = node->dentries;
	node->dentries = fresh;
	struct dentry **at = find_dentry(t, parent, name);
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
	struct dentry *d = *find_dentry(t, parent, name);

	return d && node_tryget(&d->node->node) ? d->node : NULL;
}

void tree_forget_name(struct wnode *parent, const char *name)
{
	struct tree *t = parent->tree;
	struct dentry *d;

	pthread_mutex_lock(&t->lock);
	d = *find_dentry(t, parent, name);
	if (d)
		take_dentry(t, d);
	pthread_mutex_unlock(&t->lock);
	free_dentry(d);
}

void tree_drop_dentry(struct wnode *n, unsigned which)
{
	struct tree *t = n->tree;
	struct dentry *d;

	pthread_mutex_lock(&t->lock);
	for (d = n->dentries; d && which; which--)
		d = d->node_next;
	if (d)
		take_dentry(t, d);
	pthread_mutex_unlock(&t->lock);
	free_dentry(d);
}

void tree_move_name(struct wnode *parent, const char *name, struct wnode *newparent,
	const char *newname, bool exchange)
{
	struct tree *t = parent->tree;
	struct dentry *from, *to, *gone[4] = {NULL};
	struct wnode *moved = NULL, *other = NULL;

	pthread_mutex_lock(&t->lock);
	from = *find_dentry(t, parent, name);
	to = *find_dentry(t, newparent, newname);
	if (from && from != to) {
		moved = from->node;
		gone[0] = take_dentry(t, from);
	}
	if (to && from != to) {
		other = to->node;
		gone[1] = take_dentry(t, to);
		if (!exchange && !other->dentries)
			other->unlinked_here = true;
	}
	/* Without memory a name is not known any more; the kernel will look it up. */
	if (moved)
		(void)set_dentry(t, newparent, newname, moved, &gone[2]);
	if (exchange && other)
		(void)set_dentry(t, parent, name, other, &gone[3]);
	pthread_mutex_unlock(&t->lock);
	for (int i = 0; i < 4; i++)
		free_dentry(gone[i]);
}

/* --- paths --- */

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
	*root = dir->root_path == root_paths[TREE_SYSTEM] ? TREE_SYSTEM : TREE_WORKSPACE;
	return depth;
}

struct wnode *tree_parent(struct wnode *n)
{
	AUTO_UNLOCK(&n->tree->lock);

	return n->dentries ? wnode_of(node_get(&n->dentries->parent->node)) : NULL;
}

/* --- nodes --- */

static void wnode_destroy(struct node *node)
{
	struct wnode *n = wnode_of(node);
	struct tree *t = n->tree;
	struct dentry *d, *next;

	pthread_mutex_lock(&t->lock);
	for (int i = 0; i < 2; i++)
		if (t->roots[i] == n)
			t->roots[i] = NULL;
	for (struct wnode **at = &t->nodes[hash_inode(n->dev, n->ino) % t->node_buckets]; *at;
		 at = &(*at)->hash_next) {
		if (*at == n) {
			*at = n->hash_next;
			t->node_count--;
			break;
		}
	}
	RING_OUT(n, granted);
	d = n->dentries;
	for (struct dentry *e = d; e; e = next) {
		next = e->node_next;
		take_dentry(t, e);
		e->node_next = next; /* the list stays walkable for the freeing below */
	}
	pthread_mutex_unlock(&t->lock);
	for (; d; d = next) {
		next = d->node_next;
		free_dentry(d);
	}
	free(n->buffer);
	pthread_mutex_destroy(&n->lock);
	struct sandbox *sb = n->sandbox;
	free(n);
	sandbox_put(sb);
}

static struct wnode *wnode_new(struct tree *t)
{
	struct wnode *n = calloc(1, sizeof *n);

	if (!n)
		return NULL;
	node_init(&n->node, &wnode_ops);
	pthread_mutex_init(&n->lock, NULL);
	n->tree = t;
	n->sandbox = sandbox_get(t->sandbox);
	return n;
}

static bool same_inode(const struct wnode *n, const struct fileop_attr *a)
{
	bool both = n->btime.tv_sec && a->btime.tv_sec;

	return n->dev == a->dev && n->ino == a->ino && n->type == (a->mode & S_IFMT) &&
		   (!both || (n->btime.tv_sec == a->btime.tv_sec && n->btime.tv_nsec == a->btime.tv_nsec));
}

/* Names that would leave their directory, and types a file system does not have, come from no honest server. */
bool tree_acceptable_name(const char *name)
{
	return *name && strlen(name) <= 255 && !strchr(name, '/') && strcmp(name, ".") != 0 &&
		   strcmp(name, "..") != 0;
}

static bool acceptable_attr(const struct fileop_attr *a)
{
	switch (a->mode & S_IFMT) {
	case S_IFREG:
	case S_IFDIR:
	case S_IFLNK:
	case S_IFIFO:
	case S_IFSOCK:
	case S_IFCHR:
	case S_IFBLK:
		return a->size <= INT64_MAX;
	default:
		return false;
	}
}

/*
 * What the text of a link may say depends on how deep the link lies (tree_show.c), and the kernel believes a nodeid to be
 * where it found it. So a link or directory has one place for life: another name of a link is another node, and a directory that the
 * sandbox moved is a new one, of which the old is stale with all below it.
 */
int tree_intern(
	struct wnode *parent, const char *name, const struct fileop_attr *a, struct wnode **out)
{
	struct tree *t = parent->tree;
	struct dentry *old = NULL, *gone = NULL;
	struct wnode *n, *fresh;
	int err;

	if (!tree_acceptable_name(name) || !acceptable_attr(a)) {
		log_error(
			"%s: its server sent a name or an attribute that cannot be", sandbox_name(t->sandbox));
		return -EIO;
	}
	fresh = wnode_new(t);
	if (!fresh)
		return -ENOMEM;
	fresh->dev = a->dev;
	fresh->ino = a->ino;
	fresh->btime = a->btime;
	fresh->type = a->mode & S_IFMT;
	fresh->is_link_to_workspace = a == &tree_workspace_link_attr;

	pthread_mutex_lock(&t->lock);
	struct wnode **bucket = &t->nodes[hash_inode(a->dev, a->ino) % t->node_buckets];
	if (S_ISLNK(a->mode) || S_ISDIR(a->mode)) {
		struct dentry *here = *find_dentry(t, parent, name);
		n = here && same_inode(here->node, a) && node_tryget(&here->node->node) ? here->node : NULL;
	} else {
		for (n = *bucket; n; n = n->hash_next)
			if (same_inode(n, a) && node_tryget(&n->node))
				break;
	}
	for (struct wnode *w = S_ISDIR(a->mode) && !n ? *bucket : NULL; w; w = w->hash_next)
		while (same_inode(w, a) && w->dentries) {
			struct dentry *moved = take_dentry(t, w->dentries);
			moved->node_next = gone;
			gone = moved;
		}
	if (!n) {
		n = fresh;
		fresh = NULL;
		n->hash_next = *bucket;
		*bucket = n;
		if (++t->node_count > t->node_buckets)
			grow_nodes(t);
	}
	err = set_dentry(t, parent, name, n, &old);
	pthread_mutex_unlock(&t->lock);
	free_dentry(old);
	for (struct dentry *d = gone; d; d = gone) {
		gone = d->node_next;
		free_dentry(d);
	}
	if (fresh)
		node_put(&fresh->node);
	if (err) {
		node_put(&n->node);
		return err;
	}
	tree_note_attr(n, a);
	*out = n;
	return 0;
}

/* --- the whole --- */

void tree_free(void *arg)
{
	struct tree *t = arg;

	tree_closer_stop(t);
	call_destroy(&t->closer_call);
	pthread_cond_destroy(&t->closer_wake);
	pthread_mutex_destroy(&t->closer_lock);
	tree_free_conflicts(t);
	batch_client_free(t->client);
	pthread_mutex_destroy(&t->lock);
	free(t->nodes);
	free(t->dentries);
	free(t);
}

static int tree_new(struct sandbox *sb, struct tree **out)
{
	struct tree *t = calloc(1, sizeof *t);
	int err;

	if (!t)
		return -ENOMEM;
	t->sandbox = sb;
	pthread_mutex_init(&t->lock, NULL);
	pthread_mutex_init(&t->closer_lock, NULL);
	call_init(&t->closer_call, 0);
	RING_INIT(&t->granted, granted);
	RING_INIT(&t->dirty, dirty);
	t->ino_seed = 0xcbf29ce484222325ULL;
	for (const char *p = sandbox_name(sb); *p; p++)
		t->ino_seed = (t->ino_seed ^ (unsigned char)*p) * 0x100000001b3ULL;
	t->node_buckets = t->dentry_buckets = FIRST_BUCKETS;
	t->nodes = calloc(t->node_buckets, sizeof *t->nodes);
	t->dentries = calloc(t->dentry_buckets, sizeof *t->dentries);
	err = timed_cond_init(&t->closer_wake);
	if (!err)
		err = t->nodes && t->dentries ? batch_client_new(sb, &t->client) : -ENOMEM;
	if (err) {
		tree_free(t);
		return err;
	}
	*out = t;
	return 0;
}

int tree_node(struct sandbox *sb, enum tree_root which, struct node **out)
{
	struct tree *t = sandbox_files(sb), *fresh;
	struct wnode *n;
	int err;

	if (!t) {
		err = tree_new(sb, &fresh);
		if (err)
			return err;
		t = sandbox_set_files(sb, &tree_files_ops, fresh);
		if (t != fresh)
			tree_free(fresh);
	}
	n = wnode_new(t);
	if (!n)
		return -ENOMEM;
	n->root_path = root_paths[which];
	n->type = S_IFDIR;
	pthread_mutex_lock(&t->lock);
	if (t->roots[which] && node_tryget(&t->roots[which]->node))
		*out = &t->roots[which]->node;
	else
		*out = node_get(&n->node), t->roots[which] = n;
	pthread_mutex_unlock(&t->lock);
	node_put(&n->node);
	return 0;
}

void tree_set_control(struct sandbox *sb, struct node *ctl)
{
	struct tree *t = sandbox_files(sb);

	pthread_mutex_lock(&t->lock);
	t->control = ctl;
	pthread_mutex_unlock(&t->lock);
}

const struct node_ops wnode_ops = {
	.destroy = wnode_destroy,
	.patient = true,
	.lookup = tree_lookup,
	.getattr = tree_getattr,
	.setattr = tree_setattr,
	.readlink = tree_readlink,
	.mknod = tree_mknod,
	.mkdir = tree_mkdir,
	.symlink = tree_symlink,
	.link = tree_link,
	.unlink = tree_unlink,
	.rmdir = tree_rmdir,
	.rename = tree_rename,
	.create = tree_create,
	.open = tree_open,
	.read = tree_read,
	.write = tree_write,
	.flush = tree_flush,
	.release = tree_release,
	.fsync = tree_fsync,
	.fallocate = tree_fallocate,
	.lseek = tree_lseek,
	.copy_range = tree_copy_range,
	.opendir = tree_opendir,
	.readdir = tree_readdir,
	.releasedir = tree_releasedir,
	.statfs = tree_statfs,
	.getxattr = tree_getxattr,
	.setxattr = tree_setxattr,
	.listxattr = tree_listxattr,
	.removexattr = tree_removexattr,
};
