/*
 * The control tree as nodes: names, attributes, listings and openings, all from the tables of ctl.h.
 *
 * One generator serves lookup and readdir: rows first, then the set, then `help`. Listings never carry attributes (a
 * readdirplus entry would give the kernel a node that stays). What an opening does is its kind's; this file
 * finds the kind, checks what the table permits (root is not stopped by mode bits) and notes every failure.
 *
 * Owns struct ctl_node. Touches no handler's data.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cleanup.h"
#include "kinds.h"
#include "tree.h"

static const struct node_ops ctl_node_ops;

/* --- failures --- */

static void complete_fault(struct ctl_node *n, struct call *c, int err, const char *operation)
{
	(void)call_fault(
		c, -err, NULL, "%s", strerror(-err)); /* the number is returned by the caller */
	const char *message = c->fault.message ? c->fault.message : "";
	size_t length = strlen(n->path);
	/* "processes: ..." and, of what is below it, "processes/web: ..." stay as they are. */
	bool named = length && strncmp(message, n->path, length) == 0 && strchr(":/ ", message[length]);
	if (length && !named) {
		call_fault_prefix(c, ": ");
		call_fault_prefix(c, n->path);
	}
	if (!c->fault.operation)
		c->fault.operation = strdup(operation);
	if (!c->fault.path)
		c->fault.path = strdup(n->path);
}

int ctl_fail(struct ctl_node *n, struct call *c, int err, const char *operation)
{
	if (!c || err >= 0 || err == -EINTR || err == -EAGAIN)
		return err;
	complete_fault(n, c, err, operation);
	if (n->ref.sandbox)
		sandbox_note_fault(n->ref.sandbox, &c->fault);
	else
		server_note_fault(n->ref.server, &c->fault);
	return err;
}

/* The answers that directories give every day are no faults. */
int ctl_fail_name(struct ctl_node *n, struct call *c, int err, const char *operation)
{
	bool ordinary = err == -ENOENT || err == -EEXIST || (err == -ENOTEMPTY && !c->fault.err);
	return ordinary ? err : ctl_fail(n, c, err, operation);
}

int ctl_begin(struct ctl_node *n, struct call *c)
{
	if (n->row->begin)
		return n->row->begin(&n->ref, c);
	return n->ref.sandbox ? sandbox_ready(n->ref.sandbox, c) : 0;
}

/* --- nodes --- */

static struct ctl_node *ctl_of(struct node *n)
{
	return (struct ctl_node *)n;
}

/* Of the sandbox's name and the path, so that two sandboxes never share a number. */
uint64_t ctl_inode(struct sandbox *sb, const char *path)
{
	uint64_t h = node_hash(NODE_HASH_BEGIN, sb ? sandbox_name(sb) : "");
	h = node_hash(node_hash(h, "/ctl/"), path);
	/* 0 and 1 mean something to others. */
	return h < 2 ? h + 2 : h;
}

static void node_destroy(struct node *node)
{
	struct ctl_node *n = ctl_of(node);
	ctl_tree_drop(n->tree, n);
	if (n->set)
		n->set->put(n->ref.object);
	if (n->parent)
		node_put(&n->parent->node);
	if (n->ref.sandbox)
		sandbox_put(n->ref.sandbox);
	ctl_tree_put(n->tree);
	free(n->path);
	free(n);
}

const struct ctl_row ctl_help_row = {
	.name = "help", .mode = 0444, .kind = CTL_TEXT, .grammar = "R what is here"};

static bool row_writes(const struct ctl_row *row)
{
	return row && (row->mode & 0222);
}

/* Must every lookup give a node of its own? (kinds.h says why; of links, so that the kernel keeps no old target) */
static bool row_fresh(const struct ctl_row *row)
{
	return row && row->kind != CTL_DIR && (row->kind == CTL_LINK || row_writes(row));
}

