/*
 * Operations on names and attributes of the file tree. One request each; no cache but the kernel's.
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

/* --- what is shown --- */

static uint64_t shown_ino(const struct tree *t, const struct fileop_attr *a)
{
	uint64_t h = t->ino_seed;

	h = (h ^ a->dev) * 0x100000001b3ULL;
	h = (h ^ a->ino) * 0x9e3779b97f4a7c15ULL;
	h ^= h >> 29;
	return (h & ~(1ULL << 63)) |
		   1ULL << 32; /* the top bit is the control tree's, small numbers the top's */
}

void tree_stat(struct tree *t, const struct fileop_attr *a, const char *link, struct stat *st)
{
	const struct options *o = sandbox_options(t->sandbox);

	memset(st, 0, sizeof *st);
	st->st_ino = shown_ino(t, a);
	st->st_mode = a->mode;
	if (o->has_umask && !S_ISLNK(a->mode))
		st->st_mode &= ~o->umask;
	st->st_nlink = a->nlink;
	st->st_uid = o->idmap == IDMAP_USER ? o->uid : a->uid;
	st->st_gid = o->idmap == IDMAP_USER ? o->gid : a->gid;
	st->st_rdev = a->rdev;
	st->st_size = link ? (off_t)strlen(link) : (off_t)a->size;
	st->st_blocks = (blkcnt_t)a->blocks;
	st->st_blksize =
		128
		<< 10; /* what a program should read at once; the disk's own block size says nothing here */
	st->st_atim = a->atime;
	st->st_mtim = a->mtime;
	st->st_ctim = a->ctime;
}

void tree_entry(
	struct wnode *n, const struct fileop_attr *a, const char *link, struct node_entry *e)
{
	e->node = &n->node;
	tree_stat(n->tree, a, link, &e->attr);
	e->entry_timeout = e->attr_timeout = CACHE_MS / 1000.0;
	tree_note_granted(n);
}

/* A path of the sandbox from its root, without "." "..", "//"; `..` above the root stays there. */
static void normalize(const char *dir, const char *text, struct buf *out)
{
	AUTO_BUF all = BUF_INIT;

	if (*text != '/') {
		buf_str(&all, dir);
		buf_char(&all, '/');
	}
	buf_str(&all, text);
	for (const char *p = all.data; p && *p;) {
		size_t n = strcspn(p, "/");

		if (n == 2 && memcmp(p, "..", 2) == 0) {
			while (out->size && out->data[--out->size] != '/')
				;
		} else if (n && !(n == 1 && *p == '.')) {
			buf_char(out, '/');
			buf_add(out, p, n);
		}
		p += n + (p[n] == '/');
	}
	buf_char(out, 0);
	out->failed |= all.failed;
}

/*
 * Does a relative link at this depth stay in its tree wherever its components lead? Only `..` at the beginning, and not more
 * than there are directories above: a `..` after a name may follow another link first.
 */
static bool stays_inside(const char *text, int depth)
{
	bool named = false;

	if (*text == '/')
		return false;
	while (*text) {
		size_t n = strcspn(text, "/");

		if (n == 2 && memcmp(text, "..", 2) == 0) {
			if (named || depth-- == 0)
				return false;
		} else if (n && !(n == 1 && *text == '.')) {
			named = true;
		}
		text += n + (text[n] == '/');
	}
	return true;
}

char *tree_show_link(
	struct tree *t, enum tree_root root, int depth, const char *text, const char *dir_path)
{
	const struct options *o = sandbox_options(t->sandbox);
	AUTO_BUF path = BUF_INIT, out = BUF_INIT;
	const char *p;
	size_t n = strlen("/workspace");

	if (o->symlinks == SYMLINKS_VERBATIM || stays_inside(text, depth))
		return strdup(text);
	normalize(dir_path, text, &path);
	if (buf_error(&path))
		return NULL;
	p = path.data;
	for (int i = 0; i < depth; i++)
		buf_str(&out, "../");
	if (root == TREE_WORKSPACE && strncmp(p, "/workspace", n) == 0 && (!p[n] || p[n] == '/'))
		p += n;
	else if (root == TREE_WORKSPACE)
		buf_str(&out, o->subdir ? ".ctl/root" : "../root");
	if (*p && (!out.size || out.data[out.size - 1] == '/'))
		p++;
	buf_str(&out, p);
	if (!out.size)
		buf_char(&out, '.');
	return buf_steal(&out);
}

