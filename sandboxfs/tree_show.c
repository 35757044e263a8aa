/*
 * How the files of a sandbox look here: attributes, inode numbers, and the text of symlinks.
 *
 * A sandbox runs untrusted code, and the kernel resolves a link on this host: what a program reads must never lead out of the mount.
 * Pure functions of what the sandbox said; they send nothing.
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
	if (tree_has_unsent(
			n)) /* it is longer than the sandbox knows: who wants to know has it sent first */
		e->attr_timeout = 0;
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
int tree_shown_link(struct wnode *dir, const struct fileop_attr *a, const char *text, char **out)
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
int tree_entry_from(
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
		err = tree_shown_link(dir, &a, text, &link);
	if (!err)
		err = tree_intern(dir, name, &a, &n);
	if (!err)
		tree_entry(n, &a, link, e);
	return err;
}

void tree_add_string(struct buf *b, const char *s)
{
	buf_bytes(b, s, strlen(s));
}

int tree_link_to_workspace(const struct tree *t, char **text)
{
	*text = strdup(sandbox_options(t->sandbox)->subdir ? "../.." : "../workspace");
	return *text ? 0 : -ENOMEM;
}

const struct fileop_attr tree_workspace_link_attr = {
	.dev = 1, .ino = 1, .mode = S_IFLNK | 0777, .nlink = 1};
