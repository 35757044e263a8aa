/*
 * Listings of the file tree.
 *
 * A listing is fetched at the first readdir of an opening (and again after a rewind): one request for the directory and what a
 * megabyte holds of it, more requests only for what is larger. Entries come with their attributes, so that `ls -l` asks
 * for nothing else. It is kept with the opening, so offsets stay true whatever happens to the directory.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cleanup.h"
#include "log.h"
#include "tree_impl.h"

enum { PART = 1 << 20, MAX_ENTRIES = 10000000, MAX_BYTES = 256 << 20, MAX_LINK = 4095 };

struct dir_entry {
	char *name;
	char *link;
	struct fileop_attr attr;
};

struct wdir {
	/* Readdirs of one opening are one after the other: busy, under lock, and all below is for who has it. */
	pthread_mutex_t lock;
	struct waitq queue;
	bool busy;
	struct dir_entry *entries;
	size_t count, size, bytes; /* of names and links */
	size_t impossible;         /* names that were left out */
	bool fetched;
	struct missing names; /* while it is fetched */
};

static void clear(struct wdir *d)
{
	for (size_t i = 0; i < d->count; i++) {
		free(d->entries[i].name);
		free(d->entries[i].link);
	}
	d->count = d->bytes = d->impossible = 0;
	d->fetched = false;
}

static int add_entry(struct wdir *d, struct reader *r)
{
	struct dir_entry e = {.name = reader_str(r)};
	int err = fileop_get_attr(r, &e.attr);

	e.link = reader_str(r);
	d->bytes += e.name && e.link ? sizeof e + strlen(e.name) + strlen(e.link) : 0;
	if (err || !e.name || !e.link || r->bad || d->count >= MAX_ENTRIES || d->bytes > MAX_BYTES) {
		free(e.name);
		free(e.link);
		return -EPROTO;
	}
	if (!tree_acceptable_name(e.name) || strlen(e.link) > MAX_LINK) { /* the others are listed */
		d->impossible++;
		free(e.name);
		free(e.link);
		return 0;
	}
	if (d->count == d->size) {
		size_t n = d->size ? d->size * 2 : 64;
		struct dir_entry *more = reallocarray(d->entries, n, sizeof *more);
		if (!more) {
			free(e.name);
			free(e.link);
			return -ENOMEM;
		}
		d->entries = more;
		d->size = n;
	}
	d->entries[d->count++] = e;
	tree_missing_add(&d->names, e.name);
	return 0;
}

/* One answer of READDIR. */
static int add_part(struct wdir *d, struct reader *body, bool *eof)
{
	uint32_t count;
	int err = 0;

	*eof = reader_u8(body) != 0;
	count = reader_u32(body);
	if (!count && !*eof)
		return -EPROTO; /* it would never end */
	for (uint32_t i = 0; i < count && !err; i++)
		err = add_entry(d, body);
	return err;
}

static void add_readdir(struct batch *b, uint64_t handle)
{
	struct buf *q = batch_add(b, FILEOP_READDIR, FILEOP_MUST);

	buf_u64(q, handle);
	buf_u32(q, PART);
}

static void add_opendir(struct batch *b, uint64_t handle, const char *path, struct wnode *n)
{
	struct buf *q = batch_add(b, FILEOP_OPEN, FILEOP_MUST);

	buf_u64(q, handle);
	buf_bytes(q, path, strlen(path));
	buf_u64(q, n->root_path ? 0 : n->dev);
	buf_u64(q, n->root_path ? 0 : n->ino);
	buf_u32(q, FILEOP_O_READ | FILEOP_O_DIRECTORY);
	buf_u32(q, 0);
}

static int fetch_rest(struct wdir *d, struct wnode *n, struct op *op, uint64_t handle)
{
	bool eof = false;
	int err = 0;

	while (!err && !eof) {
		AUTO_BATCH b;
		struct reader body;

		batch_init(&b, n->tree->client, op_call(op));
		add_readdir(&b, handle);
		err = batch_send(&b);
		if (!err)
			err = batch_next(&b, &body);
		if (!err)
			err = add_part(d, &body, &eof);
	}
	return err;
}

static int fetch_by(struct wdir *d, struct wnode *n, struct op *op, unsigned which)
{
	uint64_t handle = batch_client_handle(n->tree->client);
	AUTO_BUF path = BUF_INIT;
	AUTO_BATCH b;
	struct reader body;
	bool eof = true;
	int err;

	batch_init(&b, n->tree->client, op_call(op));
	err = tree_path(n, which, &path);
	if (err)
		return err == -ESTALE ? -ENODATA : err;
	add_opendir(&b, handle, path.data, n);
	add_readdir(&b, handle);
	err = batch_send(&b);
	if (!err)
		err = batch_next(&b, &body);
	if (err)
		return err;
	err = batch_next(&b, &body);
	if (!err)
		err = add_part(d, &body, &eof);
	if (!err && !eof)
		err = fetch_rest(d, n, op, handle);
	tree_close_handle(n->tree, handle);
	return err;
}

