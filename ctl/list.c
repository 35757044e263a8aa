/*
 * Listings of control directories, and their `help`, from the same tables that lookup uses (ctl_fs.c).
 *
 * A listing is made when it is read from its start and then stays as it is for that opening: offsets are
 * places in it. Entries carry no attributes: a readdirplus entry would give the kernel a node that stays.
 *
 * Whose opening it is tells a walk from a name: rm -r and its like hold the directory open in which they remove, rm and rmdir of
 * a name do not.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cleanup.h"
#include "kinds.h"

struct listed {
	char *name;
	uint64_t ino;
	mode_t mode;
};

struct listing {
	struct ctl_opening opening; /* the tree's, if its process is known */
	pthread_mutex_t lock;       /* two threads may read one opened directory */
	struct listed *items;
	size_t count, capacity;
	struct ctl_node *dir; /* while it is being made */
	int err;
	bool made;
};

static void listing_clear(struct listing *l)
{
	for (size_t i = 0; i < l->count; i++)
		free(l->items[i].name);
	free(l->items);
	l->items = NULL;
	l->count = l->capacity = 0;
	l->made = false;
}

static bool listing_add(struct listing *l, const char *name, uint64_t ino, mode_t mode)
{
	if (l->count == l->capacity) {
		size_t capacity = l->capacity ? l->capacity * 2 : 32;
		struct listed *items = realloc(l->items, capacity * sizeof *items);
		if (!items) {
			l->err = -ENOMEM;
			return false;
		}
		l->items = items;
		l->capacity = capacity;
	}
	char *copy = strdup(name);
	if (!copy) {
		l->err = -ENOMEM;
		return false;
	}
	l->items[l->count++] = (struct listed){copy, ino, mode};
	return true;
}

static bool listing_add_name(struct listing *l, const char *name, const struct ctl_row *row)
{
	struct ctl_node *dir = l->dir;
	AUTO_FREE char *path = NULL;
	if (asprintf(&path, "%s%s%s", dir->path, *dir->path ? "/" : "", name) < 0) {
		path = NULL;
		l->err = -ENOMEM;
		return false;
	}
	return listing_add(l, name, ctl_inode(dir->ref.sandbox, path), ctl_mode(row));
}

static bool listing_add_object(const char *name, void *arg)
{
	struct listing *l = arg;
	return listing_add_name(l, name, l->dir->dir->set->row);
}

static int listing_make(struct listing *l, struct ctl_node *dir, struct call *c)
{
	const struct ctl_dir *d = dir->dir;
	listing_clear(l);
	l->dir = dir;
	l->err = 0;
	listing_add(l, ".", dir->ino, S_IFDIR);
	listing_add(l, "..", dir->parent ? dir->parent->ino : dir->ino, S_IFDIR);
	for (const struct ctl_row *row = d->rows; row && row->name; row++) {
		AUTO_BUF target = BUF_INIT;
		/* A link without a target is not there. */
		if (row->unlisted || (row->kind == CTL_LINK && row->target(&dir->ref, NULL, &target)))
			continue;
		listing_add_name(l, row->name, row);
	}
	if (d->list_help)
		listing_add_name(l, "help", &ctl_help_row);
	int err = d->set ? d->set->each(&dir->ref, c, listing_add_object, l) : 0;
	l->made = !err && !l->err;
	return err ? err : l->err;
}

/* Are there names to remove? */
static bool list_removes(const struct ctl_node *dir)
{
	return dir->dir->set && dir->dir->set->remove;
}

int ctl_list_open(struct node *node, struct op *op, struct node_open *o)
{
	struct ctl_node *dir = (struct ctl_node *)node;
	if (!ctl_is_dir(dir))
		return -ENOTDIR;
	struct listing *l = calloc(1, sizeof *l);
	if (!l)
		return -ENOMEM;
	pthread_mutex_init(&l->lock, NULL);
	l->opening.ino = dir->ino;
	l->opening.process = list_removes(dir) ? ctl_process_of(op_pid(op)) : 0;
	if (l->opening.process)
		ctl_tree_opened(dir->tree, &l->opening);
	o->file = l;
	return 0;
}

int ctl_list_read(struct node *node, struct op *op, void *file, off_t off, struct node_filler *f)
{
	struct ctl_node *dir = (struct ctl_node *)node;
	struct listing *l = file;
	AUTO_UNLOCK(&l->lock);
	/* From the start again is a new look (rewinddir). */
	if (!off || !l->made) {
		int err = listing_make(l, dir, op_call(op));
		if (err)
			return ctl_fail_name(dir, op_call(op), err, "readdir");
	}
	for (size_t i = (size_t)off; i < l->count; i++) {
		struct stat st = {.st_ino = l->items[i].ino, .st_mode = l->items[i].mode};
		if (!node_filler_add(f, l->items[i].name, &st, NULL, (off_t)i + 1))
			break;
	}
	return 0;
}

int ctl_list_close(struct node *node, struct op *op, void *file)
{
	struct listing *l = file;
	(void)op;
	if (l->opening.process)
		ctl_tree_closed(((struct ctl_node *)node)->tree, &l->opening);
	listing_clear(l);
	pthread_mutex_destroy(&l->lock);
	free(l);
	return 0;
}

int ctl_list_guard(struct ctl_node *dir, struct op *op, const char *name, bool directory)
{
	pid_t process = ctl_process_of(op_pid(op));
	if (!process || !ctl_tree_is_open(dir->tree, dir->ino, process))
		return 0;
	return call_fault(op_call(op), EPERM, NULL,
		"rm -r does not reach into ctl/; name what is to go: %s %s/%s", directory ? "rmdir" : "rm",
		dir->path, name);
}

/* --- help --- */

static void help_line(const char *name, const char *grammar, struct buf *out)
{
	buf_printf(out, "%-12s %s\n", name, grammar ? grammar : "");
}

void ctl_help(const struct ctl_dir *d, struct buf *out)
{
	if (d->help)
		buf_printf(out, "%s\n\n", d->help);
	for (const struct ctl_row *row = d->rows; row && row->name; row++) {
		AUTO_BUF name = BUF_INIT;
		buf_printf(&name, "%s%s", row->name, row->kind == CTL_DIR ? "/" : "");
		help_line(buf_error(&name) ? row->name : name.data, row->grammar, out);
		for (const struct ctl_verb *v = row->verbs; v && v->name; v++)
			help_line("", v->grammar ? v->grammar : v->name, out);
	}
	if (d->set) {
		const struct ctl_row *row = d->set->row;
		help_line(row->kind == CTL_DIR ? "NAME/" : "NAME", row->grammar, out);
		for (const struct ctl_row *sub = row->dir ? row->dir->rows : NULL; sub && sub->name;
			 sub++) {
			AUTO_BUF name = BUF_INIT;
			buf_printf(&name, "NAME/%s", sub->name);
			help_line(buf_error(&name) ? sub->name : name.data, sub->grammar, out);
		}
		if (d->set->also)
			help_line(d->set->also->row->name, d->set->also->row->grammar, out);
	}
	help_line("help", ctl_help_row.grammar, out);
}