/* A node for a name in dir. set not NULL: it is that set's object (taken in any case). */
static int node_make(struct ctl_node *dir, const struct ctl_row *row, const char *name,
	const struct ctl_set *set, void *object, struct ctl_node **out)
{
	struct ctl_node *n = calloc(1, sizeof *n);
	char *path = NULL;
	if (!n || asprintf(&path, "%s%s%s", dir->path, *dir->path ? "/" : "", name) < 0) {
		free(n);
		if (set)
			set->put(object);
		return -ENOMEM;
	}
	node_init(&n->node, &ctl_node_ops);
	n->tree = ctl_tree_get(dir->tree);
	n->parent = ctl_of(node_get(&dir->node));
	n->row = row;
	n->dir = row == &ctl_help_row ? dir->dir : row->dir;
	n->set = set;
	n->ref = dir->ref;
	if (n->ref.sandbox)
		n->ref.sandbox = sandbox_get(n->ref.sandbox);
	if (set) {
		n->ref.object = object;
		n->ref.up = &dir->ref;
	}
	n->path = path;
	n->ref.path = path;
	n->name = path + strlen(path) - strlen(name);
	n->ino = ctl_inode(n->ref.sandbox, path);
	*out = row_fresh(row) ? n : ctl_tree_keep(n->tree, n);
	return 0;
}

int ctl_node_new(struct server *server, struct sandbox *sandbox, struct node **out)
{
	struct ctl_tree *tree;
	int err = ctl_tree_of(server, sandbox, &tree);
	if (err)
		return err;
	struct ctl_node *n = ctl_tree_kept(tree, "", NULL);
	if (n) {
		ctl_tree_put(tree);
		*out = &n->node;
		return 0;
	}
	n = calloc(1, sizeof *n);
	char *path = strdup("");
	if (!n || !path) {
		free(n);
		free(path);
		ctl_tree_put(tree);
		return -ENOMEM;
	}
	node_init(&n->node, &ctl_node_ops);
	n->tree = tree;
	n->dir = !sandbox                                  ? &ctl_server_dir
			 : server_options(server)->sandbox != NULL ? &ctl_single_dir
													   : &ctl_sandbox_dir;
	n->ref.server = server;
	n->ref.sandbox = sandbox ? sandbox_get(sandbox) : NULL;
	n->path = path;
	n->name = path;
	n->ref.path = path;
	n->ino = ctl_inode(sandbox, path);
	*out = &ctl_tree_keep(tree, n)->node;
	return 0;
}

/* --- attributes --- */

mode_t ctl_mode(const struct ctl_row *row)
{
	if (!row || row->kind == CTL_DIR)
		return S_IFDIR | 0700;
	if (row->kind == CTL_LINK)
		return S_IFLNK | 0777;
	return S_IFREG | (row->copied ? 0600 : row->mode & 0600);
}

static int node_stat(struct ctl_node *n, struct call *c, struct stat *st)
{
	const struct options *o = server_options(n->ref.server);
	const struct ctl_row *row = n->row;
	int err = 0;

	memset(st, 0, sizeof *st);
	st->st_ino = n->ino;
	st->st_mode = ctl_mode(row);
	st->st_nlink = 1;
	st->st_uid = o->idmap == IDMAP_USER ? o->uid : getuid();
	st->st_gid = o->idmap == IDMAP_USER ? o->gid : getgid();
	st->st_blksize = 4096;
	if (row && row->kind == CTL_SIZED) {
		uint64_t size = 0;
		err = row->size(&n->ref, c, &size);
		st->st_size = (off_t)size;
		st->st_blocks = (blkcnt_t)((size + 511) / 512);
	} else if (row && row->kind == CTL_LINK) {
		AUTO_BUF text = BUF_INIT;
		err = row->target(&n->ref, c, &text);
		st->st_size = (off_t)text.size;
	}
	if (row && row->mtime)
		st->st_mtim = row->mtime(&n->ref);
	if (!st->st_mtim.tv_sec)
		st->st_mtim = ctl_tree_time(n->tree, n->path);
	st->st_atim = st->st_ctim = st->st_mtim;
	return err;
}

/* Takes the node. */
static int node_answer(struct ctl_node *n, struct call *c, struct node_entry *out)
{
	int err = node_stat(n, c, &out->attr);
	if (err) {
		node_put(&n->node);
		return err;
	}
	out->node = &n->node;
	out->attr_timeout = ctl_is_dir(n) ? 1 : 0;
	/* What the tables say stays; objects come and go, and fresh nodes must be asked for. */
	out->entry_timeout = n->set || row_fresh(n->row) || n->row->kind == CTL_LINK ? 0 : 1;
	return 0;
}

static int fs_getattr(
	struct node *node, struct op *op, void *file, struct stat *st, double *timeout)
{
	struct ctl_node *n = ctl_of(node);
	(void)file;
	*timeout = ctl_is_dir(n) ? 1 : 0;
	return node_stat(n, op_call(op), st);
}

