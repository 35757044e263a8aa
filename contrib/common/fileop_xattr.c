/*
 * Extended attributes: those of users (user.*) and no others, since the rest is the sandbox's own (security) or
 * would mean something to the host. Owns no state.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

#include "cleanup.h"
#include "fileop_internal.h"

enum { XATTR_MOST = 64 << 10 /* XATTR_SIZE_MAX and XATTR_LIST_MAX of Linux */ };

struct xattr_call {
	struct fileop_asked target;
	char *name;
	struct fileop_file file;
	struct fileop_proc_name path;
};

static void xattr_end(struct xattr_call *x)
{
	fileop_file_end(&x->file);
	fileop_asked_end(&x->target);
	cleanup_free(&x->name);
}
#define AUTO_XATTR __attribute__((cleanup(xattr_end))) struct xattr_call

/* Through /proc, since an O_PATH descriptor has no xattr calls of its own; so too for handles, to have one way. */
static int xattr_begin(struct fileop_batch *b, struct xattr_call *x, int other_names)
{
	if (x->name && strncmp(x->name, "user.", 5) != 0)
		return other_names;
	int err = fileop_file_open(b, &x->target, &x->file);
	if (err)
		return err;
	if (!b->server->has_proc)
		return -EOPNOTSUPP;
	struct fileop_handle *h = x->file.use.h;
	x->path = fileop_proc_name(h && h->target >= 0 ? h->target : x->file.fd);
	return 0;
}

int fileop_call_getxattr(struct fileop_batch *b, struct reader *in, struct buf *out)
{
	struct fileop_args a = {in, 0};
	AUTO_XATTR x = {.file = FILEOP_NO_FILE};
	fileop_args_target(&a, &x.target);
	x.name = fileop_args_text(&a);
	int err = fileop_args_end(&a);
	if (!err)
		err = xattr_begin(b, &x, -ENODATA);
	if (err)
		return err;
	size_t at = out->size;
	buf_u32(out, 0);
	char *p = buf_reserve(out, XATTR_MOST);
	if (!p)
		return -ENOMEM;
	ssize_t n = getxattr(x.path.text, x.name, p, XATTR_MOST);
	if (n < 0)
		return -errno;
	out->size += (size_t)n;
	buf_patch_u32(out, at, (uint32_t)n);
	return 0;
}

int fileop_call_setxattr(struct fileop_batch *b, struct reader *in, struct buf *out)
{
	(void)out; /* nothing to say but the errno */
	struct fileop_args a = {in, 0};
	AUTO_XATTR x = {.file = FILEOP_NO_FILE};
	fileop_args_target(&a, &x.target);
	x.name = fileop_args_text(&a);
	size_t n;
	const void *value = reader_bytes(in, &n);
	uint32_t flags = reader_u32(in);
	int err = fileop_args_end(&a);
	if (!err && flags > INT_MAX)
		err = -EINVAL;
	if (!err)
		err = xattr_begin(b, &x, -EOPNOTSUPP);
	if (err)
		return err;
	return setxattr(x.path.text, x.name, value, n, (int)flags) < 0 ? -errno : 0;
}

int fileop_call_listxattr(struct fileop_batch *b, struct reader *in, struct buf *out)
{
	struct fileop_args a = {in, 0};
	AUTO_XATTR x = {.file = FILEOP_NO_FILE};
	fileop_args_target(&a, &x.target);
	int err = fileop_args_end(&a);
	if (!err)
		err = xattr_begin(b, &x, 0);
	if (err)
		return err;
	AUTO_FREE char *names = malloc(XATTR_MOST);
	if (!names)
		return -ENOMEM;
	ssize_t n = listxattr(x.path.text, names, XATTR_MOST);
	if (n < 0)
		return -errno;
	size_t at = out->size;
	buf_u32(out, 0);
	for (const char *p = names; p < names + n; p += strlen(p) + 1)
		if (strncmp(p, "user.", 5) == 0)
			buf_add(out, p, strlen(p) + 1);
	if (buf_error(out))
		return -ENOMEM;
	buf_patch_u32(out, at, (uint32_t)(out->size - at - 4));
	return 0;
}

int fileop_call_removexattr(struct fileop_batch *b, struct reader *in, struct buf *out)
{
	(void)out; /* nothing to say but the errno */
	struct fileop_args a = {in, 0};
	AUTO_XATTR x = {.file = FILEOP_NO_FILE};
	fileop_args_target(&a, &x.target);
	x.name = fileop_args_text(&a);
	int err = fileop_args_end(&a);
	if (!err)
		err = xattr_begin(b, &x, -EOPNOTSUPP);
	if (err)
		return err;
	return removexattr(x.path.text, x.name) < 0 ? -errno : 0;
}
