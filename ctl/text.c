/*
 * Text made at open: every control file that is read as text is read here, whatever its kind is for writing.
 *
 * The text belongs to the opening and is read by offset, so that dd bs=1, cp, wc and pread all see the same;
 * size 0 in stat and direct I/O make the kernel ask at all. A failure of `show` is the open's.
 */
#include <errno.h>
#include <string.h>

#include "cleanup.h"
#include "kinds.h"

struct text_file {
	struct ctl_file file;
	struct buf text;
};

static int text_read(struct ctl_file *f, struct op *op, size_t size, off_t off)
{
	struct text_file *t = (struct text_file *)f;
	size_t left = (uint64_t)off < t->text.size ? t->text.size - (size_t)off : 0;
	op_reply_data(op, left ? t->text.data + off : "", size < left ? size : left);
	return OP_REPLIED;
}

static void text_release(struct ctl_file *f, struct op *op)
{
	struct text_file *t = (struct text_file *)f;
	(void)op;
	buf_release(&t->text);
	free(t);
}

static const struct ctl_file_ops text_file_ops = {.read = text_read, .release = text_release};

static void show_verbs(const struct ctl_verb *v, struct buf *out)
{
	for (; v->name; v++) {
		buf_str(out, v->grammar ? v->grammar : v->name);
		buf_char(out, '\n');
	}
}

static int make_text(struct ctl_node *n, struct call *c, struct buf *out)
{
	const struct ctl_row *row = n->row;
	if (n->dir)
		ctl_help(n->dir, out);
	else if (row->show)
		return row->show(&n->ref, c, out);
	else if (row->kind == CTL_VERBS)
		show_verbs(row->verbs, out);
	else
		ctl_tree_last_answer(n->tree, n->path, out);
	return 0;
}

int ctl_text_open(struct ctl_node *n, struct op *op, struct node_open *o, struct ctl_file **out)
{
	AUTO_FREE struct text_file *t = calloc(1, sizeof *t);
	if (!t)
		return -ENOMEM;
	t->file.ops = &text_file_ops;
	int err = make_text(n, op_call(op), &t->text);
	if (!err)
		err = buf_error(&t->text);
	if (err) {
		buf_release(&t->text);
		return err;
	}
	o->how = NODE_DIRECT_IO;
	*out = &steal(t)->file;
	return 0;
}