/* chmod, truncate and utimens succeed and do nothing: every `>` and `cp -p` asks for them. */
static int fs_setattr(struct node *node, struct op *op, void *file, const struct stat *st,
	int valid, struct stat *out, double *timeout)
{
	struct ctl_node *n = ctl_of(node);
	const int times = NODE_SET_ATIME | NODE_SET_MTIME | NODE_SET_ATIME_NOW | NODE_SET_MTIME_NOW;
	int err;
	(void)file;
	*timeout = 0;
	err = node_stat(n, op_call(op), out);
	if (err)
		return err;
	if (((valid & NODE_SET_UID) && st->st_uid != out->st_uid) ||
		((valid & NODE_SET_GID) && st->st_gid != out->st_gid))
		return ctl_fail(n, op_call(op), -EPERM, "chown");
	if ((valid & times) && n->row && n->row->touch)
		err = n->row->touch(&n->ref, op_call(op));
	if (err)
		return ctl_fail(n, op_call(op), err, "touch");
	return node_stat(n, op_call(op), out);
}

static int fs_readlink(struct node *node, struct op *op, char **text)
{
	struct ctl_node *n = ctl_of(node);
	AUTO_BUF out = BUF_INIT;
	if (!n->row || n->row->kind != CTL_LINK)
		return -EINVAL;
	int err = n->row->target(&n->ref, op_call(op), &out);
	if (!err && !(*text = buf_steal(&out)))
		err = -ENOMEM;
	return err;
}

static int fs_statfs(struct node *node, struct op *op, struct statvfs *st)
{
	(void)node;
	(void)op;
	*st = (struct statvfs){.f_bsize = 4096, .f_frsize = 4096, .f_namemax = 255};
	return 0;
}

/* --- names --- */

static const struct ctl_row *find_row(const struct ctl_dir *d, const char *name)
{
	for (const struct ctl_row *row = d->rows; row && row->name; row++)
		if (strcmp(row->name, name) == 0)
			return row;
	return strcmp(name, "help") == 0 ? &ctl_help_row : NULL;
}

/* 0 and *out a new reference, or an errno. */
static int find_node(struct ctl_node *dir, struct call *c, const char *name, struct ctl_node **out)
{
	if (!ctl_is_dir(dir))
		return -ENOTDIR;
	const struct ctl_row *row = find_row(dir->dir, name);
	if (row)
		return node_make(dir, row, name, NULL, NULL, out);
	if (ctl_is_editors_name(name))
		return -ENOENT;
	int err = -ENOENT;
	for (const struct ctl_set *set = dir->dir->set; set && err == -ENOENT; set = set->also) {
		void *object;
		err = set->find(&dir->ref, c, name, &object);
		if (!err)
			return node_make(dir, set->row, name, set, object, out);
	}
	return err;
}

/* With subdir=workspace the mount has no place for root/ but here: .ctl/root. Not listed. */
static bool is_system_root(const struct ctl_node *dir, const char *name)
{
	return !dir->parent && dir->ref.sandbox && server_options(dir->ref.server)->subdir &&
		   strcmp(name, "root") == 0;
}

static int find_system_root(struct ctl_node *dir, struct op *op, struct node_entry *out)
{
	int err = tree_node(dir->ref.sandbox, TREE_SYSTEM, &out->node);
	if (err)
		return err;
	err = out->node->ops->getattr(out->node, op, NULL, &out->attr, &out->attr_timeout);
	if (err)
		node_put(out->node);
	out->entry_timeout = 1;
	return err;
}

static int fs_lookup(struct node *node, struct op *op, const char *name, struct node_entry *out)
{
	struct ctl_node *dir = ctl_of(node), *n;
	if (is_system_root(dir, name))
		return find_system_root(dir, op, out);
	int err = find_node(dir, op_call(op), name, &n);
	if (!err)
		err = node_answer(n, op_call(op), out);
	return ctl_fail_name(dir, op_call(op), err, "lookup");
}

/* Makes an object of the directory's set. */
static int make_node(
	struct ctl_node *dir, struct call *c, const char *name, bool directory, struct ctl_node **out)
{
	const struct ctl_set *set = ctl_is_dir(dir) ? dir->dir->set : NULL;
	if (ctl_is_editors_name(name))
		return -EACCES;
	if (!set || !set->make || (set->row->kind == CTL_DIR) != directory) {
		(void)call_fault(c, EACCES, NULL, "%s: no %s can be made here; cat %s%shelp", name,
			directory ? "directory" : "file", dir->path, *dir->path ? "/" : "");
		return ctl_fail(dir, c, -EACCES, directory ? "mkdir" : "create");
	}
	void *object;
	int err = set->make(&dir->ref, c, name, &object);
	if (!err)
		err = node_make(dir, set->row, name, set, object, out);
	return ctl_fail_name(dir, c, err, directory ? "mkdir" : "create");
}

