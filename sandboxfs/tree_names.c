/*
 * Operations on names of the file tree. One request each; no cache but the kernel's.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "cleanup.h"
#include "tree_impl.h"

/* --- by name --- */

/* A file that has no name in the sandbox yet is known here alone. */
static int unborn_entry(struct wnode *n, struct op *op, struct node_entry *out)
{
	double timeout;
	int err = tree_getattr(&n->node, op, NULL, &out->attr, &timeout);

	if (err)
		return err;
	out->node = node_get(&n->node);
	out->entry_timeout = out->attr_timeout = timeout;
	return 0;
}

static bool is_unborn(struct wnode *n)
{
	AUTO_UNLOCK(&n->lock);

	for (struct wfile *f = n->files; f; f = f->next)
		if (f->unborn)
			return true;
	return false;
}

/* root/workspace is the workspace, in the sandbox and here: a link, so that there is one tree of it. */
static bool names_workspace(const struct wnode *dir, const char *name)
{
	return dir->root_path && !dir->root_path[1] && strcmp(name, "workspace") == 0;
}

static int workspace_link(struct wnode *dir, struct node_entry *out)
{
	AUTO_FREE char *text = NULL;
	struct wnode *n;
	int err = tree_link_to_workspace(dir->tree, &text);

	if (!err)
		err = tree_intern(dir, "workspace", &tree_workspace_link_attr, &n);
	if (err)
		return err;
	tree_entry(n, &tree_workspace_link_attr, text, out);
	return 0;
}

static int control_entry(struct wnode *dir, struct op *op, struct node_entry *out)
{
	struct node *ctl = dir->tree->control;
	double timeout;
	int err = ctl->ops->getattr(ctl, op, NULL, &out->attr, &timeout);

	if (err)
		return err;
	out->node = node_get(ctl);
	out->entry_timeout = out->attr_timeout = 1;
	return 0;
}

static bool names_control(const struct wnode *dir, const char *name)
{
	return dir->root_path && dir->tree->control && strcmp(name, ".ctl") == 0;
}

static bool known_entry(struct wnode *dir, const char *name, struct node_entry *out)
{
	struct fileop_attr a;
	double seconds;
	struct wnode *n = tree_known_child(dir, name, &a, &seconds);

	if (!n)
		return false;
	tree_stat(dir->tree, &a, NULL, &out->attr);
	out->node = &n->node;
	out->entry_timeout = out->attr_timeout = seconds;
	return true;
}

int tree_lookup(struct node *node, struct op *op, const char *name, struct node_entry *out)
{
	struct fileop_target target = {.handle = 0};
	struct wnode *dir = wnode_of(node), *known;
	AUTO_BUF path = BUF_INIT;
	AUTO_BATCH b;
	struct reader body;
	int err;

	batch_init(&b, dir->tree->client, op_call(op));
	if (names_control(dir, name))
		return control_entry(dir, op, out);
	if (names_workspace(dir, name))
		return workspace_link(dir, out);
	known = tree_find_child(dir, name);
	if (known) {
		err = is_unborn(known) ? unborn_entry(known, op, out) : 1;
		node_put(&known->node);
		if (err <= 0)
			return err;
	}
	if (tree_is_missing(dir, name))
		return -ENOENT;
	if (known_entry(dir, name, out))
		return 0;
	err = tree_child_path(dir, name, &path);
	if (err)
		return err;
	target.path = path.data;
	fileop_put_target(batch_add(&b, FILEOP_GETATTR, 0), &target);
	err = batch_send(&b);
	if (err)
		return err;
	err = batch_next(&b, &body);
	if (err == -ENOENT)
		tree_forget_name(dir, name);
	return err ? err : tree_entry_from(dir, name, &body, true, out);
}

/* Sends a batch of one call that makes dir/name, and reads the attributes it answers with. */
static int make(
	struct wnode *dir, const char *name, struct batch *b, const char *link, struct node_entry *out)
{
	struct fileop_attr a;
	struct reader body;
	AUTO_FREE char *shown = NULL;
	struct wnode *n;
	unsigned long touch;
	int err;

