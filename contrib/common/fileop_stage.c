/*
 * Stages: where a file is written before it has its name, or before its content takes the place of the old. Owns
 * the making, committing and dropping of them, and the copying of content between descriptors.
 *
 * Why two ways. A new file's stage is its inode: COMMIT links it, in one step. An existing file keeps its
 * inode (links, mode, open readers), so its stage is only a store of bytes: COMMIT copies them over in place when all are
 * here, so that a cut link never tears the file; only this machine going down in that moment can. The
 * directory's descriptor is held from the start: a parent renamed meanwhile changes nothing.
 *
 * If another hand wrote the file, or took the name, between the opening and COMMIT, what it wrote stays: the stage becomes a file
 * without a name, as one is that was removed while it was open, and its opener sees by nlink 0 that its bytes need another one.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/vfs.h>

#include "cleanup.h"
#include "fileop_internal.h"

enum { COPY_BUFFER = 256 << 10, COPY_STEP = 1 << 30 };

/* --- making one --- */

/* A lack of room, unlike a lack of support, is no reason to write into the file itself. */
static bool is_shortage(int err)
{
	return err == -ENOSPC || err == -EDQUOT || err == -EMFILE || err == -ENFILE || err == -ENOMEM ||
		   err == -EROFS;
}

static int open_nameless(struct fileop_handle *h, int dir, mode_t mode)
{
	int flags = O_TMPFILE | O_RDWR | O_CLOEXEC | (h->flags & FILEOP_O_APPEND ? O_APPEND : 0);
	int fd = openat(dir, ".", flags, mode);
	if (fd < 0)
		return is_shortage(-errno) ? -errno : -EOPNOTSUPP;
	h->fd = fd;
	return 0;
}

static char *temp_name(void)
{
	uint64_t r[2];
	char *name;
	if (getrandom(r, sizeof(r), 0) != (ssize_t)sizeof(r) ||
		asprintf(&name, ".sandboxfs-%016llx%016llx", (unsigned long long)r[0],
			(unsigned long long)r[1]) < 0)
		return NULL;
	return name;
}