/* The text of a link found as name in dir, for here; NULL and 0 for what is no link. */
static int shown_link(struct wnode *dir, const struct fileop_attr *a, const char *text, char **out)
{
	AUTO_BUF path = BUF_INIT;
	enum tree_root root;
	int depth, err;

	*out = NULL;
	if (!S_ISLNK(a->mode))
		return 0;
	depth = tree_dir_depth(dir, &root);
	err = tree_path(dir, 0, &path);
	if (err)
		return err;
	*out = tree_show_link(dir->tree, root, depth, text, path.data);
	return *out ? 0 : -ENOMEM;
}

/* Reads attr (and a link's text where the answer has one) of dir/name into an entry. */
static int entry_from(
	struct wnode *dir, const char *name, struct reader *body, bool with_link, struct node_entry *e)
{
	AUTO_FREE char *text = NULL;
	AUTO_FREE char *link = NULL;
	struct fileop_attr a;
	struct wnode *n;
	int err = fileop_get_attr(body, &a);

	if (!err && with_link) {
		text = reader_str(body);
		err = text ? 0 : -EPROTO;
	}
	if (!err && text)
		err = shown_link(dir, &a, text, &link);
	if (!err)
		err = tree_intern(dir, name, &a, &n);
	if (!err)
		tree_entry(n, &a, link, e);
	return err;
}

/* --- by node --- */

uint64_t tree_any_handle(struct wnode *n)
{
	uint64_t any = 0;
	AUTO_UNLOCK(&n->lock);

	/* A writable one if there is: it can be truncated, and a staged one holds what the file now is. */
	for (struct wfile *f = n->files; f; f = f->next) {
		if ((f->flags & O_ACCMODE) != O_RDONLY)
			return f->handle;
		any = f->handle;
	}
	return any;
}

static bool is_stale(int err)
{
	return err == -ESTALE || err == -ENOENT || err == -ENOTDIR || err == -ELOOP;
}

int tree_on_target(struct wnode *n, struct call *c, const struct target_job *job, struct batch *b,
	struct reader *body)
{
	struct fileop_target target = {.handle = tree_any_handle(n), .dev = n->dev, .ino = n->ino};
	int err;

	for (unsigned which = 0;;) {
		AUTO_BUF path = BUF_INIT;

		batch_init(b, n->tree->client, c);
		err = tree_path(n, which, &path);
		if (err == -ESTALE && !target.handle)
			return n->unlinked_here ? -ENOENT : -ESTALE;
		if (err && err != -ESTALE)
			return err;
		target.path = err ? "/" : path.data;
		struct buf *q = batch_add(b, job->code, 0);
		fileop_put_target(q, &target);
		if (job->add)
			job->add(q, job->arg);
		err = batch_send(b);
		if (err)
			return err;
		err = batch_next(b, body);
		if (target.handle && err == -EBADF) {
			target.handle = 0; /* the server has lost it: by name, then */
		} else if (!target.handle && is_stale(err) && !n->root_path) {
			tree_drop_dentry(n, which);
		} else {
			return err;
		}
		batch_release(b);
	}
}

void tree_note_attr(struct wnode *n, const struct fileop_attr *a)
{
	AUTO_UNLOCK(&n->lock);
	n->attr = *a;
	n->has_attr = true;
}

bool tree_same_data(const struct fileop_attr *a, const struct fileop_attr *b)
{
	return a->size == b->size && a->mtime.tv_sec == b->mtime.tv_sec &&
		   a->mtime.tv_nsec == b->mtime.tv_nsec && a->ctime.tv_sec == b->ctime.tv_sec &&
		   a->ctime.tv_nsec == b->ctime.tv_nsec;
}

static int link_to_workspace(const struct tree *t, char **text)
{
	*text = strdup(sandbox_options(t->sandbox)->subdir ? "../.." : "../workspace");
	return *text ? 0 : -ENOMEM;
}

static const struct fileop_attr workspace_link_attr = {
	.dev = 1, .ino = 1, .mode = S_IFLNK | 0777, .nlink = 1};

static int stat_link_to_workspace(struct tree *t, struct stat *st, double *timeout)
{
	AUTO_FREE char *text = NULL;
	int err = link_to_workspace(t, &text);

	if (!err)
		tree_stat(t, &workspace_link_attr, text, st);
	*timeout = CACHE_MS / 1000.0;
	return err;
}

/* What a dirty or staged file shows is what it will be: it is sent first. A file that was only opened is not. */
static int settle_if_written(struct wnode *n, struct call *c, struct fileop_attr *a, bool *sent)
{
	bool wrote;

	*sent = false;
	pthread_mutex_lock(&n->lock);
	wrote = n->buffer_used > 0;
	for (struct wfile *f = n->files; f && !wrote; f = f->next)
		wrote = f->staged && f->wrote;
	pthread_mutex_unlock(&n->lock);
	return wrote ? tree_settle(n, c, a, sent) : 0;
}

