/*
 * Opening and closing: what may be opened, new files and existing ones, staged or not. Owns no state; hands the finished handle to
 * the table. Reads and writes nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "cleanup.h"
#include "fileop_internal.h"

enum { OPEN_TRIES = 16 /* of a name that comes and goes */ };

struct opening {
	uint64_t number;
	char *path;
	uint64_t dev, ino;
	uint32_t flags, mode;
};

static int open_flags(const struct opening *o)
{
	int flags = O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOCTTY;
	if (o->flags & FILEOP_O_DIRECTORY)
		return flags | O_DIRECTORY | O_RDONLY;
	if (o->flags & FILEOP_O_WRITE)
		return flags | (o->flags & FILEOP_O_READ ? O_RDWR : O_WRONLY);
	return flags | O_RDONLY;
}

/* Only what can be read and written without meaning something else to somebody else. */
static int may_open(const struct statx *st, uint32_t flags)
{
	if (S_ISLNK(st->stx_mode))
		return -ELOOP;
	if (S_ISDIR(st->stx_mode))
		return flags & FILEOP_O_DIRECTORY ? 0 : -EISDIR;
	if (flags & FILEOP_O_DIRECTORY)
		return -ENOTDIR;
	return S_ISREG(st->stx_mode) ? 0 : -ENXIO;
}

/* Looks before it opens, since opening a device can do something, and again at what was opened. */
static int open_checked(const struct fileop_place *at, const struct opening *o, struct statx *st)
{
	int err = fileop_statx(at->dir, at->name, st);
	if (!err)
		err = fileop_same(st, o->dev, o->ino);
	if (!err)
		err = may_open(st, o->flags);
	if (err)
		return err;
	AUTO_FD int fd = openat(at->dir, at->name, open_flags(o));
	if (fd < 0)
		return -errno;
	err = fileop_statx(fd, "", st);
	if (!err)
		err = fileop_same(st, o->dev, o->ino);
	if (!err)
		err = may_open(st, o->flags);
	return err ? err : steal_fd(&fd);
}

int fileop_open_to_read(const struct fileop_place *at, uint64_t dev, uint64_t ino, struct statx *st)
{
	struct opening o = {.dev = dev, .ino = ino, .flags = FILEOP_O_READ};
	return open_checked(at, &o, st);
}

/* Files like those of procfs keep O_NONBLOCK: some block for ever (/proc/kmsg). */
static int settle_flags(struct fileop_handle *h, int fd, bool append)
{
	if (h->special || h->flags & FILEOP_O_DIRECTORY)
		return 0;
	return fcntl(fd, F_SETFL, append ? O_APPEND : 0) < 0 ? -errno : 0;
}

static int open_existing(struct fileop_batch *b, const struct opening *o,
	const struct fileop_place *at, struct fileop_handle *h)
{
	struct statx st;
	AUTO_FD int fd = open_checked(at, o, &st);
	if (fd < 0)
		return fd;
	h->dev = fileop_statx_dev(&st);
	h->special = fileop_is_special(b->server, h->dev, fd, "");
	bool trunc = o->flags & FILEOP_O_TRUNC && o->flags & FILEOP_O_WRITE && !h->special;
	int err = -EOPNOTSUPP;
	if (trunc && o->flags & FILEOP_O_STAGE)
		err = fileop_stage_over(b->server, h, o->path, fd);
	if (!err) {
		int target = steal_fd(&fd); /* the stage has taken it */
		return settle_flags(h, target, false);
	}
	if (err != -EOPNOTSUPP)
		return err;
	if (trunc && ftruncate(fd, 0) < 0)
		return -errno;
	err = settle_flags(h, fd, o->flags & FILEOP_O_APPEND);
	if (!err)
		h->fd = steal_fd(&fd);
	return err;
}

/*
 * O_EXCL is for those to whom the name is the point (locks, names nobody else may have): it is made at once,
 * never staged.
 */