static int open_named(
	struct fileop_handle *h, const char *where, const struct stat *dir, mode_t mode)
{
	AUTO_FD int at = open(where, O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct stat st;
	if (at < 0 || fstat(at, &st) < 0 || st.st_dev != dir->st_dev || st.st_ino == dir->st_ino)
		return -EOPNOTSUPP;
	AUTO_FREE char *name = temp_name();
	if (!name)
		return -ENOMEM;
	int flags = O_CREAT | O_EXCL | O_RDWR | O_NOFOLLOW | O_CLOEXEC |
				(h->flags & FILEOP_O_APPEND ? O_APPEND : 0);
	int fd = openat(at, name, flags, mode);
	if (fd < 0)
		return is_shortage(-errno) ? -errno : -EOPNOTSUPP;
	h->fd = fd;
	h->temp_dir = steal_fd(&at);
	h->temp_name = steal(name);
	return 0;
}

/* A file in /tmp beside the workspace, where a file system has no nameless ones (overlayfs before Linux 6.3). */
static int open_elsewhere(struct fileop_server *s, struct fileop_handle *h, int dir, mode_t mode)
{
	static const char *const place[] = {"/tmp", "/var/tmp"};
	struct stat st;
	/* A directory that hands its group on would not do so to a file made in another. */
	if (fstat(dir, &st) < 0 || st.st_mode & S_ISGID)
		return -EOPNOTSUPP;
	for (size_t i = 0; i < sizeof(place) / sizeof(place[0]); i++) {
		size_t n = strlen(place[i]);
		if (strncmp(s->workspace, place[i], n) == 0 && !s->workspace[n])
			continue;
		int err = open_named(h, place[i], &st, mode);
		if (err != -EOPNOTSUPP)
			return err;
	}
	return -EOPNOTSUPP;
}

int fileop_stage_new(struct fileop_server *s, struct fileop_handle *h, char *path, mode_t mode)
{
	AUTO_PLACE at = FILEOP_NO_PLACE;
	int err = fileop_place_parent(path, &at);
	if (err)
		return err;
	AUTO_FREE char *name = strdup(at.name);
	if (!name)
		return -ENOMEM;
	/* A nameless file gets its name through /proc (linkat by descriptor takes a capability of the host). */
	err = s->has_proc ? open_nameless(h, at.dir, mode) : -EOPNOTSUPP;
	if (err == -EOPNOTSUPP)
		err = open_elsewhere(s, h, at.dir, mode);
	if (err)
		return err;
	h->dir = steal_fd(&at.dir);
	h->name = steal(name);
	h->staged = true;
	return 0;
}

int fileop_stage_over(struct fileop_server *s, struct fileop_handle *h, char *path, int target)
{
	AUTO_PLACE at = FILEOP_NO_PLACE;
	int err = fileop_place_parent(path, &at);
	if (err)
		return err;
	struct statx st;
	err = fileop_statx(target, "", &st);
	if (!err)
		err = open_nameless(h, at.dir, 0600);
	if (err == -EOPNOTSUPP)
		err = open_elsewhere(s, h, at.dir, 0600);
	if (err)
		return err;
	h->target = target;
	h->target_size = st.stx_size;
	h->target_mtime = st.stx_mtime;
	h->staged = true;
	return 0;
}

void fileop_stage_drop(struct fileop_handle *h)
{
	if (h->temp_dir < 0)
		return;
	if (h->temp_name)
		unlinkat(h->temp_dir, h->temp_name, 0); /* if it is gone already, so much the better */
	close(h->temp_dir);
	h->temp_dir = -1;
	free(steal(h->temp_name));
}

/* --- copying --- */

static int write_all(int fd, const char *p, size_t n, uint64_t off)
{
	while (n) {
		ssize_t did = pwrite(fd, p, n, (off_t)off);
		if (did < 0 && errno == EINTR)
			continue;
		if (did < 0)
			return -errno;
		p += did;
		n -= (size_t)did;
		off += (uint64_t)did;
	}
	return 0;
}

static int64_t copy_through_memory(int in, uint64_t in_off, int out, uint64_t out_off, uint64_t n)
{
	AUTO_FREE char *p = malloc(COPY_BUFFER);
	if (!p)
		return -ENOMEM;
	uint64_t total = 0;
	while (total < n) {
		size_t want = n - total < COPY_BUFFER ? (size_t)(n - total) : COPY_BUFFER;
		ssize_t got = pread(in, p, want, (off_t)(in_off + total));
		if (got < 0 && errno == EINTR)
			continue;
		int err = got < 0 ? -errno : write_all(out, p, (size_t)got, out_off + total);
		if (err)
			return total ? (int64_t)total : err;
		if (got == 0)
			break;
		total += (uint64_t)got;
	}
	return (int64_t)total;
}

static bool is_unsupported(int err)
{
	return err == EXDEV || err == ENOSYS || err == EOPNOTSUPP || err == EINVAL || err == EPERM;
}

int64_t fileop_copy_bytes(int in, uint64_t in_off, int out, uint64_t out_off, uint64_t n)
{
	off_t from = (off_t)in_off, to = (off_t)out_off;
	uint64_t total = 0;
	while (total < n) {
		size_t step = n - total < COPY_STEP ? (size_t)(n - total) : COPY_STEP;
		ssize_t did = copy_file_range(in, &from, out, &to, step, 0);
		if (did > 0) {
			total += (uint64_t)did;
			continue;
		}
		if (did < 0 && errno == EINTR)
			continue;
		if (did < 0 && !is_unsupported(errno))
			return total ? (int64_t)total : -errno;
		/* 0 is the end, or a file whose size does not tell what reads give. */
		int64_t rest = copy_through_memory(in, in_off + total, out, out_off + total, n - total);
		if (rest < 0)
			return total ? (int64_t)total : rest;
		return (int64_t)total + rest;
	}
	return (int64_t)total;
}

static int zero_range(int fd, uint64_t from, uint64_t to)
{
	if (from >= to)
		return 0;
	if (fallocate(
			fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)from, (off_t)(to - from)) == 0)
		return 0;
	if (!is_unsupported(errno))
		return -errno;
	AUTO_FREE char *zero = calloc(1, COPY_BUFFER);
	if (!zero)
		return -ENOMEM;
	int err = 0;
	for (; !err && from < to; from += COPY_BUFFER)
		err =
			write_all(fd, zero, to - from < COPY_BUFFER ? (size_t)(to - from) : COPY_BUFFER, from);
	return err;
}

