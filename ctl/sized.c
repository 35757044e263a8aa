/*
 * Sized data read in place: files with their true size that may grow while they are read (stdout, logs).
 * Nothing is kept per opening. Direct I/O, so that no page of the kernel is ever older than the data.
 */
#include <errno.h>

#include "cleanup.h"
#include "kinds.h"

enum { READ_MAX = 1024 * 1024 };

static int sized_read(struct ctl_file *f, struct op *op, size_t size, off_t off)
{
	size_t n = size < READ_MAX ? size : READ_MAX;
	AUTO_FREE char *p = malloc(n ? n : 1);
	if (!p)
		return -ENOMEM;
	size_t done = 0;
	/* Until full or at the end: a short read would be the end of the file for the kernel's caller. */
	while (done < n) {
		ssize_t got = f->node->row->pread(
			&f->node->ref, op_call(op), p + done, n - done, (uint64_t)off + done);
		if (got < 0 && !done)
			return (int)got;
		if (got <= 0)
			break;
		done += (size_t)got;
	}
	op_reply_data(op, p, done);
	return OP_REPLIED;
}

static void sized_release(struct ctl_file *f, struct op *op)
{
	(void)op;
	free(f);
}

static const struct ctl_file_ops sized_file_ops = {.read = sized_read, .release = sized_release};

int ctl_sized_open(struct ctl_node *n, struct op *op, struct node_open *o, struct ctl_file **out)
{
	uint64_t size;
	int err = n->row->size(&n->ref, op_call(op), &size);
	if (err)
		return err;
	struct ctl_file *f = calloc(1, sizeof *f);
	if (!f)
		return -ENOMEM;
	f->ops = &sized_file_ops;
	o->how = NODE_DIRECT_IO;
	*out = f;
	return 0;
}
