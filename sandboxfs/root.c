/*
 * See root.h. Two kinds of directory: the list of sandboxes, and one sandbox.
 *
 * Names of sandboxes are never cached by the kernel (a look-up here costs no request), and directories keep
 * their node as long as the sandbox lives, so that a shell can stand in them.
 */
#include "root.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cleanup.h"
#include "ctl.h"
#include "tree.h"

struct place { /* one sandbox's directory */
	struct node node;
	struct sandbox *sandbox;
	pthread_mutex_t lock;
	struct node *workspace, *system, *ctl; /* made when first named; under lock */
	struct timespec made;
};

struct known {
	struct place *place; /* reference */
	struct known *next;
};

struct top {
	struct node node;
	struct server *server;
	pthread_mutex_t lock;
	struct known *known; /* under lock */
	struct node *ctl;    /* likewise */
	struct timespec made;
};

enum { INO_ROOT = 1, INO_CTL = 2 };
enum { BLOCK_SIZE = 4096, UNKNOWN_BLOCKS = 1 << 30 /* 4 TiB, where nobody can tell */ };

static uint64_t hash_of(const char *name, uint64_t seed)
{
	/* apart from the files' own */
	return node_hash(NODE_HASH_BEGIN ^ seed, name) | 1ULL << 63;
}

static void directory_attr(const struct options *o, uint64_t ino, mode_t mode,
	const struct timespec *made, struct stat *st)
{
	memset(st, 0, sizeof *st);
	st->st_ino = ino;
	st->st_mode = S_IFDIR | mode;
	st->st_nlink = 2;
	st->st_uid = o->uid;
	st->st_gid = o->gid;
	st->st_blksize = 4096;
	st->st_atim = st->st_mtim = st->st_ctim = *made;
}

/* --- one sandbox --- */