static int fs_mkdir(
	struct node *node, struct op *op, const char *name, mode_t mode, struct node_entry *out)
{
	struct ctl_node *dir = ctl_of(node), *n;
	(void)mode;
	if (ctl_is_dir(dir) && find_row(dir->dir, name))
		return -EEXIST;
	int err = make_node(dir, op_call(op), name, true, &n);
	return err ? err : node_answer(n, op_call(op), out);
}

static int remove_name(struct ctl_node *dir, struct op *op, const char *name, bool directory)
{
	struct call *c = op_call(op);
	const struct ctl_set *set = ctl_is_dir(dir) ? dir->dir->set : NULL;
	const struct ctl_row *row = ctl_is_dir(dir) ? find_row(dir->dir, name) : NULL;
	if (row && directory && row->kind != CTL_DIR)
		return -ENOTDIR;
	if (row || !set || !set->remove || (set->row->kind == CTL_DIR) != directory) {
		(void)call_fault(c, EPERM, NULL, "%s: cannot be removed; cat %s%shelp", name, dir->path,
			*dir->path ? "/" : "");
		return ctl_fail(dir, c, -EPERM, directory ? "rmdir" : "unlink");
	}
	int err = ctl_list_guard(dir, op, name, directory);
	if (!err)
		err = set->remove(&dir->ref, c, name);
	return ctl_fail_name(dir, c, err, directory ? "rmdir" : "unlink");
}

static int fs_unlink(struct node *node, struct op *op, const char *name)
{
	return remove_name(ctl_of(node), op, name, false);
}

static int fs_rmdir(struct node *node, struct op *op, const char *name)
{
	return remove_name(ctl_of(node), op, name, true);
}

static int fs_mknod(struct node *dir, struct op *op, const char *name, mode_t mode, dev_t dev,
	struct node_entry *out)
{
	struct ctl_node *n;
	(void)dev;
	if (!S_ISREG(mode))
		return -EACCES;
	int err = make_node(ctl_of(dir), op_call(op), name, false, &n);
	return err ? err : node_answer(n, op_call(op), out);
}

static int fs_symlink(
	struct node *dir, struct op *op, const char *name, const char *text, struct node_entry *out)
{
	(void)dir;
	(void)op;
	(void)name;
	(void)text;
	(void)out;
	return -EACCES;
}

static int fs_link(
	struct node *n, struct op *op, struct node *dir, const char *name, struct node_entry *out)
{
	(void)n;
	(void)op;
	(void)dir;
	(void)name;
	(void)out;
	return -EACCES;
}

static int fs_rename(struct node *dir, struct op *op, const char *name, struct node *newdir,
	const char *newname, unsigned flags)
{
	(void)dir;
	(void)op;
	(void)name;
	(void)newdir;
	(void)newname;
	(void)flags;
	return -EACCES;
}

/* --- openings --- */

static ctl_open_fn *opener_of(const struct ctl_node *n, int flags)
{
	bool writes = ctl_file_writes(flags);
	switch (n->row->kind) {
	case CTL_TEXT:
		return writes ? ctl_doc_open : ctl_text_open;
	case CTL_SIZED:
		return ctl_sized_open;
	case CTL_STREAM:
		return ctl_stream_open;
	case CTL_CALL:
		if (n->row->talk && writes && ctl_file_reads(flags))
			return ctl_talk_open;
		/* fall through */
	case CTL_VERBS:
		return writes ? ctl_lines_open : ctl_text_open;
	case CTL_DOC:
		return writes ? ctl_doc_open : ctl_text_open;
	case CTL_UPLOAD:
		return !writes ? ctl_stream_open : ctl_file_reads(flags) ? NULL : ctl_upload_open;
	case CTL_TALK:
		return writes ? ctl_talk_open : n->row->stream ? ctl_stream_open : ctl_text_open;
	default:
		return NULL;
	}
}

