/*
 * Lines: files that do what a line says at once (VERBS: a verb and words; CALL: a request with an answer).
 * The write waits for it and fails with its errno, so `echo x > f || ...` works. A last line needs no newline,
 * empty lines and comments do nothing, and a write of many lines stops at the first that fails.
 */
#include <errno.h>
#include <string.h>

#include "cleanup.h"
#include "kinds.h"

enum { LINE_SHOWN = 200, LINE_MAX_BYTES = 1024 * 1024 };

struct lines_file {
	struct ctl_file file;
	pthread_mutex_t lock; /* covers what follows; not held while a line is done */
	struct buf answer;
};

static int wrong_verb(const struct ctl_row *row, struct call *c, const char *line, size_t n)
{
	AUTO_BUF known = BUF_INIT;
	for (const struct ctl_verb *v = row->verbs; v->name; v++) {
		buf_str(&known, v == row->verbs ? "" : ", ");
		buf_str(&known, v->grammar ? v->grammar : v->name);
	}
	if (buf_error(&known) || !known.data)
		return -EINVAL;
	return call_fault(c, EINVAL, NULL, "not understood: %.*s; write one of: %s",
		n > LINE_SHOWN ? LINE_SHOWN : (int)n, line, known.data);
}

static int do_verb(struct ctl_node *node, struct call *c, const char *line, size_t n)
{
	AUTO_FREE char **argv = NULL;
	int argc = 0;
	int err = ctl_split(c, line, n, &argc, &argv);
	if (err || !argc)
		return err;
	const struct ctl_verb *v = node->row->verbs;
	while (v->name && strcmp(v->name, argv[0]) != 0)
		v++;
	if (!v->name)
		return wrong_verb(node->row, c, line, n);
	if (argc - 1 < v->min || argc - 1 > v->max)
		return call_fault(c, EINVAL, NULL, "too %s words: %.*s; write: %s",
			argc - 1 < v->min ? "few" : "many", n > LINE_SHOWN ? LINE_SHOWN : (int)n, line,
			v->grammar ? v->grammar : v->name);
	err = v->run(&node->ref, c, argc, argv);
	if (!err)
		ctl_tree_answered(node->tree, node->path, NULL);
	return err;
}

static int do_call(struct lines_file *f, struct call *c, const char *line, size_t n)
{
	struct ctl_node *node = f->file.node;
	AUTO_BUF answer = BUF_INIT;
	int err = node->row->call(&node->ref, c, line, n, &answer);
	if (!err)
		err = buf_error(&answer);
	if (err)
		return err;
	ctl_tree_answered(node->tree, node->path, &answer);
	AUTO_UNLOCK(&f->lock);
	if (answer.size && ctl_file_reads(f->file.flags))
		buf_add(&f->answer, answer.data, answer.size);
	return buf_error(&f->answer);
}

/* Without blanks at its ends. */
static void trim(const char **line, size_t *n)
{
	while (*n && strchr(" \t\r", **line)) {
		(*line)++;
		(*n)--;
	}
	while (*n && strchr(" \t\r", (*line)[*n - 1]))
		(*n)--;
}

static int lines_write(struct ctl_file *f, struct op *op, const void *p, size_t n)
{
	const char *at = p, *end = at + n;
	if (n >= LINE_MAX_BYTES)
		return call_fault(op_call(op), EFBIG, NULL, "a line holds less than 1 MiB");
	if (memchr(p, 0, n))
		return call_fault(op_call(op), EINVAL, NULL, "a line holds no NUL byte");
	while (at < end) {
		const char *newline = memchr(at, '\n', (size_t)(end - at));
		const char *line = at;
		size_t size = (size_t)((newline ? newline : end) - at);
		at = newline ? newline + 1 : end;
		trim(&line, &size);
		if ((!size && !f->node->row->empty) || (size && *line == '#'))
			continue;
		int err = f->node->row->kind == CTL_VERBS
					  ? do_verb(f->node, op_call(op), line, size)
					  : do_call((struct lines_file *)f, op_call(op), line, size);
		if (err)
			return err;
	}
	return 0;
}

static int lines_read(struct ctl_file *f, struct op *op, size_t size, off_t off)
{
	struct lines_file *l = (struct lines_file *)f;
	AUTO_FREE char *p = NULL;
	size_t n;
	(void)off; /* an answer is read from its own first byte */
	{
		AUTO_UNLOCK(&l->lock);
		n = l->answer.size < size ? l->answer.size : size;
		p = malloc(n + 1);
		if (!p)
			return -ENOMEM;
		if (n)
			memcpy(p, l->answer.data, n);
		buf_consume(&l->answer, n);
	}
	op_reply_data(op, p, n);
	return OP_REPLIED;
}

static void lines_release(struct ctl_file *f, struct op *op)
{
	struct lines_file *l = (struct lines_file *)f;
	(void)op;
	buf_release(&l->answer);
	pthread_mutex_destroy(&l->lock);
	free(l);
}

static const struct ctl_file_ops lines_file_ops = {
	.read = lines_read, .write = lines_write, .release = lines_release};

int ctl_lines_open(struct ctl_node *n, struct op *op, struct node_open *o, struct ctl_file **out)
{
	(void)op;
	int err = n->row->begin ? ctl_begin(n, op_call(op)) : 0;
	if (err)
		return err;
	struct lines_file *l = calloc(1, sizeof *l);
	if (!l)
		return -ENOMEM;
	l->file.ops = &lines_file_ops;
	pthread_mutex_init(&l->lock, NULL);
	/* RW verbs (`read x <&3`) give what a reader gets. */
	if (n->row->kind == CTL_VERBS && ctl_file_reads(o->flags) && n->row->show)
		err = n->row->show(&n->ref, op_call(op), &l->answer);
	if (err) {
		lines_release(&l->file, op);
		return err;
	}
	o->how = NODE_DIRECT_IO | NODE_STREAM;
	*out = &l->file;
	return 0;
}
