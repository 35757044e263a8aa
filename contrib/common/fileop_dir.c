/*
 * Listings of open directories. What the kernel gave and was not told yet stays with the handle, whose lock is held
 * exclusively: a listing has one place.
 */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#include "cleanup.h"
#include "fileop_internal.h"

enum { LISTING_BUFFER = 32 << 10 };

struct entry { /* as getdents64 gives it */
	uint64_t ino;
	int64_t off;
	unsigned short length;
	unsigned char type;
	char name[];
};

/* Fills the handle's listing. >0, 0 at the end, or a negative errno. */
static int list_more(struct fileop_handle *h)
{
	if (!h->listing) {
		h->listing = malloc(LISTING_BUFFER);
		if (!h->listing)
			return -ENOMEM;
	}
	long n = syscall(SYS_getdents64, h->fd, h->listing, LISTING_BUFFER);
	if (n < 0)
		return -errno;
	h->listing_at = 0;
	h->listing_end = (size_t)n;
	return n > 0;
}

/* A name whose attributes nobody may see (a directory without x) is listed with its type alone, inode 0. */
static int put_entry(
	struct fileop_batch *b, struct fileop_handle *h, const struct entry *e, struct buf *out)
{
	struct statx st;
	int err = fileop_statx(h->fd, e->name, &st);
	if (err == -ENOENT)
		return err;
	buf_bytes(out, e->name, strlen(e->name));
	if (err) {
		struct fileop_attr a = {.dev = h->dev, .mode = DTTOIF(e->type)};
		fileop_put_attr(out, &a);
		buf_u32(out, 0);
		return 0;
	}
	fileop_put_statx(b->server, out, &st, h->fd, e->name);
	size_t at = out->size;
	if (S_ISLNK(st.stx_mode) && fileop_put_link(out, h->fd, e->name) == 0)
		return 0;
	out->size = at; /* no symlink, or none any more: the next look will see what it is */
	buf_u32(out, 0);
	return 0;
}

static bool is_dot(const char *name)
{
	return name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2]));
}

/* Entries until the end (*eof) or until max bytes would be passed; at least one. */
static int put_entries(struct fileop_batch *b, struct fileop_handle *h, size_t max, struct buf *out,
	uint32_t *count, bool *eof)
{
	size_t begin = out->size;
	for (;;) {
		if (h->listing_at >= h->listing_end) {
			int err = list_more(h);
			*eof = err == 0;
			if (err <= 0)
				return err;
		}
		struct entry *e = (struct entry *)(void *)(h->listing + h->listing_at);
		size_t at = out->size;
		int err = is_dot(e->name) ? -ENOENT : put_entry(b, h, e, out);
		if (err || buf_error(out))
			out->size = at;
		if (buf_error(out))
			return -ENOMEM;
		if (!err && out->size - begin > max && *count) {
			out->size = at; /* the next READDIR's first */
			return 0;
		}
		*count += !err;
		h->listing_at += e->length;
	}
}

int fileop_call_readdir(struct fileop_batch *b, struct reader *in, struct buf *out)
{
	struct fileop_args a = {in, 0};
	uint64_t number = reader_u64(in);
	size_t max = reader_u32(in);
	int err = fileop_args_end(&a);
	AUTO_USE u = {0};
	if (!err && max > FILEOP_MAX_READ)
		err = -EINVAL;
	if (!err)
		err = fileop_use_alone(b, number, &u);
	if (!err && !(u.h->flags & FILEOP_O_DIRECTORY))
		err = -ENOTDIR;
	if (err)
		return err;
	enum { HEAD = 5 };
	max = max > HEAD ? max - HEAD : 0;
	if (max > b->room - HEAD)
		max = b->room - HEAD;
	size_t at = out->size;
	uint32_t count = 0;
	bool eof = u.h->special; /* whose names open, and are not walked */
	buf_u8(out, 0);
	buf_u32(out, 0);
	if (!eof)
		err = put_entries(b, u.h, max, out, &count, &eof);
	if (err && !count)
		return err; /* else it comes with the next */
	if (buf_error(out))
		return -ENOMEM;
	out->data[at] = (char)eof;
	buf_patch_u32(out, at + 1, count);
	return 0;
}

int fileop_call_rewinddir(struct fileop_batch *b, struct reader *in, struct buf *out)
{
	(void)out; /* nothing to say but the errno */
	struct fileop_args a = {in, 0};
	uint64_t number = reader_u64(in);
	int err = fileop_args_end(&a);
	AUTO_USE u = {0};
	if (!err)
		err = fileop_use_alone(b, number, &u);
	if (!err && !(u.h->flags & FILEOP_O_DIRECTORY))
		err = -ENOTDIR;
	if (err)
		return err;
	u.h->listing_at = u.h->listing_end = 0;
	return lseek(u.h->fd, 0, SEEK_SET) < 0 ? -errno : 0;
}