static int open_node(struct ctl_node *n, struct op *op, struct node_open *o)
{
	struct ctl_file *f;
	if (ctl_is_dir(n))
		return -EISDIR;
	ctl_open_fn *open = opener_of(n, o->flags);
	if (!open || (ctl_file_writes(o->flags) && !row_writes(n->row)) ||
		(ctl_file_reads(o->flags) && !(n->row->mode & 0444)))
		return ctl_fail(n, op_call(op),
			call_fault(op_call(op), EACCES, NULL, "it can only be %s",
				ctl_file_writes(o->flags) && !row_writes(n->row) ? "read" : "written"),
			"open");
	int err = ctl_file_writes(o->flags) ? 0 : ctl_tree_take_late(n->tree, n->path);
	if (err)
		return err; /* noted when it happened */
	err = open(n, op, o, &f);
	if (err)
		return ctl_fail(n, op_call(op), err, "open");
	f->node = ctl_of(node_get(&n->node));
	f->flags = o->flags;
	o->file = f;
	return 0;
}

static int fs_open(struct node *node, struct op *op, struct node_open *o)
{
	return open_node(ctl_of(node), op, o);
}

static int fs_create(struct node *node, struct op *op, const char *name, mode_t mode,
	struct node_entry *out, struct node_open *o)
{
	struct ctl_node *dir = ctl_of(node), *n;
	(void)mode;
	/* The name may have come since the kernel looked. */
	int err = find_node(dir, op_call(op), name, &n);
	if (!err && (o->flags & O_EXCL)) {
		node_put(&n->node);
		return -EEXIST;
	}
	if (err == -ENOENT)
		err = make_node(dir, op_call(op), name, false, &n);
	if (err)
		return err;
	err = open_node(n, op, o);
	if (err) {
		node_put(&n->node);
		return err;
	}
	struct ctl_file *f = o->file;
	err = node_answer(n, op_call(op), out);
	if (err) {
		f->ops->release(f, NULL);
		node_put(&n->node); /* the opening's */
	}
	return err;
}

static int fs_read(struct node *node, struct op *op, void *file, size_t size, off_t off)
{
	struct ctl_file *f = file;
	int err = f->ops->read ? f->ops->read(f, op, size, off) : -EBADF;
	/* After OP_REPLIED the op is gone. */
	return err < 0 ? ctl_fail(ctl_of(node), op_call(op), err, "read") : err;
}

static int fs_write(struct node *node, struct op *op, void *file, const void *p, size_t size,
	off_t off, size_t *done)
{
	struct ctl_file *f = file;
	(void)off; /* a request has no place in a file */
	int err = f->ops->write ? f->ops->write(f, op, p, size) : -EBADF;
	if (err)
		return ctl_fail(ctl_of(node), op_call(op), err, "write");
	*done = size;
	return 0;
}

static int fs_flush(struct node *node, struct op *op, void *file)
{
	struct ctl_file *f = file;
	int err = f->ops->flush ? f->ops->flush(f, op) : 0;
	return ctl_fail(ctl_of(node), op_call(op), err, "close");
}

static int fs_release(struct node *node, struct op *op, void *file)
{
	struct ctl_file *f = file;
	f->ops->release(f, op);
	node_put(node); /* the opening's */
	return 0;
}

static int fs_fsync(struct node *node, struct op *op, void *file, int datasync)
{
	(void)node;
	(void)op;
	(void)file;
	(void)datasync;
	return 0;
}

static int fs_poll(
	struct node *node, struct op *op, void *file, struct op_poll *p, unsigned *revents)
{
	struct ctl_file *f = file;
	(void)node;
	(void)op;
	if (f->ops->poll)
		return f->ops->poll(f, p, revents);
	op_poll_free(p);
	*revents = POLLIN | POLLRDNORM | POLLOUT | POLLWRNORM;
	return 0;
}

static const struct node_ops ctl_node_ops = {
	.destroy = node_destroy,
	.lookup = fs_lookup,
	.getattr = fs_getattr,
	.setattr = fs_setattr,
	.readlink = fs_readlink,
	.mknod = fs_mknod,
	.mkdir = fs_mkdir,
	.symlink = fs_symlink,
	.link = fs_link,
	.unlink = fs_unlink,
	.rmdir = fs_rmdir,
	.rename = fs_rename,
	.create = fs_create,
	.open = fs_open,
	.read = fs_read,
	.write = fs_write,
	.flush = fs_flush,
	.release = fs_release,
	.fsync = fs_fsync,
	.poll = fs_poll,
	.opendir = ctl_list_open,
	.readdir = ctl_list_read,
	.releasedir = ctl_list_close,
	.statfs = fs_statfs,
};
