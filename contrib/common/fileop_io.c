/*
 * The calls on the content of open files. Owns no state; a handle's lock is held while its descriptor is used. All
 * reading and writing goes by offset, so that calls of several batches on one handle need no order among them.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>

#include "cleanup.h"
#include "fileop_internal.h"

enum {
	SPECIAL_STEP = 64 << 10, /* what is read at once where the size tells nothing */
	COPY_AT_ONCE = 256 << 20 /* of one COPY_RANGE: an answer must come before the client gives up */
};

static bool is_range(uint64_t off, uint64_t n)
{
	return off <= INT64_MAX && n <= INT64_MAX - off;
}

/* Appends up to n bytes at off. Fewer only at the end. */
static int read_bytes(int fd, bool special, uint64_t off, size_t n, struct buf *out)
{
	while (n) {
		size_t step = special && n > SPECIAL_STEP ? SPECIAL_STEP : n;
		char *p = buf_reserve(out, step);
		if (!p)
			return -ENOMEM;
		ssize_t got = pread(fd, p, step, (off_t)off);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (got == 0)
			break;
		out->size += (size_t)got;
		off += (uint64_t)got;
		n -= (size_t)got;
	}
	return 0;
}

/*
 * A short answer means the end of the file to the client, so what does not fit in the reply is refused
 * and not cut.
 */
static int read_range(
	struct fileop_batch *b, int fd, bool special, uint64_t off, uint32_t length, struct buf *out)
{
	struct stat st;
	size_t n = length;
	if (!special) {
		if (fstat(fd, &st) < 0)
			return -errno;
		uint64_t left = (uint64_t)st.st_size > off ? (uint64_t)st.st_size - off : 0;
		n = left < n ? (size_t)left : n;
	}
	if (n > b->room - 4)
		return -EMSGSIZE;
	size_t at = out->size;
	buf_u32(out, 0);
	int err = read_bytes(fd, special, off, n, out);
	if (!err)
		buf_patch_u32(out, at, (uint32_t)(out->size - at - 4));
	return err;
}

int fileop_call_read(struct fileop_batch *b, struct reader *in, struct buf *out)
{
	struct fileop_args a = {in, 0};
	AUTO_ASKED t = {0};
	fileop_args_target(&a, &t);
	uint64_t off = reader_u64(in);
	uint32_t length = reader_u32(in);
	int err = fileop_args_end(&a);
	if (!err && (length > FILEOP_MAX_READ || !is_range(off, length)))
		err = -EINVAL;
	if (err)
		return err;
	struct statx st;
	if (t.handle) {
		AUTO_USE u = {0};
		err = fileop_use_shared(b, t.handle, &u);
		if (!err && t.ino)
			err = fileop_handle_statx(u.h, &st);
		if (!err && t.ino)
			err = fileop_same(&st, t.dev, t.ino);
		return err ? err : read_range(b, u.h->fd, u.h->special, off, length, out);
	}
	AUTO_PLACE at = FILEOP_NO_PLACE;
	err = fileop_place_open(t.path, &at);
	if (err)
		return err;
	AUTO_FD int fd = fileop_open_to_read(&at, t.dev, t.ino, &st);
	if (fd < 0)
		return fd;
	bool special = fileop_is_special(b->server, fileop_statx_dev(&st), fd, "");
	return read_range(b, fd, special, off, length, out);
}

int fileop_call_write(struct fileop_batch *b, struct reader *in, struct buf *out)
{
	(void)out; /* all of it or an error */
	struct fileop_args a = {in, 0};
	uint64_t number = reader_u64(in);
	uint64_t off = reader_u64(in);
	size_t n;
	const char *p = reader_bytes(in, &n);
	int err = fileop_args_end(&a);
	AUTO_USE u = {0};
	if (!err)
		err = fileop_use_shared(b, number, &u);
	if (err)
		return err;
	bool append = u.h->flags & FILEOP_O_APPEND;
	if (n > FILEOP_MAX_READ || (!append && !is_range(off, n)))
		return n > FILEOP_MAX_READ ? -EINVAL : -EFBIG;
	err = fileop_check_space(b, u.h->dev, n);
	/* The kernel moves what is appended to the end, whatever the offset. */
	off = append ? 0 : off;
	while (!err && n) {
		ssize_t did = pwrite(u.h->fd, p, n, (off_t)off);
		if (did < 0 && errno == EINTR)
			continue;
		if (did <= 0)
			return did < 0 ? -errno : -EIO;
		p += did;
		n -= (size_t)did;
		off += append ? 0 : (uint64_t)did;
	}
	return err;
}