/* The next data of in at or after off: its begin and end. Where holes cannot be asked for, all is data. */
static void next_data(int in, uint64_t off, uint64_t size, uint64_t *begin, uint64_t *end)
{
	off_t data = lseek(in, (off_t)off, SEEK_DATA);
	*begin = data >= 0 ? (uint64_t)data : errno == ENXIO ? size : off;
	if (*begin > size)
		*begin = size;
	off_t hole = data >= 0 ? lseek(in, data, SEEK_HOLE) : -1;
	*end = hole > data && (uint64_t)hole < size ? (uint64_t)hole : size;
}

int fileop_copy_content(int in, int out, uint64_t size)
{
	struct stat old;
	if (fstat(out, &old) < 0)
		return -errno;
	uint64_t old_size = (uint64_t)old.st_size;
	for (uint64_t off = 0; off < size;) {
		uint64_t begin, end;
		next_data(in, off, size, &begin, &end);
		int err = zero_range(out, off, begin < old_size ? begin : old_size);
		if (err)
			return err;
		for (off = begin; off < end;) {
			int64_t did = fileop_copy_bytes(in, off, out, off, end - off);
			if (did <= 0)
				return did < 0 ? (int)did : -EIO; /* the stage is ours: it does not shrink */
			off += (uint64_t)did;
		}
		off = end;
	}
	return ftruncate(out, (off_t)size) < 0 ? -errno : 0;
}

/* --- committing --- */

/* The blocks that the copy needs, before the first old byte is touched: a full disk then leaves the file whole. */
static int make_room(struct fileop_batch *b, int out, const struct statx *stage)
{
	struct statx old;
	int err = fileop_statx(out, "", &old);
	if (err)
		return err;
	uint64_t need = stage->stx_blocks > old.stx_blocks ? stage->stx_blocks - old.stx_blocks : 0;
	err = fileop_check_space(b, fileop_statx_dev(&old), need * 512);
	if (err)
		return err;
	/* Asked first, because a call that allocates and fails has moved the old file's times. */
	struct statfs fs;
	if (fstatfs(out, &fs) == 0 && fs.f_blocks && fs.f_bsize > 0 &&
		need * 512 / (uint64_t)fs.f_bsize > (uint64_t)fs.f_bfree)
		return -ENOSPC;
	bool sparse = stage->stx_blocks * 512 < stage->stx_size;
	if (sparse || !stage->stx_size ||
		fallocate(out, FALLOC_FL_KEEP_SIZE, 0, (off_t)stage->stx_size) == 0)
		return 0;
	if (errno != ENOSPC && errno != EDQUOT && errno != EFBIG)
		return 0; /* no such call here: the copy will tell */
	err = -errno;
	/* Gives back what was taken beyond the end. */
	return ftruncate(out, (off_t)old.stx_size) < 0 ? -errno : err;
}