static int open_new(struct fileop_batch *b, const struct opening *o, const struct fileop_place *at,
	struct fileop_handle *h)
{
	enum { STAGED = FILEOP_O_STAGE | FILEOP_O_WRITE };
	int err = fileop_check_creation(b, o->path);
	if (err)
		return err;
	err = -EOPNOTSUPP;
	if ((o->flags & (STAGED | FILEOP_O_EXCL)) == STAGED)
		err = fileop_stage_new(b->server, h, o->path, o->mode & 07777);
	if (err == -EOPNOTSUPP) {
		int append = o->flags & FILEOP_O_APPEND ? O_APPEND : 0;
		int flags = (open_flags(o) & ~O_NONBLOCK) | O_CREAT | O_EXCL | append;
		h->fd = openat(at->dir, at->name, flags, o->mode & 07777);
		err = h->fd < 0 ? -errno : 0;
	}
	if (err)
		return err;
	struct statx st;
	err = fileop_statx(h->fd, "", &st);
	h->dev = fileop_statx_dev(&st);
	return err;
}

static int open_file(
	struct fileop_batch *b, const struct opening *o, struct fileop_handle *h, bool *created)
{
	AUTO_PLACE at = FILEOP_NO_PLACE;
	int err = fileop_place_open(o->path, &at);
	if (err)
		return err;
	bool create = o->flags & FILEOP_O_CREATE && !o->ino;
	bool exclusive = create && o->flags & FILEOP_O_EXCL;
	for (int i = 0; i < OPEN_TRIES; i++) {
		struct statx st;
		err = fileop_statx(at.dir, at.name, &st);
		if (err == -ENOENT && create) {
			err = open_new(b, o, &at, h);
			*created = !err;
			if (err != -EEXIST || exclusive)
				return err;
			continue; /* made by another since we looked */
		}
		if (!err && exclusive)
			return -EEXIST;
		if (!err)
			err = open_existing(b, o, &at, h);
		if (err != -ENOENT || !create)
			return err;
	}
	return -ESTALE;
}

static int check_opening(struct fileop_batch *b, const struct opening *o)
{
	enum { CHANGES = FILEOP_O_WRITE | FILEOP_O_APPEND | FILEOP_O_CREATE | FILEOP_O_TRUNC };
	if (!o->number)
		return -EINVAL;
	if (o->flags & FILEOP_O_DIRECTORY && o->flags & CHANGES)
		return o->flags & FILEOP_O_CREATE ? -EINVAL : -EISDIR;
	return fileop_handle_exists(b, o->number) ? -EEXIST : 0;
}

static int open_handle(struct fileop_batch *b, const struct opening *o, struct buf *out)
{
	AUTO_USE u = {.server = b->server, .h = fileop_handle_new(o->number, o->flags)};
	bool created = false;
	if (!u.h)
		return -ENOMEM;
	int err = pthread_rwlock_wrlock(&u.h->lock);
	if (err) {
		fileop_handle_put(b->server, steal(u.h));
		return -err;
	}
	err = open_file(b, o, u.h, &created);
	if (!err)
		err = fileop_put_handle_attr(b->server, out, u.h);
	buf_u8(out, created);
	buf_u8(out, u.h->staged);
	if (!err)
		err = buf_error(out);
	return err ? err : fileop_handle_add(b, u.h);
}

int fileop_call_open(struct fileop_batch *b, struct reader *in, struct buf *out)
{
	struct fileop_args a = {in, 0};
	struct opening o = {.number = reader_u64(in)};
	AUTO_FREE char *path = fileop_args_path(&a);
	o.path = path;
	o.dev = reader_u64(in);
	o.ino = reader_u64(in);
	o.flags = reader_u32(in);
	o.mode = reader_u32(in);
	int err = fileop_args_end(&a);
	if (!err)
		err = check_opening(b, &o);
	return err ? err : open_handle(b, &o, out);
}

int fileop_call_close(struct fileop_batch *b, struct reader *in, struct buf *out)
{
	(void)out; /* nothing to say but the errno */
	struct fileop_args a = {in, 0};
	uint64_t number = reader_u64(in);
	int err = fileop_args_end(&a);
	return err ? err : fileop_handle_remove(b, number);
}