int fileop_call_commit(struct fileop_batch *b, struct reader *in, struct buf *out)
{
	struct fileop_args a = {in, 0};
	uint64_t number = reader_u64(in);
	int err = fileop_args_end(&a);
	AUTO_USE u = {0};
	if (!err)
		err = fileop_use_alone(b, number, &u);
	if (!err)
		err = fileop_stage_commit(b, u.h);
	return err ? err : fileop_put_handle_attr(b->server, out, u.h);
}

static int commit_if_staged(struct fileop_batch *b, uint64_t number)
{
	{
		AUTO_USE u = {0};
		int err = fileop_use_shared(b, number, &u);
		if (err || !u.h->staged)
			return err;
	}
	AUTO_USE u = {0};
	int err = fileop_use_alone(b, number, &u);
	return err ? err : fileop_stage_commit(b, u.h);
}

int fileop_call_fsync(struct fileop_batch *b, struct reader *in, struct buf *out)
{
	(void)out; /* nothing to say but the errno */
	struct fileop_args a = {in, 0};
	uint64_t number = reader_u64(in);
	bool datasync = reader_u8(in);
	int err = fileop_args_end(&a);
	if (!err)
		err = commit_if_staged(b, number);
	AUTO_USE u = {0};
	if (!err)
		err = fileop_use_shared(b, number, &u);
	if (err)
		return err;
	return (datasync ? fdatasync(u.h->fd) : fsync(u.h->fd)) < 0 ? -errno : 0;
}

int fileop_call_fallocate(struct fileop_batch *b, struct reader *in, struct buf *out)
{
	(void)out; /* nothing to say but the errno */
	struct fileop_args a = {in, 0};
	uint64_t number = reader_u64(in);
	uint32_t mode = reader_u32(in);
	uint64_t off = reader_u64(in);
	uint64_t n = reader_u64(in);
	int err = fileop_args_end(&a);
	AUTO_USE u = {0};
	if (!err && (mode > INT_MAX || !is_range(off, n)))
		err = -EINVAL;
	if (!err)
		err = fileop_use_shared(b, number, &u);
	if (!err && !(mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_COLLAPSE_RANGE)))
		err = fileop_check_space(b, u.h->dev, n);
	while (!err && fallocate(u.h->fd, (int)mode, (off_t)off, (off_t)n) < 0)
		if (errno != EINTR)
			err = -errno;
	return err;
}

int fileop_call_seek(struct fileop_batch *b, struct reader *in, struct buf *out)
{
	struct fileop_args a = {in, 0};
	uint64_t number = reader_u64(in);
	uint64_t off = reader_u64(in);
	uint32_t whence = reader_u32(in);
	int err = fileop_args_end(&a);
	AUTO_USE u = {0};
	if (!err && (off > INT64_MAX || (whence != SEEK_DATA && whence != SEEK_HOLE)))
		err = -EINVAL;
	if (!err)
		err = fileop_use_shared(b, number, &u);
	if (!err && u.h->flags & FILEOP_O_DIRECTORY)
		err = -EINVAL; /* it would move the listing */
	if (err)
		return err;
	off_t at = lseek(u.h->fd, (off_t)off, (int)whence);
	if (at < 0)
		return -errno;
	buf_u64(out, (uint64_t)at);
	return 0;
}

struct range_copy {
	int in, out;
	uint64_t in_off, out_off, n;
	bool special; /* the source's size tells nothing */
};

