/*
 * Nodes of the file tree: their table, their life, and the tree as a whole. See tree_impl.h for what they promise.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "log.h"
#include "timed.h"
#include "tree_impl.h"

enum { FIRST_BUCKETS = 256 };

static const char *const root_paths[] = {"/workspace", "/"};

/* --- the table --- */

static uint64_t hash_inode(uint64_t dev, uint64_t ino)
{
	return tree_mix(ino + tree_mix(dev));
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
	tree_lists_leave(n);
	d = n->dentries;
	for (struct dentry *e = d; e; e = next) {
		next = e->node_next;
		tree_dentry_take(t, e);
		e->node_next = next; /* the list stays walkable for the freeing below */
	}
	pthread_mutex_unlock(&t->lock);
	for (; d; d = next) {
		next = d->node_next;
		tree_dentry_free(d);
	}
	free(n->buffer);
	free(n->listed);
	free(n->last_path);
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
		struct dentry *here = *tree_dentry_find(t, parent, name);
		n = here && same_inode(here->node, a) && node_tryget(&here->node->node) ? here->node : NULL;
	} else {
		for (n = *bucket; n; n = n->hash_next)
			if (same_inode(n, a) && node_tryget(&n->node))
				break;
	}
	for (struct wnode *w = S_ISDIR(a->mode) && !n ? *bucket : NULL; w; w = w->hash_next)
		while (same_inode(w, a) && w->dentries) {
			struct dentry *moved = tree_dentry_take(t, w->dentries);
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
	err = tree_dentry_set(t, parent, name, n, &old);
	pthread_mutex_unlock(&t->lock);
	tree_dentry_free(old);
	for (struct dentry *d = gone; d; d = gone) {
		gone = d->node_next;
		tree_dentry_free(d);
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
	tree_lists_init(t);
	t->ino_seed = node_hash(NODE_HASH_BEGIN, sandbox_name(sb));
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