static void place_destroy(struct node *n)
{
	struct place *p = (struct place *)n;

	node_put(p->workspace);
	node_put(p->system);
	node_put(p->ctl);
	sandbox_put(p->sandbox);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

static int place_getattr(
	struct node *n, struct op *op, void *file, struct stat *st, double *timeout)
{
	struct place *p = (struct place *)n;

	(void)op;
	(void)file;
	if (sandbox_gone(p->sandbox))
		return -ESTALE;
	directory_attr(
		sandbox_options(p->sandbox), hash_of(sandbox_name(p->sandbox), 0), 0755, &p->made, st);
	*timeout = 1;
	return 0;
}

/* The child of that name, made when first asked for. New reference. */
static int place_child(struct place *p, const char *name, struct node **out)
{
	struct node **slot;
	int err = 0;

	if (sandbox_gone(p->sandbox))
		return -ENOENT;
	AUTO_UNLOCK(&p->lock);
	slot = strcmp(name, "workspace") == 0 ? &p->workspace
		   : strcmp(name, "root") == 0    ? &p->system
		   : strcmp(name, "ctl") == 0     ? &p->ctl
										  : NULL;
	if (!slot)
		return -ENOENT;
	if (!*slot && slot == &p->ctl)
		err = ctl_node_new(sandbox_server(p->sandbox), p->sandbox, slot);
	else if (!*slot)
		err = tree_node(p->sandbox, slot == &p->system ? TREE_SYSTEM : TREE_WORKSPACE, slot);
	if (err)
		return err;
	*out = node_get(*slot);
	return 0;
}

/* What a look-up of the roots of the trees shows without asking the sandbox; a stat of them asks. */
static int entry_of_child(
	struct place *p, struct op *op, const char *name, struct node *child, struct node_entry *e)
{
	double timeout;
	int err = 0;

	e->node = child;
	e->entry_timeout = 1;
	e->attr_timeout = 0;
	if (strcmp(name, "ctl") == 0)
		err = child->ops->getattr(child, op, NULL, &e->attr, &timeout);
	else
		directory_attr(sandbox_options(p->sandbox), hash_of(sandbox_name(p->sandbox), name[0]),
			0755, &p->made, &e->attr);
	if (err)
		node_put(child);
	return err;
}

static int place_lookup(struct node *dir, struct op *op, const char *name, struct node_entry *out)
{
	struct place *p = (struct place *)dir;
	struct node *child;
	int err = place_child(p, name, &child);

	return err ? err : entry_of_child(p, op, name, child, out);
}

static int place_readdir(
	struct node *n, struct op *op, void *file, off_t off, struct node_filler *f)
{
	static const char *const names[] = {".", "..", "workspace", "ctl", "root"};
	struct place *p = (struct place *)n;
	size_t count = sandbox_options(p->sandbox)->list_root ? 5 : 4;

	(void)op;
	(void)file;
	for (size_t i = (size_t)off; i < count; i++) {
		struct stat st = {.st_mode = S_IFDIR,
			.st_ino = hash_of(sandbox_name(p->sandbox), i < 2 ? 0 : (uint64_t)names[i][0])};
		if (!node_filler_add(f, names[i], &st, NULL, (off_t)i + 1))
			break;
	}
	return 0;
}

/* Never a request, and never a number that keeps a program from copying what may well fit. */
static void space_without_asking(struct server *s, uint64_t avail, struct statvfs *st)
{
	struct statvfs shared;

	if (server_space(s, &shared) == 0) {
		*st = shared;
	} else {
		st->f_blocks = st->f_bfree = st->f_bavail = UNKNOWN_BLOCKS;
		st->f_files = st->f_ffree = st->f_favail = UNKNOWN_BLOCKS;
	}
	if (!st->f_bsize || !st->f_frsize)
		st->f_bsize = st->f_frsize = BLOCK_SIZE;
	st->f_namemax = 255;
	/* What the sandbox last said of itself is truer. */
	if (avail != UINT64_MAX)
		st->f_bavail = avail / st->f_frsize;
	if (st->f_bfree < st->f_bavail)
		st->f_bfree = st->f_bavail;
	if (st->f_blocks < st->f_bfree)
		st->f_blocks = st->f_bfree;
}

static int place_statfs(struct node *n, struct op *op, struct statvfs *st)
{
	struct place *p = (struct place *)n;

	(void)op;
	space_without_asking(sandbox_server(p->sandbox), sandbox_avail(p->sandbox), st);
	return 0;
}

static int refuse_mkdir(
	struct node *dir, struct op *op, const char *name, mode_t mode, struct node_entry *out)
{
	(void)dir;
	(void)op;
	(void)name;
	(void)mode;
	(void)out;
	return -EPERM;
}

static const struct node_ops place_ops = {
	.destroy = place_destroy,
	.lookup = place_lookup,
	.getattr = place_getattr,
	.readdir = place_readdir,
	.statfs = place_statfs,
	.mkdir = refuse_mkdir,
};

static int place_new(struct sandbox *sb, struct place **out)
{
	struct place *p = calloc(1, sizeof *p);

	if (!p)
		return -ENOMEM;
	node_init(&p->node, &place_ops);
	p->sandbox = sandbox_get(sb);
	pthread_mutex_init(&p->lock, NULL);
	clock_gettime(CLOCK_REALTIME, &p->made);
	*out = p;
	return 0;
}

/* --- all sandboxes --- */

static void top_destroy(struct node *n)
{
	struct top *t = (struct top *)n;
	struct known *k, *next;

	for (k = t->known; k; k = next) {
		next = k->next;
		node_put(&k->place->node);
		free(k);
	}
	node_put(t->ctl);
	pthread_mutex_destroy(&t->lock);
	free(t);
}

static int top_getattr(struct node *n, struct op *op, void *file, struct stat *st, double *timeout)
{
	struct top *t = (struct top *)n;

	(void)op;
	(void)file;
	directory_attr(server_options(t->server), INO_ROOT, 0755, &t->made, st);
	*timeout = 1;
	return 0;
}

/* The directory of a sandbox: the same node as long as it lives. New reference. */
static int place_of(struct top *t, struct sandbox *sb, struct node **out)
{
	struct known **at, *k;
	int err;
	AUTO_UNLOCK(&t->lock);

	for (at = &t->known; (k = *at);) {
		if (k->place->sandbox == sb) {
			*out = node_get(&k->place->node);
			return 0;
		}
		if (sandbox_gone(k->place->sandbox)) {
			*at = k->next;
			node_put(&k->place->node);
			free(k);
		} else {
			at = &k->next;
		}
	}
	k = calloc(1, sizeof *k);
	if (!k)
		return -ENOMEM;
	err = place_new(sb, &k->place);
	if (err) {
		free(k);
		return err;
	}
	k->next = t->known;
	t->known = k;
	*out = node_get(&k->place->node);
	return 0;
}

static int entry_of_sandbox(struct top *t, struct op *op, struct sandbox *sb, struct node_entry *e)
{
	int err = place_of(t, sb, &e->node);

	if (err)
		return err;
	e->entry_timeout = 0;
	err = place_getattr(e->node, op, NULL, &e->attr, &e->attr_timeout);
	if (err) {
		node_put(e->node);
		return -ENOENT;
	}
	return 0;
}

static int top_lookup(struct node *dir, struct op *op, const char *name, struct node_entry *out)
{
	struct top *t = (struct top *)dir;
	struct sandbox *sb;
	double timeout;
	int err;

	if (strcmp(name, "ctl") == 0) {
		AUTO_UNLOCK(&t->lock);
		if (!t->ctl) {
			err = ctl_node_new(t->server, NULL, &t->ctl);
			if (err)
				return err;
		}
		err = t->ctl->ops->getattr(t->ctl, op, NULL, &out->attr, &timeout);
		if (err)
			return err;
		out->node = node_get(t->ctl);
		out->entry_timeout = out->attr_timeout = 1;
		return 0;
	}
	sb = server_find(t->server, name);
	if (!sb)
		return -ENOENT;
	err = entry_of_sandbox(t, op, sb, out);
	sandbox_put(sb);
	return err;
}

static void note_fault(struct top *t, struct op *op)
{
	struct call *c = op_call(op);

	if (c->fault.err)
		server_note_fault(t->server, &c->fault);
}

static int top_mkdir(
	struct node *dir, struct op *op, const char *name, mode_t mode, struct node_entry *out)
{
	struct top *t = (struct top *)dir;
	struct sandbox *sb;
	int err = server_create(t->server, op_call(op), name, &sb);

	(void)mode;
	if (err) {
		note_fault(t, op);
		return err;
	}
	err = entry_of_sandbox(t, op, sb, out);
	sandbox_put(sb);
	return err;
}

static int top_rmdir(struct node *dir, struct op *op, const char *name)
{
	struct top *t = (struct top *)dir;
	int err;

	if (strcmp(name, "ctl") == 0)
		return -EPERM;
	err = server_destroy(t->server, op_call(op), name, false);
	if (err)
		note_fault(t, op);
	return err;
}

struct listing {
	char **names;
	size_t count;
	bool failed;
};

static void listing_free(struct listing *l)
{
	for (size_t i = 0; l && i < l->count; i++)
		free(l->names[i]);
	if (l)
		free(l->names);
	free(l);
}

static bool add_name(struct sandbox *sb, void *arg)
{
	struct listing *l = arg;
	char **more = reallocarray(l->names, l->count + 1, sizeof *more);

	if (more) {
		l->names = more;
		more[l->count] = strdup(sandbox_name(sb));
	}
	l->failed = !more || !more[l->count];
	l->count += !l->failed;
	return !l->failed;
}

/* The names are those of the time of opendir, so that offsets stay true. */
static int top_opendir(struct node *n, struct op *op, struct node_open *o)
{
	struct top *t = (struct top *)n;
	struct listing *l = calloc(1, sizeof *l);

	(void)op;
	if (!l)
		return -ENOMEM;
	server_each(t->server, add_name, l);
	if (l->failed) {
		listing_free(l);
		return -ENOMEM;
	}
	o->file = l;
	return 0;
}

static int top_readdir(struct node *n, struct op *op, void *file, off_t off, struct node_filler *f)
{
	static const char *const first[] = {".", "..", "ctl"};
	struct listing *l = file;

	(void)n;
	(void)op;
	for (size_t i = (size_t)off; i < l->count + 3; i++) {
		const char *name = i < 3 ? first[i] : l->names[i - 3];
		struct stat st = {.st_mode = S_IFDIR,
			.st_ino = i < 2    ? INO_ROOT
					  : i == 2 ? INO_CTL
							   : hash_of(name, 0)};
		if (!node_filler_add(f, name, &st, NULL, (off_t)i + 1))
			break;
	}
	return 0;
}

static int top_releasedir(struct node *n, struct op *op, void *file)
{
	(void)n;
	(void)op;
	listing_free(file);
	return 0;
}

static int top_statfs(struct node *n, struct op *op, struct statvfs *st)
{
	(void)op;
	space_without_asking(((struct top *)n)->server, UINT64_MAX, st);
	return 0;
}

static const struct node_ops top_ops = {
	.destroy = top_destroy,
	.lookup = top_lookup,
	.getattr = top_getattr,
	.mkdir = top_mkdir,
	.rmdir = top_rmdir,
	.opendir = top_opendir,
	.readdir = top_readdir,
	.releasedir = top_releasedir,
	.statfs = top_statfs,
};

/* --- which of them MNT is --- */

static int single_root(struct server *s, struct call *c, struct node **out)
{
	const struct options *o = server_options(s);
	struct sandbox *sb = server_find(s, o->sandbox);
	struct node *ctl = NULL;
	struct place *p;
	int err = 0;

	if (!sb) /* server_new has seen to it: somebody has removed it since */
		return call_fault(c, ENOENT, NULL, "%s: there is no such sandbox", o->sandbox);
	if (o->subdir) {
		err = tree_node(sb, TREE_WORKSPACE, out);
		if (!err)
			err = ctl_node_new(s, sb, &ctl);
		if (!err)
			tree_set_control(sb, ctl);
	} else {
		err = place_new(sb, &p);
		if (!err)
			*out = &p->node;
	}
	sandbox_put(sb);
	return err;
}

int root_node_new(struct server *s, struct call *c, struct node **out)
{
	struct top *t;

	if (server_options(s)->sandbox)
		return single_root(s, c, out);
	t = calloc(1, sizeof *t);
	if (!t)
		return -ENOMEM;
	node_init(&t->node, &top_ops);
	t->server = s;
	pthread_mutex_init(&t->lock, NULL);
	clock_gettime(CLOCK_REALTIME, &t->made);
	*out = &t->node;
	return 0;
}