static int copy_range(struct fileop_batch *b, const struct range_copy *c, struct buf *reply)
{
	struct statx in, out;
	int err = fileop_statx(c->in, "", &in);
	if (!err)
		err = fileop_statx(c->out, "", &out);
	if (err)
		return err;
	uint64_t n = c->n < COPY_AT_ONCE ? c->n : COPY_AT_ONCE;
	uint64_t left = in.stx_size > c->in_off ? in.stx_size - c->in_off : 0;
	if (!c->special && left < n)
		n = left;
	bool same = in.stx_ino == out.stx_ino && fileop_statx_dev(&in) == fileop_statx_dev(&out);
	if (same && c->in_off < c->out_off + n && c->out_off < c->in_off + n)
		return -EINVAL;
	err = fileop_check_space(b, fileop_statx_dev(&out), n);
	int64_t did = err ? err : fileop_copy_bytes(c->in, c->in_off, c->out, c->out_off, n);
	if (did < 0)
		return (int)did;
	buf_u64(reply, (uint64_t)did);
	return 0;
}

int fileop_call_copy_range(struct fileop_batch *b, struct reader *in, struct buf *out)
{
	struct fileop_args a = {in, 0};
	struct range_copy c;
	uint64_t from = reader_u64(in);
	c.in_off = reader_u64(in);
	uint64_t to = reader_u64(in);
	c.out_off = reader_u64(in);
	c.n = reader_u64(in);
	int err = fileop_args_end(&a);
	if (!err && (!is_range(c.in_off, COPY_AT_ONCE) || !is_range(c.out_off, COPY_AT_ONCE)))
		err = -EINVAL;
	AUTO_USE source = {0};
	AUTO_USE dest = {0};
	/* One handle is locked once, two in the order of their numbers: another may copy the other way. */
	if (!err && to < from)
		err = fileop_use_shared(b, to, &dest);
	if (!err)
		err = fileop_use_shared(b, from, &source);
	if (!err && to > from)
		err = fileop_use_shared(b, to, &dest);
	if (err)
		return err;
	struct fileop_handle *h = from == to ? source.h : dest.h;
	if (h->flags & FILEOP_O_APPEND || source.h->flags & FILEOP_O_DIRECTORY)
		return h->flags & FILEOP_O_APPEND ? -EBADF : -EISDIR;
	c.in = source.h->fd;
	c.out = h->fd;
	c.special = source.h->special;
	return copy_range(b, &c, out);
}

static int salvage_into(struct fileop_batch *b, struct fileop_handle *h, const struct statx *st,
	char *path, struct buf *out)
{
	AUTO_FD int again = -1;
	int from = h->fd;
	int mode = fcntl(from, F_GETFL);
	if (mode < 0)
		return -errno;
	if ((mode & O_ACCMODE) == O_WRONLY) {
		from = again = fileop_reopen(b->server, h->fd, O_RDONLY);
		if (again < 0)
			return again;
	}
	AUTO_PLACE at = FILEOP_NO_PLACE;
	int err = fileop_place_open(path, &at);
	if (err)
		return err;
	AUTO_FD int to = openat(at.dir, at.name, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC,
		st->stx_mode & 07777);
	if (to < 0)
		return -errno;
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT},
		{.tv_sec = st->stx_mtime.tv_sec, .tv_nsec = st->stx_mtime.tv_nsec}};
	err = fileop_copy_content(from, to, st->stx_size);
	if (!err && futimens(to, times) < 0)
		err = -errno;
	if (!err)
		err = fileop_put_place_attr(b->server, out, &at);
	if (err)
		unlinkat(at.dir, at.name, 0); /* half a file helps nobody; the first error counts */
	return err;
}

int fileop_call_salvage(struct fileop_batch *b, struct reader *in, struct buf *out)
{
	struct fileop_args a = {in, 0};
	uint64_t number = reader_u64(in);
	AUTO_FREE char *path = fileop_args_path(&a);
	int err = fileop_args_end(&a);
	AUTO_USE u = {0};
	struct statx st;
	if (!err)
		err = fileop_use_shared(b, number, &u);
	if (!err)
		err = fileop_handle_statx(u.h, &st);
	if (!err && !S_ISREG(st.stx_mode))
		err = -EINVAL;
	if (!err)
		err = fileop_check_space(b, fileop_statx_dev(&st), st.stx_size);
	return err ? err : salvage_into(b, u.h, &st, path, out);
}