	tree_touch_begin(dir, b, &touch);
	err = batch_send(b);
	if (!err)
		err = batch_next(b, &body);
	if (!err)
		err = fileop_get_attr(&body, &a);
	if (!err)
		tree_touch_end(dir, b, touch);
	if (!err && link)
		err = tree_shown_link(dir, &a, link, &shown);
	if (!err)
		err = tree_intern(dir, name, &a, &n);
	if (!err)
		tree_entry(n, &a, shown, out);
	return err;
}

/* The path of dir/name for something that is about to be there; what is unborn under that name is settled first. */
static int new_path(struct wnode *dir, const char *name, struct call *c, struct buf *path)
{
	int err = names_workspace(dir, name) || names_control(dir, name) ? -EEXIST : 0;

	if (!err)
		err = tree_settle_children(dir, name, c);
	return err ? err : tree_child_path(dir, name, path);
}

int tree_mknod(struct node *node, struct op *op, const char *name, mode_t mode, dev_t dev,
	struct node_entry *out)
{
	struct wnode *dir = wnode_of(node);
	AUTO_BUF path = BUF_INIT;
	AUTO_BATCH b;
	int err = new_path(dir, name, op_call(op), &path);

	(void)dev;
	batch_init(&b, dir->tree->client, op_call(op));
	if (err)
		return err;
	if (S_ISCHR(mode) || S_ISBLK(mode))
		return -EPERM;
	struct buf *q = batch_add(&b, FILEOP_MKNOD, 0);
	tree_add_string(q, path.data);
	buf_u32(q, mode);
	return make(dir, name, &b, NULL, out);
}

int tree_mkdir(
	struct node *node, struct op *op, const char *name, mode_t mode, struct node_entry *out)
{
	struct wnode *dir = wnode_of(node);
	AUTO_BUF path = BUF_INIT;
	AUTO_BATCH b;
	int err = new_path(dir, name, op_call(op), &path);

	batch_init(&b, dir->tree->client, op_call(op));
	if (err)
		return err;
	struct buf *q = batch_add(&b, FILEOP_MKDIR, 0);
	tree_add_string(q, path.data);
	buf_u32(q, mode & 07777);
	return make(dir, name, &b, NULL, out);
}

int tree_symlink(
	struct node *node, struct op *op, const char *name, const char *text, struct node_entry *out)
{
	struct wnode *dir = wnode_of(node);
	AUTO_BUF path = BUF_INIT;
	AUTO_BATCH b;
	int err = new_path(dir, name, op_call(op), &path);

	batch_init(&b, dir->tree->client, op_call(op));
	if (err)
		return err;
	struct buf *q = batch_add(&b, FILEOP_SYMLINK, 0);
	tree_add_string(q, path.data);
	tree_add_string(q, text);
	return make(dir, name, &b, text, out);
}

int tree_link(
	struct node *node, struct op *op, struct node *newdir, const char *name, struct node_entry *out)
{
	struct wnode *n = wnode_of(node), *dir = wnode_of(newdir);
	struct fileop_target target = {.dev = n->dev, .ino = n->ino};
	AUTO_BUF from = BUF_INIT, to = BUF_INIT;
	AUTO_BATCH b;
	int err;

	batch_init(&b, dir->tree->client, op_call(op));
	if (newdir->ops != node->ops || n->tree != dir->tree)
		return -EXDEV;
	err = tree_settle(n, op_call(op), NULL, NULL);
	if (!err)
		err = new_path(dir, name, op_call(op), &to);
	if (!err)
		err = tree_path(n, 0, &from);
	if (err)
		return err;
	target.path = from.data;
	struct buf *q = batch_add(&b, FILEOP_LINK, 0);
	fileop_put_target(q, &target);
	tree_add_string(q, to.data);
	return make(dir, name, &b, NULL, out);
}