/* An honest size for a file whose unsent bytes could not be sent: they stay visible here. */
static void add_unsent(struct wnode *n, struct fileop_attr *a)
{
	AUTO_UNLOCK(&n->lock);

	if (n->buffer_used && !(n->buffer_file->flags & O_APPEND) &&
		n->buffer_off + n->buffer_used > a->size)
		a->size = n->buffer_off + n->buffer_used;
}

int tree_getattr(struct node *node, struct op *op, void *file, struct stat *st, double *timeout)
{
	struct target_job job = {.code = FILEOP_GETATTR};
	struct wnode *n = wnode_of(node);
	AUTO_FREE char *text = NULL;
	AUTO_FREE char *link = NULL;
	struct fileop_attr a;
	struct reader body;
	bool sent;
	int err;

	(void)file;
	if (n->is_link_to_workspace)
		return stat_link_to_workspace(n->tree, st, timeout);
	err = settle_if_written(n, op_call(op), &a, &sent);
	if (sent && !err) {
		tree_stat(n->tree, &a, NULL, st);
	} else {
		AUTO_BATCH b = {.count = 0};
		int held = err;

		err = tree_on_target(n, op_call(op), &job, &b, &body);
		if (!err)
			err = fileop_get_attr(&body, &a);
		if (!err && S_ISLNK(a.mode)) {
			text = reader_str(&body);
			err = text ? 0 : -EPROTO;
		}
		if (err)
			return held ? held : err;
		if (held)
			add_unsent(n, &a);
		struct wnode *parent = text ? tree_parent(n) : NULL;
		if (parent) {
			err = shown_link(parent, &a, text, &link);
			node_put(&parent->node);
		}
		if (err)
			return err;
		tree_stat(n->tree, &a, link, st);
	}
	tree_note_attr(n, &a);
	tree_note_granted(n);
	*timeout = CACHE_MS / 1000.0;
	return 0;
}

int tree_readlink(struct node *node, struct op *op, char **text)
{
	struct target_job job = {.code = FILEOP_GETATTR};
	struct wnode *n = wnode_of(node), *parent;
	AUTO_BATCH b = {.count = 0};
	AUTO_FREE char *stored = NULL;
	struct fileop_attr a;
	struct reader body;
	int err;

	if (n->is_link_to_workspace)
		return link_to_workspace(n->tree, text);
	err = tree_on_target(n, op_call(op), &job, &b, &body);
	if (!err)
		err = fileop_get_attr(&body, &a);
	if (err)
		return err;
	stored = reader_str(&body);
	if (!stored)
		return -EPROTO;
	if (!S_ISLNK(a.mode))
		return -EINVAL;
	parent = tree_parent(n);
	if (!parent)
		return -ESTALE;
	err = shown_link(parent, &a, stored, text);
	node_put(&parent->node);
	return err;
}

static void add_setattr(struct buf *b, void *arg)
{
	fileop_put_setattr(b, arg);
}

/* Which of the kernel's wishes go to the sandbox; -EPERM for an owner that this mount cannot give. */
static int wishes(struct tree *t, const struct stat *st, int valid, struct fileop_setattr *s)
{
	static const struct {
		int kernel;
		uint32_t ours;
	} map[] = {{NODE_SET_MODE, FILEOP_SET_MODE}, {NODE_SET_SIZE, FILEOP_SET_SIZE},
		{NODE_SET_ATIME, FILEOP_SET_ATIME}, {NODE_SET_MTIME, FILEOP_SET_MTIME},
		{NODE_SET_ATIME_NOW, FILEOP_SET_ATIME_NOW}, {NODE_SET_MTIME_NOW, FILEOP_SET_MTIME_NOW}};
	const struct options *o = sandbox_options(t->sandbox);

	memset(s, 0, sizeof *s);
	for (size_t i = 0; i < sizeof map / sizeof map[0]; i++)
		if (valid & map[i].kernel)
			s->valid |= map[i].ours;
	/* The kernel sets ATIME beside ATIME_NOW. */
	if (s->valid & FILEOP_SET_ATIME_NOW)
		s->valid &= ~(uint32_t)FILEOP_SET_ATIME;
	if (s->valid & FILEOP_SET_MTIME_NOW)
		s->valid &= ~(uint32_t)FILEOP_SET_MTIME;
	if (o->idmap == IDMAP_NONE) {
		s->valid |= valid & NODE_SET_UID ? FILEOP_SET_UID : 0;
		s->valid |= valid & NODE_SET_GID ? FILEOP_SET_GID : 0;
	} else if (((valid & NODE_SET_UID) && st->st_uid != o->uid) ||
			   ((valid & NODE_SET_GID) && st->st_gid != o->gid)) {
		return -EPERM;
	}
	s->mode = st->st_mode & 07777;
	s->uid = st->st_uid;
	s->gid = st->st_gid;
	s->size = (uint64_t)st->st_size;
	s->atime = st->st_atim;
	s->mtime = st->st_mtim;
	return 0;
}

