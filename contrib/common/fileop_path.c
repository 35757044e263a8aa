/*
 * Paths and the files they lead to: arguments of calls, directories of paths of any length, files
 * held by a descriptor so that what was checked is what is changed, and attributes. Owns the cache
 * that tells file systems like procfs from others. Changes no file.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#include "cleanup.h"
#include "fileop_internal.h"

enum { SPECIAL_FOR_MS = 60000 };

/* --- arguments --- */

char *fileop_args_text(struct fileop_args *a)
{
	size_t n;
	const char *p = reader_bytes(a->in, &n);
	if (!p || a->err)
		return NULL;
	if (memchr(p, 0, n)) {
		a->err = -EINVAL;
		return NULL;
	}
	char *s = malloc(n + 1);
	if (!s) {
		a->err = -ENOMEM;
		return NULL;
	}
	memcpy(s, p, n);
	s[n] = 0;
	return s;
}

char *fileop_args_path(struct fileop_args *a)
{
	AUTO_FREE char *s = fileop_args_text(a);
	if (s && s[0] != '/') {
		a->err = -EINVAL;
		return NULL;
	}
	return steal(s);
}

int fileop_args_end(const struct fileop_args *a)
{
	return a->in->bad || a->in->left ? -EBADMSG : a->err;
}

void fileop_args_target(struct fileop_args *a, struct fileop_asked *t)
{
	t->handle = reader_u64(a->in);
	if (t->handle) {
		size_t n;
		reader_bytes(a->in, &n);
	} else {
		t->path = fileop_args_path(a);
	}
	t->dev = reader_u64(a->in);
	t->ino = reader_u64(a->in);
}

void fileop_asked_end(struct fileop_asked *t)
{
	free(steal(t->path));
}

/* --- places --- */

void fileop_place_end(struct fileop_place *p)
{
	if (p->own && p->dir >= 0)
		close(p->dir);
	p->own = false;
	p->dir = -1;
}

static void enter(struct fileop_place *p, int dir, char *name)
{
	fileop_place_end(p);
	p->dir = dir;
	p->own = true;
	p->name = name;
}

