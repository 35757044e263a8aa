/*
 * Removal of deep trees; see tree_remove.h. Owns nothing that outlives a call.
 *
 * The directories of the top are taken apart one after the other: files in them go, directories in them move up under a number.
 * Numbers are then taken apart in their order, which needs no list of what is left to do.
 */
#include "tree_remove.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"

enum {
	BLOCK = 16 << 10,
	NUMBER_SIZE = 32,
	/* Directories that cannot be moved (EXDEV, in an overlay without redirects) are gone into, so deep and no deeper. */
	IN_PLACE_MAX = 8,
	/* So often a directory may turn out not to be empty after all: somebody fills it as fast as it is emptied. */
	PASSES = 100
};

struct emptying {
	int top;
	struct statx as; /* where it is: what is on another mount stays */
	uint64_t moved;  /* how many numbers were given out */
	int err;         /* the first */
};

static void note(struct emptying *e, int err)
{
	if (err < 0 && !e->err)
		e->err = err;
}

static int stat_of(int fd, struct statx *st)
{
	return statx(fd, "", AT_EMPTY_PATH, STATX_MODE | STATX_MNT_ID, st) < 0 ? -errno : 0;
}

static bool same_mount(const struct statx *a, const struct statx *b)
{
	return a->stx_dev_major == b->stx_dev_major && a->stx_dev_minor == b->stx_dev_minor &&
		   (!(a->stx_mask & b->stx_mask & STATX_MNT_ID) || a->stx_mnt_id == b->stx_mnt_id);
}

/* The name under which the n-th directory lives at the top. */
static const char *number_name(uint64_t n, char text[NUMBER_SIZE])
{
	static const char head[] = ".removed-";
	char *at = text + NUMBER_SIZE;
	*--at = '\0';
	do
		*--at = (char)('0' + n % 10);
	while (n /= 10);
	at -= sizeof head - 1;
	memcpy(at, head, sizeof head - 1);
	return at;
}

/* Gives its owner a directory's rights; whether that was enough, the next step will tell. */
static void open_up(int dir, const char *name)
{
	(void)fchmodat(dir, name, 0700, AT_SYMLINK_NOFOLLOW);
}

/* 1: it is a directory that holds something, 0: it is gone, or a negative errno. */
static int remove_one(int dir, const char *name)
{
	if (unlinkat(dir, name, 0) == 0 || errno == ENOENT)
		return 0;
	if (errno != EISDIR && errno != EPERM)
		return -errno;
	int first = errno;
	if (unlinkat(dir, name, AT_REMOVEDIR) == 0 || errno == ENOENT)
		return 0;
	if (errno == ENOTDIR)
		return -first;
	return errno == ENOTEMPTY || errno == EEXIST ? 1 : -errno;
}

static int move_up(struct emptying *e, int dir, const char *name)
{
	char text[NUMBER_SIZE];
	for (bool opened = false;;) {
		int err = renameat(dir, name, e->top, number_name(e->moved, text)) < 0 ? -errno : 0;
		if (!err)
			e->moved++;
		if (!err || err == -ENOENT)
			return 0;
		if (err == -ENOTEMPTY || err == -EEXIST || err == -ENOTDIR) {
			e->moved++; /* the name is somebody's: it is taken apart in its turn */
		} else if (err == -EACCES && !opened) {
			open_up(dir, name); /* its own entry `..` changes */
			opened = true;
		} else {
			return err;
		}
	}
}

static int open_directory(const struct emptying *e, int dir, const char *name)
{
	const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;
	AUTO_FD int fd = openat(dir, name, flags);
	if (fd < 0 && errno == EACCES) {
		open_up(dir, name);
		fd = openat(dir, name, flags);
	}
	struct statx st;
	if (fd < 0)
		return -errno;
	int err = stat_of(fd, &st);
	if (err)
		return err;
	if (!same_mount(&st, &e->as))
		return -EBUSY;
	if ((st.stx_mode & 0700) != 0700)
		(void)fchmod(fd, 0700); /* not the owner: then what follows fails, or does not */
	return steal_fd(&fd);
}

static int take_apart(struct emptying *e, int dir, const char *name, int depth);

static int take_entry(struct emptying *e, int fd, const char *name, int depth)
{
	int err = remove_one(fd, name);
	if (err <= 0)
		return err;
	if (depth > 0) {
		err = move_up(e, fd, name);
		if (err != -EXDEV || depth == IN_PLACE_MAX)
			return err;
	}
	return take_apart(e, fd, name, depth + 1);
}

/* One pass over the names of a directory. How many there were; errors are noted. */
static unsigned long pass(struct emptying *e, int fd, int depth)
{
	_Alignas(struct dirent64) char block[BLOCK];
	unsigned long count = 0;
	ssize_t n;
	if (lseek(fd, 0, SEEK_SET) < 0) {
		note(e, -errno);
		return 0;
	}
	while ((n = getdents64(fd, block, sizeof block)) > 0)
		for (ssize_t at = 0; at < n;) {
			const struct dirent64 *d = (const struct dirent64 *)(const void *)(block + at);
			at += d->d_reclen;
			if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0)
				continue;
			count++;
			note(e, take_entry(e, fd, d->d_name, depth));
		}
	if (n < 0)
		note(e, -errno);
	return count;
}

static int take_apart(struct emptying *e, int dir, const char *name, int depth)
{
	AUTO_FD int fd = open_directory(e, dir, name);
	if (fd < 0)
		return fd == -ENOENT ? 0 : fd;
	/* An error in it is noted already; that it is not empty then is no other one. */
	for (int i = 0; i < PASSES; i++) {
		(void)pass(e, fd, depth);
		if (unlinkat(dir, name, AT_REMOVEDIR) == 0 || errno == ENOENT)
			return 0;
		if (errno != ENOTEMPTY && errno != EEXIST)
			return -errno;
		if (e->err)
			return e->err;
	}
	return -ENOTEMPTY;
}

int tree_empty(int dir)
{
	struct emptying e = {.top = dir};
	char text[NUMBER_SIZE];
	uint64_t done = 0;
	int err = stat_of(dir, &e.as);
	if (err)
		return err;
	for (int i = 0; i < PASSES; i++) {
		unsigned long count = pass(&e, dir, 0);
		for (; done < e.moved; done++) {
			const char *name = number_name(done, text);
			int is = remove_one(dir, name);
			note(&e, is > 0 ? take_apart(&e, dir, name, 1) : is);
		}
		if (!count || e.err)
			return e.err;
	}
	return -ENOTEMPTY;
}

int tree_remove(int dir, const char *name)
{
	int is = remove_one(dir, name);
	if (is <= 0)
		return is;
	struct emptying parent = {.top = dir};
	int err = stat_of(dir, &parent.as);
	if (err)
		return err;
	AUTO_FD int fd = open_directory(&parent, dir, name);
	if (fd < 0)
		return fd == -ENOENT ? 0 : fd;
	err = tree_empty(fd);
	if (err)
		return err;
	return unlinkat(dir, name, AT_REMOVEDIR) < 0 && errno != ENOENT ? -errno : 0;
}