int tree_setattr(struct node *node, struct op *op, void *file, const struct stat *st, int valid,
	struct stat *out, double *timeout)
{
	struct wnode *n = wnode_of(node);
	AUTO_BATCH b = {.count = 0};
	struct fileop_setattr s;
	struct target_job job = {.code = FILEOP_SETATTR, .add = add_setattr, .arg = &s};
	struct fileop_attr a;
	struct reader body;
	bool sent;
	int err = wishes(n->tree, st, valid, &s);

	if (err)
		return err;
	if (!s.valid) /* a chown to what it is already */
		return tree_getattr(node, op, file, out, timeout);
	err = settle_if_written(n, op_call(op), &a, &sent);
	if (err)
		return err;
	if (s.valid & FILEOP_SET_SIZE) {
		pthread_mutex_lock(&n->lock);
		n->changes++;
		for (struct wfile *f = n->files; f; f = f->next)
			f->wrote |= f->staged;
		pthread_mutex_unlock(&n->lock);
	}
	err = tree_on_target(n, op_call(op), &job, &b, &body);
	if (!err)
		err = fileop_get_attr(&body, &a);
	if (err)
		return err;
	tree_stat(n->tree, &a, NULL, out);
	tree_note_attr(n, &a);
	tree_note_granted(n);
	*timeout = CACHE_MS / 1000.0;
	return 0;
}

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
	int err = link_to_workspace(dir->tree, &text);

	if (!err)
		err = tree_intern(dir, "workspace", &workspace_link_attr, &n);
	if (err)
		return err;
	n->is_link_to_workspace = true;
	tree_entry(n, &workspace_link_attr, text, out);
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
	return err ? err : entry_from(dir, name, &body, true, out);
}

/* Sends a batch of one call that makes dir/name, and reads the attributes it answers with. */
static int make(
	struct wnode *dir, const char *name, struct batch *b, const char *link, struct node_entry *out)
{
	struct fileop_attr a;
	struct reader body;
	AUTO_FREE char *shown = NULL;
	struct wnode *n;
	int err = batch_send(b);

	if (!err)
		err = batch_next(b, &body);
	if (!err)
		err = fileop_get_attr(&body, &a);
	if (!err && link)
		err = shown_link(dir, &a, link, &shown);
	if (!err)
		err = tree_intern(dir, name, &a, &n);
	if (!err)
		tree_entry(n, &a, shown, out);
	return err;
}

static void add_string(struct buf *b, const char *s)
{
	buf_bytes(b, s, strlen(s));
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
	add_string(q, path.data);
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
	add_string(q, path.data);
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
	add_string(q, path.data);
	add_string(q, text);
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
	add_string(q, to.data);
	return make(dir, name, &b, NULL, out);
}