static int open_dir(int dir, const char *name)
{
	int fd = openat(dir, name, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static char *skip_slashes(char *s)
{
	while (*s == '/')
		s++;
	return s;
}

/*
 * The kernel takes PATH_MAX bytes at a time, so a longer path is walked in pieces. A piece's last component is
 * followed if it is a symlink, as it would be in the middle of the whole.
 */
int fileop_place_open(char *path, struct fileop_place *out)
{
	size_t n = strlen(path);
	while (n > 1 && path[n - 1] == '/')
		path[--n] = 0;
	struct fileop_place at = {.dir = AT_FDCWD, .name = path};
	while (strlen(at.name) >= PATH_MAX) {
		char *cut = memrchr(at.name + 1, '/', PATH_MAX - 2);
		if (!cut) {
			fileop_place_end(&at);
			return -ENAMETOOLONG;
		}
		*cut = 0;
		int dir = open_dir(at.dir, at.name);
		*cut = '/';
		if (dir < 0) {
			fileop_place_end(&at);
			return dir;
		}
		enter(&at, dir, skip_slashes(cut));
	}
	*out = at;
	return 0;
}

int fileop_place_parent(char *path, struct fileop_place *out)
{
	AUTO_PLACE at = FILEOP_NO_PLACE;
	int err = fileop_place_open(path, &at);
	if (err)
		return err;
	char *cut = strrchr(at.name, '/');
	if (cut && !cut[1])
		return -EISDIR;
	int dir;
	if (!cut) {
		dir = open_dir(at.dir, ".");
		cut = at.name;
	} else if (cut == at.name) {
		dir = open_dir(at.dir, "/");
		cut++;
	} else {
		*cut = 0;
		dir = open_dir(at.dir, at.name);
		*cut++ = '/';
	}
	if (dir < 0)
		return dir;
	enter(out, dir, cut);
	return 0;
}

/* --- files --- */

struct fileop_proc_name fileop_proc_name(int fd)
{
	struct fileop_proc_name n;
	snprintf(n.text, sizeof(n.text), "/proc/self/fd/%d", fd);
	return n;
}

int fileop_statx(int dir, const char *name, struct statx *st)
{
	int flags = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_STATX_SYNC_AS_STAT;
	if (!*name)
		flags |= AT_EMPTY_PATH;
	return statx(dir, name, flags, STATX_BASIC_STATS | STATX_BTIME, st) < 0 ? -errno : 0;
}

uint64_t fileop_statx_dev(const struct statx *st)
{
	return makedev(st->stx_dev_major, st->stx_dev_minor);
}

int fileop_same(const struct statx *st, uint64_t dev, uint64_t ino)
{
	return !ino || (st->stx_ino == ino && fileop_statx_dev(st) == dev) ? 0 : -ESTALE;
}

/*
 * A stage over an existing file is shown as that file with the content it is about to have; one for a new
 * name as if it had its name.
 */
int fileop_handle_statx(struct fileop_handle *h, struct statx *st)
{
	int err = fileop_statx(h->fd, "", st);
	if (err || !h->staged)
		return err;
	if (h->target < 0) {
		st->stx_nlink = 1;
		return 0;
	}
	struct statx stage = *st;
	err = fileop_statx(h->target, "", st);
	st->stx_size = stage.stx_size;
	st->stx_blocks = stage.stx_blocks;
	st->stx_mtime = stage.stx_mtime;
	st->stx_ctime = stage.stx_ctime;
	return err;
}

int fileop_file_open(struct fileop_batch *b, struct fileop_asked *t, struct fileop_file *out)
{
	int err;
	if (t->handle) {
		err = fileop_use_shared(b, t->handle, &out->use);
		if (err)
			return err;
		out->fd = out->use.h->fd;
		err = fileop_handle_statx(out->use.h, &out->st);
	} else {
		err = fileop_place_open(t->path, &out->place);
		if (err)
			return err;
		out->by_path = true;
		out->fd = openat(out->place.dir, out->place.name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
		if (out->fd < 0)
			return -errno;
		err = fileop_statx(out->fd, "", &out->st);
	}
	return err ? err : fileop_same(&out->st, t->dev, t->ino);
}

void fileop_file_end(struct fileop_file *f)
{
	if (f->by_path && f->fd >= 0)
		close(f->fd);
	f->fd = -1;
	fileop_use_end(&f->use);
	fileop_place_end(&f->place);
}

int fileop_reopen(struct fileop_server *s, int fd, int flags)
{
	if (!s->has_proc)
		return -EOPNOTSUPP;
	int again = open(fileop_proc_name(fd).text, flags | O_CLOEXEC | O_NOCTTY);
	return again < 0 ? -errno : again;
}

/* --- attributes --- */

static bool special_type(int dir, const char *name)
{
	AUTO_FD int own = *name ? openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC) : -1;
	struct statfs fs;
	struct stat of, dev, root;
	int fd = *name ? own : dir;
	if (fd < 0 || fstatfs(fd, &fs) < 0 || fstat(fd, &of) < 0)
		return false;
	switch ((unsigned long)fs.f_type) {
	case PROC_SUPER_MAGIC:
	case SYSFS_MAGIC:
	case CGROUP_SUPER_MAGIC:
	case CGROUP2_SUPER_MAGIC:
	case DEBUGFS_MAGIC:
	case TRACEFS_MAGIC:
	case SECURITYFS_MAGIC:
	case SELINUX_MAGIC:
	case BPF_FS_MAGIC:
	case PSTOREFS_MAGIC:
	case EFIVARFS_MAGIC:
	case DEVPTS_SUPER_MAGIC:
	case BINFMTFS_MAGIC:
	case 0x62656570: /* configfs, not in the header */
	case 0x19800202: /* mqueue, neither */
		return true;
	default:
		break;
	}
	/* A device file system is a tmpfs as any other to statfs. */
	return stat("/dev", &dev) == 0 && stat("/", &root) == 0 && of.st_dev == dev.st_dev &&
		   dev.st_dev != root.st_dev;
}

bool fileop_is_special(struct fileop_server *s, uint64_t dev, int dir, const char *name)
{
	enum { ENTRIES = sizeof(s->special) / sizeof(s->special[0]) };
	int64_t now = fileop_now_ms();
	{
		AUTO_UNLOCK(&s->special_lock);
		for (size_t i = 0; i < ENTRIES; i++)
			if (s->special[i].dev == dev && s->special[i].until_ms > now)
				return s->special[i].special;
	}
	bool special = special_type(dir, name);
	AUTO_UNLOCK(&s->special_lock);
	s->special[s->special_next++ % ENTRIES] =
		(struct fileop_special){dev, now + SPECIAL_FOR_MS, special};
	return special;
}

static struct timespec time_of(const struct statx_timestamp *t)
{
	return (struct timespec){.tv_sec = t->tv_sec, .tv_nsec = t->tv_nsec};
}

void fileop_put_statx(
	struct fileop_server *s, struct buf *out, const struct statx *st, int dir, const char *name)
{
	struct fileop_attr a = {
		.dev = fileop_statx_dev(st),
		.ino = st->stx_ino,
		.size = st->stx_size,
		.blocks = st->stx_blocks,
		.rdev = makedev(st->stx_rdev_major, st->stx_rdev_minor),
		.mode = st->stx_mode,
		.nlink = st->stx_nlink,
		.uid = st->stx_uid,
		.gid = st->stx_gid,
		.blksize = st->stx_blksize,
		.atime = time_of(&st->stx_atime),
		.mtime = time_of(&st->stx_mtime),
		.ctime = time_of(&st->stx_ctime),
	};
	if (st->stx_mask & STATX_BTIME)
		a.btime = time_of(&st->stx_btime);
	if (fileop_is_special(s, a.dev, dir, name))
		a.flags |= FILEOP_ATTR_SPECIAL;
	fileop_put_attr(out, &a);
}

int fileop_put_place_attr(struct fileop_server *s, struct buf *out, const struct fileop_place *p)
{
	struct statx st;
	int err = fileop_statx(p->dir, p->name, &st);
	if (!err)
		fileop_put_statx(s, out, &st, p->dir, p->name);
	return err;
}

int fileop_put_handle_attr(struct fileop_server *s, struct buf *out, struct fileop_handle *h)
{
	struct statx st;
	int err = fileop_handle_statx(h, &st);
	if (!err)
		fileop_put_statx(s, out, &st, h->target >= 0 ? h->target : h->fd, "");
	return err;
}

int fileop_put_link(struct buf *out, int dir, const char *name)
{
	size_t at = out->size;
	buf_u32(out, 0);
	/* One byte more than any symlink has, to see that none is cut. */
	char *p = buf_reserve(out, PATH_MAX + 1);
	if (!p)
		return -ENOMEM;
	ssize_t n = readlinkat(dir, name, p, PATH_MAX + 1);
	if (n < 0)
		return -errno;
	if (n > PATH_MAX)
		return -ENAMETOOLONG;
	out->size += (size_t)n;
	buf_patch_u32(out, at, (uint32_t)n);
	return 0;
}