/* unlink and rmdir. */
static int take_away(struct wnode *dir, struct op *op, const char *name, enum fileop_code code)
{
	struct wnode *known;
	AUTO_BUF path = BUF_INIT;
	AUTO_BATCH b;
	struct reader body;
	unsigned long touch;
	int err;

	batch_init(&b, dir->tree->client, op_call(op));
	if (names_workspace(dir, name) || names_control(dir, name))
		return -EBUSY;
	err = tree_settle_children(dir, name, op_call(op));
	known = tree_find_child(dir, name);
	if (!err && known)
		err = tree_open_all_now(known, op_call(op));
	if (!err && known && code == FILEOP_RMDIR)
		err = tree_settle_children(
			known, NULL, op_call(op)); /* what is unborn in it makes it not empty */
	if (!err)
		err = tree_child_path(dir, name, &path);
	if (!err) {
		tree_add_string(batch_add(&b, code, 0), path.data);
		tree_touch_begin(dir, &b, &touch);
		err = batch_send(&b);
	}
	if (!err)
		err = batch_next(&b, &body);
	if (!err)
		tree_touch_end(dir, &b, touch);
	if (!err || err == -ENOENT)
		tree_forget_name(dir, name);
	if (!err)
		tree_forget_conflict(dir->tree, path.data);
	if (known && !err) {
		pthread_mutex_lock(&dir->tree->lock);
		known->unlinked_here = known->dentries == NULL;
		pthread_mutex_unlock(&dir->tree->lock);
	}
	node_put(known ? &known->node : NULL);
	return err;
}

int tree_unlink(struct node *dir, struct op *op, const char *name)
{
	return take_away(wnode_of(dir), op, name, FILEOP_UNLINK);
}

int tree_rmdir(struct node *dir, struct op *op, const char *name)
{
	return take_away(wnode_of(dir), op, name, FILEOP_RMDIR);
}

static int open_child_now(struct wnode *dir, const char *name, struct call *c)
{
	struct wnode *child = tree_find_child(dir, name);
	int err = child ? tree_open_all_now(child, c) : 0;

	node_put(child ? &child->node : NULL);
	return err;
}

int tree_rename(struct node *node, struct op *op, const char *name, struct node *newnode,
	const char *newname, unsigned flags)
{
	struct wnode *dir = wnode_of(node), *newdir = wnode_of(newnode);
	AUTO_BUF from = BUF_INIT, to = BUF_INIT;
	AUTO_BATCH b;
	struct reader body;
	unsigned long touch;
	int err;

	batch_init(&b, dir->tree->client, op_call(op));
	if (dir->tree != newdir->tree)
		return -EXDEV;
	if (names_workspace(dir, name) || names_workspace(newdir, newname) ||
		names_control(dir, name) || names_control(newdir, newname))
		return -EBUSY;
	err = tree_settle_children(dir, name, op_call(op));
	if (!err)
		err = tree_settle_children(newdir, newname, op_call(op));
	if (!err)
		err = open_child_now(newdir, newname, op_call(op));
	if (!err)
		err = tree_child_path(dir, name, &from);
	if (!err)
		err = tree_child_path(newdir, newname, &to);
	if (err)
		return err;
	struct buf *q = batch_add(&b, FILEOP_RENAME, 0);
	tree_add_string(q, from.data);
	tree_add_string(q, to.data);
	buf_u32(q, flags);
	tree_forget_attr(newdir);
	tree_touch_begin(dir, &b, &touch);
	err = batch_send(&b);
	if (!err)
		err = batch_next(&b, &body);
	if (!err)
		tree_touch_end(dir, &b, touch);
	if (!err)
		tree_forget_conflict(dir->tree, from.data);
	if (!err)
		tree_move_name(dir, name, newdir, newname, (flags & RENAME_EXCHANGE) != 0);
	return err;
}