/* unlink and rmdir. */
static int take_away(struct wnode *dir, struct op *op, const char *name, enum fileop_code code)
{
	struct wnode *known;
	AUTO_BUF path = BUF_INIT;
	AUTO_BATCH b;
	struct reader body;
	int err;

	batch_init(&b, dir->tree->client, op_call(op));
	if (names_workspace(dir, name) || names_control(dir, name))
		return -EBUSY;
	err = tree_settle_children(dir, name, op_call(op));
	known = tree_find_child(dir, name);
	if (!err && known && code == FILEOP_RMDIR)
		err = tree_settle_children(
			known, NULL, op_call(op)); /* what is unborn in it makes it not empty */
	if (!err)
		err = tree_child_path(dir, name, &path);
	if (!err) {
		add_string(batch_add(&b, code, 0), path.data);
		err = batch_send(&b);
	}
	if (!err)
		err = batch_next(&b, &body);
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

int tree_rename(struct node *node, struct op *op, const char *name, struct node *newnode,
	const char *newname, unsigned flags)
{
	struct wnode *dir = wnode_of(node), *newdir = wnode_of(newnode);
	AUTO_BUF from = BUF_INIT, to = BUF_INIT;
	AUTO_BATCH b;
	struct reader body;
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
		err = tree_child_path(dir, name, &from);
	if (!err)
		err = tree_child_path(newdir, newname, &to);
	if (err)
		return err;
	struct buf *q = batch_add(&b, FILEOP_RENAME, 0);
	add_string(q, from.data);
	add_string(q, to.data);
	buf_u32(q, flags);
	err = batch_send(&b);
	if (!err)
		err = batch_next(&b, &body);
	if (!err)
		tree_forget_conflict(dir->tree, from.data);
	if (!err)
		tree_move_name(dir, name, newdir, newname, (flags & RENAME_EXCHANGE) != 0);
	return err;
}

/* --- the rest --- */

int tree_statfs(struct node *node, struct op *op, struct statvfs *st)
{
	struct wnode *n = wnode_of(node);
	AUTO_BUF path = BUF_INIT;
	AUTO_BATCH b;
	struct reader body;
	int err;

	batch_init(&b, n->tree->client, op_call(op));
	err = tree_path(n, 0, &path);
	if (err)
		return err;
	add_string(batch_add(&b, FILEOP_STATFS, 0), path.data);
	err = batch_send(&b);
	if (!err)
		err = batch_next(&b, &body);
	if (err)
		return err;
	st->f_bsize = reader_u64(&body);
	st->f_frsize = reader_u64(&body);
	st->f_blocks = reader_u64(&body);
	st->f_bfree = reader_u64(&body);
	st->f_bavail = reader_u64(&body);
	st->f_files = reader_u64(&body);
	st->f_ffree = reader_u64(&body);
	st->f_favail = st->f_ffree;
	st->f_namemax = reader_u64(&body);
	return body.bad ? -EPROTO : 0;
}

struct xattr_args {
	const char *name;
	const void *value;
	size_t size;
	int flags;
	bool set;
};

static void add_xattr(struct buf *b, void *arg)
{
	const struct xattr_args *x = arg;

	add_string(b, x->name);
	if (x->set) {
		buf_bytes(b, x->value, x->size);
		buf_u32(b, (uint32_t)x->flags);
	}
}

/* The value or the names that an answer carries. New. */
static int take_bytes(struct reader *body, void **out, size_t *size)
{
	const void *p = reader_bytes(body, size);

	if (!p)
		return -EPROTO;
	*out = malloc(*size ? *size : 1);
	if (!*out)
		return -ENOMEM;
	memcpy(*out, p, *size);
	return 0;
}

int tree_getxattr(struct node *node, struct op *op, const char *name, void **value, size_t *size)
{
	struct xattr_args x = {.name = name};
	struct target_job job = {.code = FILEOP_GETXATTR, .add = add_xattr, .arg = &x};
	AUTO_BATCH b = {.count = 0};
	struct reader body;
	int err;

	/* The kernel asks for security.capability and the like at many a turn: the answer is known. */
	if (strncmp(name, "user.", 5) != 0)
		return -EOPNOTSUPP;
	err = tree_on_target(wnode_of(node), op_call(op), &job, &b, &body);
	return err ? err : take_bytes(&body, value, size);
}

int tree_listxattr(struct node *node, struct op *op, void **names, size_t *size)
{
	struct target_job job = {.code = FILEOP_LISTXATTR};
	AUTO_BATCH b = {.count = 0};
	struct reader body;
	int err = tree_on_target(wnode_of(node), op_call(op), &job, &b, &body);

	return err ? err : take_bytes(&body, names, size);
}

int tree_setxattr(
	struct node *node, struct op *op, const char *name, const void *value, size_t size, int flags)
{
	struct xattr_args x = {.name = name, .value = value, .size = size, .flags = flags, .set = true};
	struct target_job job = {.code = FILEOP_SETXATTR, .add = add_xattr, .arg = &x};
	AUTO_BATCH b = {.count = 0};
	struct reader body;

	if (strncmp(name, "user.", 5) != 0)
		return -EOPNOTSUPP;
	return tree_on_target(wnode_of(node), op_call(op), &job, &b, &body);
}

int tree_removexattr(struct node *node, struct op *op, const char *name)
{
	struct xattr_args x = {.name = name};
	struct target_job job = {.code = FILEOP_REMOVEXATTR, .add = add_xattr, .arg = &x};
	AUTO_BATCH b = {.count = 0};
	struct reader body;

	if (strncmp(name, "user.", 5) != 0)
		return -EOPNOTSUPP;
	return tree_on_target(wnode_of(node), op_call(op), &job, &b, &body);
}