static int commit_over(struct fileop_batch *b, struct fileop_handle *h)
{
	struct statx stage;
	int err = fileop_statx(h->fd, "", &stage);
	if (!err)
		err = make_room(b, h->target, &stage);
	if (!err)
		err = fileop_copy_content(h->fd, h->target, stage.stx_size);
	if (err)
		return err;
	/* What fstat showed of the stage stays true. EPERM: may write the file, does not own it. */
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT},
		{.tv_sec = stage.stx_mtime.tv_sec, .tv_nsec = stage.stx_mtime.tv_nsec}};
	if (futimens(h->target, times) < 0 && errno != EPERM && errno != EACCES)
		return -errno;
	/* Not from the beginning: the copy goes by offsets. */
	if (h->flags & FILEOP_O_APPEND && fcntl(h->target, F_SETFL, O_APPEND) < 0)
		return -errno;
	close(h->fd);
	h->fd = h->target;
	h->target = -1;
	return 0;
}

static int link_nameless(struct fileop_handle *h)
{
	if (linkat(AT_FDCWD, fileop_proc_name(h->fd).text, h->dir, h->name, AT_SYMLINK_FOLLOW) == 0 ||
		(errno == ENOENT && linkat(h->fd, "", h->dir, h->name, AT_EMPTY_PATH) == 0))
		return 0;
	return -errno;
}

static int move_named(struct fileop_handle *h)
{
	if (renameat2(h->temp_dir, h->temp_name, h->dir, h->name, RENAME_NOREPLACE) < 0) {
		if (errno != EINVAL && errno != ENOSYS)
			return -errno;
		if (linkat(h->temp_dir, h->temp_name, h->dir, h->name, 0) < 0)
			return -errno;
		return 0; /* the temporary name goes with fileop_stage_drop */
	}
	free(steal(h->temp_name));
	return 0;
}

/* The stage cannot be moved to its name: its content goes into a file made there. */
static int make_target(struct fileop_handle *h)
{
	struct stat st;
	int acc = h->flags & FILEOP_O_READ ? O_RDWR : O_WRONLY;
	if (fstat(h->fd, &st) < 0)
		return -errno;
	AUTO_FD int fd = openat(h->dir, h->name,
		acc | O_CREAT | O_EXCL | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOCTTY,
		st.st_mode & 07777);
	if (fd < 0)
		return -errno;
	struct statx made;
	int err = fileop_statx(fd, "", &made);
	if (err)
		return err;
	h->target_size = made.stx_size;
	h->target_mtime = made.stx_mtime;
	h->target = steal_fd(&fd);
	return 0;
}

/* Another hand has been there: the stage keeps its bytes, and what it was to replace stays. */
static int lose_name(struct fileop_handle *h)
{
	struct stat st;
	if (h->target < 0)
		return 0;
	if (fstat(h->target, &st) < 0 || fchmod(h->fd, st.st_mode & 07777) < 0)
		return -errno;
	close(h->target);
	h->target = -1;
	return 0;
}

/* One that holds nothing asks for no more than that the file be empty, which no other hand stands against. */
static int is_other(struct fileop_handle *h, bool *other)
{
	struct statx stage, st;
	int err = fileop_statx(h->fd, "", &stage);
	if (!err)
		err = fileop_statx(h->target, "", &st);
	*other = !err && stage.stx_size &&
			 (st.stx_size != h->target_size || st.stx_mtime.tv_sec != h->target_mtime.tv_sec ||
				 st.stx_mtime.tv_nsec != h->target_mtime.tv_nsec);
	return err;
}

static bool is_final(int err)
{
	return is_shortage(err) || err == -EACCES || err == -ENAMETOOLONG || err == -EIO;
}

int fileop_stage_commit(struct fileop_batch *b, struct fileop_handle *h)
{
	int err = 0;
	bool other = false;
	if (!h->staged)
		return 0;
	if (h->target < 0) {
		err = h->temp_name ? move_named(h) : link_nameless(h);
		if (err && err != -EEXIST && !is_final(err))
			err = make_target(h);
		other = err == -EEXIST;
	} else {
		err = is_other(h, &other);
	}
	if (other)
		err = lose_name(h);
	else if (!err && h->target >= 0)
		err = commit_over(b, h);
	if (err)
		return err;
	fileop_stage_drop(h);
	if (h->dir >= 0)
		close(h->dir);
	h->dir = -1;
	free(steal(h->name));
	h->staged = false;
	return 0;
}