static int fetch(struct wdir *d, struct wnode *n, struct op *op)
{
	int err = tree_settle_children(n, NULL, op_call(op));
	bool again = false;

	if (err == -EINTR)
		return err; /* what cannot be sent is missing in the listing; ctl/sync names it */
	for (;;) {
		clear(d);
		tree_missing_begin(n, &d->names);
		err = fetch_by(d, n, op, 0);
		if (!err)
			tree_missing_know(n, &d->names);
		tree_missing_drop(&d->names);
		if (err == -EBADF && !again) {
			again = true; /* the server was started anew in the middle */
			continue;
		}
		if (n->root_path || (err != -ESTALE && err != -ENOENT && err != -ENOTDIR))
			break;
		tree_drop_dentry(n, 0);
	}
	if (d->impossible) /* one line for all: there may be millions */
		log_error("a server sent %zu names that cannot be in one listing", d->impossible);
	d->fetched = !err;
	return err == -ENODATA ? -ESTALE : err;
}

int tree_opendir(struct node *n, struct op *op, struct node_open *o)
{
	struct wdir *d = calloc(1, sizeof *d);

	(void)n;
	(void)op;
	if (!d)
		return -ENOMEM;
	pthread_mutex_init(&d->lock, NULL);
	o->file = d;
	return 0;
}

/* A node for an entry, with what the kernel may keep of it. Entries without attributes are looked up when needed. */
static int entry_node(struct wnode *dir, const struct dir_entry *d, enum tree_root root, int depth,
	const char *dir_path, struct node_entry *e)
{
	AUTO_FREE char *link = NULL;
	struct wnode *n;
	int err;

	if (!d->attr.ino)
		return -ENODATA;
	if (S_ISLNK(d->attr.mode)) {
		link = tree_show_link(dir->tree, root, depth, d->link, dir_path);
		if (!link)
			return -ENOMEM;
	}
	err = tree_intern(dir, d->name, &d->attr, &n);
	if (err)
		return err;
	tree_entry(n, &d->attr, link, e);
	return 0;
}

static int fill(struct wdir *d, struct wnode *n, off_t off, struct node_filler *f)
{
	static const char *const dots[] = {".", ".."};
	bool system = n->root_path && !n->root_path[1];
	AUTO_BUF path = BUF_INIT;
	enum tree_root root;
	int depth = tree_dir_depth(n, &root), err = tree_path(n, 0, &path);

	if (err && d->count)
		return err;
	for (size_t i = (size_t)off; i < d->count + 2; i++) {
		const struct dir_entry *de = i < 2 ? NULL : &d->entries[i - 2];
		const char *name = de ? de->name : dots[i & 1];
		struct node_entry e = {.node = NULL};
		struct stat st = {.st_mode = S_IFDIR, .st_ino = 1};
		if (n->root_path && n->tree->control && strcmp(name, ".ctl") == 0)
			continue; /* the sandbox's own would hide the control tree */
		/* root/workspace is a link here (tree_names.c): it is looked up by name */
		bool plain = !de || (system && strcmp(name, "workspace") == 0) || !node_filler_plus(f);

		if (de)
			tree_stat(n->tree, &de->attr, NULL, &st);
		err = plain ? -ENODATA : entry_node(n, de, root, depth, path.data, &e);
		if (err == -ENOMEM)
			return err;
		if (err == -EIO)
			continue; /* a name no file system has: said in the log */
		if (!node_filler_add(f, name, &st, err ? NULL : &e, (off_t)i + 1)) {
			if (!err)
				node_put(e.node);
			break;
		}
	}
	return 0;
}

static int begin(struct wdir *d, struct call *c)
{
	AUTO_UNLOCK(&d->lock);

	while (d->busy) {
		int err = waitq_wait(&d->queue, &d->lock, c, -1);
		if (err)
			return err;
	}
	d->busy = true;
	return 0;
}

static void end(struct wdir *d)
{
	AUTO_UNLOCK(&d->lock);

	d->busy = false;
	waitq_wake(&d->queue);
}

int tree_readdir(struct node *node, struct op *op, void *file, off_t off, struct node_filler *f)
{
	struct wnode *n = wnode_of(node);
	struct wdir *d = file;
	int err = begin(d, op_call(op));

	if (err)
		return err;
	if (off == 0 || !d->fetched)
		err = fetch(d, n, op);
	if (!err)
		err = fill(d, n, off, f);
	end(d);
	return err;
}

int tree_releasedir(struct node *n, struct op *op, void *file)
{
	struct wdir *d = file;

	(void)n;
	(void)op;
	clear(d);
	free(d->entries);
	pthread_mutex_destroy(&d->lock);
	free(d);
	return 0;
}
